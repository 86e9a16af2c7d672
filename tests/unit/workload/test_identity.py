"""The one identity of a process: replaced whole, renewed until closed."""

from __future__ import annotations

import os
import pickle
import threading
import time
from collections.abc import Callable
from dataclasses import replace

import pytest

from zerotrust.core.errors import (
    Closed,
    ConfigurationError,
    IdentityUnavailable,
    NotYetIssued,
    Reason,
    RenewalFailed,
)
from zerotrust.core.spiffe.bundle import BundleSet
from zerotrust.probe.forge import ForgedAuthority
from zerotrust.workload.identity import Snapshot, WorkloadIdentity


class Scripted:
    """A source that gives what a test puts into it."""

    def __init__(self, first: Snapshot | Exception) -> None:
        self.next: Snapshot | Exception = first
        self.news = threading.Event()
        self.fetched = 0
        self.closed = False

    def fetch(self, previous: Snapshot | None) -> Snapshot:
        self.fetched += 1
        if isinstance(self.next, Exception):
            raise self.next
        return self.next

    def wait(self, seconds: float) -> None:
        if self.news.wait(seconds):
            self.news.clear()

    def close(self) -> None:
        self.closed = True
        self.news.set()

    def give(self, what: Snapshot | Exception) -> None:
        self.next = what
        self.news.set()


def until(true: Callable[[], bool]) -> None:
    end = time.monotonic() + 5
    while not true() and time.monotonic() < end:
        time.sleep(0.005)
    assert true()


@pytest.fixture
def ca() -> ForgedAuthority:
    return ForgedAuthority(now=time.time())


def test_the_first_fetch_fails_loudly_and_closes_the_source() -> None:
    source = Scripted(NotYetIssued("no CA"))
    with pytest.raises(NotYetIssued):
        WorkloadIdentity(source)
    assert source.closed


def test_news_replaces_the_snapshot_whole(ca: ForgedAuthority) -> None:
    source = Scripted(ca.snapshot("web"))
    with WorkloadIdentity(source) as me:
        before, fresh = me.current, ca.snapshot("web")
        source.give(fresh)
        until(lambda: me.current is not before)
        assert me.current.svid is fresh.svid
        assert me.current.wit is fresh.wit


def test_bundles_keep_their_object_while_their_content_is_the_same(ca: ForgedAuthority) -> None:
    source = Scripted(ca.snapshot("web"))
    with WorkloadIdentity(source) as me:
        before = me.current
        source.give(ca.snapshot("web"))
        until(lambda: me.current is not before)
        assert me.current.bundles is before.bundles
        other = ForgedAuthority("partner.example", now=ca.now)
        source.give(ca.snapshot("web", bundles=[other]))
        until(lambda: me.current.bundles is not before.bundles)


def test_a_snapshot_that_says_nothing_new_changes_nothing(ca: ForgedAuthority) -> None:
    source = Scripted(ca.snapshot("web"))
    with WorkloadIdentity(source) as me:
        before = me.current
        source.give(replace(before, bundles=BundleSet([ca.bundle])))
        until(lambda: source.fetched == 2)
        assert me.current is before


def test_a_failed_renewal_keeps_the_last_good_and_alarms_once(ca: ForgedAuthority) -> None:
    alarms: list[tuple[str, str]] = []
    source = Scripted(ca.snapshot("web"))
    with WorkloadIdentity(source, on_alarm=lambda *alarm: alarms.append(alarm)) as me:
        before = me.current
        source.give(RenewalFailed("CA down"))
        until(lambda: bool(alarms))
        source.give(RenewalFailed("CA down"))
        until(lambda: source.fetched >= 3)
        assert me.current is before
        assert alarms == [("identity.renewal_failed", "CA down")]
        status = me.status()
        assert status is not None
        assert "CA down" in status.last_error
        assert status.usable


def test_an_unforeseen_failure_does_not_end_renewal(ca: ForgedAuthority) -> None:
    source = Scripted(ca.snapshot("web"))
    with WorkloadIdentity(source) as me:
        source.give(KeyError("broken"))
        until(lambda: source.fetched >= 2)
        fresh = ca.snapshot("web")
        source.give(fresh)
        until(lambda: me.current.svid is fresh.svid)


def test_another_id_from_the_source_is_refused(ca: ForgedAuthority) -> None:
    alarms: list[tuple[str, str]] = []
    source = Scripted(ca.snapshot("web"))
    with WorkloadIdentity(source, on_alarm=lambda *alarm: alarms.append(alarm)) as me:
        source.give(ca.snapshot("admin"))
        until(lambda: bool(alarms))
        assert str(me.id) == str(me.current.svid.id) == "spiffe://example.org/web"


def test_an_expired_identity_is_no_identity(ca: ForgedAuthority) -> None:
    source = Scripted(ca.snapshot("web", ttl=2))
    with WorkloadIdentity(source) as me:
        assert me.current
        source.next = RenewalFailed("CA down")
        time.sleep(2.1)
        with pytest.raises(IdentityUnavailable) as caught:
            _ = me.current
        assert caught.value.reason is Reason.IDENTITY_EXPIRED
        status = me.status()
        assert status is not None
        assert not status.usable
        fresh = ca.snapshot("web")
        source.give(fresh)
        until(lambda: me._held is not None and me._held.snapshot.svid is fresh.svid)
        assert me.current.svid is fresh.svid


def test_an_identity_that_is_already_over_is_refused_at_start(ca: ForgedAuthority) -> None:
    with pytest.raises(IdentityUnavailable):
        WorkloadIdentity(Scripted(ca.snapshot("web", not_before=ca.now - 100, ttl=50)))


def test_renewal_happens_by_itself_at_half_of_the_life(ca: ForgedAuthority) -> None:
    source = Scripted(ca.snapshot("web", not_before=time.time(), ttl=2))
    with WorkloadIdentity(source):
        until(lambda: source.fetched >= 2)


def test_little_life_left_is_an_alarm(ca: ForgedAuthority) -> None:
    alarms: list[tuple[str, str]] = []
    almost = ca.snapshot("web", not_before=ca.now - 1000, ttl=1005)
    source = Scripted(almost)
    with WorkloadIdentity(source, on_alarm=lambda *alarm: alarms.append(alarm)):
        until(lambda: bool(alarms))
        assert alarms[0][0] == "identity.expired"
        assert "is not renewed" in alarms[0][1]


def test_a_foreign_anchor_that_collides_is_left_out_with_an_alarm(ca: ForgedAuthority) -> None:
    twin = ForgedAuthority("partner.example", now=ca.now, name=ca.name)
    alarms: list[tuple[str, str]] = []
    source = Scripted(ca.snapshot("web", bundles=BundleSet([ca.bundle, twin.bundle])))
    with WorkloadIdentity(source, on_alarm=lambda *alarm: alarms.append(alarm)) as me:
        left = me.current.bundles.of(twin.trust_domain)
        assert left is not None
        assert left.x509_authorities == ()
        assert alarms[0][0] == "malformed.bundle"


def test_closing_is_quick_and_final(ca: ForgedAuthority) -> None:
    source = Scripted(ca.snapshot("web"))
    me = WorkloadIdentity(source)
    begun = time.monotonic()
    me.close()
    me.close()
    assert time.monotonic() - begun < 1
    assert source.closed
    assert not me._thread.is_alive()
    assert me.status() is None
    with pytest.raises(Closed):
        _ = me.current


def test_a_forked_child_is_told_what_to_do(ca: ForgedAuthority) -> None:
    with WorkloadIdentity(Scripted(ca.snapshot("web"))) as me:
        read, write = os.pipe()
        pid = os.fork()
        if pid == 0:
            try:
                _ = me.current
                os.write(write, b"the key was shared")
            except Closed as exc:
                os.write(write, str(exc).encode())
            os._exit(0)
        os.waitpid(pid, 0)
        said = os.read(read, 1000)
        os.close(read)
        os.close(write)
        assert b"serve --workers" in said
        assert me.current


def test_nothing_with_a_key_is_pickled_or_shown(ca: ForgedAuthority) -> None:
    snapshot = ca.snapshot("web")
    assert snapshot.wit is not None
    with WorkloadIdentity(Scripted(snapshot)) as me:
        for secret in (me, snapshot, snapshot.wit, snapshot.svid):
            with pytest.raises(TypeError):
                pickle.dumps(secret)
            assert snapshot.wit.token not in repr(secret)
            assert "PRIVATE" not in repr(secret)


@pytest.mark.parametrize("url", ["files", "files:", ":x", "", "nowhere:x"])
def test_a_bad_identity_url_is_refused(url: str) -> None:
    with pytest.raises(ConfigurationError):
        WorkloadIdentity.from_url(url, dev=False)


def test_without_a_setting_there_is_no_identity(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("ZEROTRUST_IDENTITY", raising=False)
    monkeypatch.delenv("ZEROTRUST_CONFIG", raising=False)
    with pytest.raises(ConfigurationError, match="ZEROTRUST_IDENTITY is not set"):
        WorkloadIdentity.from_env()


def test_a_worker_of_a_foreign_server_is_told_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    import multiprocessing

    monkeypatch.setenv("ZEROTRUST_IDENTITY", "files:/nowhere")
    monkeypatch.setattr(multiprocessing, "parent_process", object)
    with pytest.raises(ConfigurationError, match="serve --workers"):
        WorkloadIdentity.from_env()
