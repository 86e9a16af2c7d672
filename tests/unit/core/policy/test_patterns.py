from __future__ import annotations

from collections.abc import Callable

import pytest

from zerotrust.core.errors import BadPolicy
from zerotrust.core.policy.patterns import (
    PolicyFault,
    parse_caller,
    parse_principal,
    parse_route,
    shown,
    split_call,
)
from zerotrust.core.spiffe.ids import SpiffeId, TrustDomain

OWN = TrustDomain("example.org")


@pytest.mark.parametrize(
    ("pattern", "path", "covered"),
    [
        ("ns/prod/sa/web", "ns/prod/sa/web", True),
        ("ns/prod/sa/web", "ns/prod/sa/webx", False),
        ("ns/prod/sa/web", "ns/prod/sa", False),
        ("ns/prod/sa/web", "ns/prod/sa/web/x", False),
        ("ns/prod/sa/web", "ns/prod/sa/Web", False),
        ("ns/prod/sa.web", "ns/prod/saxweb", False),  # a dot is a dot
        ("ns/*/sa/web", "ns/prod/sa/web", True),
        ("ns/*/sa/web", "ns/prod/x/sa/web", False),
        ("*", "web", True),
        ("*", "web/1", False),
        ("ns/...", "ns/a", True),
        ("ns/...", "ns/a/b/c", True),
        ("ns/...", "ns", False),
        ("...", "anything/at/all", True),
        ("spiffe://example.org/web", "web", True),
        ("spiffe://example.org/web", "web/1", False),
    ],
)
def test_a_principal_covers_whole_segments_only(pattern: str, path: str, covered: bool) -> None:
    assert parse_principal(pattern, OWN).covers(OWN.id(path)) is covered


@pytest.mark.parametrize("pattern", ["...", "*", "web", "spiffe://example.org/web"])
def test_no_pattern_crosses_the_trust_domain(pattern: str) -> None:
    foreign = SpiffeId.parse("spiffe://partner.example/web")
    assert not parse_principal(pattern, OWN).covers(foreign)
    assert parse_principal("spiffe://partner.example/web", OWN).covers(foreign)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "/web",
        "web/",
        "a//b",
        "a/../b",
        "a/./b",
        ".../a",
        "a/.../b",
        "we*",
        "*b/c",
        "a b",
        "ä",
        "a\n",
        "spiffe://example.org",
        "spiffe://example.org/",
        "spiffe://example.org/a/*",
        "spiffe://example.org/...",
        "spiffe://*/a",
        "wimse://example.org/a",
        "https://example.org/a",
        "SPIFFE://example.org/a",
        "a" * 2049,
        "/".join("a" * 65),
        "${x}",
        "a/{x}",
    ],
)
def test_what_is_no_principal_is_refused(text: str) -> None:
    with pytest.raises(PolicyFault):
        parse_principal(text, OWN)


@pytest.mark.parametrize(
    ("template", "method", "path", "covered"),
    [
        ("GET /orders/{id}", "GET", "/orders/7", True),
        ("GET /orders/{id}", "GET", "/orders/", False),
        ("GET /orders/{id}", "GET", "/orders", False),
        ("GET /orders/{id}", "GET", "/orders/7/", False),
        ("GET /orders/{id}", "GET", "/orders/7/lines", False),
        ("GET /orders/{id}", "HEAD", "/orders/7", False),
        ("GET /orders/{id}", "get", "/orders/7", False),
        ("GET /orders/", "GET", "/orders/", True),
        ("GET /orders/", "GET", "/orders", False),
        ("GET /", "GET", "/", True),
        ("GET /files/{path...}", "GET", "/files/a", True),
        ("GET /files/{path...}", "GET", "/files/a/b/c", True),
        ("GET /files/{path...}", "GET", "/files/", True),
        ("GET /files/{path...}", "GET", "/files", False),
        ("GET /{path...}", "GET", "/", True),
        ("GET /{path...}", "POST", "/a", False),
        ("GET /{path...}", "WS", "/a", False),
        ("* /admin", "DELETE", "/admin", True),
        ("* /admin", "WS", "/admin", False),
        ("* /admin", "grpc", "/admin", False),
        ("* /{path...}", "GET", "/a", True),
        ("* /{path...}", "WS", "/a", False),
        ("* /{path...}", "grpc", "a.B/C", False),
        ("WS /echo", "WS", "/echo", True),
        ("WS /echo", "GET", "/echo", False),
        ("GET /echo", "WS", "/echo", False),
        ("grpc:shop.v1.Orders/Get", "grpc", "shop.v1.Orders/Get", True),
        ("grpc:shop.v1.Orders/Get", "grpc", "shop.v1.Orders/GetAll", False),
        ("grpc:shop.v1.Orders/*", "grpc", "shop.v1.Orders/Get", True),
        ("grpc:shop.v1.Orders/*", "grpc", "shopxv1.Orders/Get", False),
        ("grpc:shop.v1.Orders/*", "grpc", "shop.v1.Orders/", False),
        ("GET /caf%C3%A9", "GET", "/café", True),
        ("GET /a%20b", "GET", "/a b", True),
        ("GET /%7Bid%7D", "GET", "/{id}", True),
        ("GET /%2A", "GET", "/*", True),
        ("GET /%2A", "GET", "/x", False),
        ("GET /a.b", "GET", "/axb", False),
        ("*", "GET", "/any/thing", True),
        ("*", "WS", "/echo", True),
        ("*", "grpc", "a.B/C", True),
        ("GET /a", "GET", "a", False),
    ],
)
def test_a_template_covers_segment_by_segment(
    template: str, method: str, path: str, covered: bool
) -> None:
    assert parse_route(template).covers(method, path) is covered


@pytest.mark.parametrize(
    "text",
    [
        "",
        "GET",
        "/orders",
        "GET orders",
        "GET  /orders",
        "get /orders",
        "G*T /orders",
        "GET /orders ",
        "GET //orders",
        "GET /a//b",
        "GET /a/../b",
        "GET /a/./b",
        "GET /a/%2e%2e",
        "GET /a/%2E%2E",
        "GET /..",
        "GET /%61",
        "GET /a%2Fb",
        "GET /a%5Cb",
        "GET /a\\b",
        "GET /a;b",
        "GET /a%3Bb",
        "GET /a#b",
        "GET /a?b",
        "GET /a%00",
        "GET /a%1F",
        "GET /a%7F",
        "GET /%C0%AF",
        "GET /%FF",
        "GET /%",
        "GET /%zz",
        "GET /%c3%a9",
        "GET /%2541",
        "GET /é",
        "GET /a b",
        "GET /a*",
        "GET /*",
        "GET /{id",
        "GET /id}",
        "GET /x{id}",
        "GET /{id}x",
        "GET /{}",
        "GET /{...}",
        "GET /{1}",
        "GET /{a...}/b",
        "GET /{a..}",
        "GET /{a....}",
        "GET https://h/a",
        "* *",
        "**",
        "grpc:",
        "grpc:Orders",
        "grpc:shop.v1.Orders/",
        "grpc:/Get",
        "grpc:shop..Orders/Get",
        "grpc:shop.*/Get",
        "grpc:shop.v1.Orders/Get/x",
        "grpc:shop.v1.Orders/G*",
        "grpc: shop.v1.Orders/Get",
        "GET /" + "a" * 2048,
        "GET /" + "/".join("a" * 65),
        "GET /a\n",
        "WS",
    ],
)
def test_what_is_no_route_is_refused(text: str) -> None:
    with pytest.raises(PolicyFault):
        parse_route(text)


@pytest.mark.parametrize(
    ("read", "start"), [(lambda text: parse_principal(text, OWN), "a"), (parse_route, "GET /a")]
)
def test_texts_and_segments_are_bounded_to_the_last_one(
    read: Callable[[str], object], start: str
) -> None:
    longest, most = start + "a" * (2048 - len(start)), start + "/a" * 63
    assert read(longest)
    assert read(most)
    with pytest.raises(PolicyFault, match="2048 characters"):
        read(longest + "a")
    with pytest.raises(PolicyFault, match="64 segments"):
        read(most + "/a")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("a//b", "no leading, trailing or double slash"),
        ("a/.../b", "stands only at the end"),
        ("we*", "is one whole segment"),
        ("a b", "segments are made of"),
    ],
)
def test_a_fault_in_a_caller_says_how_to_mend_it(text: str, said: str) -> None:
    with pytest.raises(PolicyFault, match=said):
        parse_principal(text, OWN)


def test_a_star_in_a_path_is_told_how_to_name_a_segment() -> None:
    with pytest.raises(PolicyFault, match=r"write \{name\} for one segment"):
        parse_route("GET /*")


def test_what_is_shown_of_a_text_is_cut_after_eighty_characters() -> None:
    assert shown("a" * 80) == repr("a" * 80)
    assert shown("a" * 81) == repr("a" * 80) + "..."


@pytest.mark.parametrize("text", ["a/*", "*", "a/...", "..."])
def test_a_pattern_is_no_single_caller(text: str) -> None:
    with pytest.raises(PolicyFault, match="name one caller"):
        parse_caller(text, OWN)
    assert parse_caller("a/b", OWN) == OWN.id("a/b")


@pytest.mark.parametrize(
    "text", ["GET", "GET orders", "/orders", "get /a", "* /a", "GET https://h/"]
)
def test_a_call_has_a_method_and_a_target(text: str) -> None:
    with pytest.raises(PolicyFault, match="is no call"):
        split_call(text)
    assert split_call("GET /a?x=1") == ("GET", "/a?x=1")
    assert split_call("grpc:a.B/C") == ("grpc", "a.B/C")


def test_a_fault_tells_the_way_to_its_key() -> None:
    fault = PolicyFault("is wrong", 1).under("allow", 3, "from")
    assert isinstance(fault, BadPolicy)
    assert fault.detail == "allow[4].from[2]: is wrong"
    assert fault.at == ("allow", 3, "from", 1)
