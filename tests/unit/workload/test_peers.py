from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from zerotrust.core.errors import ConfigurationError, UnsafeSetting, ZeroTrustError
from zerotrust.workload.peers import Peers

ORDERS = "spiffe://example.org/orders"
LEDGER = "spiffe://example.org/ledger"


def test_one_peer_is_expected_everywhere() -> None:
    peers = Peers(ORDERS, None)
    assert set(map(str, peers.ids)) == {ORDERS}
    assert str(peers.expected_at(b"https", b"anything.test", 8443)) == ORDERS
    assert str(peers.expected_at(b"wss", b"anything.test", None)) == ORDERS


@pytest.mark.parametrize("scheme", [b"http", b"ws", b"ftp", b""])
def test_only_tls_is_spoken(scheme: bytes) -> None:
    with pytest.raises(UnsafeSetting):
        Peers(ORDERS, None).expected_at(scheme, b"orders.test", None)


def test_targets_are_told_apart_by_host_and_port() -> None:
    peers = Peers(None, {"https://A.test": ORDERS, "https://a.test:8443/": LEDGER})
    assert str(peers.expected_at(b"https", b"a.test", None)) == ORDERS
    assert str(peers.expected_at(b"https", b"a.test", 443)) == ORDERS
    assert str(peers.expected_at(b"https", b"a.test", 8443)) == LEDGER
    for host, port in ((b"a.test", 8444), (b"b.test", None), (b"a.test.", None)):
        with pytest.raises(ConfigurationError, match="no peer is expected"):
            peers.expected_at(b"https", host, port)


def test_an_ipv6_target_is_named_in_brackets() -> None:
    peers = Peers(None, {"https://[::1]:8443": ORDERS})
    assert str(peers.expected_at(b"https", b"::1", 8443)) == ORDERS


@pytest.mark.parametrize(
    "target",
    [
        "http://a.test",
        "a.test",
        "a.test:443",
        "https://",
        "https://a.test/path",
        "https://a.test?query",
        "https://a.test#fragment",
        "https://user@a.test",
        "https://a.test:port",
        "https://a.test:99999",
        "https://bücher.test",
        "https://[::1",
        "",
    ],
)
def test_what_is_no_target_is_refused(target: str) -> None:
    with pytest.raises(ConfigurationError, match="no target"):
        Peers(None, {target: ORDERS})


@given(st.text(max_size=60) | st.text(max_size=40).map("https://{}".format))
def test_any_text_is_a_target_or_refused(text: str) -> None:
    try:
        peers = Peers(None, {text: ORDERS})
    except ZeroTrustError:
        return
    assert text.lower().startswith("https://")
    assert len(peers.ids) == 1
