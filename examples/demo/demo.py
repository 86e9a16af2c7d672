"""Three services under attack: `make demo`.

A throw-away CA gives storefront, orders and ledger identities that live for twenty seconds.
Honest calls go through all three while the identities rotate; meanwhile every attack of the
catalogue is tried against ledger, against the CA and against our own client. Exit 0 only if every
honest call passed and every attack was refused.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE))

from attack import Row, attack_ca, attack_clients, attack_ledger  # noqa: E402
from traffic import Traffic  # noqa: E402

ZEROTRUST = str(Path(sys.executable).with_name("zerotrust"))
SVID_SECONDS = 20
ROTATIONS = 2
LONGEST = 45.0  # seconds of honest traffic at most
WORKLOADS = ("customer", "storefront", "orders", "ledger", "intruder")
COLOUR = sys.stdout.isatty() and "NO_COLOR" not in os.environ


def main() -> int:
    """Run the demo."""
    started = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="zerotrust-demo-") as scratch:
        folder = Path(scratch)
        with dev_ca(folder), services(folder) as ports:
            say(f"three services are up; identities live {SVID_SECONDS} s")
            with Traffic(
                folder / "certs-dev", f"https://localhost:{ports['storefront']}"
            ) as traffic:
                rows = attack_everything(folder, ports)
                wait_for_rotations(traffic)
            honest = traffic.report()
    failed = show(rows)
    print()
    print(f"honest calls over two hops   {honest.served} served, {honest.failed} failed")
    for service, count in sorted(honest.certificates.items()):
        print(f"  {service:<11} used {count} certificates ({count - 1} rotations)")
    print(f"attacks                      {len(rows) - failed} refused, {failed} not")
    print(f"time                         {time.monotonic() - started:.0f} s")
    rotated = min(honest.certificates.values(), default=0) > ROTATIONS
    good = honest.served > 0 and not honest.failed and rotated and not failed
    print()
    if not good:
        print(paint("FAILED", "31") + honest.first_failure)
        return 1
    print(paint("OK", "32") + ": every honest call passed and every attack was refused")
    print("next: read examples/demo/services.py, then wrap a service of your own")
    return 0


@contextlib.contextmanager
def dev_ca(folder: Path) -> Iterator[None]:
    """Start a throw-away CA for the five workloads, and leave no trace of it."""
    names = [part for name in WORKLOADS for part in ("--workload", name)]
    run("dev", "up", "example.org", *names, "--ttl", f"{SVID_SECONDS}s", cwd=folder)
    try:
        yield
    finally:
        run("dev", "down", cwd=folder)


@contextlib.contextmanager
def services(folder: Path) -> Iterator[dict[str, int]]:
    """Start ledger, orders and storefront, each a process with an identity of its own."""
    ports = {name: free_port() for name in ("ledger", "orders", "storefront")}
    calls = {"storefront": "orders", "orders": "ledger"}
    running = []
    try:
        for name, port in ports.items():
            url = f"https://localhost:{ports[calls[name]]}" if name in calls else ""
            running.append(start(folder, name, port, url))
        for process, port in zip(running, ports.values(), strict=True):
            wait_for_port(process, port, folder)
        yield ports
    finally:
        for process in running:
            process.send_signal(signal.SIGTERM)
        for process in running:
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(10)
            process.kill()


def start(folder: Path, name: str, port: int, url: str) -> subprocess.Popen[bytes]:
    """Start one service as a user would: `zerotrust dev run --as NAME -- zerotrust serve ...`."""
    serve = ["serve", f"services:{name}", "--policy", str(HERE / "policies" / f"{name}.toml")]
    options = ["--port", str(port), "--app-dir", str(HERE), "--log-level", "warning"]
    audit = ["--audit", str(folder / f"{name}.audit")]
    with (folder / f"{name}.log").open("wb") as log:
        return subprocess.Popen(
            [ZEROTRUST, "dev", "run", "--as", name, "--", ZEROTRUST, *serve, *options, *audit],
            cwd=folder,
            env={**os.environ, "NEXT_URL": url},
            stdout=log,
            stderr=log,
        )


def attack_everything(folder: Path, ports: dict[str, int]) -> list[Row]:
    """Try everything, telling how far it got."""
    rows = [
        *attack_ledger(folder, ports["ledger"], progress),
        *attack_ca(folder, progress),
        *attack_clients(folder, ports["ledger"], progress),
    ]
    progress("")
    return rows


def wait_for_rotations(traffic: Traffic) -> None:
    """Go on with honest calls until every service has rotated often enough."""
    until = time.monotonic() + LONGEST
    while time.monotonic() < until and traffic.rotations() < ROTATIONS:
        progress(f"honest calls go on: {traffic.served} served, {traffic.rotations()} rotations")
        time.sleep(0.5)
    progress("")


def show(rows: list[Row]) -> int:
    """Print the table; return how many attacks were not refused where they had to be."""
    width = max(len(row.tried) for row in rows)
    key = max(len(row.key) for row in rows)
    print(f"\n{'ATTACK':<{key}}  {'TRIED':<{width}}  {'OUTCOME':<9}  WHERE")
    for row in rows:
        outcome = paint(f"{row.outcome:<9}", "32" if row.refused else "31")
        print(f"{row.key:<{key}}  {row.tried:<{width}}  {outcome}  {row.where}")
    return sum(not row.refused for row in rows)


def run(*arguments: str, cwd: Path) -> None:
    """Run one zerotrust command; end the demo with its words if it fails."""
    done = subprocess.run(
        [ZEROTRUST, *arguments], cwd=cwd, capture_output=True, text=True, check=False
    )
    if done.returncode:
        raise SystemExit(done.stderr or done.stdout)


def free_port() -> int:
    """Return a port that was free a moment ago."""
    with socket.create_server(("127.0.0.1", 0)) as sock:
        port: int = sock.getsockname()[1]
        return port


def wait_for_port(process: subprocess.Popen[bytes], port: int, folder: Path) -> None:
    """Wait until a service accepts connections; end the demo with its log if it does not."""
    until = time.monotonic() + 20
    while time.monotonic() < until and process.poll() is None:
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
            return
        time.sleep(0.1)
    logs = "\n".join(path.read_text() for path in sorted(folder.glob("*.log")))
    raise SystemExit(f"a service did not start:\n{logs}")


def progress(text: str) -> None:
    """Show what is going on, on a terminal only."""
    if sys.stderr.isatty():
        columns = shutil.get_terminal_size().columns - 1
        print(f"\r{text[:columns]:<{columns}}\r", end="", file=sys.stderr, flush=True)


def say(text: str) -> None:
    """Print one line at once."""
    print(text, flush=True)


def paint(text: str, colour: str) -> str:
    """Colour a word on a terminal."""
    return f"\033[{colour}m{text}\033[0m" if COLOUR else text


if __name__ == "__main__":
    sys.exit(main())
