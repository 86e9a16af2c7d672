"""One pattern has one entry, however often and under whatever names it is added."""

from __future__ import annotations

import pytest

from zerotrust.core.policy.index import PrincipalIndex, RouteIndex
from zerotrust.core.policy.patterns import parse_principal, parse_route
from zerotrust.core.spiffe.ids import TrustDomain

OWN = TrustDomain("example.org")


@pytest.mark.parametrize("text", ["web", "team/*", "team/..."])
def test_the_same_callers_have_one_entry(text: str) -> None:
    index: PrincipalIndex[list[int]] = PrincipalIndex(OWN, list)
    pattern = parse_principal(text, OWN)
    assert index.add(pattern) is index.add(pattern)
    assert index.add(parse_principal("other/*", OWN)) is not index.add(pattern)


@pytest.mark.parametrize(
    ("one", "same"),
    [
        ("*", "*"),
        ("GET /a/{id}", "GET /a/{number}"),
        ("GET /a/{rest...}", "GET /a/{tail...}"),
        ("grpc:a.B/*", "grpc:a.B/*"),
    ],
)
def test_the_same_calls_have_one_number(one: str, same: str) -> None:
    index = RouteIndex()
    first = index.add(parse_route("POST /first"))
    number = index.add(parse_route(one))
    assert index.add(parse_route(same)) == number != first
    assert index.add(parse_route("POST /last")) == number + 1


def test_a_wildcard_is_no_empty_segment() -> None:
    index = RouteIndex()
    number = index.add(parse_route("GET /orders/{id}"))
    assert list(index.find("GET", "/orders/7")) == [number]
    assert list(index.find("GET", "/orders/")) == []


@pytest.mark.parametrize("text", ["*", "...", "web"])
def test_a_caller_of_another_trust_domain_is_not_found_by_its_path(text: str) -> None:
    index: PrincipalIndex[list[int]] = PrincipalIndex(OWN, list)
    entry = index.add(parse_principal(text, OWN))
    assert index.find(OWN.id("web")) == [entry]
    assert index.find(TrustDomain("partner.example").id("web")) == []
