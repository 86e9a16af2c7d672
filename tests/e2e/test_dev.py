from __future__ import annotations

import json
import os
import signal
import socket
import stat
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

WORKLOAD = """
import json, os, sys, time
from zerotrust.workload.identity import WorkloadIdentity

with WorkloadIdentity.from_env() as me:
    seen = [me.current.svid.thumbprint]
    until = time.monotonic() + float(sys.argv[1])
    while time.monotonic() < until:
        if me.current.svid.thumbprint != seen[-1]:
            seen.append(me.current.svid.thumbprint)
        time.sleep(0.05)
    print(json.dumps({"id": str(me.id), "dev": me.current.dev, "seen": len(seen)}))
sys.exit(7)
"""

Run = Callable[..., subprocess.CompletedProcess[str]]


def command(*argv: str) -> list[str]:
    return [sys.executable, "-P", "-m", "zerotrust", *argv]


@pytest.fixture
def run(tmp_path: Path) -> Iterator[Run]:
    """Run zerotrust in an empty folder, and leave nothing running."""
    (tmp_path / "workload.py").write_text(WORKLOAD)
    clean = {k: v for k, v in os.environ.items() if not k.startswith("ZEROTRUST_")}

    def run(*argv: str, **options: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            command(*argv),
            cwd=tmp_path,
            env=clean | options,
            capture_output=True,
            text=True,
            check=False,
            timeout=60,
        )

    yield run
    run("dev", "down")


def up(run: Run, *argv: str) -> dict[str, object]:
    done = run("dev", "up", "example.org", "--json", *argv)
    assert done.returncode == 0, done.stderr
    told: dict[str, object] = json.loads(done.stdout)
    return told


def pid_of(run: Run) -> int:
    pid = json.loads(run("dev", "status", "--json").stdout)["pid"]
    assert isinstance(pid, int)
    return pid


def has_ended(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except OSError:
        return True


def wait_for_end(pid: int) -> None:
    until = time.monotonic() + 10
    while not has_ended(pid):
        assert time.monotonic() < until, "the process lives on"
        time.sleep(0.02)


def test_a_workload_gets_its_identity_keeps_it_fresh_and_its_exit_code_passes(
    run: Run, tmp_path: Path
) -> None:
    up(run, "--workload", "web", "--ttl", "5s")
    done = run("dev", "run", "--as", "web", "--", sys.executable, "workload.py", "7")
    assert done.returncode == 7, done.stderr
    told = json.loads(done.stdout)
    assert told["id"] == "spiffe://example.org/web"
    assert told["dev"] is True
    assert told["seen"] >= 3
    assert not any((tmp_path / "certs-dev" / "ca").glob("root-*")), "the root signs once"


def test_everything_is_private_and_down_leaves_no_trace(run: Run, tmp_path: Path) -> None:
    up(run, "--workload", "web")
    folder = tmp_path / "certs-dev"
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    open_to_others = [p for p in folder.rglob("*") if p.lstat().st_mode & 0o077 and p.is_file()]
    assert open_to_others == []
    pid = pid_of(run)
    done = run("dev", "down", "--json")
    assert json.loads(done.stdout)["removed"] is True
    assert not folder.exists()
    wait_for_end(pid)
    again = run("dev", "down")
    assert (again.returncode, again.stdout) == (0, "nothing to do in certs-dev\n")


def test_the_page_and_the_ignore_file_of_the_repository_outlive_down(
    run: Run, tmp_path: Path
) -> None:
    folder = tmp_path / "certs-dev"
    folder.mkdir()
    for name in ("README.md", ".gitignore"):
        (folder / name).write_text("kept\n")
    up(run)
    run("dev", "down")
    assert sorted(path.name for path in folder.iterdir()) == [".gitignore", "README.md"]


def test_down_ends_the_ca_and_leaves_a_file_that_somebody_put_beside_it(
    run: Run, tmp_path: Path
) -> None:
    up(run)
    pid, folder = pid_of(run), tmp_path / "certs-dev"
    (folder / "note.txt").write_text("mine\n")
    done = run("dev", "down")
    assert done.returncode == 0, done.stderr
    wait_for_end(pid)
    assert [path.name for path in folder.iterdir()] == ["note.txt"]


def test_a_second_up_adds_what_is_missing_and_nothing_else(run: Run) -> None:
    first = up(run, "--workload", "web")
    second = up(run, "--workload", "web", "--workload", "ledger")
    assert second["pid"] == first["pid"]
    workloads = second["workloads"]
    assert isinstance(workloads, list)
    assert [w["name"] for w in workloads] == ["ledger", "web"]
    other = run("dev", "up", "example.net")
    assert other.returncode == 1
    assert "zerotrust dev down" in other.stderr
    longer = run("dev", "up", "example.org", "--workload", "web", "--ttl", "1h")
    assert longer.returncode == 1
    assert "web is registered with 300 s" in longer.stderr


def test_a_killed_ca_is_seen_as_such_and_starts_again_where_it_was(run: Run) -> None:
    first = up(run, "--workload", "web")
    pid = pid_of(run)
    os.kill(pid, signal.SIGKILL)
    wait_for_end(pid)
    assert json.loads(run("dev", "status", "--json").stdout)["running"] is False
    refused = run("dev", "run", "--as", "web", "--", "true")
    assert refused.returncode == 3
    assert "zerotrust dev up example.org" in refused.stderr
    second = up(run)
    assert (second["bootstrap"], second["mtls"]) == (first["bootstrap"], first["mtls"])
    assert [w["name"] for w in second["workloads"]] == ["web"]  # type: ignore[attr-defined]
    done = run("dev", "run", "--as", "web", "--", sys.executable, "workload.py", "0")
    assert done.returncode == 7, done.stderr


def test_down_works_after_a_kill_and_hits_no_process_that_took_the_number(
    run: Run, tmp_path: Path
) -> None:
    up(run)
    pid = pid_of(run)
    os.kill(pid, signal.SIGKILL)
    wait_for_end(pid)
    with subprocess.Popen(["sleep", "60"]) as bystander:
        ready = tmp_path / "certs-dev" / "ready.json"
        ready.write_text(json.dumps({**json.loads(ready.read_text()), "pid": bystander.pid}))
        assert run("dev", "down").returncode == 0
        assert bystander.poll() is None
        bystander.kill()
    assert not (tmp_path / "certs-dev").exists()


@pytest.mark.parametrize("left", ["passphrase", "lock", ".passphrase.0badcafe", "ca.log"])
def test_up_after_an_up_that_was_killed_half_way_begins_anew(
    run: Run, tmp_path: Path, left: str
) -> None:
    folder = tmp_path / "certs-dev"
    folder.mkdir(mode=0o700)
    (folder / left).touch()
    (folder / "ca").mkdir()
    (folder / "ca" / "ca.json").write_text("{")
    assert up(run, "--workload", "web")["running"] is True


def test_the_join_token_is_in_a_file_and_in_no_argument_and_no_variable(
    run: Run, tmp_path: Path
) -> None:
    up(run, "--workload", "web")
    argv = command("dev", "run", "--as", "web", "--", "sleep", "30")
    with subprocess.Popen(argv, cwd=tmp_path) as process:
        proc = Path(f"/proc/{process.pid}")
        until = time.monotonic() + 10
        seen = set()
        while not (line := (proc / "cmdline").read_bytes()).startswith(b"sleep\x00"):
            seen.add(line)
            assert time.monotonic() < until
        seen |= {line, (proc / "environ").read_bytes()}
        process.send_signal(signal.SIGTERM)
        assert process.wait(10) == -signal.SIGTERM  # it became the program itself
    (token,) = (tmp_path / "certs-dev" / "tokens").iterdir()
    secret = token.read_bytes().strip()
    assert stat.S_IMODE(token.stat().st_mode) == 0o600
    assert f"ca:{token}".encode() in b"\n".join(seen)
    assert not any(secret in text for text in seen)


def test_an_unknown_workload_is_told_how_to_add_it(run: Run) -> None:
    up(run, "--workload", "web")
    done = run("dev", "run", "--as", "nobody", "--", "true")
    assert done.returncode == 1
    assert "zerotrust dev up example.org --workload nobody" in done.stderr


def test_a_program_that_is_not_there_is_one_message_and_leaves_no_token(
    run: Run, tmp_path: Path
) -> None:
    up(run, "--workload", "web")
    done = run("dev", "run", "--as", "web", "--", "./no-such-program")
    assert done.returncode == 1
    assert "cannot be run: No such file" in done.stderr
    assert "Traceback" not in done.stderr
    assert not list((tmp_path / "certs-dev" / "tokens").iterdir())


def test_a_variable_that_would_hand_secrets_out_is_named(run: Run, tmp_path: Path) -> None:
    up(run, "--workload", "web")
    keys = tmp_path / "keys.log"
    done = run("dev", "run", "--as", "web", "--", "true", SSLKEYLOGFILE=str(keys))
    assert done.stderr.startswith("warning: SSLKEYLOGFILE is set")
    assert run("dev", "run", "--as", "web", "--", "true").stderr == ""


def test_a_damaged_folder_says_how_to_begin_anew(run: Run, tmp_path: Path) -> None:
    up(run)
    (tmp_path / "certs-dev" / "dev.json").write_text("{")
    for argv in (["dev", "status"], ["dev", "up", "example.org"]):
        done = run(*argv)
        assert (done.returncode, "zerotrust dev down" in done.stderr) == (1, True)
    assert run("dev", "down").returncode == 0


def test_without_a_dev_ca_every_command_says_how_to_make_one(run: Run) -> None:
    for argv in (["dev", "status"], ["dev", "run", "--as", "web", "--", "true"]):
        done = run(*argv)
        assert done.returncode == 3
        assert "zerotrust dev up" in done.stderr


def test_a_folder_that_is_a_link_or_holds_other_files_is_refused(run: Run, tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to("real")
    linked = run("dev", "up", "example.org", "--dir", "link")
    assert (linked.returncode, "is a link" in linked.stderr) == (1, True)
    (tmp_path / "real" / ".env").write_text("precious")
    foreign = run("dev", "up", "example.org", "--dir", "real")
    assert (foreign.returncode, "holds other files" in foreign.stderr) == (1, True)
    run("dev", "down", "--dir", "real")
    assert (tmp_path / "real" / ".env").read_text() == "precious"


def test_it_listens_on_loopback_only(run: Run) -> None:
    told = up(run)
    for address in (told["bootstrap"], told["mtls"]):
        host, _, port = str(address).rpartition(":")
        assert host == "127.0.0.1"
        with socket.create_connection((host, int(port)), timeout=5):
            pass


def test_outside_dev_run_its_identities_are_refused(run: Run, tmp_path: Path) -> None:
    up(run, "--workload", "web")
    code = "import os; print(os.environ['ZEROTRUST_IDENTITY'])"
    url = run("dev", "run", "--as", "web", "--", sys.executable, "-c", code).stdout.strip()
    done = run("svid", "fetch", "--identity", url, "--out", "id")
    assert done.returncode == 1
    assert "ZT7005" in done.stderr


def test_of_two_ups_at_once_one_works_and_the_other_says_why_it_does_not(
    run: Run, tmp_path: Path
) -> None:
    argv = command("dev", "up", "example.org", "--workload", "web")
    both = [
        subprocess.Popen(argv, cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        for _ in range(2)
    ]
    ended = [(*process.communicate(timeout=60), process.returncode) for process in both]
    codes = sorted(code for _, _, code in ended)
    assert codes in ([0, 0], [0, 1])
    if codes == [0, 1]:
        assert any(b"another zerotrust dev command is at work" in err for _, err, _ in ended)
    assert json.loads(run("dev", "status", "--json").stdout)["running"] is True


def test_a_lifetime_below_five_seconds_is_refused(run: Run) -> None:
    done = run("dev", "up", "example.org", "--workload", "web", "--ttl", "4s")
    assert done.returncode == 1
    assert "ZT6006" in done.stderr
