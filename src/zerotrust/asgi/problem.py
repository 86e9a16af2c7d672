"""How a refusal looks on the wire: a status, constant text and an id (RFC 9457).

1. The peer learns the category and the id of the audit line, never the reason.
2. The table below is the only place where a category becomes a status.
"""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any, Final

from zerotrust.core.errors import PUBLIC_TEXT, Category

Message = MutableMapping[str, Any]
Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]

TYPE_PREFIX: Final = "urn:zerotrust:problem:"

STATUS: Final[dict[Category, int]] = {
    Category.MALFORMED: 400,
    Category.UNAUTHENTICATED: 401,
    Category.PROOF_STALE: 401,
    Category.MODE_INSUFFICIENT: 401,
    Category.FORBIDDEN: 403,
    Category.MISDIRECTED: 421,
    Category.UNAVAILABLE: 503,
    Category.CONFIGURATION: 503,
}

_CHALLENGE: Final = (b"www-authenticate", b"WPT")  # RFC 9110 section 11.6.1: owed by every 401
_POLICY_VIOLATION: Final = 1008  # RFC 6455 section 7.4.1


async def send_problem(
    scope: Scope, receive: Receive, send: Send, category: Category, refusal_id: str, *, close: bool
) -> None:
    """Answer an `http` or `websocket` scope with a refusal; `close` ends the connection."""
    status = STATUS[category]
    body = _body(category, status, refusal_id)
    headers = [
        (b"content-type", b"application/problem+json"),
        (b"content-length", b"%d" % len(body)),
        (b"cache-control", b"no-store"),
    ]
    if status == STATUS[Category.UNAUTHENTICATED]:
        headers.append(_CHALLENGE)
    if scope["type"] == "websocket":
        await _refuse_websocket(scope, receive, send, status, headers, body)
        return
    if close or _has_body(scope):  # an unread body would be taken for the next request
        headers.append((b"connection", b"close"))
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})


async def _refuse_websocket(
    scope: Scope,
    receive: Receive,
    send: Send,
    status: int,
    headers: list[tuple[bytes, bytes]],
    body: bytes,
) -> None:
    await receive()  # websocket.connect
    if "websocket.http.response" not in scope.get("extensions", {}):
        await send({"type": "websocket.close", "code": _POLICY_VIOLATION})
        return
    await send({"type": "websocket.http.response.start", "status": status, "headers": headers})
    await send({"type": "websocket.http.response.body", "body": body})


def _body(category: Category, status: int, refusal_id: str) -> bytes:
    problem = {
        "type": TYPE_PREFIX + category,
        "title": PUBLIC_TEXT[category],
        "status": status,
        "id": refusal_id,
    }
    return json.dumps(problem, separators=(",", ":")).encode()


def _has_body(scope: Scope) -> bool:
    return any(
        name == b"transfer-encoding" or (name == b"content-length" and value.strip() != b"0")
        for name, value in scope["headers"]
    )
