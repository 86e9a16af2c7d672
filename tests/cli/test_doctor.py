from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner

from zerotrust import clock
from zerotrust.cli import cli
from zerotrust.probe.forge import ForgedAuthority
from zerotrust.workload.layout import write_layout

HOME = ForgedAuthority(now=clock.now())


def doctor(*argv: str, **environment: str) -> tuple[int, dict[str, tuple[str, str]]]:
    clean = {"ZEROTRUST_IDENTITY": None, "ZEROTRUST_CONFIG": None, "ZEROTRUST_DEV": None}
    result = CliRunner().invoke(cli, ["doctor", "--json", *argv], env={**clean, **environment})
    checks = json.loads(result.stdout)["checks"]
    return result.exit_code, {c["check"]: (c["grade"], c["detail"]) for c in checks}


def test_a_good_identity_is_well(tmp_path: Path) -> None:
    write_layout(tmp_path / "id", HOME.snapshot("web"), {})
    code, checks = doctor("--identity", f"files:{tmp_path / 'id'}")
    assert checks["identity"][0] == "ok"
    assert {grade for grade, _ in checks.values()} <= {"ok", "warning"}
    assert code == (4 if "warning" in {grade for grade, _ in checks.values()} else 0)


def test_no_identity_is_a_warning() -> None:
    code, checks = doctor()
    assert (code, checks["identity"][0]) == (4, "warning")


def test_an_identity_without_a_token_is_a_warning(tmp_path: Path) -> None:
    write_layout(tmp_path / "id", HOME.snapshot("web", with_wit=False), {})
    assert doctor("--identity", f"files:{tmp_path / 'id'}")[1]["identity"][0] == "warning"


def test_a_damaged_identity_fails(tmp_path: Path) -> None:
    write_layout(tmp_path / "id", HOME.snapshot("web"), {})
    (tmp_path / "id" / "svid.pem").write_text("no certificate")
    code, checks = doctor("--identity", f"files:{tmp_path / 'id'}")
    assert (code, checks["identity"][0]) == (1, "fail")


@pytest.mark.parametrize("content", ["nonsense", ""])
def test_a_token_that_is_none_fails(tmp_path: Path, content: str) -> None:
    (tmp_path / "token").write_text(content)
    (tmp_path / "token").chmod(0o600)
    code, checks = doctor("--identity", f"ca:{tmp_path / 'token'}")
    assert (code, checks["ca"][0]) == (1, "fail")


def test_an_alarm_about_the_package_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("zerotrust.plugins.package_owner_alarms", lambda: ("zerotrust owns it",))
    code, checks = doctor()
    assert (code, checks["package"]) == (1, ("fail", "zerotrust owns it"))


def test_an_environment_that_is_not_understood_fails() -> None:
    code, checks = doctor(ZEROTRUST_DEV="yes")
    assert (code, checks["identity"][0]) == (1, "fail")
