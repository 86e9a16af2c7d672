"""A TLS 1.3 handshake in memory with plain `ssl`: what OpenSSL by itself makes of a chain."""

from __future__ import annotations

import ssl
import tempfile
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from zerotrust.core.spiffe.x509_svid import X509Svid


def verified_by_openssl(
    presented: Sequence[bytes],
    client: X509Svid,
    server: X509Svid,
    anchors: Iterable[x509.Certificate],
) -> tuple[bytes, ...] | None:
    """Return the chain a server verified (leaf first, anchor last), or None if it refused."""
    cadata = b"".join(a.public_bytes(Encoding.DER) for a in anchors)
    left = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    left.verify_mode = ssl.CERT_REQUIRED
    left.minimum_version = ssl.TLSVersion.TLSv1_3
    left.load_verify_locations(cadata=cadata)
    right = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    right.check_hostname = False
    right.load_verify_locations(cadata=cadata)
    with tempfile.TemporaryDirectory() as folder:
        _load(left, server.chain_der, server, Path(folder))
        try:
            _load(right, presented, client, Path(folder))
        except ssl.SSLError:
            return None  # it cannot even be brought to the wire
    return _shake(left, right)


def _load(context: ssl.SSLContext, chain: Sequence[bytes], svid: X509Svid, folder: Path) -> None:
    path = folder / "identity.pem"
    pem = "".join(ssl.DER_cert_to_PEM_cert(der) for der in chain)
    path.write_bytes(pem.encode() + svid.key_pem)
    context.load_cert_chain(path)


def _shake(server: ssl.SSLContext, client: ssl.SSLContext) -> tuple[bytes, ...] | None:
    to_server, to_client = ssl.MemoryBIO(), ssl.MemoryBIO()
    left = server.wrap_bio(to_server, to_client, server_side=True)
    right = client.wrap_bio(to_client, to_server)
    pending = [right, left]
    for _ in range(6):
        for side in list(pending):
            try:
                side.do_handshake()
            except ssl.SSLWantReadError:
                continue
            except ssl.SSLError:
                return None
            pending.remove(side)
        if not pending:
            return _verified_chain(left)
    return None


def _verified_chain(side: ssl.SSLObject) -> tuple[bytes, ...]:
    if hasattr(side, "get_verified_chain"):  # 3.13
        return tuple(side.get_verified_chain())
    raw: Any = side._sslobj  # type: ignore[attr-defined]
    return tuple(ssl.PEM_cert_to_DER_cert(c.public_bytes()) for c in raw.get_verified_chain())
