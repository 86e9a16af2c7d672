"""What `zerotrust serve` refuses before it serves."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner

from zerotrust.asgi.server import Config
from zerotrust.asgi.serving import _load
from zerotrust.cli import cli
from zerotrust.core.errors import ConfigurationError

APP = "zerotrust.asgi.problem:send_problem"  # anything that can be imported


def refused(*options: str, code: int = 1) -> str:
    result = CliRunner().invoke(cli, ["serve", APP, *options])
    assert result.exit_code == code
    return result.stderr


@pytest.mark.parametrize(
    ("options", "why"),
    [
        (("--uds", "/run/app.sock"), "nobody shows a certificate"),
        (("--fd", "3"), "nobody shows a certificate"),
        (("--proxy-headers",), "a header is not an identity"),
        (("--forwarded-allow-ips", "*"), "an address is not an identity"),
        (("--server-header",), "does not tell what it is"),
        (("--ssl-keyfile", "key.pem"), "come from --identity"),
        (("--ssl-certfile", "cert.pem"), "come from --identity"),
        (("--ssl-cert-reqs", "0"), "every caller shows a certificate"),
    ],
)
def test_an_option_that_weakens_is_refused_with_its_reason(
    options: tuple[str, ...], why: str
) -> None:
    said = refused("--policy", "policy.toml", *options)
    assert why in said
    assert options[0] in said


def test_options_that_only_confirm_what_we_do_are_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("ZEROTRUST_IDENTITY", raising=False)
    assert "no identity" in refused("--no-proxy-headers", "--no-server-header")


def test_a_missing_identity_says_how_to_give_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("ZEROTRUST_IDENTITY", raising=False)
    assert "--identity files:DIR" in refused("--policy", "policy.toml")


def test_an_identity_that_is_not_there_is_one_clear_message(tmp_path: Path) -> None:
    identity = f"files:{tmp_path / 'nowhere'}"
    said = refused("--policy", "policy.toml", "--identity", identity, code=3)
    assert "Traceback" not in said
    assert "nowhere" in said


@pytest.mark.parametrize(
    ("source", "app", "why"),
    [
        ("", "nowhere_at_all:app", 'Could not import module "nowhere_at_all".'),
        ("", "broken_app:app", 'Attribute "app" not found in module "broken_app".'),
        ("", "broken_app", 'must be in format "<module>:<attribute>"'),
        ("\napp = 1 / 0\n", "broken_app:app", "ZeroDivisionError: division by zero ("),
        ("import nowhere_at_all\n", "broken_app:app", "No module named 'nowhere_at_all' ("),
        (
            "app = (\n",
            "broken_app:app",
            "SyntaxError: '(' was never closed (broken_app.py, line 1)",
        ),
    ],
)
def test_an_application_that_cannot_be_imported_is_one_message(
    tmp_path: Path, source: str, app: str, why: str
) -> None:
    (tmp_path / "broken_app.py").write_text(source)
    options = ("--policy", "policy.toml", "--identity", "files:identity", "--app-dir", ".")
    done = subprocess.run(
        [sys.executable, "-P", "-m", "zerotrust", "serve", app, *options],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert done.returncode == 1
    assert why in done.stderr
    assert done.stderr.splitlines()[0].startswith("error: ZT1001 config.setting: ")
    assert done.stderr.splitlines()[1:] == ["help:  zerotrust explain ZT1001"]


def test_an_application_that_cannot_be_imported_says_on_which_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    module = tmp_path / "failing_app.py"
    module.write_text("\n\nraise ValueError('no database')\n")
    monkeypatch.syspath_prepend(tmp_path)
    config = Config("failing_app:app", wrap=lambda app: app)
    with pytest.raises(ConfigurationError, match=rf"no database \({module}, line 3\)"):
        _load(config)


def test_a_workers_option_without_its_parent_is_refused() -> None:
    assert "for workers only" in refused("--inherit", "nonsense")


def test_the_help_lists_the_options_people_use() -> None:
    result = CliRunner().invoke(cli, ["serve", "--help"])
    for option in ("--policy", "--host", "--port", "--reload", "--workers", "--app-dir"):
        assert option in result.stdout
    for option in ("--uds", "--ssl-keyfile", "--inherit"):
        assert option not in result.stdout
