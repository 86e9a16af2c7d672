"""What one outgoing HTTP call carries, and when it is sent once more; no I/O, any client library.

1. Credentials are attached per call, for the identity expected at its target, and to a copy of the
   request: what the application, its hooks and its redirects see never holds a token.
2. `Authorization` belongs to the proof: an application that sets it is told so before any I/O.
   Other tokens travel in headers of their own and are hashed into the proof (`cover`, wpt-02
   `oth`).
3. A redirect may stay with the identity the call was meant for; to another one it is not followed:
   a workload must not be able to aim its callers at a third.
4. A call is sent a second time only because the peer, proven in the handshake, asked for a fresher
   or stronger proof, and only if its body can be sent again; never a third time.
"""

from __future__ import annotations

import json
import re
import ssl
from collections.abc import Collection, Mapping, MutableMapping
from typing import Any, Final

from zerotrust.core.errors import (
    Category,
    CertificateRejected,
    ConfigurationError,
    Reason,
    RequestRejected,
    UnsafeSetting,
    ZeroTrustError,
)
from zerotrust.core.mode import Mode
from zerotrust.core.spiffe.ids import SpiffeId
from zerotrust.core.tokens.profile import TXN_HEADER, WIT_HEADER, WPT_HEADER
from zerotrust.workload.tls.context import SnapshotSource
from zerotrust.workload.tls.peer import HandshakeRefused
from zerotrust.workload.token_source import TokenSource, encoded

RawHeaders = list[tuple[bytes, bytes]]

PROBLEM_TYPE: Final = "urn:zerotrust:problem:"
PROBLEM_MAX_BYTES: Final = 4096
_ASKING_STATUS: Final = (401, 403)
_MEANT_FOR: Final = "zerotrust.meant_for"
_FIELD_NAME: Final = re.compile(r"[a-z0-9-]{1,64}")
_UNSAFE_OPTIONS: Final = {
    "verify": "the identity decides whom to trust",
    "cert": "the identity is the certificate",
    "trust_env": "the environment must not add proxies, certificates or passwords",
    "proxy": "a proxy would stand between two proven identities",
    "mounts": "a mounted transport would go round the check",
    "transport": "another transport would go round the check",
    "auth": "Authorization carries the workload's proof; see cover= for other tokens",
}


def require_safe(options: MutableMapping[str, Any]) -> None:
    """Drop options that repeat what is so; raise UnsafeSetting for those that weaken it."""
    for name, why in _UNSAFE_OPTIONS.items():
        value = options.pop(name, None)
        if value is not None and not (name == "trust_env" and value is False):
            raise UnsafeSetting(f"{name}= cannot be set: {why}")


def require_caller(me: SnapshotSource) -> None:
    """Raise unless this identity can call: it needs a WIT beside its certificate."""
    if me.current.wit is None:
        raise ConfigurationError(
            f"{me.current.svid.id} has no identity token (WIT): it may serve, but not call"
        )


def parse_mode(mode: str | Mode) -> Mode:
    """Return BOUND or PROOF; raise ConfigurationError for a mode a client cannot speak."""
    for known in (Mode.BOUND, Mode.PROOF):
        if mode is known or mode == known.label:
            return known
    raise ConfigurationError(f"mode={mode!r}: use 'bound' or 'proof'")


def parse_cover(cover: Collection[str]) -> frozenset[bytes]:
    """Return the lower-cased names of the token headers a proof covers."""
    if isinstance(cover, str):
        raise ConfigurationError(f"cover={cover!r}: give a list of header names")
    names = frozenset(name.lower() for name in cover)
    for name in names:
        if not _FIELD_NAME.fullmatch(name) or name in {WPT_HEADER, WIT_HEADER, TXN_HEADER}:
            raise ConfigurationError(f"cover: {name!r} is no header that an application may add")
    return frozenset(name.encode("ascii") for name in names)


def own_headers(
    raw: RawHeaders, cover: frozenset[bytes]
) -> tuple[RawHeaders, dict[str, str] | None]:
    """Return the application's headers less any WIT, and those that the proof covers."""
    names = [name.lower() for name, _ in raw]
    if b"authorization" in names:
        raise UnsafeSetting(
            "Authorization carries the workload's proof; put the user's token into another "
            "header and name it in cover="
        )
    if b"workload-identity-token" in names:
        raw = [f for f in raw if f[0].lower() != b"workload-identity-token"]
    return raw, _covered(raw, cover) if cover else None


def credentials(
    tokens: TokenSource,
    mode: Mode,
    audience: SpiffeId,
    request: Any,
    covered: Mapping[str, str] | None,
    now: float,
) -> RawHeaders:
    """Return the header fields that prove us.

    Of the request (httpx's) a proof reads method and URL as they are on the wire.
    """
    if mode is Mode.BOUND:
        return tokens.bound_fields(audience, now, cover=covered)
    target = request.url.raw_path
    uri = b"https://" + request.url.netloc + target.partition(b"?")[0]
    return encoded(
        tokens.proof(
            target_uri=uri.decode("ascii"),
            method=request.method,
            target=target,
            now=now,
            cover=covered,
        )
    )


def require_same_peer(extensions: MutableMapping[str, Any], expected: SpiffeId) -> None:
    """Refuse to carry a call on to another identity than the one it began with.

    Libraries of the httpx family copy a request's extensions into the redirect that follows it.
    """
    meant_for = extensions.setdefault(_MEANT_FOR, expected)
    if meant_for is not expected and meant_for != expected:
        raise CertificateRejected(
            Reason.PEER_UNEXPECTED, f"a call meant for {meant_for} was redirected to {expected}"
        )


def may_ask(status: int, headers: Mapping[str, str]) -> bool:
    """Whether a response may ask for another proof; its body is then worth reading."""
    if status not in _ASKING_STATUS or "content-encoding" in headers:
        return False
    length = headers.get("content-length", "")
    return (
        headers.get("content-type") == "application/problem+json"
        and length.isdecimal()
        and int(length) <= PROBLEM_MAX_BYTES
    )


def asked_mode(body: bytes, mode: Mode) -> Mode | None:
    """Return the mode in which to send the call again, None if the problem is another one."""
    try:
        problem = json.loads(body)
    except (ValueError, RecursionError):
        return None
    asked = problem.get("type") if isinstance(problem, dict) else None
    stale = asked == PROBLEM_TYPE + Category.PROOF_STALE and mode is Mode.PROOF
    weak = asked == PROBLEM_TYPE + Category.MODE_INSUFFICIENT and mode < Mode.PROOF
    return Mode.PROOF if stale or weak else None


def identity_failure(exc: BaseException) -> ZeroTrustError | None:
    """Return why the handshake was refused, if that lies below a library's error.

    httpcore cuts `__cause__` on its way up, and keeps what it wrapped as its argument. The
    context of an error is not followed: it may be a failure the application had dealt with.
    """
    cause: BaseException | None = exc
    while cause is not None:
        if isinstance(cause, HandshakeRefused):
            return cause.error
        if isinstance(cause, ZeroTrustError):
            return cause
        if isinstance(cause, ssl.SSLCertVerificationError):
            return CertificateRejected(Reason.PEER_UNTRUSTED, cause.verify_message)
        wrapped = (arg for arg in cause.args if isinstance(arg, BaseException))
        cause = cause.__cause__ or next(wrapped, None)
    return None


def _covered(fields: RawHeaders, cover: frozenset[bytes]) -> dict[str, str] | None:
    covered: dict[str, str] = {}
    for name, value in fields:
        if name.lower() in cover:
            text = name.lower().decode("ascii")
            if text in covered:
                raise RequestRejected(
                    Reason.HEADER_DUPLICATE, f"{text} is covered and stands twice"
                )
            covered[text] = value.decode("latin-1")
    return covered or None
