from __future__ import annotations

import ssl

import pytest
from hypothesis import given
from hypothesis import strategies as st

from zerotrust.asgi.problem import TYPE_PREFIX
from zerotrust.core.errors import (
    CertificateRejected,
    Closed,
    Reason,
    RequestRejected,
    UnsafeSetting,
    ZeroTrustError,
)
from zerotrust.core.mode import Mode
from zerotrust.core.spiffe.ids import SpiffeId
from zerotrust.workload.outbound import (
    PROBLEM_TYPE,
    asked_mode,
    identity_failure,
    may_ask,
    own_headers,
    require_same_peer,
)
from zerotrust.workload.tls.peer import HandshakeRefused

STALE = b'{"type":"urn:zerotrust:problem:proof-stale"}'
WEAK = b'{"type":"urn:zerotrust:problem:mode-insufficient"}'
PROBLEM = {"content-type": "application/problem+json", "content-length": "44"}


def test_client_and_server_name_problems_alike() -> None:
    assert PROBLEM_TYPE == TYPE_PREFIX


def test_headers_of_the_application_pass_in_order() -> None:
    raw = [(b"Host", b"a.test"), (b"Accept", b"*/*"), (b"accept", b"text/html")]
    assert own_headers(raw, frozenset()) == (raw, None)


def test_a_wit_of_the_application_is_left_out() -> None:
    assert own_headers([(b"Workload-IDENTITY-Token", b"x")], frozenset()) == ([], None)


@pytest.mark.parametrize("name", [b"Authorization", b"AUTHORIZATION", b"authorization"])
def test_an_authorization_of_the_application_is_refused(name: bytes) -> None:
    with pytest.raises(UnsafeSetting):
        own_headers([(name, b"Bearer x")], frozenset())


def test_covered_headers_are_picked_once_each() -> None:
    cover = frozenset({b"x-user-token"})
    once = [(b"X-User-Token", b"u")]
    assert own_headers(once, cover) == (once, {"x-user-token": "u"})
    other = [(b"accept", b"*/*")]
    assert own_headers(other, cover) == (other, None)
    assert own_headers([*other, *once], cover)[1] == {"x-user-token": "u"}
    with pytest.raises(RequestRejected) as refused:
        own_headers([*once, (b"x-user-token", b"v")], cover)
    assert refused.value.reason is Reason.HEADER_DUPLICATE


def test_a_call_stays_with_the_peer_it_was_meant_for() -> None:
    orders, ledger = (SpiffeId.parse(f"spiffe://example.org/{n}") for n in ("orders", "ledger"))
    extensions: dict[str, object] = {"timeout": {}}
    require_same_peer(extensions, orders)
    require_same_peer(dict(extensions), orders)
    require_same_peer(dict(extensions), SpiffeId.parse(str(orders)))
    with pytest.raises(CertificateRejected) as refused:
        require_same_peer(dict(extensions), ledger)
    assert refused.value.reason is Reason.PEER_UNEXPECTED


@pytest.mark.parametrize(
    ("status", "changes"),
    [
        (200, {}),
        (500, {}),
        (401, {"content-type": "application/json"}),
        (401, {"content-length": "4097"}),
        (401, {"content-length": "-1"}),
        (401, {"content-length": ""}),
        (401, {"content-encoding": "gzip"}),
    ],
)
def test_only_a_short_problem_document_may_ask_for_more(
    status: int, changes: dict[str, str]
) -> None:
    assert may_ask(401, PROBLEM)
    assert may_ask(403, {**PROBLEM, "content-length": "4096"})
    assert not may_ask(status, {**PROBLEM, **changes})


@pytest.mark.parametrize(
    ("body", "mode", "asked"),
    [
        (WEAK, Mode.BOUND, Mode.PROOF),
        (WEAK, Mode.PROOF, None),
        (STALE, Mode.PROOF, Mode.PROOF),
        (STALE, Mode.BOUND, None),
        (b'{"type":"urn:zerotrust:problem:forbidden"}', Mode.BOUND, None),
        (b'{"type":["urn:zerotrust:problem:proof-stale"]}', Mode.PROOF, None),
        (b"[]", Mode.BOUND, None),
        (b"{", Mode.BOUND, None),
        (b"\xff", Mode.BOUND, None),
    ],
)
def test_what_a_problem_asks_for(body: bytes, mode: Mode, asked: Mode | None) -> None:
    assert asked_mode(body, mode) is asked


@given(st.binary(max_size=200) | st.integers(1, 4000).map(lambda n: b"[" * n))
def test_any_body_asks_for_nothing_or_for_a_proof(body: bytes) -> None:
    assert asked_mode(body, Mode.BOUND) in (None, Mode.PROOF)


def _wrapped(cause: BaseException) -> BaseException:
    """As httpcore does it: the cause is cut, the argument stays."""
    outer = OSError(cause)
    outer.__cause__ = None
    top = RuntimeError("connect")
    top.__cause__ = outer
    return top


@pytest.mark.parametrize(
    ("below", "reason"),
    [
        (HandshakeRefused(Closed()), Reason.IDENTITY_CLOSED),
        (CertificateRejected(Reason.PEER_EXPIRED), Reason.PEER_EXPIRED),
    ],
)
def test_an_identity_failure_is_found_below_a_connect_error(
    below: BaseException, reason: Reason
) -> None:
    found = identity_failure(_wrapped(below))
    assert isinstance(found, ZeroTrustError)
    assert found.reason is reason


def test_a_verification_failure_of_openssl_is_an_identity_failure() -> None:
    below = ssl.SSLCertVerificationError(1, "certificate verify failed")
    below.verify_message = "self-signed certificate"
    found = identity_failure(_wrapped(below))
    assert found is not None
    assert found.reason is Reason.PEER_UNTRUSTED


def test_a_broken_connection_is_no_identity_failure() -> None:
    broken = _wrapped(ConnectionResetError())
    broken.__context__ = CertificateRejected(Reason.PEER_EXPIRED)  # an earlier, handled failure
    assert identity_failure(broken) is None
    assert identity_failure(ConnectionResetError(104, "reset by peer")) is None
