from __future__ import annotations

import os
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from zerotrust.core.errors import BadPolicy, ConfigurationError, Reason
from zerotrust.core.mode import Mode
from zerotrust.core.spiffe.ids import TrustDomain
from zerotrust.workload import policy_file
from zerotrust.workload.policy_file import PolicyFile, load_policy

OWN = TrustDomain("example.org")
POLICY = """\
schema = 1
service = "orders"
trust_domain = "example.org"
mode = "enforce"
[[allow]]
id = "read"
from = ["web"]
to = ["GET /orders/{id}"]
[[test]]
name = "web reads"
as = "web"
do = "GET /orders/7"
want = "allow:read"
"""
BRAKE = '[[deny]]\nid = "stop"\nfrom = ["web"]\nto = ["*"]\n'


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "policy.toml"
    write(path, POLICY)
    return path


def write(path: Path, text: str) -> None:
    """Replace the file as an editor does: whole, by a rename."""
    fresh = path.with_name(".fresh")
    fresh.write_text(text)
    fresh.chmod(0o644)
    fresh.replace(path)


def until(met: Callable[[], bool]) -> None:
    for _ in range(500):
        if met():
            return
        time.sleep(0.02)
    pytest.fail("nothing happened within ten seconds")


def reads(file: PolicyFile) -> Reason | None:
    return file.current.decide(OWN.id("web"), "GET", "/orders/7", Mode.BOUND).reason


def test_a_policy_is_loaded_at_once(path: Path) -> None:
    assert reads(PolicyFile(path, OWN)) is None


@pytest.mark.parametrize(
    ("text", "error"),
    [
        ("schema = 2", BadPolicy),
        (POLICY.replace("allow:read", "deny"), BadPolicy),
        (POLICY.replace('"example.org"', '"other.example"'), BadPolicy),
        (None, ConfigurationError),
    ],
)
def test_a_policy_that_does_not_load_at_first_stops_the_process(
    path: Path, text: str | None, error: type[Exception]
) -> None:
    if text is None:
        path.unlink()
    else:
        write(path, text)
    with pytest.raises(error):
        PolicyFile(path, OWN)


def test_a_policy_that_others_may_write_is_refused(path: Path) -> None:
    path.chmod(0o666)
    with pytest.raises(ConfigurationError, match="chmod go-w"):
        PolicyFile(path, OWN)


def test_a_changed_file_replaces_the_policy(path: Path) -> None:
    file = PolicyFile(path, OWN)
    before = file.current
    write(path, POLICY + BRAKE)
    assert file.current is before
    file.refresh()
    assert reads(file) is Reason.RULE_DENY
    assert file.current is not before


@pytest.mark.parametrize("text", ["schema = 2", POLICY.replace("allow:read", "deny"), "[", ""])
def test_a_bad_change_leaves_the_policy_and_raises_one_alarm(path: Path, text: str) -> None:
    alarms: list[str] = []
    file = PolicyFile(path, OWN, alarms.append)
    before = file.current
    write(path, text)
    for _ in range(3):
        file.refresh()
    assert file.current is before
    assert len(alarms) == 1
    assert "stays as it was" in alarms[0]
    write(path, POLICY + BRAKE)
    file.refresh()
    assert reads(file) is Reason.RULE_DENY


def test_a_file_that_goes_away_or_is_opened_to_others_leaves_the_policy(path: Path) -> None:
    alarms: list[str] = []
    file = PolicyFile(path, OWN, alarms.append)
    path.unlink()
    for _ in range(3):
        file.refresh()
    write(path, POLICY + BRAKE)
    path.chmod(0o666)
    file.refresh()
    assert len(alarms) == 2
    assert reads(file) is None
    path.chmod(0o644)
    file.refresh()
    assert reads(file) is Reason.RULE_DENY


def test_a_change_without_meaning_keeps_the_object(path: Path) -> None:
    file = PolicyFile(path, OWN)
    before = file.current
    write(path, "# a comment\n" + POLICY)
    file.refresh()
    assert file.current is before


def test_the_emergency_brake_works_though_a_test_expects_the_call_and_says_so(path: Path) -> None:
    alarms: list[str] = []
    file = PolicyFile(path, OWN, alarms.append)
    write(path, POLICY + BRAKE)
    file.refresh()
    assert reads(file) is Reason.RULE_DENY
    assert len(alarms) == 1
    assert "a deny rule overrules test 'web reads'" in alarms[0]
    _, notes = load_policy(path)
    assert len(notes) == 1


def test_the_thread_follows_the_file_and_ends(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(policy_file, "POLL_SECONDS", 0.01)
    alarms: list[str] = []
    write(path, POLICY + BRAKE)
    file = PolicyFile(path, OWN, alarms.append)
    file.start()
    file.start()
    until(lambda: len(alarms) == 1)  # what the first load had to say
    write(path, POLICY)
    until(lambda: reads(file) is None)
    file.stop()
    file.stop()
    write(path, POLICY + BRAKE)
    time.sleep(0.2)
    assert reads(file) is None
    file.start()
    until(lambda: reads(file) is Reason.RULE_DENY)
    file.stop()


def test_the_thread_outlives_the_unforeseen(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(policy_file, "POLL_SECONDS", 0.01)
    alarms: list[str] = []
    file = PolicyFile(path, OWN, alarms.append)
    with monkeypatch.context() as broken:
        broken.setattr(file, "_load", lambda: 1 / 0)
        file.start()
        write(path, POLICY + BRAKE)
        until(lambda: any("ZeroDivisionError" in alarm for alarm in alarms))
    file.reload()
    until(lambda: reads(file) is Reason.RULE_DENY)
    file.stop()


def test_without_an_alarm_a_bad_change_is_only_not_applied(path: Path) -> None:
    file = PolicyFile(path)
    write(path, "[")
    file.refresh()
    assert reads(file) is None


def test_reload_reads_even_a_file_that_looks_the_same(path: Path) -> None:
    file = PolicyFile(path, OWN)
    status = path.stat()
    path.write_text(POLICY.replace('["web"]', '["wex"]').replace('as = "web"', 'as = "wex"'))
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))
    file.reload()
    file.refresh()
    assert reads(file) is Reason.RULE_NONE
