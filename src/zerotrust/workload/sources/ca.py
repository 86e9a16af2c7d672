"""`ca:TOKENFILE[?state=DIR]` and `ca:unix:PATH`: an identity from a CA, renewed by its own proof.

1. Evidence leaves only over a connection whose other end has proven to be exactly the CA; before
   that, its bundle is fetched as bytes that mean nothing until their hash is the join token's.
2. Each renewal brings two new keys. They are kept, on disk too with `state=`, until their answer is
   in: the same question has the same answer, another one would look like theft.
3. What the CA says is judged by `ca_answer`; whatever is refused there leaves everything as it was.
4. `state=DIR` is the `files:` layout. It lets a process start again without a new token, and
   without the CA; one process at a time. The token file stays: once used, it is worthless.
5. A folder that cannot be written ends no identity: what was renewed is used from memory, and each
   attempt says so until it is written down. Enrolment waits for the folder and loses nothing.
"""

from __future__ import annotations

import fcntl
import json
import os
import threading
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final
from urllib.parse import unquote

from zerotrust import clock
from zerotrust.core import rotation
from zerotrust.core.enrolment import (
    BUNDLE_PATH,
    ENROL_PATH,
    RENEW_PATH,
    EnrolRequest,
    Evidence,
    Issued,
    Published,
    ca_id,
    parse_address,
)
from zerotrust.core.errors import (
    AttestationFailed,
    CertificateRejected,
    ConfigurationError,
    NotYetIssued,
    Reason,
    RenewalFailed,
    TokenRejected,
)
from zerotrust.core.jose import parse_compact, parse_json_object
from zerotrust.core.spiffe.bundle import BundleSet, TrustBundle
from zerotrust.core.spiffe.ids import SpiffeId, TrustDomain
from zerotrust.workload.ca_answer import Pending, Trust, believe
from zerotrust.workload.ca_exchange import Route, exchange
from zerotrust.workload.evidence.join_token import read_join_token
from zerotrust.workload.identity import Snapshot, Source
from zerotrust.workload.layout import own_folder, write_layout, write_private
from zerotrust.workload.sources import files
from zerotrust.workload.tls.context import (
    bootstrap_client_context,
    client_context,
    require,
    unsafe_unverified_context,
)
from zerotrust.workload.token_source import TokenSource
from zerotrust.workload.trusted_path import read_trusted

_UNIX: Final = "unix:"
_CA_FILE: Final = "ca.json"
_PENDING_FILE: Final = "pending.json"
_MAX_STATE_BYTES: Final = 64 * 1024


def open_source(rest: str, *, dev: bool) -> Source:
    """Open what follows `ca:` in an identity's URL; raise ConfigurationError.

    `TOKENFILE[?state=DIR]` or `unix:PATH[?id=SPIFFE-ID][&state=DIR]`.
    """
    place, settings = parse_url(rest)
    by_socket = place.startswith(_UNIX)
    place = place.removeprefix(_UNIX)
    if not place or not settings.keys() <= ({"state", "id"} if by_socket else {"state"}):
        raise ConfigurationError("write ca:TOKENFILE[?state=DIR] or ca:unix:PATH[?id=SPIFFE-ID]")
    state = _State(Path(settings["state"])) if settings.get("state") else None
    wanted = str(SpiffeId.parse(settings["id"])) if "id" in settings else ""

    def contact() -> _Contact:
        path = Path(place)
        return _by_socket(path, wanted, dev=dev) if by_socket else _by_token(path, dev=dev)

    return CaSource(contact, state, dev=dev)


def parse_url(rest: str) -> tuple[str, dict[str, str]]:
    """Split what follows `ca:` into the place and its settings, which are percent-encoded."""
    place, _, query = rest.partition("?")
    pairs = (pair.partition("=") for pair in query.split("&") if pair)
    return place, {name: unquote(value) for name, _, value in pairs}


@dataclass(frozen=True, slots=True)
class _Contact:
    """A CA that has proven itself, and what it is going to be shown."""

    trust: Trust
    evidence: Evidence
    route: Route


class CaSource:
    """Enrols once, then renews by rekeying; see `Source` in workload/identity.py."""

    def __init__(self, contact: Callable[[], _Contact], state: _State | None, *, dev: bool) -> None:
        self._contact, self._state, self._dev = contact, state, dev
        self._trust: Trust | None = None
        self._renew_at = ""
        self._pending = state.pending() if state is not None else None
        self._unwritten: tuple[Snapshot, Trust, str] | None = None
        self._news = False  # that the folder is behind, which nobody has been told
        self._closed = threading.Event()

    def fetch(self, previous: Snapshot | None) -> Snapshot:
        """Return the kept, a first or a renewed identity, whichever is due."""
        if previous is None and (kept := self._resume()) is not None:
            return kept
        if previous is not None and self._unwritten is not None and not _is_due(previous):
            self._write(*self._unwritten)
            return previous
        if previous is None or previous.svid.not_after <= clock.now():
            return self._enrol(previous)
        return self._renew(previous)

    def wait(self, seconds: float) -> None:
        """Sleep; a CA sends no news by itself, but a folder that falls behind is news."""
        if self._news:
            self._news = False
        else:
            self._closed.wait(seconds)

    def close(self) -> None:
        """Wake whoever waits, and let another process have the state folder."""
        self._closed.set()
        if self._state is not None:
            self._state.close()

    def _resume(self) -> Snapshot | None:
        if self._state is None or (kept := self._state.load(dev=self._dev)) is None:
            return None
        snapshot, self._trust, self._renew_at = kept
        return snapshot

    def _enrol(self, previous: Snapshot | None) -> Snapshot:
        contact = self._contact()
        ca, evidence = ca_id(contact.trust.bundle.origin), contact.evidence
        digest = evidence.digest()
        pending = self._keys(ca, evidence, digest.hex() if digest else "")
        try:
            body = EnrolRequest(evidence, pending.request).dump()
            answer = exchange(contact.route, ENROL_PATH, body=body)
        except AttestationFailed as exc:
            raise AttestationFailed(
                f"{exc.detail}. A join token works once: make a new one, and use ca:FILE?state=DIR "
                "to start again without one"
            ) from exc
        issued = Issued.parse(answer)
        return self._accept(issued, pending, contact.trust, None, in_use=previous is not None)

    def _renew(self, previous: Snapshot) -> Snapshot:
        if self._trust is None:
            raise RenewalFailed("this source did not issue the identity it is to renew")
        ca = ca_id(previous.svid.id.trust_domain)
        pending = self._keys(ca, None, previous.svid.thumbprint)
        headers = TokenSource(previous).bound(ca, clock.now())
        route = Route.tls(self._renew_at, client_context(_Fixed(previous), require(ca)))
        try:
            answer = exchange(route, RENEW_PATH, body=pending.request.dump(), headers=headers)
        except NotYetIssued as exc:
            raise RenewalFailed(exc.detail) from exc
        return self._accept(Issued.parse(answer), pending, self._trust, previous, in_use=True)

    def _keys(self, ca: SpiffeId, evidence: Evidence | None, parent: str) -> Pending:
        """Return the keys this parent has asked with before, or new ones, kept before sent."""
        if self._pending is None or self._pending.parent != parent:
            pending = Pending.generate(ca=ca, evidence=evidence, parent=parent)
            if self._state is not None:
                try:
                    self._state.keep(pending)
                except ConfigurationError:
                    # A crash before the answer would look like theft; not to renew is an outage.
                    if evidence is not None:
                        raise
            self._pending = pending
        return self._pending

    def _accept(
        self,
        issued: Issued,
        pending: Pending,
        trust: Trust,
        previous: Snapshot | None,
        *,
        in_use: bool,
    ) -> Snapshot:
        trust = trust.follow(issued.published, dev=self._dev)
        snapshot = believe(issued, pending, trust, previous=previous, now=clock.now())
        try:
            self._write(snapshot, trust, issued.renew)
        except ConfigurationError:
            if not in_use:  # the same keys get the same answer when they ask again
                raise
            self._unwritten, self._news = (snapshot, trust, issued.renew), True
        self._trust, self._renew_at, self._pending = trust, issued.renew, None
        return snapshot

    def _write(self, snapshot: Snapshot, trust: Trust, renew: str) -> None:
        if self._state is not None:
            self._state.save(snapshot, trust, renew)
        self._unwritten, self._news = None, False


@dataclass(frozen=True, slots=True)
class _Fixed:
    current: Snapshot


def _is_due(held: Snapshot) -> bool:
    svid = held.svid
    step = rotation.next_step(
        not_before=svid.not_before,
        not_after=svid.not_after,
        now=clock.now(),
        attempts=0,
        jitter=0.5,
    )
    return step.wait == 0


def _by_token(path: Path, *, dev: bool) -> _Contact:
    token = read_join_token(path)
    # 1. Bytes from whoever answers there; nothing is sent, nothing is believed.
    anybody = Route.tls(token.address, unsafe_unverified_context())
    published = Published.parse(exchange(anybody, BUNDLE_PATH))
    # 2. They count because their roots are those the token lists.
    trust = Trust.first(published, token, dev=dev)
    # 3. A new connection, to exactly the CA or to nobody.
    context = bootstrap_client_context(BundleSet([trust.bundle]), token.ca)
    return _Contact(trust, token.evidence, Route.tls(token.address, context))


def _by_socket(path: Path, wanted: str, *, dev: bool) -> _Contact:
    route = Route.unix(path)
    published = Published.parse(exchange(route, BUNDLE_PATH))
    if not published.anchors:
        raise CertificateRejected(Reason.ANCHOR_UNANNOUNCED, "the CA states no anchors")
    claims = parse_compact(published.anchors[0], max_bytes=_MAX_STATE_BYTES).claims
    origin = TrustDomain.parse(str(claims.get("iss")))
    bundle = TrustBundle.parse(origin, published.bundle, allow_dev=dev)
    return _Contact(Trust(bundle), Evidence("unix", wanted), route)


class _State:
    """The folder that keeps a `ca:` identity over a restart, held by one process at a time."""

    def __init__(self, directory: Path) -> None:
        own_folder(directory)
        self._directory = directory
        self._lock = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as exc:
            self.close()
            raise ConfigurationError(
                f"another process uses {directory}; give each its own state folder",
                Reason.FILE_ACCESS,
            ) from exc

    def load(self, *, dev: bool) -> tuple[Snapshot, Trust, str] | None:
        """Return what was kept, or None when there is nothing or it has expired."""
        if not (self._directory / _CA_FILE).exists():
            return None
        try:
            snapshot = files.open_source(str(self._directory), dev=dev).fetch(None)
        except (CertificateRejected, TokenRejected) as exc:
            if exc.reason in {Reason.PEER_EXPIRED, Reason.TOKEN_EXPIRED}:
                return None
            raise
        members = parse_json_object(self._read(_CA_FILE), max_bytes=_MAX_STATE_BYTES)
        bundle = snapshot.bundles.of(snapshot.svid.id.trust_domain)
        renew, announced = members.get("renew"), members.get("announced")
        if bundle is None or not isinstance(renew, str) or not isinstance(announced, int):
            raise ConfigurationError(f"{self._directory} is damaged", Reason.FILE_ACCESS)
        parse_address(renew)
        return snapshot, Trust(bundle, announced), renew

    def pending(self) -> Pending | None:
        """Return the keys of a question whose answer was never seen."""
        if not (self._directory / _PENDING_FILE).exists():
            return None
        return Pending.parse(self._read(_PENDING_FILE))

    def keep(self, pending: Pending) -> None:
        """Write keys down before anybody hears of them."""
        try:
            write_private(self._directory / _PENDING_FILE, pending.dump())
        except OSError as exc:
            detail = f"{self._directory} cannot be written: {exc.strerror}"
            raise ConfigurationError(detail, Reason.FILE_ACCESS) from exc

    def save(self, snapshot: Snapshot, trust: Trust, renew: str) -> None:
        """Publish an identity, then forget the keys that led to it; raise ConfigurationError."""
        about = json.dumps({"renew": renew, "announced": trust.announced}).encode()
        try:
            write_layout(self._directory, snapshot, {_CA_FILE: about})
            (self._directory / _PENDING_FILE).unlink(missing_ok=True)
        except (ConfigurationError, OSError) as exc:
            why = exc.detail if isinstance(exc, ConfigurationError) else str(exc)
            raise ConfigurationError(
                f"{why}. The identity in it is out of date: make it writable, or have a new join "
                "token at hand for the next start",
                Reason.FILE_ACCESS,
            ) from exc

    def close(self) -> None:
        """Let go of the folder."""
        if self._lock >= 0:
            os.close(self._lock)
            self._lock = -1

    def _read(self, name: str) -> bytes:
        return read_trusted(self._directory / name, max_bytes=_MAX_STATE_BYTES, secret=True)
