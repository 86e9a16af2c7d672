"""The shape of a request: a target, a Host and header fields that have exactly one reading.

1. What can be read in two ways is refused, never normalised: a proxy, this filter and the
   application's router must not be able to disagree (RFC 9110 section 7.1, RFC 3986 section 3.3,
   RFC 9112 section 3.2).
2. A field that carries identity stands once, under its own spelling; a twin with `_` for `-` is
   refused, because CGI-like gateways fold the two into one name.
3. Every judgement here depends only on the target and on the watched fields, so that a remembered
   decision and a fresh one cannot differ.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final
from urllib.parse import unquote_to_bytes

from zerotrust.core.errors import Reason, RequestRejected

Headers = Sequence[tuple[bytes, bytes]]

MAX_TARGET_BYTES: Final = 8192
WEBSOCKET_METHOD: Final = "WS"
MAX_FIELD_BYTES: Final = 8192  # of one watched field

SINGLE_FIELDS: Final = frozenset(
    {
        b"authorization",
        b"workload-identity-token",
        b"txn-token",
        b"signature",
        b"signature-input",
        b"host",
    }
)
FOREIGN_IDENTITY_FIELDS: Final = frozenset({b"x-forwarded-client-cert", b"client-cert"})
WATCHED_FIELDS: Final = SINGLE_FIELDS | FOREIGN_IDENTITY_FIELDS | {b"connection"}

# pchar of RFC 3986 less `;`; a percent triple in upper case, as RFC 3986 section 2.1 asks of
# producers
_PATH: Final = re.compile(rb"(?:/(?:[A-Za-z0-9._~!$&'()*+,=:@-]|%[0-9A-F]{2})*)+")
_QUERY: Final = re.compile(rb"[\x21\x22\x24-\x7e]*")  # printable ASCII less `#`
_TRIPLE: Final = re.compile(rb"%([0-9A-F]{2})")
_DOUBLE_ENCODED: Final = re.compile(rb"%25[0-9A-Fa-f]{2}")
_UNRESERVED: Final = frozenset(
    b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-._~"
)
_NEVER_ENCODED: Final = _UNRESERVED | frozenset(range(0x20)) | frozenset(b"\x7f/\\;")
_METHOD: Final = re.compile(r"[A-Z](?:[A-Z-]{0,30}[A-Z])?")
_HOST: Final = re.compile(rb"([A-Za-z0-9._-]{1,255}|\[[0-9A-Fa-f:.]{2,45}\])(?::([0-9]{1,5}))?")


@dataclass(frozen=True, slots=True)
class Target:
    """A request target with exactly one reading: `path` decoded once, `raw_path` as sent."""

    path: str
    raw_path: bytes
    query: bytes


def parse_target(target: bytes) -> Target:
    r"""Parse an origin-form request target; raise RequestRejected(PATH_AMBIGUOUS) for any other.

    Refused: absolute form, `#`, `;`, `\\`, `//`, dot segments, and percent-encoding of an
    unreserved character, of a control, of `/`, `\\` or `;`, of another encoding, in lower-case
    hex, or of what is not UTF-8.
    """
    if len(target) > MAX_TARGET_BYTES:
        raise RequestRejected(Reason.REQUEST_TOO_LARGE, f"target of {len(target)} bytes")
    raw_path, mark, query = target.partition(b"?")
    if mark and not query:
        raise _ambiguous("an empty query")
    if not _PATH.fullmatch(raw_path) or b"//" in raw_path:
        raise _ambiguous("the path is not in canonical origin form")
    if not _QUERY.fullmatch(query):
        raise _ambiguous("the query holds a byte that is not allowed there")
    path = _decode(raw_path) if b"%" in raw_path else raw_path.decode("ascii")
    if "/." in path and any(segment in {".", ".."} for segment in path.split("/")):
        raise _ambiguous("a dot segment")
    return Target(path, raw_path, query)


def require_method(method: str) -> None:
    """Raise RequestRejected(METHOD_INVALID) unless the method is upper-case letters and hyphens.

    `WS` is what policies call a WebSocket handshake; no HTTP request may come in under that name.
    """
    if not _METHOD.fullmatch(method) or method == WEBSOCKET_METHOD:
        raise RequestRejected(Reason.METHOD_INVALID, ascii(method[:40]))


@dataclass(frozen=True, slots=True)
class Host:
    """A Host field: the name in lower case, and the port if one was sent."""

    name: str
    port: int | None

    @classmethod
    def parse(cls, value: bytes) -> Host:
        """Parse a Host field value; raise RequestRejected(HOST_INVALID)."""
        match = _HOST.fullmatch(value)
        if match is None:
            raise RequestRejected(Reason.HOST_INVALID, ascii(value[:80]))
        port = int(match[2]) if match[2] is not None else None
        if port is not None and not 0 < port < 65536:  # noqa: PLR2004 - the range of a port
            raise RequestRejected(Reason.HOST_INVALID, ascii(value[:80]))
        return cls(match[1].decode("ascii").lower(), port)


class Authorities:
    """The authorities a service answers for, each `name:port`; never derived from a Host field."""

    def __init__(self, authorities: Iterable[str]) -> None:
        hosts = [Host.parse(authority.encode("ascii", "replace")) for authority in authorities]
        self._exact = frozenset((host.name, host.port) for host in hosts)
        self._names = frozenset(host.name for host in hosts)
        self._origins = tuple(
            sorted(
                {f"https://{h.name}{'' if h.port in {None, 443} else f':{h.port}'}" for h in hosts}
            )
        )

    def require(self, value: bytes) -> None:
        """Raise HOST_INVALID for bad grammar, HOST_UNKNOWN for an authority that is not ours."""
        host = Host.parse(value)
        known = (
            host.name in self._names if host.port is None else (host.name, host.port) in self._exact
        )
        if not known:
            raise RequestRejected(
                Reason.HOST_UNKNOWN, f"Host {value[:80]!a} is not one of {list(self._origins)}"
            )

    def target_uris(self, raw_path: bytes) -> tuple[str, ...]:
        """Every target URI, without query, under which this service answers at that path."""
        path = raw_path.decode("ascii")
        return tuple(origin + path for origin in self._origins)


def pick_watched(headers: Headers, watched: frozenset[bytes]) -> tuple[tuple[bytes, bytes], ...]:
    """Return, in order, the fields whose name, lower-cased and `_` read as `-`, is watched."""
    return tuple(field for field in headers if field[0].lower().replace(b"_", b"-") in watched)


def read_fields(picked: Headers, singles: frozenset[bytes]) -> dict[bytes, bytes]:
    """Turn watched fields into name -> value; refuse a twin, a duplicate, a hop-by-hop trick."""
    fields: dict[bytes, bytes] = {}
    for name, value in picked:
        plain = name.lower()
        if b"_" in plain:
            raise RequestRejected(Reason.HEADER_TWIN, ascii(name[:60]))
        if len(value) > MAX_FIELD_BYTES:
            raise RequestRejected(
                Reason.REQUEST_TOO_LARGE, f"field {name[:60]!a} of {len(value)} bytes"
            )
        if plain in fields and plain in singles:
            raise RequestRejected(Reason.HEADER_DUPLICATE, ascii(name[:60]))
        if plain == b"connection":
            _require_end_to_end(value, singles)
        fields[plain] = value
    return fields


def _require_end_to_end(connection: bytes, singles: frozenset[bytes]) -> None:
    """Refuse a Connection field that lets a proxy strip one of our fields (RFC 9110 7.6.1)."""
    for option in connection.split(b","):
        name = option.strip().lower().replace(b"_", b"-")
        if name in singles or name in FOREIGN_IDENTITY_FIELDS:
            raise RequestRejected(Reason.HEADER_CONNECTION, ascii(connection[:80]))


def _decode(raw_path: bytes) -> str:
    if any(int(triple, 16) in _NEVER_ENCODED for triple in _TRIPLE.findall(raw_path)):
        raise _ambiguous("a percent-encoding that hides or doubles a character")
    if _DOUBLE_ENCODED.search(raw_path):
        raise _ambiguous("a percent-encoding of a percent-encoding")
    try:
        return unquote_to_bytes(raw_path).decode("utf-8")
    except UnicodeDecodeError:
        raise _ambiguous("a percent-encoding that is not UTF-8") from None


def _ambiguous(why: str) -> RequestRejected:
    return RequestRejected(Reason.PATH_AMBIGUOUS, why)
