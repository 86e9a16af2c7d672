"""The wire messages of the CA, shared by the workload that asks and the CA that answers.

    bootstrap listener (server-authenticated TLS)   POST /v1/enrol   EnrolRequest -> Issued
                                                    GET  /v1/bundle  Published
    mutual TLS listener                             POST /v1/renew   RenewRequest -> Issued
                                                    GET  /v1/bundle  Published

1. Bodies are strict JSON objects with exactly the members named here; sizes are bounded before
   anything is decoded.
2. Parsing says what a message is, never that it is true: signatures are checked by the `verify_*`
   functions.
3. A CSR contributes a key and the proof that it is held; no identity is read from a message.
4. Secrets are redacted in every repr.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final, Self

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from zerotrust.core import jose
from zerotrust.core.anchors import (
    MAX_ANCHORS,
    AnchorStatement,
    fingerprints,
    sign_anchors,
    verify_anchors,
)
from zerotrust.core.errors import CertificateRejected, MalformedError, Reason, TokenRejected
from zerotrust.core.jose import PublicJwk, SigningKey
from zerotrust.core.spiffe.ids import SpiffeId, TrustDomain

__all__ = [
    "AnchorStatement",
    "EnrolRequest",
    "Evidence",
    "Issued",
    "JoinToken",
    "Published",
    "RenewRequest",
    "ca_id",
    "fingerprints",
    "parse_address",
    "prove_wit_key",
    "sign_anchors",
    "verify_anchors",
    "verify_wit_key",
]

ENROL_PATH: Final = "/v1/enrol"
RENEW_PATH: Final = "/v1/renew"
BUNDLE_PATH: Final = "/v1/bundle"
LIVEZ_PATH: Final = "/livez"
READYZ_PATH: Final = "/readyz"
MEDIA_TYPE: Final = "application/json"

MAX_CSR_BYTES: Final = 8 * 1024
MAX_REQUEST_BYTES: Final = 32 * 1024  # an enrol or renew body
MAX_ANSWER_BYTES: Final = 2 * 1024 * 1024  # an answer: the bundle may take 1 MiB of it
MAX_JOIN_TOKEN_BYTES: Final = 4096
MAX_CHAIN: Final = 4  # certificates in an answer
MAX_CERTIFICATE_BYTES: Final = 16 * 1024
SECRET_BYTES: Final = 32

ALGORITHMS: Final = ("ES256", "ES384", "EdDSA", "Ed25519")
WIT_PROOF_TYPE: Final = "zt-wit-key+jwt"

_JOIN_PREFIX: Final = "ztjoin1."
_HEX_DIGEST: Final = re.compile(r"[0-9a-f]{64}", re.ASCII)
_ADDRESS: Final = re.compile(
    r"(?P<host>\[[0-9a-f:]{2,39}\]|[a-z0-9]([a-z0-9.-]{0,251}[a-z0-9])?):(?P<port>[1-9][0-9]{0,4})",
    re.ASCII,
)
_KIND: Final = re.compile(r"[a-z][a-z0-9_]{0,31}", re.ASCII)
_MAX_PORT: Final = 65535
_MAX_EVIDENCE: Final = 16 * 1024
_MAX_TOKEN: Final = 8 * 1024


def ca_id(trust_domain: TrustDomain) -> SpiffeId:
    """Return the identity under which the CA of a trust domain answers."""
    return trust_domain.id("/zerotrust/ca")


@dataclass(frozen=True, slots=True)
class JoinToken:
    """What a workload needs for its first contact.

    Where the CA is, how to recognise it, and a one-time secret.

    `address` is `host:port` of the bootstrap listener, `anchors` the lower-case hex SHA-256 of
    each root certificate (DER).
    """

    address: str
    ca: SpiffeId
    anchors: tuple[str, ...]
    secret: bytes = field(repr=False)

    def __post_init__(self) -> None:
        parse_address(self.address)
        if self.ca != ca_id(self.ca.trust_domain):
            raise _bad("a join token names something that is not a CA")
        if not 0 < len(self.anchors) <= MAX_ANCHORS or list(self.anchors) != sorted(
            set(self.anchors)
        ):
            raise _bad("a join token lists its root certificates sorted, once each, at least one")
        if not all(_HEX_DIGEST.fullmatch(anchor) for anchor in self.anchors):
            raise _bad("a join token lists root certificates as SHA-256 in lower-case hex")
        if len(self.secret) != SECRET_BYTES:
            raise _bad(f"a join token's secret is {SECRET_BYTES} bytes")

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read the one spelling that `dump` writes (a single trailing newline is forgiven).

        Raise MalformedError.
        """
        text = text.removesuffix("\n")
        if len(text) > MAX_JOIN_TOKEN_BYTES or not text.startswith(_JOIN_PREFIX):
            raise _bad("this is no join token")
        members = _members(
            jose.b64url_decode(text.removeprefix(_JOIN_PREFIX)),
            MAX_JOIN_TOKEN_BYTES,
            {"address": str, "anchors": list, "ca": str, "secret": str},
        )
        token = cls(
            members["address"],
            SpiffeId.parse(members["ca"]),
            tuple(_strings(members["anchors"], "anchors", MAX_ANCHORS)),
            jose.b64url_decode(members["secret"]),
        )
        if token.dump() != text:
            raise _bad("a join token is not in its canonical spelling")
        return token

    def dump(self) -> str:
        """Return the text an operator hands to the workload. It is a secret."""
        body = _json(
            {
                "address": self.address,
                "anchors": list(self.anchors),
                "ca": str(self.ca),
                "secret": jose.b64url_encode(self.secret),
            }
        )
        return _JOIN_PREFIX + jose.b64url_encode(body)

    @property
    def evidence(self) -> Evidence:
        """What is sent to the CA, once it has proven to be `ca`."""
        return Evidence("join_token", jose.b64url_encode(self.secret))

    def matches(self, anchors: Iterable[x509.Certificate]) -> None:
        """Raise CertificateRejected(ANCHOR_UNANNOUNCED) unless exactly these are listed."""
        if fingerprints(anchors) != self.anchors:
            raise CertificateRejected(
                Reason.ANCHOR_UNANNOUNCED, "the bundle's roots are not those the join token lists"
            )


@dataclass(frozen=True, slots=True)
class Evidence:
    """What a workload can show about itself; `kind` names the attestor that judges it."""

    kind: str
    value: str = field(default="", repr=False)

    def __post_init__(self) -> None:
        if not _KIND.fullmatch(self.kind):
            raise _bad("an evidence kind is 1 to 32 of a-z 0-9 _")
        if len(self.value) > _MAX_EVIDENCE:
            raise _bad("the evidence is too long")

    def digest(self) -> bytes | None:
        """SHA-256 that the proof of the WIT key covers.

        None when there is nothing secret to cover.
        """
        return hashlib.sha256(self.value.encode()).digest() if self.value else None


@dataclass(frozen=True, slots=True)
class RenewRequest:
    """New keys for the identity that the connection and its token prove.

    CSR (DER), public WIT key and its proof.
    """

    csr: bytes
    wit_key: Mapping[str, str]  # public JWK, not yet judged
    wit_proof: str  # compact JWS, not yet verified

    @classmethod
    def parse(cls, body: bytes) -> Self:
        """Read a /v1/renew body; raise MalformedError."""
        return cls(**_keys_of(_members(body, MAX_REQUEST_BYTES, _KEY_MEMBERS)))

    def dump(self) -> bytes:
        """Return the body."""
        return _json(self.members())

    def members(self) -> dict[str, Any]:
        """Return the JSON members."""
        return {
            "csr": jose.b64url_encode(self.csr),
            "wit_key": dict(self.wit_key),
            "wit_proof": self.wit_proof,
        }


@dataclass(frozen=True, slots=True)
class EnrolRequest:
    """Evidence, and the keys to be certified when it holds."""

    evidence: Evidence
    keys: RenewRequest

    @classmethod
    def parse(cls, body: bytes) -> Self:
        """Read a /v1/enrol body; raise MalformedError."""
        members = _members(body, MAX_REQUEST_BYTES, {**_KEY_MEMBERS, "evidence": dict})
        evidence = _exactly(members.pop("evidence"), {"kind": str, "value": str})
        return cls(Evidence(evidence["kind"], evidence["value"]), RenewRequest(**_keys_of(members)))

    def dump(self) -> bytes:
        """Return the body. It holds the evidence: never log it."""
        evidence = {"kind": self.evidence.kind, "value": self.evidence.value}
        return _json({**self.keys.members(), "evidence": evidence})


@dataclass(frozen=True, slots=True)
class Published:
    """A bundle document and who vouches for its anchors: one statement per root key that signed."""

    bundle: bytes  # SPIFFE bundle document (JWKS); untrusted until its anchors are known
    anchors: tuple[str, ...]  # compact JWS each, see verify_anchors

    @classmethod
    def parse(cls, body: bytes) -> Self:
        """Read a /v1/bundle answer; raise MalformedError."""
        return cls(**_published_of(_members(body, MAX_ANSWER_BYTES, _PUBLISHED_MEMBERS)))

    def dump(self) -> bytes:
        """Return the body."""
        return _json(self.members())

    def members(self) -> dict[str, Any]:
        """Return the JSON members."""
        return {"bundle": self.bundle.decode(), "anchors": list(self.anchors)}


@dataclass(frozen=True, slots=True)
class Issued:
    """What the CA answers.

    Chain (DER, leaf first, without the root), WIT, bundle, and where to renew (`host:port`).
    """

    chain: tuple[bytes, ...]
    wit: str = field(repr=False)
    published: Published
    renew: str

    @classmethod
    def parse(cls, body: bytes) -> Self:
        """Read an enrol or renew answer; raise MalformedError. Nothing in it is believed yet."""
        members = _members(
            body, MAX_ANSWER_BYTES, {**_PUBLISHED_MEMBERS, "chain": list, "wit": str, "renew": str}
        )
        chain = [
            jose.b64url_decode(text) for text in _strings(members["chain"], "chain", MAX_CHAIN)
        ]
        if not chain or any(len(der) > MAX_CERTIFICATE_BYTES for der in chain):
            raise _bad("the chain is empty or holds a certificate that is too large")
        if len(members["wit"]) > _MAX_TOKEN:
            raise _bad("the WIT is too long")
        parse_address(members["renew"])
        return cls(
            tuple(chain), members["wit"], Published(**_published_of(members)), members["renew"]
        )

    def dump(self) -> bytes:
        """Return the body."""
        chain = [jose.b64url_encode(der) for der in self.chain]
        own = {"chain": chain, "wit": self.wit, "renew": self.renew}
        return _json({**self.published.members(), **own})


def prove_wit_key(key: SigningKey, *, csr: bytes, ca: SpiffeId, evidence: Evidence | None) -> str:
    """Mint the JWS by which the holder of a WIT key asks this CA to certify it beside this CSR."""
    return jose.sign_compact({"typ": WIT_PROOF_TYPE}, _proof_claims(csr, ca, evidence), key)


def verify_wit_key(
    request: RenewRequest, *, ca: SpiffeId, evidence: Evidence | None, spki: bytes
) -> PublicJwk:
    """Return the WIT key once its proof over (CSR, CA, evidence) holds.

    Raises MalformedError(BAD_KEY) for a key outside the allow-list, with extra members or equal to
    the CSR's
    (`spki`: DER SubjectPublicKeyInfo of the CSR), TokenRejected when the proof is not by that key
    over that request.
    """
    if not {"kty", "crv", "x", "alg"} <= request.wit_key.keys() <= {"kty", "crv", "x", "y", "alg"}:
        raise MalformedError(
            Reason.BAD_KEY, "a WIT key has kty, crv, x, alg, with y for EC, and no other member"
        )
    key = PublicJwk.parse(request.wit_key)
    if key.alg not in ALGORITHMS or _spki(key) == spki:
        raise MalformedError(Reason.BAD_KEY, "a WIT key names its alg and is not the TLS key")
    jws = jose.parse_compact(request.wit_proof, max_bytes=_MAX_TOKEN)
    jose.require_header(jws, typ=WIT_PROOF_TYPE, algs=ALGORITHMS, members=("alg", "typ"))
    jose.verify_signature(jws, key)
    if dict(jws.claims) != _proof_claims(request.csr, ca, evidence):
        raise TokenRejected(Reason.TOKEN_CLAIM, "the WIT key's proof is for another request")
    return key


def parse_address(text: str) -> tuple[str, int]:
    """Split `host:port` (lower-case name, IPv4, or IPv6 in brackets); raise MalformedError."""
    match = _ADDRESS.fullmatch(text)
    if match is None or int(match["port"]) > _MAX_PORT:
        raise _bad("an address is host:port, in lower case, IPv6 in brackets")
    return match["host"].strip("[]"), int(match["port"])


_KEY_MEMBERS: Final[dict[str, type]] = {"csr": str, "wit_key": dict, "wit_proof": str}
_PUBLISHED_MEMBERS: Final[dict[str, type]] = {"bundle": str, "anchors": list}


def _keys_of(members: Mapping[str, Any]) -> dict[str, Any]:
    csr = jose.b64url_decode(members["csr"])
    if not 0 < len(csr) <= MAX_CSR_BYTES:
        raise _bad(f"a CSR has at most {MAX_CSR_BYTES} bytes")
    if not all(isinstance(value, str) for value in members["wit_key"].values()):
        raise _bad("a WIT key is a JWK whose members are strings")
    if len(members["wit_proof"]) > _MAX_TOKEN:
        raise _bad("the WIT key's proof is too long")
    return {"csr": csr, "wit_key": members["wit_key"], "wit_proof": members["wit_proof"]}


def _published_of(members: Mapping[str, Any]) -> dict[str, Any]:
    anchors = tuple(_strings(members["anchors"], "anchors", MAX_ANCHORS))
    return {"bundle": members["bundle"].encode(), "anchors": anchors}


def _proof_claims(csr: bytes, ca: SpiffeId, evidence: Evidence | None) -> dict[str, Any]:
    claims = {"aud": str(ca), "csr": jose.b64url_encode(hashlib.sha256(csr).digest())}
    digest = evidence.digest() if evidence else None
    return claims | ({"evidence": jose.b64url_encode(digest)} if digest else {})


def _spki(key: PublicJwk) -> bytes:
    return key.key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)


def _members(body: bytes, limit: int, names: Mapping[str, type]) -> dict[str, Any]:
    return _exactly(jose.parse_json_object(body, max_bytes=limit, max_depth=4), names)


def _exactly(members: Mapping[str, Any], names: Mapping[str, type]) -> dict[str, Any]:
    if members.keys() != names.keys():
        raise _bad(f"expected exactly the members {', '.join(sorted(names))}")
    for name, kind in names.items():
        if type(members[name]) is not kind:
            raise _bad(f"{name} has the wrong type")
    return dict(members)


def _strings(values: list[Any], name: str, limit: int) -> list[str]:
    if len(values) > limit or not all(isinstance(value, str) for value in values):
        raise _bad(f"{name} is a list of at most {limit} strings")
    return values


def _json(members: Mapping[str, Any]) -> bytes:
    return json.dumps(members, ensure_ascii=True, separators=(",", ":"), sort_keys=True).encode()


def _bad(detail: str) -> MalformedError:
    return MalformedError(Reason.BAD_MESSAGE, detail)
