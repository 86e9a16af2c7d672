"""Attacks on the request around good tokens: fields, path, authority, method, replay."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from zerotrust.core.errors import Reason
from zerotrust.probe.catalogue import Attack, Fields, Layer, Material, guarded
from zerotrust.probe.deliver import Delivery

_UPGRADE: Final[Fields] = (
    (b"Upgrade", b"websocket"),
    (b"Sec-WebSocket-Version", b"13"),
    (b"Sec-WebSocket-Key", b"AAAAAAAAAAAAAAAAAAAAAA=="),
)


def _extra(*fields: tuple[bytes, bytes]) -> Callable[[Material], Delivery]:
    return lambda m: m.call(extra=fields)


def _path(change: Callable[[bytes], bytes]) -> Callable[[Material], Delivery]:
    return lambda m: m.call(target=change(m.path))


def _host(change: Callable[[str], str]) -> Callable[[Material], Delivery]:
    return lambda m: m.call(host=change(m.host))


def _proof_call(m: Material, **changes: object) -> Delivery:
    """Make an honest call in proof mode; `sent_*` say what the request really is."""
    target = m.proof_path or m.path
    sent_target = changes.pop("sent_target", target)
    sent_method = changes.pop("sent_method", "GET")
    return m.call(
        wpt=m.proof(**changes),  # type: ignore[arg-type]
        target=sent_target,  # type: ignore[arg-type]
        method=sent_method,  # type: ignore[arg-type]
    )


def _replayed(m: Material) -> tuple[Delivery, ...]:
    once = _proof_call(m)
    return (once, once)


def _as_neighbour(m: Material) -> Delivery:
    """Everything genuine, and nobody entitled it."""
    return m.call(svid=m.neighbour.svid, wit=m.of_neighbour.token, wpt=m.neighbour_bound())


def _by_server_or_guard(
    ident: str, name: str, tried: str, make: Callable[[Material], Delivery], *reasons: Reason
) -> Attack:
    """Return an attack that a strict HTTP server refuses before the guard sees it."""
    return Attack(ident, name, tried, Layer.SERVER, lambda m: (make(m),), frozenset(reasons))


ATTACKS: Final[tuple[Attack, ...]] = (
    guarded(
        "ZT-MTLS-010",
        "wrong-caller",
        "a valid neighbour that no rule names",
        _as_neighbour,
        Reason.RULE_NONE,
        Reason.RULE_DENY,
    ),
    guarded(
        "ZT-MTLS-013",
        "xfcc",
        "no tokens, and X-Forwarded-Client-Cert that names the caller",
        lambda m: m.call(
            drop=(b"authorization", b"workload-identity-token"),
            extra=((b"X-Forwarded-Client-Cert", f"URI={m.honest.svid.id}".encode()),),
        ),
        Reason.TOKEN_MISSING,
    ),
    guarded(
        "ZT-MTLS-014",
        "underscore-twin",
        "a second identity token spelled with underscores",
        _extra((b"Workload_Identity_Token", b"e30.e30.AA")),
        Reason.HEADER_TWIN,
    ),
    guarded(
        "ZT-TOK-021",
        "two-authorizations",
        "two Authorization fields",
        lambda m: m.call(extra=((b"Authorization", b"Bearer e30.e30.AA"),)),
        Reason.HEADER_DUPLICATE,
    ),
    guarded(
        "ZT-TOK-021",
        "two-identities",
        "two identity tokens",
        lambda m: m.call(extra=((b"Workload-Identity-Token", m.wit.encode()),)),
        Reason.HEADER_DUPLICATE,
    ),
    guarded(
        "ZT-TOK-021",
        "comma-joined",
        "two proofs in one field",
        lambda m: m.call(wpt=f"{m.bound()}, WPT {m.bound()}"),
        Reason.TOKEN_MALFORMED,
    ),
    guarded(
        "ZT-TOK-021",
        "uncovered-txn",
        "a Txn-Token that the proof does not cover",
        _extra((b"Txn-Token", b"e30.e30.AA")),
        Reason.TOKEN_OTHER_BINDING,
    ),
    guarded(
        "ZT-HTTP-006",
        "connection-strips",
        "Connection: Authorization, so that a proxy strips it",
        lambda m: m.call(drop=(b"connection",), extra=((b"Connection", b"close, Authorization"),)),
        Reason.HEADER_CONNECTION,
    ),
    _by_server_or_guard(
        "ZT-TOK-022",
        "one-megabyte",
        "an identity token of one megabyte",
        lambda m: m.call(wit=m.wit + "A" * 1_000_000, wpt=m.bound()),
        Reason.REQUEST_TOO_LARGE,
        Reason.TOKEN_TOO_LARGE,
    ),
    *(
        guarded("ZT-HTTP-002", name, f"the path with {tried}", _path(change), Reason.PATH_AMBIGUOUS)
        for name, tried, change in (
            ("double-slash", "//", lambda p: b"/" + p),
            ("dot-segments", "a dot segment", lambda p: b"/x/.." + p),
            ("encoded-dots", "%2e%2e", lambda p: b"/x/%2e%2e" + p),
            ("encoded-slash", "%2F", lambda p: p + b"%2Fx"),
            (
                "encoded-letter",
                "an encoded letter",
                lambda p: b"/%" + f"{p[1]:02X}".encode() + p[2:],
            ),
            ("double-encoded", "%252F", lambda p: p + b"%252Fx"),
            ("matrix", ";x=1", lambda p: p + b";x=1"),
            ("encoded-nul", "%00", lambda p: p + b"%00"),
            ("not-utf8", "%C0%AF", lambda p: p + b"%C0%AF"),
        )
    ),
    *(
        _by_server_or_guard(
            "ZT-HTTP-002", name, f"the path with {tried}", _path(change), Reason.PATH_AMBIGUOUS
        )
        for name, tried, change in (
            ("fragment", "#x", lambda p: p + b"#x"),
            ("backslash", "a backslash", lambda p: p + b"\\x"),
        )
    ),
    _by_server_or_guard(
        "ZT-HTTP-002",
        "absolute-form",
        "an absolute request target",
        lambda m: m.call(target=b"https://" + m.host.encode() + m.path),
        Reason.PATH_AMBIGUOUS,
    ),
    guarded(
        "ZT-HTTP-002",
        "bad-host",
        "a Host with a path in it",
        _host(lambda h: f"{h}/admin?x="),
        Reason.HOST_INVALID,
    ),
    guarded(
        "ZT-HTTP-002",
        "other-host",
        "another service's Host",
        _host(lambda _h: "other.example"),
        Reason.HOST_UNKNOWN,
    ),
    guarded(
        "ZT-HTTP-001",
        "undeclared-method",
        "a method no rule names",
        lambda m: m.call(method="DELETE"),
        Reason.RULE_NONE,
        Reason.RULE_DENY,
    ),
    _by_server_or_guard(
        "ZT-HTTP-001",
        "ws-method",
        "the name that policies give to WebSockets as a method",
        lambda m: m.call(method="WS"),
        Reason.METHOD_INVALID,
    ),
    guarded(
        "ZT-HTTP-001",
        "override",
        "DELETE with X-HTTP-Method-Override: GET",
        lambda m: m.call(method="DELETE", extra=((b"X-HTTP-Method-Override", b"GET"),)),
        Reason.RULE_NONE,
        Reason.RULE_DENY,
    ),
    guarded(
        "ZT-HTTP-005",
        "websocket",
        "a WebSocket where only GET is allowed",
        lambda m: m.call(drop=(b"connection",), extra=((b"Connection", b"Upgrade"), *_UPGRADE)),
        Reason.RULE_NONE,
        Reason.RULE_DENY,
    ),
    guarded(
        "ZT-HTTP-005",
        "websocket-no-tokens",
        "a WebSocket without tokens",
        lambda m: m.call(
            drop=(b"connection", b"authorization", b"workload-identity-token"),
            extra=((b"Connection", b"Upgrade"), *_UPGRADE),
        ),
        Reason.TOKEN_MISSING,
    ),
    Attack(
        "ZT-TOK-018",
        "replay",
        "a one-time proof used twice",
        Layer.GUARD,
        _replayed,
        frozenset({Reason.TOKEN_REPLAY}),
    ),
    guarded(
        "ZT-TOK-019",
        "other-method",
        "a proof for another method",
        lambda m: _proof_call(m, method="POST"),
        Reason.TOKEN_METHOD,
    ),
    guarded(
        "ZT-TOK-019",
        "other-path",
        "a proof for another path",
        lambda m: _proof_call(m, target=(m.proof_path or m.path) + b"x"),
        Reason.TOKEN_AUDIENCE,
    ),
    guarded(
        "ZT-TOK-019",
        "other-query",
        "a proof for the same path with another query",
        lambda m: _proof_call(m, sent_target=(m.proof_path or m.path) + b"?all=1"),
        Reason.TOKEN_TARGET,
    ),
    guarded(
        "ZT-TOK-019",
        "other-host",
        "a proof for another authority",
        lambda m: _proof_call(m, aud=f"https://other.example{m.path.decode()}"),
        Reason.TOKEN_AUDIENCE,
    ),
    guarded(
        "ZT-TOK-018",
        "stale",
        "a proof minted two minutes ago",
        lambda m: _proof_call(m, now=m.now - 120, ttl=150),
        Reason.TOKEN_STALE,
        Reason.TOKEN_TOO_LONG_LIVED,
    ),
)
