from __future__ import annotations

import errno
import os
import queue
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest

from support.home_ca import Home, home
from zerotrust import clock
from zerotrust.ca.authority.entries import NewEntry
from zerotrust.core.errors import (
    AttestationFailed,
    BadBundle,
    CertificateRejected,
    ConfigurationError,
    NotEntitled,
    NotYetIssued,
    Reason,
    RenewalFailed,
    ZeroTrustError,
)
from zerotrust.workload import layout
from zerotrust.workload.ca_exchange import exchange
from zerotrust.workload.identity import WorkloadIdentity
from zerotrust.workload.sources import ca as source_module
from zerotrust.workload.sources.ca import open_source

__all__ = ["home"]


def test_a_workload_enrols_with_a_token_and_renews_with_new_keys(home: Home) -> None:
    source = open_source(str(home.token()), dev=True)
    first = source.fetch(None)
    second = source.fetch(first)
    assert str(first.svid.id) == "spiffe://example.org/web"
    assert second.svid.id == first.svid.id
    assert second.svid.key.public_key() != first.svid.key.public_key()
    assert first.wit is not None
    assert second.wit is not None
    assert second.wit.key.public.thumbprint != first.wit.key.public.thumbprint
    assert second.bundles is first.bundles
    assert first.dev
    source.close()


def test_outside_dev_the_bundle_of_a_throw_away_ca_is_refused(home: Home) -> None:
    with pytest.raises(BadBundle) as caught:
        open_source(str(home.token()), dev=False).fetch(None)
    assert caught.value.reason is Reason.DEV_MARKER


def test_a_used_token_is_refused_and_the_message_says_what_to_do(home: Home) -> None:
    token = home.token()
    open_source(str(token), dev=True).fetch(None)
    with pytest.raises(AttestationFailed, match="make a new one"):
        open_source(str(token), dev=True).fetch(None)


def test_a_lost_answer_is_asked_for_again_with_the_same_keys(
    home: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = open_source(str(home.token()), dev=True)
    first = source.fetch(None)
    asked: list[bytes] = []

    def lose_one(*args: Any, **options: Any) -> bytes:
        answer = exchange(*args, **options)
        asked.append(options["body"])
        if len(asked) == 1:
            raise NotYetIssued("the answer was lost")
        return answer

    monkeypatch.setattr(source_module, "exchange", lose_one)
    with pytest.raises(RenewalFailed):
        source.fetch(first)
    again = source.fetch(first)
    assert asked[0] == asked[1]
    assert source.fetch(again).svid.id == again.svid.id  # the lineage is not frozen


def test_a_process_with_state_starts_again_without_token_and_without_ca(home: Home) -> None:
    url = f"{home.token()}?state={home.path / 'state'}"
    source = open_source(url, dev=True)
    before = source.fetch(None)
    source.close()
    (home.path / "token").unlink()
    home.running.__exit__()
    try:
        again = open_source(url, dev=True)
        after = again.fetch(None)
        assert after.svid.thumbprint == before.svid.thumbprint
        with pytest.raises(RenewalFailed, match="cannot be reached"):
            again.fetch(after)
        again.close()
    finally:
        home.running.__enter__()


def test_keys_that_were_asked_with_survive_a_killed_process(
    home: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    url = f"{home.token()}?state={home.path / 'state'}"
    source = open_source(url, dev=True)
    first = source.fetch(None)

    def die(*args: Any, **options: Any) -> bytes:
        exchange(*args, **options)
        raise MemoryError  # stands for a kill between the CA's commit and our disk

    monkeypatch.setattr(source_module, "exchange", die)
    with pytest.raises(MemoryError):
        source.fetch(first)
    source.close()
    monkeypatch.undo()
    again = open_source(url, dev=True)
    kept = again.fetch(None)
    renewed = again.fetch(kept)
    assert kept.svid.thumbprint == first.svid.thumbprint
    assert again.fetch(renewed).svid.id == first.svid.id  # not taken for a thief
    again.close()


def test_two_processes_cannot_share_a_state_folder(home: Home) -> None:
    url = f"{home.token()}?state={home.path / 'state'}"
    held = open_source(url, dev=True)
    with pytest.raises(ConfigurationError, match="another process"):
        open_source(url, dev=True)
    held.close()
    open_source(url, dev=True).close()


def fill_the_disk(monkeypatch: pytest.MonkeyPatch) -> None:
    def write(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    for module in (layout, source_module):
        monkeypatch.setattr(module, "write_private", write)


def test_a_full_disk_takes_no_renewed_identity_away(
    home: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    url = f"{home.token()}?state={home.path / 'state'}"
    source = open_source(url, dev=True)
    first = source.fetch(None)
    fill_the_disk(monkeypatch)
    second = source.fetch(first)
    assert second.svid.thumbprint != first.svid.thumbprint
    source.wait(60)  # returns at once: there is news
    with pytest.raises(ConfigurationError, match=r"No space left.*out of date"):
        source.fetch(second)
    monkeypatch.undo()
    assert source.fetch(second) is second  # written now
    source.close()
    again = open_source(url, dev=True)
    assert again.fetch(None).svid.thumbprint == second.svid.thumbprint
    again.close()


def test_a_folder_that_falls_behind_is_an_alarm(
    home: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    alarms: queue.SimpleQueue[tuple[str, str]] = queue.SimpleQueue()
    url = f"ca:{home.token()}?state={home.path / 'state'}"
    renewed = threading.Event()
    monkeypatch.setattr(source_module.CaSource, "wait", due_once(renewed))
    with WorkloadIdentity.from_url(
        url, dev=True, on_alarm=lambda *alarm: alarms.put(alarm)
    ) as identity:
        first = identity.current
        fill_the_disk(monkeypatch)
        renewed.set()
        reason, detail = alarms.get(timeout=20)
        assert (reason, "out of date" in detail) == (str(Reason.FILE_ACCESS), True)
        assert identity.current.svid.thumbprint != first.svid.thumbprint
        status = identity.status()
        assert status is not None
        assert "out of date" in status.last_error


def due_once(when: threading.Event) -> Callable[[source_module.CaSource, float], None]:
    """Return a `wait` that ends early the first time, as soon as `when` is set."""
    wait = source_module.CaSource.wait
    used = threading.Event()

    def ending(source: source_module.CaSource, seconds: float) -> None:
        if used.is_set():
            wait(source, seconds)
        elif when.wait(min(seconds, 5)):
            used.set()

    return ending


def test_renewal_goes_on_while_the_folder_cannot_be_written(
    home: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = open_source(f"{home.token()}?state={home.path / 'state'}", dev=True)
    first = source.fetch(None)
    fill_the_disk(monkeypatch)
    second = source.fetch(first)
    monkeypatch.setattr(source_module, "_is_due", lambda _: True)
    third = source.fetch(second)
    assert third.svid.thumbprint != second.svid.thumbprint
    source.close()


def test_enrolment_waits_for_a_folder_that_can_be_written(
    home: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = open_source(f"{home.token()}?state={home.path / 'state'}", dev=True)
    fill_the_disk(monkeypatch)
    with pytest.raises(ConfigurationError, match="No space left"):
        source.fetch(None)
    monkeypatch.undo()
    assert str(source.fetch(None).svid.id) == "spiffe://example.org/web"  # the token is unspent
    source.close()


def test_a_deleted_entry_is_renewed_no_more(home: Home) -> None:
    source = open_source(str(home.token()), dev=True)
    first = source.fetch(None)
    home.ca.delete_entry(home.entry.id, now=clock.now())
    with pytest.raises(NotEntitled):
        source.fetch(first)


def test_a_socket_that_nobody_serves_is_named(tmp_path: Path) -> None:
    with pytest.raises(NotYetIssued, match=r"workload\.sock cannot be reached"):
        open_source(f"unix:{tmp_path / 'workload.sock'}", dev=True).fetch(None)


def test_a_ca_that_is_down_is_unavailable_not_refused(home: Home) -> None:
    token = home.token()
    home.running.__exit__()
    try:
        with pytest.raises(NotYetIssued, match="cannot be reached"):
            open_source(str(token), dev=True).fetch(None)
    finally:
        home.running.__enter__()


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o644])
def test_a_token_file_that_others_can_read_is_refused(home: Home, mode: int) -> None:
    token = home.token()
    token.chmod(mode)
    if mode == 0o640 and token.stat().st_uid == 0:
        pytest.skip("root may hand a secret to a group")
    with pytest.raises(ConfigurationError) as caught:
        open_source(str(token), dev=True).fetch(None)
    assert caught.value.reason is Reason.FILE_ACCESS


@pytest.mark.parametrize("rest", ["", "t?stat=x", "t?state=a&id=b", "unix:", "unix:/s?x=1"])
def test_an_url_that_is_not_understood_is_refused(rest: str) -> None:
    with pytest.raises(ZeroTrustError):
        open_source(rest, dev=True)


def test_the_socket_of_this_machine_gives_what_the_entries_selectors_entitle_to(
    home: Home,
) -> None:
    home.ca.create_entry(
        NewEntry("/local", selectors=(f"unix:uid:{os.geteuid()}",), ttl=60.0), now=clock.now()
    )
    source = open_source(f"unix:{home.path / 'workload' / 'sock'}", dev=True)
    first = source.fetch(None)
    assert str(source.fetch(first).svid.id) == "spiffe://example.org/local"


LISTENER = """
import os, socket, sys
with socket.socket(socket.AF_UNIX) as sock:
    sock.bind(sys.argv[1])
    os.setuid(65534)
    sock.listen()  # from here on the kernel says who we are now
    print("ready", flush=True)
    sock.accept()[0].recv(1)
"""


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can be somebody else")
def test_a_socket_on_which_another_user_listens_is_sent_nothing(tmp_path: Path) -> None:
    path = tmp_path / "sock"
    argv = [sys.executable, "-c", LISTENER, str(path)]
    with subprocess.Popen(argv, stdout=subprocess.PIPE) as listener:
        assert listener.stdout is not None
        listener.stdout.readline()
        with pytest.raises(CertificateRejected, match="belongs to user 65534"):
            open_source(f"unix:{path}", dev=True).fetch(None)
        assert listener.wait(10) == 0


def test_a_state_folder_may_have_any_name(tmp_path: Path) -> None:
    name = "a+b & c=d? 100%"
    url = f"{tmp_path / 'token'}?state={quote(str(tmp_path / name))}"
    open_source(url, dev=True).close()
    assert (tmp_path / name).is_dir()
