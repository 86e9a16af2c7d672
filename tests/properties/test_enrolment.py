"""Whatever bytes arrive: a value that is written back the same, or MalformedError."""

from __future__ import annotations

import json
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from zerotrust.ca.authority.csr import verify_csr
from zerotrust.core.enrolment import (
    EnrolRequest,
    Issued,
    JoinToken,
    Published,
    RenewRequest,
    parse_address,
)
from zerotrust.core.errors import MalformedError, RequestRefused

NAMES = ("csr", "wit_key", "wit_proof", "evidence", "kind", "value", "bundle", "anchors", "chain",
         "wit", "renew")  # fmt: skip
SCALARS = st.none() | st.booleans() | st.integers() | st.text(max_size=20) | st.just("AAAA")
VALUES = st.recursive(
    SCALARS,
    lambda inner: (
        st.lists(inner, max_size=4) | st.dictionaries(st.sampled_from(NAMES), inner, max_size=6)
    ),
    max_leaves=12,
)
BODIES = st.binary(max_size=200) | st.dictionaries(st.sampled_from(NAMES), VALUES).map(
    lambda members: json.dumps(members).encode()
)


@given(BODIES)
def test_a_body_is_read_or_refused(body: bytes) -> None:
    parsers: tuple[Any, ...] = (EnrolRequest, RenewRequest, Issued, Published)
    for message in parsers:
        try:
            value = message.parse(body)
        except MalformedError:
            continue
        assert message.parse(value.dump()) == value


@given(st.text(max_size=200) | st.binary(max_size=100).map(lambda raw: f"ztjoin1.{raw.hex()}"))
def test_a_join_token_is_read_or_refused(text: str) -> None:
    try:
        token = JoinToken.parse(text)
    except MalformedError:
        return
    assert token.dump() == text.removesuffix("\n")


@given(st.text(max_size=40) | st.from_regex(r"[a-z0-9.\[\]:-]{1,20}:[0-9]{1,6}", fullmatch=True))
def test_an_address_is_read_or_refused(text: str) -> None:
    try:
        host, port = parse_address(text)
    except MalformedError:
        return
    assert host
    assert 0 < port < 65536


@given(st.binary(max_size=300))
def test_a_csr_is_read_or_refused(der: bytes) -> None:
    try:
        verify_csr(der)
    except RequestRefused:
        return
    raise AssertionError("random bytes became a key")
