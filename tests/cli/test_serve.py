"""What `zerotrust serve` refuses before it serves."""

from __future__ import annotations

from pathlib import Path

import pytest
from click.testing import CliRunner

from zerotrust.cli import cli

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


def test_a_workers_option_without_its_parent_is_refused() -> None:
    assert "for workers only" in refused("--inherit", "nonsense")


def test_the_help_lists_the_options_people_use() -> None:
    result = CliRunner().invoke(cli, ["serve", "--help"])
    for option in ("--policy", "--host", "--port", "--reload", "--workers", "--app-dir"):
        assert option in result.stdout
    for option in ("--uds", "--ssl-keyfile", "--inherit"):
        assert option not in result.stdout
