from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Callable
from importlib import import_module
from pathlib import Path

import click
import pytest
from click.testing import CliRunner

from zerotrust.cli import COMMANDS, cli
from zerotrust.core.errors import ConfigurationError, NotYetIssued

HEAVY = "httpx|httpx2|uvicorn|starlette|httptools|uvloop|zerotrust.ca|zerotrust.asgi"
Raise = Callable[[BaseException], None]
SOURCES = Path(import_module("zerotrust.cli").__file__ or "").parent


def run(*argv: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "zerotrust", *argv]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)


@pytest.fixture
def raising(monkeypatch: pytest.MonkeyPatch) -> Raise:
    """Replace one command by one that raises what the test says."""

    def install(exc: BaseException) -> None:
        from zerotrust.cli.output import json_option

        @click.command()
        @json_option
        def command() -> None:
            raise exc

        monkeypatch.setattr("zerotrust.cli.explain.command", command)

    return install


def test_help_names_every_command_and_imports_none_of_them() -> None:
    code = (
        "import sys, runpy\n"
        "sys.argv = ['zerotrust', '--help']\n"
        "try:\n    runpy.run_module('zerotrust', run_name='__main__')\n"
        "except SystemExit:\n    pass\n"
        f"heavy = [m for m in {HEAVY.split('|')!r} if m in sys.modules]\n"
        "print('HEAVY', heavy)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60
    )
    assert "HEAVY []" in done.stdout
    assert all(name in done.stdout for name in COMMANDS)


@pytest.mark.parametrize("name", list(COMMANDS))
def test_every_command_exists_and_explains_itself(name: str) -> None:
    result = CliRunner().invoke(cli, [name, "--help"])
    assert result.exit_code == 0
    assert result.output.startswith("Usage: ")


def every_command() -> list[tuple[str, click.Command]]:
    found: list[tuple[str, click.Command]] = []
    for name in COMMANDS:
        command = import_module(f"zerotrust.cli.{name}").command
        subs = command.commands if isinstance(command, click.Group) else {"": command}
        found += [(f"{name} {sub}".strip(), part) for sub, part in subs.items()]
    return found


LASTING = {"dev run", "ca run", "serve"}  # they become another program, or run until they are told


@pytest.mark.parametrize(("name", "command"), every_command(), ids=str)
def test_every_command_that_ends_by_itself_speaks_json(name: str, command: click.Command) -> None:
    options = {option for part in command.params for option in part.opts}
    assert ("--json" in options) or name in LASTING


def test_an_error_of_ours_is_one_message_with_its_code_and_where_to_read_on(raising: Raise) -> None:
    raising(ConfigurationError("the port is no number"))
    result = CliRunner().invoke(cli, ["explain"])
    assert result.exit_code == 1
    assert result.stderr == (
        "error: ZT1001 config.setting: the port is no number\nhelp:  zerotrust explain ZT1001\n"
    )
    assert result.stdout == ""


def test_what_is_unavailable_exits_3(raising: Raise) -> None:
    raising(NotYetIssued("the CA is down"))
    assert CliRunner().invoke(cli, ["explain"]).exit_code == 3


def test_a_usage_error_exits_2() -> None:
    assert CliRunner().invoke(cli, ["explain", "ZT0000"]).exit_code == 2
    assert CliRunner().invoke(cli, ["nonsense"]).exit_code == 2


def test_an_error_under_json_is_json_on_stderr(raising: Raise) -> None:
    raising(ConfigurationError("the port is no number"))
    result = CliRunner().invoke(cli, ["explain", "--json"])
    assert json.loads(result.stderr)["error"] == {
        "code": "ZT1001",
        "reason": "config.setting",
        "detail": "the port is no number",
    }


def test_the_unforeseen_is_no_traceback_and_quotes_nothing(raising: Raise) -> None:
    raising(RuntimeError("the secret is hunter2"))
    result = CliRunner().invoke(cli, ["explain"])
    assert result.exit_code == 1
    assert result.stderr.startswith("error: ZT9001 unforeseen: RuntimeError at test_frame.py:")
    assert "hunter2" not in result.output
    assert "Traceback" not in result.output


def test_a_full_disk_is_told_as_what_it_is(raising: Raise) -> None:
    raising(OSError(28, "No space left on device", "/var/lib/ca.db"))
    result = CliRunner().invoke(cli, ["explain"])
    assert result.stderr.startswith(
        "error: ZT1005 config.file: No space left on device: /var/lib/ca.db\n"
    )


def test_a_missing_server_library_is_told_as_the_extra_to_install(raising: Raise) -> None:
    raising(ModuleNotFoundError("No module named 'uvicorn'", name="uvicorn"))
    assert 'pip install "zerotrust-kit[asgi]"' in CliRunner().invoke(cli, ["explain"]).stderr


def test_an_interrupt_is_quiet(raising: Raise) -> None:
    raising(KeyboardInterrupt())
    result = CliRunner().invoke(cli, ["explain"])
    assert (result.exit_code, result.stderr) == (130, "stopped\n")


def test_foreign_bytes_reach_the_terminal_escaped(raising: Raise) -> None:
    raising(ConfigurationError("a\x1b[31mred\nname"))
    assert "a\\u001b[31mred\\nname" in CliRunner().invoke(cli, ["explain"]).stderr


def test_nothing_is_ever_coloured() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "zerotrust", "explain", "nonsense"],
        capture_output=True,
        check=False,
        env={**os.environ, "FORCE_COLOR": "1"},
        timeout=60,
    )
    assert b"\x1b" not in done.stdout + done.stderr


def test_the_version_is_the_distributions() -> None:
    assert re.fullmatch(r"zerotrust, version \d+\.\d+\.\d+\n", run("--version").stdout)


@pytest.mark.parametrize("path", sorted(SOURCES.glob("*.py")), ids=lambda path: path.name)
def test_a_command_file_is_short(path: Path) -> None:
    limit = 150 if path.name in {"policy.py", "serve.py"} else 120
    assert len(path.read_text().splitlines()) <= limit
