"""A CA that signs whatever it is asked for: for attacks and for tests, never for production.

1. Nothing here checks anything: each knob makes one thing wrong, and all defaults are right.
2. Certificates and tokens are built from raw parts: no verifier is judged by its own minting.
3. Only `probe`, `testing` and tests may import this module; a linter contract holds that.
"""

from __future__ import annotations

import hashlib
import secrets
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, Literal, TypeAlias

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.types import (
    CertificateIssuerPrivateKeyTypes,
    CertificatePublicKeyTypes,
)
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import ExtendedKeyUsageOID

from zerotrust.core.jose import SigningKey
from zerotrust.core.spiffe.bundle import BundleSet, TrustBundle
from zerotrust.core.spiffe.certificate import DEV_MARKER
from zerotrust.core.spiffe.ids import SpiffeId, TrustDomain
from zerotrust.core.spiffe.x509_svid import X509Svid
from zerotrust.core.tokens import profile
from zerotrust.probe import raw
from zerotrust.probe.raw import DROP, b64, common_name, jws, x509_jwk

if TYPE_CHECKING:
    from zerotrust.workload.identity import Snapshot

__all__ = ["BOTH", "DROP", "ForgedAuthority", "b64", "common_name", "jws", "x509_jwk"]

BOTH: Final = (ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH)
SIGNS_CERTIFICATES: Final = ("key_cert_sign", "crl_sign")

Extension: TypeAlias = tuple[x509.ExtensionType, bool]  # the bool: critical
Issuer: TypeAlias = "Literal['issuing', 'root', 'self'] | ForgedAuthority | X509Svid"


class ForgedAuthority:
    """A root (path length 1), an issuing CA (path length 0) and a WIT key of one trust domain.

    `now` is in seconds since the epoch; the CA lives from a day before to ten days after it.
    """

    def __init__(
        self,
        trust_domain: str | TrustDomain = "example.org",
        *,
        now: float,
        dev: bool = False,
        name: str | None = None,
        key: CertificateIssuerPrivateKeyTypes | None = None,
    ) -> None:
        self.trust_domain = (
            trust_domain
            if isinstance(trust_domain, TrustDomain)
            else TrustDomain.parse(trust_domain)
        )
        self.now = now
        self.dev = dev
        self.name = name or self.trust_domain.name[:48]
        self.wit_key = SigningKey.generate("ES256")
        self.wit_kid = self.wit_key.public.thumbprint
        root = self.issue(
            subject=common_name(f"{self.name} root"),
            key=key,
            ca=True,
            eku=None,
            path_length=1,
            issuer="self",
            not_before=now - 86400,
            ttl=10 * 86400,
            uris=(str(self.trust_domain),),
        )
        self.root = root.chain[0]
        self.root_key = root.key
        self.issuing = self.intermediate(f"{self.name} issuing")

    @property
    def bundle(self) -> TrustBundle:
        """The trust bundle that vouches for everything this CA signs, WIT key included."""
        return TrustBundle.parse(self.trust_domain, self.bundle_document(), allow_dev=self.dev)

    @property
    def bundles(self) -> BundleSet:
        """The bundle set of a workload that trusts this domain alone."""
        return BundleSet([self.bundle])

    def bundle_document(
        self, *, keys: Iterable[Mapping[str, Any]] | None = None, **members: object
    ) -> bytes:
        """Return the SPIFFE bundle document; `keys` and members replace the right ones."""
        document: dict[str, Any] = {
            "keys": list(self.bundle_keys() if keys is None else keys),
            "spiffe_sequence": 1,
            "spiffe_refresh_hint": 300,
            **members,
        }
        return raw.json_bytes(document)

    def bundle_keys(self) -> list[dict[str, Any]]:
        """Return the JWKs of the bundle document: the root, then the WIT key."""
        return [
            x509_jwk(self.root),
            {"use": "wit-svid", "kid": self.wit_kid, **self.wit_key.public.as_dict()},
        ]

    def id(self, path_or_id: str | SpiffeId) -> SpiffeId:
        """Return an identity of this trust domain by path, or parse a full ID of any."""
        if isinstance(path_or_id, SpiffeId):
            return path_or_id
        if "://" in path_or_id:
            return SpiffeId.parse(path_or_id)
        return self.trust_domain.id(path_or_id)

    def issue(
        self,
        path_or_id: str | SpiffeId = "web",
        *,
        ttl: float = 3600,
        not_before: float | None = None,
        uris: Sequence[str] | None = None,
        dns: Sequence[str] = (),
        sans: Sequence[x509.GeneralName] | None = None,
        san_critical: bool | None = None,
        ca: bool | None = False,
        path_length: int | None = None,
        key: CertificateIssuerPrivateKeyTypes | None = None,
        public_key: CertificatePublicKeyTypes | None = None,
        eku: Sequence[x509.ObjectIdentifier] | None = BOTH,
        key_usage: Sequence[str] | None = None,
        key_usage_critical: bool = True,
        subject: x509.Name | None = None,
        omit: Sequence[type[x509.ExtensionType]] = (),
        extra: Sequence[Extension] = (),
        issuer: Issuer = "issuing",
        issuer_name: x509.Name | None = None,
        serial: int | None = None,
        hash_algorithm: raw.Hash | None = None,
    ) -> X509Svid:
        """Sign a certificate; the defaults make a good leaf for `path_or_id`, one hour from `now`.

        `uris`, `dns` and `sans` say what stands in the SAN (`sans` alone: exactly that, `()`: no
        SAN); `ca=None` leaves basic constraints out, `eku=None` extended key usage; `omit` drops
        extensions by type, `extra` adds (extension, critical). `issuer` may be a leaf: X509Svid.
        """
        identity = self.id(path_or_id)
        private = key or ec.generate_private_key(ec.SECP256R1())
        subject = x509.Name([]) if subject is None else subject
        signer = self._signer(issuer, subject, private)
        if sans is None:
            sans = _sans([str(identity)] if uris is None else uris, dns)
        if key_usage is None:
            key_usage = SIGNS_CERTIFICATES if ca else ("digital_signature",)
        named: list[Extension] = [
            (raw.key_usage(key_usage), key_usage_critical),
            *_purpose(ca=ca, path_length=path_length, eku=eku),
            *_named(sans, critical=not subject.rdns if san_critical is None else san_critical),
            (x509.SubjectKeyIdentifier.from_public_key(public_key or private.public_key()), False),
            (x509.AuthorityKeyIdentifier.from_issuer_public_key(signer.key.public_key()), False),
            *([(DEV_MARKER, False)] if self.dev else []),
            *extra,
        ]
        start = self.now - 30 if not_before is None else not_before
        builder = (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(issuer_name or signer.name)
            .public_key(public_key or private.public_key())
            .serial_number(x509.random_serial_number() if serial is None else serial)
            .not_valid_before(raw.moment(start))
            .not_valid_after(raw.moment((self.now if not_before is None else start) + ttl))
        )
        for extension, critical in named:
            if not isinstance(extension, tuple(omit)):
                builder = builder.add_extension(extension, critical=critical)
        certificate = builder.sign(signer.key, hash_algorithm or raw.hash_for(signer.key))
        return X509Svid(identity, (certificate, *signer.chain), private)

    def intermediate(self, name: str = "intermediate", **knobs: Any) -> X509Svid:
        """Sign a CA certificate (path length 0, by the root); takes every knob of `issue`."""
        defaults: dict[str, Any] = {
            "subject": common_name(name),
            "ca": True,
            "eku": None,
            "path_length": 0,
            "issuer": "root",
            "not_before": self.now - 86400,
            "ttl": 9 * 86400,
            "uris": (),
        }
        return self.issue("forged-ca", **{**defaults, **knobs})

    def chain_der(self, svid: X509Svid) -> tuple[bytes, ...]:
        """Return the chain as a TLS library would after verifying it: leaf first, root last."""
        return (*svid.chain_der, self.root.public_bytes(Encoding.DER))

    def wit(
        self,
        subject: str | SpiffeId = "web",
        key: SigningKey | None = None,
        *,
        ttl: float = 900,
        now: float | None = None,
        signer: SigningKey | None = None,
        header: Mapping[str, Any] | None = None,
        claims: Mapping[str, Any] | None = None,
        **overrides: Any,
    ) -> str:
        """Sign a WIT that names `key` (default: a new one).

        `header` and `claims` (or claims as keyword arguments) add to or replace the right ones;
        DROP leaves one out. `signer` signs instead of this CA's WIT key.
        """
        issued_at = int(self.now if now is None else now)
        signer = signer or self.wit_key
        right = {
            "iss": str(self.trust_domain),
            "sub": str(self.id(subject)),
            "iat": issued_at,
            "exp": int(issued_at + ttl),
            "jti": secrets.token_urlsafe(16),
            "cnf": {"jwk": (key or SigningKey.generate()).public.as_dict()},
        }
        return jws(
            {"alg": signer.alg, "typ": "wit+jwt", "kid": self.wit_kid, **(header or {})},
            {**right, **(claims or {}), **overrides},
            signer,
        )

    def wpt(
        self,
        wit: str,
        key: SigningKey,
        *,
        aud: str,
        x5t: str | None = None,
        method: str | None = None,
        target: bytes | None = None,
        ttl: float | None = None,
        now: float | None = None,
        header: Mapping[str, Any] | None = None,
        claims: Mapping[str, Any] | None = None,
        **overrides: Any,
    ) -> str:
        """Sign a WPT over `wit`: the bound form, or the proof form when `method` is given.

        `x5t` is the thumbprint of the caller's leaf. Overrides as for `wit`.
        """
        issued_at = int(self.now if now is None else now)
        if ttl is None:
            ttl = profile.BOUND_MINT_LIFETIME if method is None else profile.PROOF_MINT_LIFETIME
        right: dict[str, Any] = {
            "aud": aud,
            "jti": secrets.token_urlsafe(16),
            "wth": b64(hashlib.sha256(wit.encode()).digest()),
        }
        if x5t is not None:
            right["cnf"] = {"x5t#S256": x5t}
        if method is not None:
            right |= {"htm": method, "iat": issued_at}
        if target is not None:
            right[profile.TARGET] = b64(hashlib.sha256(target).digest())
        right["exp"] = int(issued_at + ttl)
        return jws(
            {"alg": key.alg, "typ": "wpt+jwt", **(header or {})},
            {**right, **(claims or {}), **overrides},
            key,
        )

    def snapshot(
        self,
        path_or_id: str | SpiffeId = "web",
        *,
        bundles: BundleSet | Iterable[ForgedAuthority] | None = None,
        svid: X509Svid | None = None,
        wit_ttl: float = 3600,
        with_wit: bool = True,
        **knobs: Any,
    ) -> Snapshot:
        """Return all that one workload holds: SVID, WIT credential and bundles.

        `bundles` is a set, or further authorities to trust beside this one. `knobs` go to `issue`.
        """
        from zerotrust.workload.identity import Snapshot, WitCredential

        if not isinstance(bundles, BundleSet):
            bundles = BundleSet([self.bundle, *(other.bundle for other in bundles or ())])
        svid = svid or self.issue(path_or_id, **knobs)
        credential = None
        if with_wit:
            key = SigningKey.generate()
            token = self.wit(svid.id, key, ttl=wit_ttl)
            credential = WitCredential(token, key, float(int(self.now) + wit_ttl))
        return Snapshot(svid, credential, bundles, self.dev)

    def _signer(
        self,
        issuer: Issuer,
        subject: x509.Name,
        key: CertificateIssuerPrivateKeyTypes,
    ) -> _Signer:
        match issuer:
            case "self":
                return _Signer(subject, key, ())
            case "root":
                return _Signer(self.root.subject, self.root_key, ())
            case "issuing":
                svid = self.issuing
            case ForgedAuthority():
                svid = issuer.issuing
            case X509Svid():
                svid = issuer
        return _Signer(svid.chain[0].subject, svid.key, svid.chain)


@dataclass(frozen=True)
class _Signer:
    """Whose name and key are on a certificate, and what its subject presents after itself."""

    name: x509.Name
    key: CertificateIssuerPrivateKeyTypes
    chain: tuple[x509.Certificate, ...]


def _sans(uris: Iterable[str], dns: Iterable[str]) -> list[x509.GeneralName]:
    return [*map(x509.UniformResourceIdentifier, uris), *map(x509.DNSName, dns)]


def _purpose(
    *, ca: bool | None, path_length: int | None, eku: Sequence[x509.ObjectIdentifier] | None
) -> Iterable[Extension]:
    if ca is not None:
        yield x509.BasicConstraints(ca=ca, path_length=path_length if ca else None), True
    if eku is not None:
        yield x509.ExtendedKeyUsage(eku), False


def _named(sans: Sequence[x509.GeneralName], *, critical: bool) -> list[Extension]:
    return [(x509.SubjectAlternativeName(sans), critical)] if sans else []
