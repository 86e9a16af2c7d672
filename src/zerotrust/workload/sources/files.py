"""`files:DIR`: an identity that cert-manager, spiffe-helper or `svid fetch --out` writes.

    svid.pem               chain in PEM, leaf first
    svid.key               its private key in PEM, unencrypted
    bundle.json            SPIFFE bundle document with x509-svid and wit-svid keys; or
    bundle.pem             anchors alone: then there is no key to verify tokens with
    wit.jwt, wit.key       our WIT and its private key; without them we serve but do not call
    federated/NAME.json    the bundle of each further trust domain

1. All of it is read and judged, or none of it counts and the snapshot before stays.
2. Where `..data` is a link, one generation behind it is read; where not, files that changed
   while they were read are read again.
3. A bundle's sequence never falls. An empty bundle is an order to refuse everyone, and is obeyed.
4. Who may write any of it, or read the keys, is judged by trusted_path.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from zerotrust import clock
from zerotrust.core.errors import (
    BadBundle,
    CertificateRejected,
    ConfigurationError,
    MalformedError,
    NotYetIssued,
    Reason,
    RenewalFailed,
    TokenRejected,
)
from zerotrust.core.jose import PublicJwk, SigningKey, parse_compact
from zerotrust.core.spiffe.bundle import MAX_BUNDLE_BYTES, MAX_KEYS, BundleSet, TrustBundle
from zerotrust.core.spiffe.ids import TrustDomain
from zerotrust.core.spiffe.x509_svid import MAX_KEY_PEM_BYTES, X509Svid, verify_x509_svid
from zerotrust.core.tokens.profile import WIT_MAX_BYTES
from zerotrust.core.tokens.wit import verify_wit
from zerotrust.workload.identity import Snapshot, Source, WitCredential
from zerotrust.workload.trusted_path import read_trusted

POLL_SECONDS: Final = 0.5
MAX_PEM_BYTES: Final = 64 * 1024
FEDERATED: Final = "federated"

_TRIES: Final = 3
_NAMES: Final = (
    "",
    "svid.pem",
    "svid.key",
    "bundle.json",
    "bundle.pem",
    "wit.jwt",
    "wit.key",
    FEDERATED,
)


def open_source(rest: str, *, dev: bool) -> Source:
    """Open what follows `files:` in an identity's URL: the folder."""
    return FilesSource(Path(rest), dev=dev)


class FilesSource:
    """Reads the folder when asked, and looks every half second whether it changed."""

    def __init__(self, directory: Path, *, dev: bool) -> None:
        self._directory = directory.absolute()
        self._dev = dev
        self._seen: object = None
        self._closed = threading.Event()

    def fetch(self, previous: Snapshot | None) -> Snapshot:
        """Read and judge all files; raise a ZeroTrustError that names the one at fault."""
        for _ in range(_TRIES):
            self._seen = self._look()
            try:
                files = _Files.read(self._directory)
                torn = False
            except _Torn:
                torn = True
            if not torn and self._look() == self._seen:
                return _judged(files, previous, clock.now(), dev=self._dev)
        raise RenewalFailed(f"{self._directory} changes faster than it can be read")

    def wait(self, seconds: float) -> None:
        """Sleep up to that long; return early when a file changed, or when closed."""
        until = clock.monotonic() + seconds
        while (left := until - clock.monotonic()) > 0:
            if self._closed.wait(min(left, POLL_SECONDS)) or self._look() != self._seen:
                return

    def close(self) -> None:
        """End a wait."""
        self._closed.set()

    def _look(self) -> object:
        names = [*_NAMES, *(f"{FEDERATED}/{name}" for name in _listed(self._directory / FEDERATED))]
        return tuple((name, _signature(self._directory / name)) for name in names)


class _Torn(Exception):
    """A generation vanished while it was read."""


@dataclass(frozen=True, slots=True, repr=False)
class _Files:
    """The bytes of one generation, none of them judged."""

    chain: bytes
    key: bytes
    bundle: bytes
    bundle_is_pem: bool
    wit: bytes | None
    wit_key: bytes | None
    federated: tuple[tuple[str, bytes], ...]

    @classmethod
    def read(cls, directory: Path) -> _Files:
        folder = _generation(directory)
        chain = _read(folder, "svid.pem", MAX_PEM_BYTES)
        key = _read(folder, "svid.key", MAX_KEY_PEM_BYTES, secret=True)
        document = _read(folder, "bundle.json", MAX_BUNDLE_BYTES)
        pem = None if document is not None else _read(folder, "bundle.pem", MAX_BUNDLE_BYTES)
        bundle = pem if document is None else document
        if chain is None or key is None or bundle is None:
            if folder != directory and not folder.exists():
                raise _Torn
            missing = "svid.pem" if chain is None else "svid.key" if key is None else "bundle.json"
            raise NotYetIssued(f"{directory} has no {missing}")
        names = _listed(folder / FEDERATED)
        if len(names) > MAX_KEYS:
            raise BadBundle(f"more than {MAX_KEYS} federated bundles")
        federated = [(n, _read(folder, f"{FEDERATED}/{n}", MAX_BUNDLE_BYTES)) for n in names]
        return cls(
            chain,
            key,
            bundle,
            pem is not None,
            _read(folder, "wit.jwt", WIT_MAX_BYTES),
            _read(folder, "wit.key", MAX_KEY_PEM_BYTES, secret=True),
            tuple((name, data) for name, data in federated if data is not None),
        )


def _judged(files: _Files, previous: Snapshot | None, now: float, *, dev: bool) -> Snapshot:
    """Turn bytes into a snapshot; every part fits every other, or nothing is returned."""
    # 1. Our certificate and key.
    with _named("svid.pem, svid.key"):
        svid = X509Svid.parse(files.chain, files.key)
    # 2. The bundle of our own domain, no older than the one in use.
    origin = svid.id.trust_domain
    parse = TrustBundle.from_pem if files.bundle_is_pem else TrustBundle.parse
    with _named("bundle.pem" if files.bundle_is_pem else "bundle.json"):
        own = _not_older(parse(origin, files.bundle, allow_dev=dev), previous)
    # 3. It vouches for us; unless it vouches for nobody any more.
    if own.x509_authorities:
        _require_proven(svid, own, now)
    # 4. The bundles of others, each under its own name.
    foreign = [_federated(*named, own, previous, dev=dev) for named in files.federated]
    # 5. Our token, for us and for the key beside it.
    wit = _credential(files, svid, own, now)
    return Snapshot(svid, wit, BundleSet([own, *foreign]), dev=own.is_dev)


def _require_proven(svid: X509Svid, own: TrustBundle, now: float) -> None:
    try:
        verify_x509_svid(svid.chain_der, BundleSet([own]), now)
    except CertificateRejected as exc:
        if exc.reason is Reason.PEER_NOT_YET_VALID:  # of our own certificate: the likelier cause
            exc.detail = f"svid.pem: {exc.detail}; look at this machine's clock"
        raise


def _federated(
    name: str, document: bytes, own: TrustBundle, previous: Snapshot | None, *, dev: bool
) -> TrustBundle:
    with _named(f"{FEDERATED}/{name}"):
        origin = TrustDomain(name.removesuffix(".json"))
        if origin == own.origin:
            raise BadBundle("our own trust domain is not federated with itself")
        return _not_older(TrustBundle.parse(origin, document, allow_dev=dev), previous)


def _not_older(bundle: TrustBundle, previous: Snapshot | None) -> TrustBundle:
    before = previous.bundles.of(bundle.origin) if previous is not None else None
    if before is None or before.sequence is None:
        return bundle
    if bundle.sequence is None or bundle.sequence < before.sequence:
        raise BadBundle(f"sequence {bundle.sequence} after {before.sequence}: it never falls")
    return bundle


def _credential(
    files: _Files, svid: X509Svid, own: TrustBundle, now: float
) -> WitCredential | None:
    if files.wit is None and files.wit_key is None:
        return None
    if files.wit is None or files.wit_key is None:
        raise MalformedError(Reason.BAD_KEY, "wit.jwt and wit.key come together or not at all")
    with _named("wit.key"):
        key = SigningKey.from_pem(files.wit_key)
    if key.public.key == svid.key.public_key():
        raise MalformedError(Reason.BAD_KEY, "wit.key is the key of the certificate: use two")
    token = _text(files.wit)
    if own.wit_keys:
        verified = verify_wit(token, BundleSet([own]), now)
        subject, confirmed, expires_at = str(verified.subject), verified.key, verified.expires_at
    else:  # nothing here can verify it: our peers will
        subject, confirmed, expires_at = _claimed(token)
    if subject != str(svid.id):
        raise TokenRejected(Reason.TOKEN_SUBJECT, f"wit.jwt is for {subject}, we are {svid.id}")
    if confirmed.thumbprint != key.public.thumbprint:
        raise TokenRejected(Reason.TOKEN_CONFIRMATION, "wit.jwt names another key than wit.key")
    return WitCredential(token, key, float(expires_at))


def _claimed(token: str) -> tuple[str, PublicJwk, int]:
    claims = parse_compact(token, max_bytes=WIT_MAX_BYTES).claims
    subject, expires_at, cnf = claims.get("sub"), claims.get("exp"), claims.get("cnf")
    jwk = cnf.get("jwk") if isinstance(cnf, dict) else None
    if not isinstance(subject, str) or type(expires_at) is not int or not isinstance(jwk, dict):
        raise TokenRejected(Reason.TOKEN_CLAIM_MISSING, "wit.jwt lacks sub, exp or cnf.jwk")
    return subject, PublicJwk.parse(jwk), expires_at


def _text(data: bytes) -> str:
    try:
        return data.decode("ascii").strip()
    except UnicodeDecodeError as exc:
        raise TokenRejected(Reason.TOKEN_MALFORMED, "wit.jwt is not ASCII") from exc


def _generation(directory: Path) -> Path:
    """Return the folder that `..data` points to at this moment, or the folder itself."""
    try:
        return directory / (directory / "..data").readlink()
    except OSError:
        return directory


def _read(folder: Path, name: str, limit: int, *, secret: bool = False) -> bytes | None:
    try:
        return read_trusted(folder / name, max_bytes=limit, secret=secret)
    except ConfigurationError as exc:
        if isinstance(exc.__cause__, FileNotFoundError):
            return None
        raise


def _listed(folder: Path) -> list[str]:
    try:
        return sorted(path.name for path in folder.iterdir() if path.suffix == ".json")
    except OSError:
        return []


def _signature(path: Path) -> tuple[int, ...] | None:
    try:
        found = path.stat()
    except OSError:
        return None
    return (found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns)


@contextlib.contextmanager
def _named(name: str) -> Iterator[None]:
    """Say in a refusal which file it is about; class and reason stay."""
    try:
        yield
    except MalformedError as exc:
        exc.detail = f"{name}: {exc.detail}"
        raise
