"""TrustBundle and BundleSet: whom to trust, for exactly one trust domain at a time.

1. A bundle document does not name its trust domain: the caller does, and the two never part.
2. Elements of an unknown kind are skipped and named in `skipped`; what is of a known kind and wrong
   refuses the document (SPIFFE Trust Domain and Bundle sections 4.1 and 4.2).
3. Two domains are never merged; a bundle without anchors or keys verifies nobody.
4. A bundle that holds a throw-away (dev) anchor is refused whole unless the caller says dev.
"""

from __future__ import annotations

import base64
import binascii
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Final, cast

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.serialization import Encoding

from zerotrust.core.errors import BadBundle, CertificateRejected, MalformedError, Reason
from zerotrust.core.jose import PublicJwk, b64url_encode, parse_json_object
from zerotrust.core.spiffe import certificate as rules
from zerotrust.core.spiffe.ids import TrustDomain

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePublicKey
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

MAX_BUNDLE_BYTES: Final = 1 << 20
MAX_KEYS: Final = 256
DEFAULT_REFRESH_HINT: Final = 300  # seconds
DEV_MARKER_OID: Final = rules.DEV_MARKER_OID

# Tuples: what is compared with them is any JSON value, hashable or not.
_KEY_TYPES: Final = ("EC", "OKP", "RSA")
_USES: Final = ("x509-svid", "wit-svid", "jwt-svid")
_PRIVATE: Final = frozenset({"d", "p", "q", "dp", "dq", "qi", "oth", "k"})


@dataclass(frozen=True, slots=True, eq=False)
class TrustBundle:
    """Anchors and WIT keys of exactly one trust domain. Immutable; equality by content."""

    origin: TrustDomain
    x509_authorities: tuple[x509.Certificate, ...]
    wit_keys: Mapping[str, PublicJwk]  # kid -> key, only `use: wit-svid`
    sequence: int | None = None
    refresh_hint: int = DEFAULT_REFRESH_HINT  # seconds
    skipped: tuple[str, ...] = ()  # one sentence for each element that was left out
    _anchors_der: frozenset[bytes] = field(init=False, repr=False)
    _by_subject: Mapping[x509.Name, tuple[x509.Certificate, ...]] = field(init=False, repr=False)

    def __post_init__(self) -> None:
        if len(self.x509_authorities) + len(self.wit_keys) > MAX_KEYS:
            raise BadBundle(f"more than {MAX_KEYS} keys")
        for position, anchor in enumerate(self.x509_authorities):
            try:
                rules.require_key(anchor, allow_rsa=True)
                rules.require_ca(anchor)
            except CertificateRejected as exc:
                raise BadBundle(f"anchor {position}: {exc.detail}") from exc
        anchors = {anchor.public_bytes(Encoding.DER): anchor for anchor in self.x509_authorities}
        object.__setattr__(self, "wit_keys", MappingProxyType(dict(self.wit_keys)))
        object.__setattr__(self, "_anchors_der", frozenset(anchors))
        by_subject: dict[x509.Name, tuple[x509.Certificate, ...]] = {}
        for anchor in anchors.values():
            by_subject[anchor.subject] = (*by_subject.get(anchor.subject, ()), anchor)
        object.__setattr__(self, "_by_subject", by_subject)

    @classmethod
    def parse(cls, origin: TrustDomain, document: bytes, *, allow_dev: bool = False) -> TrustBundle:
        """Read a SPIFFE bundle document (JWKS) of at most 1 MiB and 256 keys; raise BadBundle.

        Its reason is DEV_MARKER when an anchor is marked and `allow_dev` is not set. Integers end
        at 2**53 (RFC 7493 section 2.2), `spiffe_sequence` included.
        """
        try:
            jwks = parse_json_object(
                document, max_bytes=MAX_BUNDLE_BYTES, max_members=16 * MAX_KEYS
            )
        except MalformedError as exc:
            raise BadBundle(exc.detail) from exc
        keys = jwks.get("keys")
        if not isinstance(keys, list) or len(keys) > MAX_KEYS:
            raise BadBundle(f"`keys` is not an array of at most {MAX_KEYS}")
        anchors: list[x509.Certificate] = []
        wit_keys: dict[str, PublicJwk] = {}
        skipped: list[str] = []
        for position, jwk in enumerate(keys):
            try:
                _read_key(jwk, anchors, wit_keys)
            except _SkippedError as exc:
                skipped.append(f"keys[{position}]: {exc}")
            except (MalformedError, CertificateRejected) as exc:
                raise BadBundle(f"keys[{position}]: {exc.detail}") from exc
        bundle = cls(
            origin,
            tuple(anchors),
            wit_keys,
            _count(jwks, "spiffe_sequence"),
            _count(jwks, "spiffe_refresh_hint") or DEFAULT_REFRESH_HINT,
            tuple(skipped),
        )
        return _screen_dev(bundle, allow_dev=allow_dev)

    @classmethod
    def from_pem(cls, origin: TrustDomain, pem: bytes, *, allow_dev: bool = False) -> TrustBundle:
        """Read anchors alone (`bundle.pem`, at most 1 MiB): no WIT keys. Raise BadBundle."""
        if len(pem) > MAX_BUNDLE_BYTES:
            raise BadBundle(f"longer than {MAX_BUNDLE_BYTES} bytes")
        if b"PRIVATE KEY" in pem:
            raise BadBundle("a private key does not belong into a bundle")
        if pem.count(b"-----BEGIN") > MAX_KEYS:
            raise BadBundle(f"more than {MAX_KEYS} certificates")
        try:
            anchors = rules.load_pem(pem)
        except CertificateRejected as exc:
            raise BadBundle(exc.detail) from exc
        return _screen_dev(cls(origin, anchors, {}), allow_dev=allow_dev)

    def dump(self) -> bytes:
        """Return the SPIFFE bundle document (UTF-8 JSON)."""
        keys: list[dict[str, Any]] = [
            {
                "use": "x509-svid",
                **_jwk_of(anchor),
                "x5c": [base64.b64encode(anchor.public_bytes(Encoding.DER)).decode()],
            }
            for anchor in self.x509_authorities
        ]
        keys += [{"use": "wit-svid", "kid": k, **key.as_dict()} for k, key in self.wit_keys.items()]
        document: dict[str, Any] = {"keys": keys, "spiffe_refresh_hint": self.refresh_hint}
        if self.sequence is not None:
            document["spiffe_sequence"] = self.sequence
        return json.dumps(document, separators=(",", ":")).encode()

    @property
    def anchors_der(self) -> frozenset[bytes]:
        """DER of every anchor."""
        return self._anchors_der

    @property
    def is_dev(self) -> bool:
        """Whether an anchor carries the dev marker."""
        return any(rules.is_dev(anchor) for anchor in self.x509_authorities)

    def anchors_named(self, subject: x509.Name) -> tuple[x509.Certificate, ...]:
        """Return the anchors with this subject."""
        return self._by_subject.get(subject, ())

    def _content(self) -> tuple[object, ...]:
        return (self.origin, self._anchors_der, self.sequence, self.refresh_hint)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, TrustBundle):
            return NotImplemented
        return self._content() == other._content() and self.wit_keys == other.wit_keys

    def __hash__(self) -> int:
        return hash(self._content())


class BundleSet:
    """Bundles by origin, own domain first; immutable; never merges two domains."""

    __slots__ = ("_bundles",)

    def __init__(self, bundles: Iterable[TrustBundle]) -> None:
        by_origin: dict[TrustDomain, TrustBundle] = {}
        for bundle in bundles:
            if bundle.origin in by_origin:
                raise BadBundle(f"two bundles of {bundle.origin}")
            by_origin[bundle.origin] = bundle
        self._bundles = by_origin

    def of(self, origin: TrustDomain) -> TrustBundle | None:
        """Return the bundle of exactly this origin, or None (which verifies nothing)."""
        return self._bundles.get(origin)

    @property
    def own(self) -> TrustBundle | None:
        """The bundle of our own domain, which is the first; None in an empty set."""
        return next(iter(self._bundles.values()), None)

    def __iter__(self) -> Iterator[TrustBundle]:
        return iter(self._bundles.values())

    def __len__(self) -> int:
        return len(self._bundles)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, BundleSet):
            return NotImplemented
        return self.own == other.own and self._bundles == other._bundles

    def __hash__(self) -> int:
        return hash(frozenset(self._bundles.values()))

    def __repr__(self) -> str:
        return f"BundleSet({', '.join(map(str, self._bundles))})"


@dataclass(frozen=True, slots=True)
class Screened:
    """A foreign bundle less the anchors that could disturb ours, a sentence for each of them."""

    bundle: TrustBundle
    alarms: tuple[str, ...]


def screen_foreign(
    own: TrustBundle, own_chain: Sequence[x509.Certificate], foreign: TrustBundle
) -> Screened:
    """Leave out foreign anchors that could stand in the way of our own handshakes.

    A TLS library finds an issuer by subject and does not try again: a foreign anchor with the
    subject or the key of one of our own CAs, or one that is not self-signed and so ends a path
    early, would break or bend the check of our own peers.
    """
    ours = (*own.x509_authorities, *own_chain)
    subjects = {certificate.subject for certificate in ours}
    keys = [certificate.public_key() for certificate in ours]
    kept: list[x509.Certificate] = []
    alarms: list[str] = []
    for anchor in foreign.x509_authorities:
        named = f"anchor {anchor.subject.rfc4514_string()!r} of {foreign.origin} is left out: "
        if anchor.subject in subjects:
            alarms.append(named + "it has the subject of one of our own certificates")
        elif anchor.public_key() in keys:
            alarms.append(named + "it has the key of one of our own certificates")
        elif not _is_self_signed(anchor):
            alarms.append(named + "it is not self-signed")
        else:
            kept.append(anchor)
    if not alarms:
        return Screened(foreign, ())
    return Screened(
        TrustBundle(
            foreign.origin,
            tuple(kept),
            foreign.wit_keys,
            foreign.sequence,
            foreign.refresh_hint,
            foreign.skipped,
        ),
        tuple(alarms),
    )


class _SkippedError(Exception):
    """This element is left out, the rest of the document stands."""


def _read_key(jwk: object, anchors: list[x509.Certificate], wit_keys: dict[str, PublicJwk]) -> None:
    if not isinstance(jwk, dict):
        raise BadBundle("not an object")
    if jwk.get("kty") not in _KEY_TYPES:
        raise _SkippedError("unknown or missing kty")
    use = jwk.get("use")
    if use not in _USES:
        raise _SkippedError("unknown or missing use")
    if not _PRIVATE.isdisjoint(jwk):
        raise BadBundle("private key material in a bundle")
    if use == "x509-svid":
        anchors.append(_anchor(jwk))
    elif use == "wit-svid":
        kid = jwk.get("kid")
        if kid is None or kid == "":
            raise _SkippedError("a wit-svid key without kid")
        if not isinstance(kid, str) or kid in wit_keys:
            raise BadBundle("kid is not a string, or names two wit-svid keys")
        wit_keys[kid] = PublicJwk.parse(jwk, allow_rsa=True)


def _anchor(jwk: dict[str, Any]) -> x509.Certificate:
    x5c = jwk.get("x5c")
    if x5c is None or x5c == []:
        raise _SkippedError("an x509-svid key without x5c")
    if not isinstance(x5c, list) or not isinstance(x5c[0], str):
        raise BadBundle("x5c is not an array of strings")
    try:
        der = base64.b64decode(x5c[0], validate=True)
    except (binascii.Error, ValueError) as exc:
        raise BadBundle("x5c is not base64") from exc
    anchor = rules.load_der(der)
    rules.require_key(anchor, allow_rsa=True)
    # RFC 7517 section 4.7: the certificate's key is the key that the other members show.
    if PublicJwk.parse(jwk, allow_rsa=True).key != anchor.public_key():
        raise BadBundle("the key of x5c is not the key of the JWK")
    return anchor


def _count(jwks: dict[str, Any], name: str) -> int | None:
    value = jwks.get(name)
    if value is None:
        return None
    if type(value) is not int or value < 0:
        raise BadBundle(f"{name} is not a count")
    return value


def _screen_dev(bundle: TrustBundle, *, allow_dev: bool) -> TrustBundle:
    if bundle.is_dev and not allow_dev:
        raise BadBundle("an anchor of a throw-away CA, and nobody said dev", Reason.DEV_MARKER)
    return bundle


def _is_self_signed(certificate: x509.Certificate) -> bool:
    if certificate.subject != certificate.issuer:
        return False
    try:
        rules.require_issued_by(certificate, certificate)
    except CertificateRejected:
        return False
    return True


def _jwk_of(certificate: x509.Certificate) -> dict[str, str]:
    key = certificate.public_key()
    if isinstance(key, rsa.RSAPublicKey):
        numbers = key.public_numbers()
        return {"kty": "RSA", "n": _uint(numbers.n), "e": _uint(numbers.e)}
    # The allow-list of anchors leaves these two.
    return PublicJwk.from_key(cast("EllipticCurvePublicKey | Ed25519PublicKey", key)).as_dict()


def _uint(number: int) -> str:
    return b64url_encode(number.to_bytes((number.bit_length() + 7) // 8, "big"))
