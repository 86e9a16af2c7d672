"""What has two readings is refused; each row is one change from a request that is accepted."""

from __future__ import annotations

import pytest

from zerotrust.core.errors import Reason, RequestRejected
from zerotrust.core.request import (
    MAX_FIELD_BYTES,
    MAX_TARGET_BYTES,
    SINGLE_FIELDS,
    WATCHED_FIELDS,
    Authorities,
    Host,
    parse_target,
    pick_watched,
    read_fields,
    require_method,
)


@pytest.mark.parametrize(
    ("target", "path", "query"),
    [
        (b"/", "/", b""),
        (b"/orders/7", "/orders/7", b""),
        (b"/orders/", "/orders/", b""),
        (b"/a.b/.hidden/...", "/a.b/.hidden/...", b""),
        (b"/users/a%40b.example", "/users/a@b.example", b""),
        (b"/caf%C3%A9", "/caf\u00e9", b""),
        (b"/100%25", "/100%", b""),
        (b"/a?x=%2F%2e;y='\"", "/a", b"x=%2F%2e;y='\""),
        (b"/a:b@c!$&'()*+,=", "/a:b@c!$&'()*+,=", b""),
    ],
)
def test_a_canonical_target_is_read(target: bytes, path: str, query: bytes) -> None:
    read = parse_target(target)
    assert (read.path, read.query) == (path, query)
    assert read.raw_path == target.partition(b"?")[0]


@pytest.mark.parametrize(
    "target",
    [
        b"",
        b"*",
        b"orders",
        b"http://evil.example/orders",
        b"https://localhost:8443/orders",
        b"//orders",
        b"/orders//7",
        b"/orders/../admin",
        b"/orders/.",
        b"/./orders",
        b"/orders/..",
        b"/orders/%2e%2e/admin",
        b"/orders/%2E%2E/admin",
        b"/orders/..%2fadmin",
        b"/orders%2F7",
        b"/orders%5C7",
        b"/orders\\7",
        b"/orders;v=1",
        b"/orders%3Bv=1",
        b"/orders/..;/admin",
        b"/orders#x",
        b"/orders?x#y",
        b"/orders?",
        b"/%61dmin",
        b"/orders/%7E",
        b"/orders/%00",
        b"/orders/%1F",
        b"/orders/%0A",
        b"/orders/%7F",
        b"/orders/\x00",
        b"/orders/\x7f",
        b"/orders/\xc3\xa9",
        b"/orders/%C0%AF",
        b"/orders/%FF",
        b"/orders/%ED%A0%80",
        b"/orders/%c3%a9",
        b"/orders/%",
        b"/orders/%4",
        b"/orders/%GG",
        b"/orders/%252e%252e",
        b"/orders/%252F",
        b"/orders 7",
        b"/orders\t",
        b"/orders\n",
        b"/orders?x y",
        b"/orders?x\n",
        b"/orders|7",
        b"/orders/{id}",
        b'/orders/"',
    ],
)
def test_an_ambiguous_target_is_refused(target: bytes) -> None:
    with pytest.raises(RequestRejected) as refusal:
        parse_target(target)
    assert refusal.value.reason is Reason.PATH_AMBIGUOUS


def test_a_target_over_the_limit_is_refused() -> None:
    longest = b"/" + b"a" * (MAX_TARGET_BYTES - 1)
    assert parse_target(longest).raw_path == longest
    with pytest.raises(RequestRejected) as refusal:
        parse_target(longest + b"a")
    assert refusal.value.reason is Reason.REQUEST_TOO_LARGE


@pytest.mark.parametrize("method", ["GET", "POST", "M-SEARCH", "X"])
def test_a_method_in_upper_case_is_read(method: str) -> None:
    require_method(method)


@pytest.mark.parametrize(
    "method", ["", "get", "Get", "GET ", "GET\n", "-GET", "GET-", "G\u00cbT", "A" * 40, "WS"]
)
def test_any_other_method_is_refused(method: str) -> None:
    with pytest.raises(RequestRejected) as refusal:
        require_method(method)
    assert refusal.value.reason is Reason.METHOD_INVALID


@pytest.mark.parametrize(
    ("value", "name", "port"),
    [
        (b"localhost", "localhost", None),
        (b"LocalHost:8443", "localhost", 8443),
        (b"127.0.0.1:1", "127.0.0.1", 1),
        (b"[::1]:65535", "[::1]", 65535),
    ],
)
def test_a_host_is_read(value: bytes, name: str, port: int | None) -> None:
    assert Host.parse(value) == Host(name, port)


@pytest.mark.parametrize(
    "value",
    [
        b"",
        b"local host",
        b"localhost/admin",
        b"localhost?x",
        b"localhost#x",
        b"localhost\t",
        b"user@localhost",
        b"localhost:",
        b"localhost:0",
        b"localhost:65536",
        b"localhost:8443:1",
        b"localhost,other",
        b"[::1",
        b"::1",
        b"loc\xc3\xa4lhost",
        b"localhost\n",
        b"%6cocalhost",
    ],
)
def test_a_host_with_another_grammar_is_refused(value: bytes) -> None:
    with pytest.raises(RequestRejected) as refusal:
        Host.parse(value)
    assert refusal.value.reason is Reason.HOST_INVALID


@pytest.mark.parametrize(
    "value", [b"localhost:8443", b"localhost", b"LOCALHOST", b"orders.example:443"]
)
def test_our_own_authority_is_accepted_with_or_without_its_port(value: bytes) -> None:
    Authorities(["localhost:8443", "orders.example:443"]).require(value)


@pytest.mark.parametrize(
    "value",
    [b"localhost:8444", b"orders.example:8443", b"evil.example", b"localhost.", b"a.localhost"],
)
def test_another_authority_is_misdirected(value: bytes) -> None:
    with pytest.raises(RequestRejected) as refusal:
        Authorities(["localhost:8443", "orders.example:443"]).require(value)
    assert refusal.value.reason is Reason.HOST_UNKNOWN


def test_no_authority_at_all_answers_nobody() -> None:
    with pytest.raises(RequestRejected):
        Authorities([]).require(b"localhost")


def test_target_uris_leave_out_the_default_port() -> None:
    uris = Authorities(["b.example:8443", "a.example:443"]).target_uris(b"/x%40")
    assert uris == ("https://a.example/x%40", "https://b.example:8443/x%40")


def test_watched_fields_are_picked_in_order_under_any_spelling() -> None:
    headers = [
        (b"Workload_Identity-Token", b"1"),
        (b"accept", b"x"),
        (b"HOST", b"h"),
        (b"workload-identity-token", b"2"),
    ]
    assert pick_watched(headers, WATCHED_FIELDS) == (headers[0], headers[2], headers[3])


def test_fields_are_read_by_their_plain_name() -> None:
    assert read_fields([(b"Host", b"h"), (b"connection", b"keep-alive")], SINGLE_FIELDS) == {
        b"host": b"h",
        b"connection": b"keep-alive",
    }


@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        ([(b"authorization", b"a"), (b"authorization", b"a")], Reason.HEADER_DUPLICATE),
        ([(b"host", b"a"), (b"Host", b"a")], Reason.HEADER_DUPLICATE),
        ([(b"txn-token", b"a"), (b"txn-token", b"b")], Reason.HEADER_DUPLICATE),
        ([(b"workload_identity_token", b"a")], Reason.HEADER_TWIN),
        ([(b"x_forwarded-client-cert", b"a")], Reason.HEADER_TWIN),
        ([(b"connection", b"close, Authorization")], Reason.HEADER_CONNECTION),
        ([(b"connection", b"workload_identity_token")], Reason.HEADER_CONNECTION),
        ([(b"connection", b"keep-alive"), (b"connection", b"txn-token")], Reason.HEADER_CONNECTION),
        ([(b"authorization", b"a" * (MAX_FIELD_BYTES + 1))], Reason.REQUEST_TOO_LARGE),
    ],
)
def test_a_field_with_two_readings_is_refused(
    fields: list[tuple[bytes, bytes]], reason: Reason
) -> None:
    with pytest.raises(RequestRejected) as refusal:
        read_fields(fields, SINGLE_FIELDS)
    assert refusal.value.reason is reason
