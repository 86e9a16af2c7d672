"""The key that a join token is bound to, from a file of the workload's: a public key or a CSR."""

from __future__ import annotations

import contextlib
import hashlib
from pathlib import Path
from typing import Final

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    load_der_public_key,
    load_pem_public_key,
)

from zerotrust.ca.authority.csr import require_allowed, spki_of, verify_csr
from zerotrust.core.errors import ConfigurationError, Reason

MAX_BYTES: Final = 16 * 1024
_PUBLIC_KEY: Final = b"-----BEGIN PUBLIC KEY-----"
_CSR: Final = b"-----BEGIN CERTIFICATE REQUEST-----"


def read_csr_key(path: Path) -> bytes:
    """Return the SHA-256 of the SPKI in a public key or CSR, PEM or DER.

    Raise OSError, ConfigurationError for what is neither, RequestRefused(CSR) for a key or a CSR
    that this CA would refuse from the workload too.
    """
    with path.open("rb") as file:
        content = file.read(MAX_BYTES + 1)
    if len(content) <= MAX_BYTES:
        with contextlib.suppress(ValueError, TypeError, UnsupportedAlgorithm):
            return _digest(content)
    raise ConfigurationError(
        f"{path} holds neither a public key nor a CSR (PEM or DER): make one from the workload's "
        "key with `openssl pkey -in KEY -pubout`",
        Reason.BAD_KEY,
    )


def _digest(content: bytes) -> bytes:
    if _CSR in content:
        content = x509.load_pem_x509_csr(content).public_bytes(Encoding.DER)
    with contextlib.suppress(ValueError):
        x509.load_der_x509_csr(content)
        return verify_csr(content).digest
    load = load_pem_public_key if _PUBLIC_KEY in content else load_der_public_key
    return hashlib.sha256(spki_of(require_allowed(load(content)))).digest()
