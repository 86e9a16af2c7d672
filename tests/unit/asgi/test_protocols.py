from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
from uvicorn.protocols.http.h11_impl import H11Protocol
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from zerotrust.asgi.connection import PEER, TARGET
from zerotrust.asgi.protocols import _published, http_protocol, websocket_protocol
from zerotrust.core.errors import ConfigurationError


def test_the_http_protocol_is_the_one_that_was_named() -> None:
    assert issubclass(http_protocol("h11"), H11Protocol)
    assert issubclass(http_protocol("httptools"), HttpToolsProtocol)
    assert http_protocol() is http_protocol("httptools")


def test_no_websocket_is_spoken_where_none_is_asked_for() -> None:
    assert websocket_protocol("none") is None
    assert websocket_protocol() is not None


@pytest.mark.parametrize("name", ["h2", "", "H11"])
def test_a_protocol_of_another_name_is_refused(name: str) -> None:
    with pytest.raises(ConfigurationError, match=f"--http {name}: use one of"):
        http_protocol(name)
    with pytest.raises(ConfigurationError, match=f"--ws {name}: use one of"):
        websocket_protocol(name)


@pytest.mark.parametrize(
    ("sent", "seen"),
    [([(b"host", b"a"), (b"x", b"y")], [(b"host", b"a"), (b"x", b"y")]), (None, [(b"host", b"a")])],
)
def test_a_scope_has_the_headers_as_they_were_sent_where_a_library_drops_some(
    sent: list[tuple[bytes, bytes]] | None, seen: list[tuple[bytes, bytes]]
) -> None:
    protocol: Any = SimpleNamespace(connection=object())
    scope = {"headers": [(b"host", b"a")], "extensions": {"websocket.http.response": {}}}
    given: Any = _published(
        lambda scope, *_: scope,
        protocol,
        b"/talk",
        sent,
        scope,
        None,
        None,
    )
    assert given["headers"] == seen
    assert given["extensions"] == {
        "websocket.http.response": {},
        PEER: protocol.connection,
        TARGET: b"/talk",
    }
