"""Open streams and WebSockets end with what they rest on."""

from __future__ import annotations

import base64
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from support.identities import FixedIdentity
from support.served import POLICY, Peer, Served, Wire
from zerotrust import clock
from zerotrust.core.spiffe.bundle import BundleSet
from zerotrust.probe.forge import ForgedAuthority

LIFE = 3.0
IN_TIME = LIFE + 1 + 1.5  # the grace, and one look of the timer


@pytest.fixture(scope="module", params=["websockets", "wsproto"])
def served(request: pytest.FixtureRequest) -> Iterator[Served]:
    http = "h11" if request.param == "wsproto" else "httptools"
    with Served(options={"ws": request.param, "http": http}) as served:
        yield served


def short_lived(served: Served) -> Peer:
    """A caller whose certificate ends in LIFE seconds; its tokens would live longer."""
    svid = served.ca.issue("web", not_before=clock.now() - 60, ttl=60 + LIFE)
    return Peer(served.ca, served.port, served.ca.snapshot(svid=svid))


def upgrade(wire: Wire, path: str, tokens: list[tuple[str, str]]) -> int | None:
    fields = [
        ("connection", "Upgrade"),
        ("upgrade", "websocket"),
        ("sec-websocket-version", "13"),
        ("sec-websocket-key", base64.b64encode(os.urandom(16)).decode()),
    ]
    return wire.ask(path, [*tokens, *fields]).status


def send_text(wire: Wire, text: bytes) -> bytes:
    """Send one masked frame; return the payload of the answer."""
    mask = os.urandom(4)
    masked = bytes(byte ^ mask[i % 4] for i, byte in enumerate(text))
    wire.sock.sendall(bytes([0x81, 0x80 | len(text)]) + mask + masked)
    head = wire.sock.recv(2)
    return wire.sock.recv(head[1])


def test_an_allowed_websocket_talks(served: Served) -> None:
    web = served.caller()
    with web.connect() as wire:
        assert upgrade(wire, "/talk", web.tokens()) == 101
        assert send_text(wire, b"hello") == b"hello"


def test_a_websocket_without_a_token_is_refused(served: Served) -> None:
    web = served.caller()
    with web.connect() as wire:
        assert upgrade(wire, "/talk", []) == 401
        assert wire.ends_within(2) is not None
    assert "token.missing" in served.lines.reasons()


def test_a_get_rule_opens_no_websocket(served: Served) -> None:
    web = served.caller()
    with web.connect() as wire:
        assert upgrade(wire, "/echo", web.tokens()) == 403


def test_an_open_route_opens_no_websocket(served: Served) -> None:
    web = served.caller()
    with web.connect() as wire:
        assert upgrade(wire, "/healthz", []) == 401


def test_a_websocket_rule_allows_no_get(served: Served) -> None:
    web = served.caller()
    assert web.ask("/talk").status == 403


def test_a_websocket_with_a_stripping_connection_field_is_refused(served: Served) -> None:
    web = served.caller()
    with web.connect() as wire:
        fields = [
            ("connection", "Upgrade, authorization"),
            ("upgrade", "websocket"),
            ("sec-websocket-version", "13"),
            ("sec-websocket-key", "dGhlIHNhbXBsZSBub25jZQ=="),
        ]
        assert wire.ask("/talk", [*web.tokens(), *fields]).status == 400


@pytest.mark.parametrize("target", ["/talk#x", "//talk", "/%74alk", "https://evil.test/talk"])
def test_a_websocket_target_with_two_readings_is_refused(served: Served, target: str) -> None:
    web = served.caller()
    with web.connect() as wire:
        assert upgrade(wire, target, web.tokens()) == 400


def test_an_endless_stream_ends_with_the_callers_certificate(served: Served) -> None:
    web = short_lived(served)
    with web.connect() as wire:
        wire.send("/stream", web.tokens())
        ended = wire.ends_within(IN_TIME)
    assert ended is not None
    assert ended > LIFE - 1.5


def test_a_silent_stream_ends_with_the_callers_certificate(served: Served) -> None:
    web = short_lived(served)
    with web.connect() as wire:
        wire.send("/silent", web.tokens())
        assert wire.ends_within(IN_TIME) is not None


def test_a_silent_websocket_ends_with_the_callers_certificate(served: Served) -> None:
    web = short_lived(served)
    with web.connect() as wire:
        assert upgrade(wire, "/talk", web.tokens()) == 101
        assert wire.ends_within(IN_TIME) is not None


def test_an_idle_connection_ends_with_the_callers_certificate(served: Served) -> None:
    web = short_lived(served)
    with web.connect() as wire:
        assert wire.ask("/echo", web.tokens()).status == 200
        assert wire.ends_within(IN_TIME) is not None


def test_a_stream_outlives_its_token(served: Served) -> None:
    web = served.caller()
    with web.connect() as wire:
        wire.send("/stream", web.tokens(ttl=1))
        assert wire.ends_within(3) is None


def test_a_deny_rule_added_to_the_file_ends_open_streams(tmp_path: Path) -> None:
    path = tmp_path / "policy.toml"
    path.write_text(POLICY)
    path.chmod(0o600)
    with Served(policy=path) as served:
        web = served.caller()
        with web.connect() as stream, web.connect() as talk:
            stream.send("/stream", web.tokens())
            assert upgrade(talk, "/talk", web.tokens()) == 101
            path.write_text(POLICY + '[[deny]]\nid = "brake"\nfrom = ["web"]\nto = ["*"]\n')
            assert stream.ends_within(4) is not None
            assert talk.ends_within(4) is not None


def test_a_policy_change_that_still_allows_leaves_open_streams(tmp_path: Path) -> None:
    path = tmp_path / "policy.toml"
    path.write_text(POLICY)
    path.chmod(0o600)
    with Served(policy=path) as served:
        web = served.caller()
        with web.connect() as stream:
            stream.send("/stream", web.tokens())
            path.write_text(POLICY + '[[deny]]\nid = "brake"\nfrom = ["cron"]\nto = ["*"]\n')
            assert stream.ends_within(3) is None


def test_bundles_that_no_longer_know_the_caller_end_its_streams() -> None:
    ca, other = (ForgedAuthority(now=clock.now()) for _ in range(2))
    first = ca.snapshot("orders")
    identity = FixedIdentity(first)
    with Served(ca=ca, identity=identity) as served:
        web = served.caller()
        with web.connect() as stream:
            stream.send("/silent", web.tokens())
            assert stream.sock.recv(10)
            identity.rotate(ca.snapshot("orders", bundles=BundleSet([other.bundle])))
            assert stream.ends_within(3) is not None


def test_a_rotation_of_our_own_certificate_leaves_open_streams() -> None:
    ca = ForgedAuthority(now=clock.now())
    first = ca.snapshot("orders")
    identity = FixedIdentity(first)
    with Served(ca=ca, identity=identity) as served:
        web = served.caller()
        with web.connect() as stream:
            stream.send("/stream", web.tokens())
            identity.rotate(ca.snapshot("orders", bundles=first.bundles))
            assert stream.ends_within(3) is None
