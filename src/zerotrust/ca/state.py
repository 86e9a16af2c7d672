"""What a CA is made of: its folder, its certificates, its keys by name.

    ca.json                 everything public, and which sealed key is in force
    root-<id>.sealed        the root key; opened by rotation only
    issuer-<id>.sealed      the issuing key
    wit-<id>.sealed         the key that signs WITs: one in force, the next one already published

1. `ca.json` is replaced whole and last: what it does not name is not in force.
2. The folder is 0700 and ours; keys are sealed within it all the same.
3. Sequences never fall, not even after a backup was restored: they are at least the time.
"""

from __future__ import annotations

import json
import stat
from dataclasses import dataclass, replace
from os import geteuid
from typing import TYPE_CHECKING, Any, Final, Self

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding

from zerotrust.ca.signers.file import write_whole
from zerotrust.core.enrolment import Published
from zerotrust.core.errors import ConfigurationError, MalformedError, Reason
from zerotrust.core.jose import PublicJwk, b64url_decode, b64url_encode, parse_json_object
from zerotrust.core.spiffe.bundle import TrustBundle
from zerotrust.core.spiffe.ids import TrustDomain

if TYPE_CHECKING:
    from pathlib import Path

VERSION: Final = 1
STATE_FILE: Final = "ca.json"
STORE_FILE: Final = "ca.db"
REFRESH_HINT: Final = 300  # seconds
DEV_REFRESH_HINT: Final = 10

_MAX_BYTES: Final = 256 * 1024
_OTHERS: Final = stat.S_IRWXG | stat.S_IRWXO


@dataclass(frozen=True, slots=True)
class WitKey:
    """A published WIT key.

    `until` is when it leaves the bundle, None while it is in force or next.
    """

    key: PublicJwk
    until: float | None = None


@dataclass(frozen=True, slots=True)
class State:
    """The public half of a CA; immutable."""

    trust_domain: TrustDomain
    dev: bool
    sequence: int
    roots: tuple[x509.Certificate, ...]
    signing_root: str  # key id
    issuer: x509.Certificate
    issuer_key: str  # key id
    issuer_lifetime: float  # seconds
    wit_key: str  # key id of the one in force
    next_wit_key: str
    wit_keys: tuple[WitKey, ...]
    statements: tuple[str, ...]

    @classmethod
    def load(cls, directory: Path) -> Self:
        """Read the folder's ca.json; raise ConfigurationError."""
        require_private(directory)
        path = directory / STATE_FILE
        try:
            with path.open("rb") as file:
                members = parse_json_object(file.read(_MAX_BYTES + 1), max_bytes=_MAX_BYTES)
            state = cls._of(members)
            state._require_whole()  # noqa: SLF001 - our own
            return state  # noqa: TRY300 - what is raised above is judged below
        except FileNotFoundError as exc:
            raise ConfigurationError(
                f"{directory} holds no CA: make one with `zerotrust ca init`", Reason.FILE_ACCESS
            ) from exc
        except OSError as exc:
            raise ConfigurationError(f"{path}: {exc.strerror}", Reason.FILE_ACCESS) from exc
        except (MalformedError, KeyError, TypeError, ValueError, InvalidSignature) as exc:
            why = exc.detail if isinstance(exc, MalformedError) else str(exc) or "a signature fails"
            raise ConfigurationError(
                f"{path} is damaged ({why}): restore it from a backup", Reason.SEALED_FILE
            ) from exc

    @classmethod
    def _of(cls, members: dict[str, Any]) -> Self:
        if members["version"] != VERSION:
            raise ConfigurationError(f"{STATE_FILE} has version {members['version']}")
        return cls(
            TrustDomain(members["trust_domain"]),
            members["dev"] is True,
            int(members["sequence"]),
            tuple(_certificate(text) for text in members["roots"]),
            members["signing_root"],
            _certificate(members["issuer"]),
            members["issuer_key"],
            float(members["issuer_lifetime"]),
            members["wit_key"],
            members["next_wit_key"],
            tuple(WitKey(PublicJwk.parse(k["jwk"]), k["until"]) for k in members["wit_keys"]),
            tuple(members["statements"]),
        )

    def _require_whole(self) -> None:
        """Raise ValueError unless every key that is named is there, and the issuer under its root.

        The names lead to files: what is named here is what a published key is called.
        """
        roots = {PublicJwk.from_key(_ec(root)).thumbprint: root for root in self.roots}
        published = {wit.key.thumbprint for wit in self.wit_keys}
        if self.signing_root not in roots or not {self.wit_key, self.next_wit_key} <= published:
            raise ValueError("it names a key that it does not hold")
        self.issuer.verify_directly_issued_by(roots[self.signing_root])
        if self.issuer_key != PublicJwk.from_key(_ec(self.issuer)).thumbprint:
            raise ValueError("its issuing certificate is for another key")
        if not self.statements:
            raise ValueError("no statement vouches for its roots")

    def save(self, directory: Path) -> None:
        """Put this state in force."""
        members = {
            "version": VERSION,
            "trust_domain": self.trust_domain.name,
            "dev": self.dev,
            "sequence": self.sequence,
            "roots": [_text(root) for root in self.roots],
            "signing_root": self.signing_root,
            "issuer": _text(self.issuer),
            "issuer_key": self.issuer_key,
            "issuer_lifetime": self.issuer_lifetime,
            "wit_key": self.wit_key,
            "next_wit_key": self.next_wit_key,
            "wit_keys": [{"jwk": k.key.as_dict(), "until": k.until} for k in self.wit_keys],
            "statements": list(self.statements),
        }
        write_whole(directory / STATE_FILE, json.dumps(members, indent=1).encode() + b"\n")

    def next_sequence(self, now: float) -> int:
        """Return a sequence above every one published before."""
        return max(self.sequence + 1, int(now))

    def pruned(self, now: float) -> Self:
        """Return the state without WIT keys whose last token has ended.

        Itself when there is none.
        """
        kept = tuple(k for k in self.wit_keys if k.until is None or k.until > now)
        if len(kept) == len(self.wit_keys):
            return self
        return replace(self, wit_keys=kept, sequence=self.next_sequence(now))

    def bundle(self) -> TrustBundle:
        """Return what the trust domain publishes."""
        hint = DEV_REFRESH_HINT if self.dev else REFRESH_HINT
        keys = {wit.key.thumbprint: wit.key for wit in self.wit_keys}
        return TrustBundle(self.trust_domain, self.roots, keys, self.sequence, hint)

    def published(self) -> Published:
        """Return the bundle document with the statements that vouch for its anchors."""
        return Published(self.bundle().dump(), self.statements)


def require_private(directory: Path) -> None:
    """Raise ConfigurationError unless the folder is ours and closed to everybody else."""
    try:
        status = directory.stat()
    except OSError as exc:
        raise ConfigurationError(f"{directory}: {exc.strerror}", Reason.FILE_ACCESS) from exc
    if not stat.S_ISDIR(status.st_mode) or status.st_uid not in {0, geteuid()}:
        raise ConfigurationError(f"{directory} is no folder of ours", Reason.FILE_ACCESS)
    if status.st_mode & _OTHERS:
        raise ConfigurationError(
            f"{directory} is open to others: chmod 700 {directory}", Reason.FILE_ACCESS
        )


def _ec(certificate: x509.Certificate) -> ec.EllipticCurvePublicKey:
    key = certificate.public_key()
    if not isinstance(key, ec.EllipticCurvePublicKey):
        raise TypeError("a CA's key is P-256")
    return key


def _text(certificate: x509.Certificate) -> str:
    return b64url_encode(certificate.public_bytes(Encoding.DER))


def _certificate(text: str) -> x509.Certificate:
    return x509.load_der_x509_certificate(b64url_decode(text))
