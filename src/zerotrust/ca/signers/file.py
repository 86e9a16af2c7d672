"""Private keys of the CA in sealed files: Argon2id and AES-256-GCM under a passphrase.

1. The header (purpose, trust domain, key id, KDF parameters, version) is authenticated: a file put
   in another's place
   does not open.
2. The parameters in a header are bounded from both sides before any work is done for it.
3. There is no second, weaker way to seal: without Argon2id the CA does not run.
4. Files are written whole (temporary file, fsync, rename), 0600, with a fresh salt and nonce each
   time.

Layout, one line each: the header as canonical JSON, then base64 of nonce and ciphertext (a PKCS #8
key).
"""

from __future__ import annotations

import base64
import binascii
import json
import os
import secrets
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from cryptography.exceptions import InvalidTag, UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.kdf.argon2 import Argon2id
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_der_private_key,
)

from zerotrust.core.errors import ConfigurationError, MalformedError, Reason
from zerotrust.core.jose import PublicJwk, parse_json_object

if TYPE_CHECKING:
    from pathlib import Path

    from zerotrust.core.spiffe.ids import TrustDomain

VERSION: Final = 1
MIN_PASSPHRASE_BYTES: Final = 8
MAX_FILE_BYTES: Final = 8192

_MEMORY: Final = (19 * 1024, 1024 * 1024)  # KiB: floor (OWASP's least for Argon2id) and ceiling
_PASSES: Final = (2, 16)
_LANES: Final = (1, 8)
_SALT_BYTES: Final = 16
_NONCE_BYTES: Final = 12
_KEY_BYTES: Final = 32
_HEADER: Final = (
    "iterations",
    "key",
    "lanes",
    "memory",
    "purpose",
    "salt",
    "trust_domain",
    "version",
)


@dataclass(frozen=True, slots=True)
class Cost:
    """What one guess of the passphrase costs: memory in KiB, passes over it, lanes."""

    memory: int = 64 * 1024
    iterations: int = 3
    lanes: int = 4


LEAST: Final = Cost(_MEMORY[0], _PASSES[0], _LANES[0])


def seal_key(
    path: Path,
    key: ec.EllipticCurvePrivateKey,
    passphrase: bytes,
    *,
    purpose: str,
    trust_domain: TrustDomain,
    cost: Cost | None = None,
) -> str:
    """Write the key to `path` and return its id (RFC 7638 thumbprint)."""
    require_passphrase(passphrase)
    cost, key_id = cost or Cost(), PublicJwk.from_key(key.public_key()).thumbprint
    header = _canonical(
        {
            "version": VERSION,
            "purpose": purpose,
            "trust_domain": trust_domain.name,
            "key": key_id,
            "memory": cost.memory,
            "iterations": cost.iterations,
            "lanes": cost.lanes,
            "salt": base64.b64encode(secrets.token_bytes(_SALT_BYTES)).decode(),
        }
    )
    clear = key.private_bytes(Encoding.DER, PrivateFormat.PKCS8, NoEncryption())
    nonce = secrets.token_bytes(_NONCE_BYTES)
    sealed = nonce + _cipher(_parameters(header, path), passphrase).encrypt(nonce, clear, header)
    write_whole(path, header + b"\n" + base64.b64encode(sealed) + b"\n")
    return key_id


def open_key(
    path: Path, passphrase: bytes, *, purpose: str, trust_domain: TrustDomain
) -> ec.EllipticCurvePrivateKey:
    """Return the key sealed in `path`.

    Raises ConfigurationError: SEALED_FILE for a file that is not what it should be, PASSPHRASE
    when it does not open.
    """
    header, body = _lines(path)
    parameters = _parameters(header, path)
    if (parameters["purpose"], parameters["trust_domain"]) != (purpose, trust_domain.name):
        raise _broken(path, f"it is not the {purpose} key of {trust_domain}")
    nonce, sealed = body[:_NONCE_BYTES], body[_NONCE_BYTES:]
    try:
        clear = _cipher(parameters, passphrase).decrypt(nonce, sealed, header)
    except (InvalidTag, ValueError) as exc:
        raise ConfigurationError(
            f"{path.name}: wrong passphrase, or the file was changed", Reason.PASSPHRASE
        ) from exc
    key = load_der_private_key(clear, None)
    if not isinstance(key, ec.EllipticCurvePrivateKey):
        raise _broken(path, "it holds no EC key")
    if PublicJwk.from_key(key.public_key()).thumbprint != parameters["key"]:
        raise _broken(path, "its key is not the one the header names")
    return key


def require_passphrase(passphrase: bytes) -> None:
    """Raise ConfigurationError(PASSPHRASE) for one that is too short to seal with."""
    if len(passphrase) < MIN_PASSPHRASE_BYTES:
        raise ConfigurationError(
            f"a passphrase has at least {MIN_PASSPHRASE_BYTES} bytes", Reason.PASSPHRASE
        )


def write_whole(path: Path, data: bytes) -> None:
    """Replace a file's content at once, 0600: after a crash it is the old or the new one."""
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    folder = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


def _lines(path: Path) -> tuple[bytes, bytes]:
    try:
        with path.open("rb") as file:
            data = file.read(MAX_FILE_BYTES + 1)
    except OSError as exc:
        raise ConfigurationError(f"{path.name}: {exc.strerror}", Reason.FILE_ACCESS) from exc
    lines = data.split(b"\n")
    if len(data) > MAX_FILE_BYTES or len(lines) != 3 or lines[2]:  # noqa: PLR2004 - two lines, each ended
        raise _broken(path, "it is not a sealed key")
    try:
        return lines[0], base64.b64decode(lines[1], validate=True)
    except binascii.Error as exc:
        raise _broken(path, "it is not a sealed key") from exc


def _parameters(header: bytes, path: Path) -> dict[str, Any]:
    """Read a header and bound what it asks for; raise ConfigurationError(SEALED_FILE)."""
    try:
        members = parse_json_object(header, max_bytes=2048, max_depth=1)
        if tuple(sorted(members)) != _HEADER or _canonical(members) != header:
            raise ConfigurationError(
                f"{path.name}: a sealed key has another header", Reason.SEALED_FILE
            )
        members["salt"] = base64.b64decode(members["salt"], validate=True)
    except (MalformedError, binascii.Error, TypeError, ValueError) as exc:
        raise ConfigurationError(
            f"{path.name}: a sealed key's header is unreadable", Reason.SEALED_FILE
        ) from exc
    bounds = {
        "memory": _MEMORY,
        "iterations": _PASSES,
        "lanes": _LANES,
        "version": (VERSION, VERSION),
    }
    for name, (floor, ceiling) in bounds.items():
        value = members[name]
        if type(value) is not int or not floor <= value <= ceiling:
            raise ConfigurationError(
                f"{path.name}: a sealed key's {name} is outside {floor} to {ceiling}",
                Reason.SEALED_FILE,
            )
    if len(members["salt"]) != _SALT_BYTES:
        raise ConfigurationError(
            f"{path.name}: a sealed key's salt has another length", Reason.SEALED_FILE
        )
    return members


def _cipher(parameters: dict[str, Any], passphrase: bytes) -> AESGCM:
    try:
        kdf = Argon2id(
            salt=parameters["salt"],
            length=_KEY_BYTES,
            iterations=parameters["iterations"],
            lanes=parameters["lanes"],
            memory_cost=parameters["memory"],
        )
    except UnsupportedAlgorithm as exc:
        raise ConfigurationError(
            "this OpenSSL has no Argon2id (3.2 or newer has): keys cannot be sealed or opened",
            Reason.SEALED_FILE,
        ) from exc
    return AESGCM(kdf.derive(passphrase))


def _canonical(members: dict[str, Any]) -> bytes:
    return json.dumps(members, ensure_ascii=True, separators=(",", ":"), sort_keys=True).encode()


def _broken(path: Path, detail: str) -> ConfigurationError:
    return ConfigurationError(f"{path.name}: {detail}", Reason.SEALED_FILE)
