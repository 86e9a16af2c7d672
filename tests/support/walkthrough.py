"""Run a page as its reader would: every `console` block, command by command, with its output.

1. A line that begins with `$ ` is a command, what follows is what it prints; `...` stands for
   anything.
2. A command that serves (`zerotrust serve`) runs until the end; the next one waits for its port.
3. A block of another language after a paragraph that says "in `name`" is the content of that file.
4. The ports of the page are replaced by free ones, in a copy of its folder.
"""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

PORT = re.compile(r"\b84\d\d\b")
FILE = re.compile(
    r"^[^\n`]*in `([a-z_]+\.[a-z]+)`[^`]*\n\n```(?:python|toml)\n(.*?)^```$",
    re.MULTILINE | re.DOTALL,
)
SECONDS = 40


def walk(page: Path, stage: Path, folder: Path | None = None) -> int:
    """Run the page below `stage`, in a copy of `folder` if given; return how many commands ran."""
    here = stage / "here"
    if folder is None:
        here.mkdir()
    else:
        shutil.copytree(folder, here, ignore=shutil.ignore_patterns("__pycache__", "*.db"))
    ports: dict[str, str] = {}
    for file in sorted(here.rglob("*")):
        if file.is_file():
            file.write_text(_moved(file.read_text(), ports))
    text = _moved(page.read_text(), ports)
    for name, content in FILE.findall(text):
        (here / name).write_text(content)
    ran = 0
    with contextlib.ExitStack() as running:
        running.callback(_sh, "zerotrust dev down", here)
        for block in re.findall(r"^```console\n(.*?)^```$", text, re.DOTALL | re.MULTILINE):
            for command, expected in _commands(block):
                ran += 1
                if "zerotrust serve" in command:
                    running.enter_context(_serving(command, here))
                else:
                    _expect(command, expected, here)
    return ran


def _commands(block: str) -> Iterator[tuple[str, str]]:
    for part in re.split(r"^\$ ", block, flags=re.MULTILINE)[1:]:
        command, _, expected = part.partition("\n")
        yield command, expected.rstrip()


def _expect(command: str, expected: str, here: Path) -> None:
    done = _sh(command, here)
    pattern = ".*".join(map(re.escape, expected.split("...")))
    found = re.match(pattern, done.stdout, re.DOTALL)
    assert found, f"$ {command}\n{done.stdout}\nexpected:\n{expected}\nstderr:\n{done.stderr}"


@contextlib.contextmanager
def _serving(command: str, here: Path) -> Iterator[None]:
    ports = re.findall(r"--port (\d+)", command)
    log = here / f"serve-{ports[0]}.log"
    with log.open("w") as output:
        server = subprocess.Popen(
            ["sh", "-c", f"exec {command}"],
            cwd=here,
            env=_environment(),
            stdout=output,
            stderr=output,
            start_new_session=True,
        )
    try:
        _await_port(int(ports[0]), server, log)
        yield
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(server.pid, signal.SIGTERM)
        try:
            server.wait(15)
        except subprocess.TimeoutExpired:
            os.killpg(server.pid, signal.SIGKILL)
            server.wait(5)


def _await_port(port: int, server: subprocess.Popen[bytes], log: Path) -> None:
    end = time.monotonic() + SECONDS
    while time.monotonic() < end:
        assert server.poll() is None, f"the server ended:\n{log.read_text()}"
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
            return
        time.sleep(0.05)
    raise AssertionError(f"nobody listens on {port}:\n{log.read_text()}")


def _sh(command: str, here: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["sh", "-c", command],
        cwd=here,
        env=_environment(),
        capture_output=True,
        text=True,
        timeout=SECONDS,
        check=False,
    )


def _environment() -> dict[str, str]:
    own = {name: value for name, value in os.environ.items() if not name.startswith("ZEROTRUST_")}
    return {**own, "PATH": f"{Path(sys.executable).parent}:{own['PATH']}"}


def _moved(text: str, ports: dict[str, str]) -> str:
    return PORT.sub(lambda found: ports.setdefault(found[0], _free_port()), text)


def _free_port() -> str:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return str(probe.getsockname()[1])
