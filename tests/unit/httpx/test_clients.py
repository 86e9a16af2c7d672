from __future__ import annotations

import importlib.util
from typing import Any

import pytest

from support.clients import FLAVOURS, Flavour
from support.identities import FixedIdentity
from zerotrust import clock
from zerotrust.core.errors import BadSpiffeId, ConfigurationError, UnsafeSetting
from zerotrust.core.mode import Mode
from zerotrust.core.spiffe.ids import SpiffeId
from zerotrust.probe.forge import ForgedAuthority

PEER = "spiffe://example.org/orders"
each_flavour = pytest.mark.parametrize("flavour", FLAVOURS, ids=str)


@pytest.fixture(scope="module")
def me() -> FixedIdentity:
    return FixedIdentity(ForgedAuthority(now=clock.now()).snapshot("web"))


def _client(flavour: Flavour, me: FixedIdentity, **options: Any) -> Any:
    name = "Client" if flavour.colour == "sync" else "AsyncClient"
    return getattr(flavour.adapter, name)(me, **options)


@each_flavour
@pytest.mark.parametrize(
    "expectation",
    [
        {},
        {"peer": None},
        {"peer": ""},
        {"peers": {}},
        {"peer": PEER, "peers": {"https://localhost": PEER}},
    ],
)
def test_whom_to_expect_has_no_default(
    flavour: Flavour, me: FixedIdentity, expectation: dict[str, Any]
) -> None:
    with pytest.raises(ConfigurationError, match="whom you expect"):
        _client(flavour, me, **expectation)


@each_flavour
def test_whom_to_expect_is_an_id_or_its_text(flavour: Flavour, me: FixedIdentity) -> None:
    _client(flavour, me, peer=PEER)
    _client(flavour, me, peer=SpiffeId.parse(PEER))
    with pytest.raises(BadSpiffeId):
        _client(flavour, me, peer="orders")


@each_flavour
@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("trust_env", True),
        ("verify", True),
        ("verify", "/etc/ssl/ca.pem"),
        ("cert", "/etc/ssl/me.pem"),
        ("proxy", "http://proxy.test"),
        ("mounts", {"https://": None}),
        ("transport", object()),
        ("auth", ("user", "password")),
    ],
)
def test_an_option_that_would_go_round_the_check_is_refused(
    flavour: Flavour, me: FixedIdentity, name: str, value: Any
) -> None:
    with pytest.raises(UnsafeSetting, match=f"{name}= cannot be set"):
        _client(flavour, me, peer=PEER, **{name: value})


@each_flavour
def test_verification_cannot_be_switched_off(flavour: Flavour, me: FixedIdentity) -> None:
    with pytest.raises(UnsafeSetting, match="verify= cannot be set"):
        _client(flavour, me, peer=PEER, verify=False)


@each_flavour
def test_an_option_that_says_what_is_so_is_taken(flavour: Flavour, me: FixedIdentity) -> None:
    _client(flavour, me, peer=PEER, trust_env=False, proxy=None, http1=True, timeout=3)


@each_flavour
def test_the_environment_is_never_trusted(flavour: Flavour, me: FixedIdentity) -> None:
    assert _client(flavour, me, peer=PEER).trust_env is False


@each_flavour
def test_redirects_are_not_followed_by_default(flavour: Flavour, me: FixedIdentity) -> None:
    assert _client(flavour, me, peer=PEER).follow_redirects is False


@each_flavour
def test_a_base_url_where_nobody_is_expected_is_refused(
    flavour: Flavour, me: FixedIdentity
) -> None:
    _client(flavour, me, peers={"https://orders.test": PEER}, base_url="https://orders.test/v1")
    with pytest.raises(ConfigurationError, match="no peer is expected"):
        _client(flavour, me, peers={"https://orders.test": PEER}, base_url="https://ledger.test")
    with pytest.raises(UnsafeSetting, match="http://"):
        _client(flavour, me, peer=PEER, base_url="http://orders.test")


@each_flavour
def test_an_identity_without_an_identity_token_may_not_call(flavour: Flavour) -> None:
    server_only = ForgedAuthority(now=clock.now()).snapshot("web", with_wit=False)
    with pytest.raises(ConfigurationError, match="not call"):
        _client(flavour, FixedIdentity(server_only), peer=PEER)


@each_flavour
@pytest.mark.parametrize("mode", ["bound", "proof", Mode.BOUND, Mode.PROOF])
def test_a_client_speaks_bound_or_proof(
    flavour: Flavour, me: FixedIdentity, mode: str | Mode
) -> None:
    _client(flavour, me, peer=PEER, mode=mode)


@each_flavour
@pytest.mark.parametrize("mode", ["bearer", "", "BOUND", Mode.SEALED, 1])
def test_there_is_no_other_mode(flavour: Flavour, me: FixedIdentity, mode: Any) -> None:
    with pytest.raises(ConfigurationError, match="mode"):
        _client(flavour, me, peer=PEER, mode=mode)


@each_flavour
@pytest.mark.parametrize(
    "cover",
    ["x-user-token", ["authorization"], ["Workload-Identity-Token"], ["Txn-Token"], ["a b"]],
)
def test_a_header_that_is_not_the_applications_cannot_be_covered(
    flavour: Flavour, me: FixedIdentity, cover: Any
) -> None:
    with pytest.raises(ConfigurationError, match="cover"):
        _client(flavour, me, peer=PEER, cover=cover)


@each_flavour
def test_a_transport_takes_no_unknown_option(flavour: Flavour, me: FixedIdentity) -> None:
    name = "Transport" if flavour.colour == "sync" else "AsyncTransport"
    with pytest.raises(ConfigurationError, match="retries"):
        getattr(flavour.adapter, name)(me, peer=PEER, retries=3)


@each_flavour
def test_http2_without_its_package_is_said_at_once(
    flavour: Flavour, me: FixedIdentity, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda _: None)
    with pytest.raises(ConfigurationError, match="pip install h2"):
        _client(flavour, me, peer=PEER, http2=True)


@each_flavour
@pytest.mark.parametrize(
    "name",
    [
        "ConnectError",
        "ConnectTimeout",
        "LocalProtocolError",
        "PoolTimeout",
        "ReadError",
        "ReadTimeout",
        "RemoteProtocolError",
        "UnsupportedProtocol",
        "WriteError",
        "WriteTimeout",
    ],
)
def test_a_failure_below_is_told_as_the_librarys_error_of_the_same_name(
    flavour: Flavour, me: FixedIdentity, name: str
) -> None:
    kind = "Transport" if flavour.colour == "sync" else "AsyncTransport"
    transport = getattr(flavour.adapter, kind)(me, peer=PEER)
    told = transport.told(getattr(transport.core, name)("why"))
    assert (type(told), str(told)) == (getattr(flavour.module, name), "why")
    assert isinstance(told, flavour.module.TransportError)


@each_flavour
def test_an_error_of_the_application_stays_what_it_is(flavour: Flavour, me: FixedIdentity) -> None:
    kind = "Transport" if flavour.colour == "sync" else "AsyncTransport"
    transport = getattr(flavour.adapter, kind)(me, peer=PEER)
    for own in (ValueError("body"), flavour.module.ReadError("from upstream"), KeyboardInterrupt()):
        assert transport.told(own) is own
