from __future__ import annotations

import os
import socket
import ssl
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest

from zerotrust import clock
from zerotrust.ca.authority.entries import NewEntry, RegistrationEntry
from zerotrust.ca.rotation import activate_root, drop_root, prepare_root
from zerotrust.ca.server import Listeners, Running
from zerotrust.ca.service import CertificateAuthority, init_ca, open_ca
from zerotrust.core.enrolment import Issued, JoinToken, Published
from zerotrust.core.errors import (
    AttestationFailed,
    BadBundle,
    CertificateRejected,
    ConfigurationError,
    NotEntitled,
    NotYetIssued,
    Reason,
    RenewalFailed,
    RequestRefused,
    TokenRejected,
    ZeroTrustError,
)
from zerotrust.core.jose import SigningKey
from zerotrust.core.spiffe.bundle import BundleSet, TrustBundle
from zerotrust.core.spiffe.ids import TrustDomain
from zerotrust.workload import ca_exchange
from zerotrust.workload.ca_answer import Pending, Trust, believe
from zerotrust.workload.ca_exchange import Route, exchange
from zerotrust.workload.identity import Snapshot
from zerotrust.workload.layout import write_private
from zerotrust.workload.sources import ca as source_module
from zerotrust.workload.sources.ca import open_source
from zerotrust.workload.tls.context import server_context, unsafe_unverified_context

DOMAIN = TrustDomain("example.org")
ROOT, PASSPHRASE = b"root-passphrase", b"issuer-passphrase"


@dataclass
class Home:
    """A running CA with one entry, and where it keeps things."""

    ca: CertificateAuthority
    running: Running
    entry: RegistrationEntry
    path: Path

    def token(self, name: str = "token", **options: Any) -> Path:
        token = self.ca.create_token(
            self.entry.id, address=self.running.bootstrap, now=clock.now(), **options
        )
        path = self.path / name
        write_private(path, token.dump().encode())
        return path


@pytest.fixture
def home(tmp_path: Path) -> Iterator[Home]:
    init_ca(
        tmp_path / "ca",
        DOMAIN,
        root_passphrase=ROOT,
        passphrase=PASSPHRASE,
        now=clock.now(),
        dev=True,
    )
    with opened(tmp_path) as ca, Running(ca, listeners(tmp_path)) as running:
        entry = ca.create_entry(NewEntry("/web", ttl=60.0), now=clock.now())
        yield Home(ca, running, entry, tmp_path)


def opened(path: Path) -> CertificateAuthority:
    return open_ca(path / "ca", PASSPHRASE, now=clock.now())


def listeners(path: Path, bootstrap: str = "127.0.0.1:0", mtls: str = "127.0.0.1:0") -> Listeners:
    return Listeners(bootstrap, mtls, workload_socket=path / "workload" / "sock")


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


def test_a_deleted_entry_is_renewed_no_more(home: Home) -> None:
    source = open_source(str(home.token()), dev=True)
    first = source.fetch(None)
    home.ca.delete_entry(home.entry.id, now=clock.now())
    with pytest.raises(NotEntitled):
        source.fetch(first)


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


# ---- a hostile CA ---------------------------------------------------------------------------


class Wire:
    """A TLS server that records each connection's plaintext and answers with fixed bytes."""

    def __init__(self, contexts: list[ssl.SSLContext], answers: list[bytes]) -> None:
        self.listening = socket.create_server(("127.0.0.1", 0))
        self.address = f"127.0.0.1:{self.listening.getsockname()[1]}"
        self.heard: list[bytes] = []
        self._contexts, self._answers = contexts, answers
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._thread.start()

    def _serve(self) -> None:
        for context, answer in zip(self._contexts, self._answers, strict=True):
            try:
                plain, _ = self.listening.accept()
            except OSError:
                return
            with plain:
                self.heard.append(b"")
                try:
                    with context.wrap_socket(plain, server_side=True) as tls:
                        self.heard[-1] = tls.recv(65536)
                        tls.sendall(answer)
                except OSError:
                    continue

    def close(self) -> None:
        self.listening.close()
        self._thread.join(5)


def ok(body: bytes) -> bytes:
    return b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n" % len(body) + body


@dataclass(frozen=True)
class Fixed:
    current: Snapshot


def bootstrap_of(snapshot: Snapshot) -> ssl.SSLContext:
    from zerotrust.workload.tls.context import bootstrap_context

    return bootstrap_context(Fixed(snapshot))


def redirected(home: Home, address: str) -> Path:
    """A genuine token whose address an attacker took over."""
    token = JoinToken.parse(home.token("genuine").read_text())
    path = home.path / "redirected"
    write_private(path, replace(token, address=address).dump().encode())
    return path


def test_a_workload_posing_as_the_ca_gets_no_byte_of_the_token(home: Home) -> None:
    thief = open_source(str(home.token()), dev=True).fetch(None)  # a valid SVID of the domain
    published = home.ca.published.dump()
    wire = Wire([bootstrap_of(thief)] * 2, [ok(published), ok(b"{}")])
    try:
        with pytest.raises(CertificateRejected) as caught:
            open_source(str(redirected(home, wire.address)), dev=True).fetch(None)
    finally:
        wire.close()
    assert caught.value.reason is Reason.PEER_UNEXPECTED
    assert wire.heard[0].startswith(b"GET /v1/bundle ")
    assert wire.heard[1:] == [b""]


def test_a_bundle_with_other_roots_than_the_token_lists_ends_it_before_anything_is_sent(
    home: Home, tmp_path: Path
) -> None:
    init_ca(
        tmp_path / "evil",
        DOMAIN,
        root_passphrase=ROOT,
        passphrase=PASSPHRASE,
        now=clock.now(),
        dev=True,
    )
    thief = open_source(str(home.token()), dev=True).fetch(None)
    with open_ca(tmp_path / "evil", PASSPHRASE, now=clock.now()) as evil:
        wire = Wire([bootstrap_of(thief)], [ok(evil.published.dump())])
    try:
        with pytest.raises(CertificateRejected) as caught:
            open_source(str(redirected(home, wire.address)), dev=True).fetch(None)
    finally:
        wire.close()
    assert caught.value.reason is Reason.ANCHOR_UNANNOUNCED
    assert len(wire.heard) == 1


@pytest.mark.parametrize(
    ("answer", "error"),
    [
        (b"HTTP/1.1 302 Found\r\nlocation: https://evil/\r\n\r\n", RequestRefused),
        (b"HTTP/1.1 404 Not Found\r\ncontent-length: 0\r\n\r\n", RequestRefused),
        (b"HTTP/1.1 401 No\r\ncontent-length: 0\r\n\r\n", AttestationFailed),
        (b"HTTP/1.1 403 No\r\ncontent-length: 0\r\n\r\n", NotEntitled),
        (b"HTTP/1.1 503 Later\r\ncontent-length: 0\r\n\r\n", NotYetIssued),
        (b"HTTP/1.1 500 Oops\r\ncontent-length: 0\r\n\r\n", NotYetIssued),
        (b"HTTP/1.1 200 OK\r\n\r\n" + b"x" * (2 * 1024 * 1024 + 1), NotYetIssued),
        (b"HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\nshort", NotYetIssued),
        (b"SSH-2.0-x\r\n", NotYetIssued),
        (b"", NotYetIssued),
    ],
)
def test_an_answer_that_is_no_answer_is_one_error(
    home: Home, answer: bytes, error: type[ZeroTrustError]
) -> None:
    someone = open_source(str(home.token()), dev=True).fetch(None)
    wire = Wire([bootstrap_of(someone)], [answer])
    try:
        with pytest.raises(error):
            exchange(Route.tls(wire.address, unsafe_unverified_context()), "/v1/bundle")
    finally:
        wire.close()


def test_an_answer_that_never_ends_is_cut_off(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ca_exchange, "TOTAL_TIMEOUT", 0.4)
    listening = socket.create_server(("127.0.0.1", 0))
    stop = threading.Event()

    def drip() -> None:
        plain, _ = listening.accept()
        with plain:
            while not stop.wait(0.05):
                try:
                    plain.sendall(b"\x16")
                except OSError:
                    return

    thread = threading.Thread(target=drip, daemon=True)
    thread.start()
    address = f"127.0.0.1:{listening.getsockname()[1]}"
    begun = time.monotonic()
    with pytest.raises(NotYetIssued):
        exchange(Route.tls(address, unsafe_unverified_context()), "/v1/bundle")
    assert time.monotonic() - begun < 3
    stop.set()
    thread.join(5)
    listening.close()


def test_the_renewal_address_must_be_the_ca_too(home: Home) -> None:
    source = open_source(str(home.token()), dev=True)
    first = source.fetch(None)
    thief = open_source(str(home.token("other")), dev=True).fetch(None)
    wire = Wire([server_context(Fixed(thief))], [ok(b"{}")])
    source._renew_at = wire.address  # type: ignore[attr-defined]
    try:
        with pytest.raises(CertificateRejected) as caught:
            source.fetch(first)
    finally:
        wire.close()
    assert caught.value.reason is Reason.PEER_UNEXPECTED
    assert wire.heard == [b""]


# ---- an answer that is not believed ---------------------------------------------------------


@dataclass(frozen=True)
class Answered:
    issued: Issued
    pending: Pending
    trust: Trust


@pytest.fixture
def answered(home: Home, monkeypatch: pytest.MonkeyPatch) -> Answered:
    """One honest answer, with the question and what was trusted."""
    kept: list[Answered] = []

    def watch(issued: Issued, pending: Pending, trust: Trust, **options: Any) -> Snapshot:
        kept.append(Answered(issued, pending, trust))
        return believe(issued, pending, trust, **options)

    monkeypatch.setattr(source_module, "believe", watch)
    open_source(str(home.token()), dev=True).fetch(None)
    return kept[0]


def judged(a: Answered, previous: Snapshot | None = None) -> Snapshot:
    return believe(a.issued, a.pending, a.trust, previous=previous, now=clock.now())


def test_the_honest_answer_is_believed(answered: Answered) -> None:
    assert str(judged(answered).svid.id) == "spiffe://example.org/web"


def test_a_certificate_for_another_key_is_refused(answered: Answered) -> None:
    from cryptography.hazmat.primitives.asymmetric import ec

    other = replace(answered.pending, key=ec.generate_private_key(ec.SECP256R1()))
    with pytest.raises(CertificateRejected) as caught:
        judged(replace(answered, pending=other))
    assert caught.value.reason is Reason.PEER_KEY


def test_a_wit_for_another_key_is_refused(answered: Answered) -> None:
    other = replace(answered.pending, wit_key=SigningKey.generate())
    with pytest.raises(TokenRejected) as caught:
        judged(replace(answered, pending=other))
    assert caught.value.reason is Reason.TOKEN_CONFIRMATION


def test_a_wit_for_another_workload_is_refused(home: Home, answered: Answered) -> None:
    entry = home.ca.create_entry(NewEntry("/other", ttl=60.0), now=clock.now())
    token = home.ca.create_token(entry.id, address=home.running.bootstrap, now=clock.now())
    path = home.path / "other"
    write_private(path, token.dump().encode())
    other = open_source(str(path), dev=True).fetch(None)
    assert other.wit is not None
    with pytest.raises(TokenRejected) as caught:
        judged(replace(answered, issued=replace(answered.issued, wit=other.wit.token)))
    assert caught.value.reason is Reason.TOKEN_SUBJECT
    with pytest.raises(CertificateRejected) as unexpected:
        judged(answered, previous=other)
    assert unexpected.value.reason is Reason.PEER_UNEXPECTED


def test_a_chain_under_another_root_is_refused(home: Home, answered: Answered) -> None:
    init_ca(
        home.path / "evil",
        DOMAIN,
        root_passphrase=ROOT,
        passphrase=PASSPHRASE,
        now=clock.now(),
        dev=True,
    )
    with open_ca(home.path / "evil", PASSPHRASE, now=clock.now()) as evil:
        trust = Trust(evil.bundle)
    with pytest.raises(CertificateRejected) as caught:
        judged(replace(answered, trust=trust))
    assert caught.value.reason is Reason.PEER_UNTRUSTED


def test_a_root_announced_by_a_trusted_root_is_followed(home: Home, tmp_path: Path) -> None:
    trust = Trust(home.ca.bundle)
    home.running.__exit__()
    home.ca.close()
    new = b"new-root-passphrase"
    folder = tmp_path / "ca"
    published: list[Published] = []
    now = clock.now() + 10
    prepare_root(folder, root_passphrase=ROOT, new_passphrase=new, now=now)
    published.append(_published(folder))
    activate_root(folder, new_passphrase=new, passphrase=PASSPHRASE, now=now + 1)
    drop_root(folder, root_passphrase=new, now=now + 2)
    published.append(_published(folder))
    # 1. one step after the other is believed
    between = trust.follow(published[0], dev=True)
    after = between.follow(published[1], dev=True)
    assert len(between.bundle.x509_authorities) == 2
    assert len(after.bundle.x509_authorities) == 1
    # 2. a root that no root we trust has announced is not
    with pytest.raises(CertificateRejected) as caught:
        trust.follow(published[1], dev=True)
    assert caught.value.reason is Reason.ANCHOR_UNANNOUNCED
    # 3. and there is no way back: the statement before is older
    with pytest.raises(CertificateRejected) as older:
        after.follow(published[0], dev=True)
    assert older.value.reason is Reason.ANCHOR_UNANNOUNCED


def _published(folder: Path) -> Published:
    from zerotrust.ca.state import State

    return State.load(folder).published()


def test_an_older_bundle_is_refused_even_with_the_same_roots(home: Home) -> None:
    bundle = home.ca.bundle
    newer = TrustBundle(
        bundle.origin, bundle.x509_authorities, bundle.wit_keys, (bundle.sequence or 0) + 1
    )
    with pytest.raises(CertificateRejected) as caught:
        Trust(newer).follow(home.ca.published, dev=True)
    assert caught.value.reason is Reason.ANCHOR_UNANNOUNCED


def test_a_bundle_nobody_states_is_refused(home: Home) -> None:
    bare = Published(home.ca.published.bundle, ())
    with pytest.raises(CertificateRejected) as caught:
        Trust(home.ca.bundle).follow(bare, dev=True)
    assert caught.value.reason is Reason.ANCHOR_UNANNOUNCED


def test_pending_keys_do_not_show_and_are_not_pickled(answered: Answered) -> None:
    import pickle

    assert repr(answered.pending) == "<Pending, keys redacted>"
    with pytest.raises(TypeError):
        pickle.dumps(answered.pending)
    assert Pending.parse(answered.pending.dump()).request == answered.pending.request
    assert BundleSet([answered.trust.bundle]).of(DOMAIN) is not None
