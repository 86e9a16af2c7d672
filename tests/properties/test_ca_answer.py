from __future__ import annotations

import contextlib
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from zerotrust import clock
from zerotrust.core.enrolment import Evidence, Published, ca_id
from zerotrust.core.errors import ConfigurationError, ZeroTrustError
from zerotrust.core.spiffe.ids import TrustDomain
from zerotrust.probe.forge import ForgedAuthority
from zerotrust.workload.ca_answer import Pending, Trust
from zerotrust.workload.sources.ca import open_source

HOME = ForgedAuthority(now=clock.now())
GOOD = Pending.generate(ca=ca_id(TrustDomain("example.org")), evidence=Evidence("unix"), parent="p")
VALUES = st.none() | st.booleans() | st.integers() | st.text() | st.lists(st.text())


@given(st.binary(max_size=400))
def test_pending_keys_are_read_whole_or_refused(data: bytes) -> None:
    with pytest.raises(ConfigurationError):
        Pending.parse(data)


@given(st.sampled_from(["key", "wit_key", "request"]), VALUES)
def test_one_wrong_member_refuses_pending_keys(name: str, value: object) -> None:
    members = json.loads(GOOD.dump())
    members[name] = value
    with pytest.raises(ConfigurationError):
        Pending.parse(json.dumps(members).encode())


def test_the_untouched_document_is_read() -> None:
    assert Pending.parse(GOOD.dump()).request == GOOD.request


@given(st.text(max_size=300), st.lists(st.text(max_size=100), max_size=3))
def test_no_bundle_from_nowhere_is_followed(document: str, statements: list[str]) -> None:
    published = Published(document.encode("utf-8", "surrogatepass"), tuple(statements))
    with pytest.raises(ZeroTrustError):
        Trust(HOME.bundle).follow(published, dev=False)


@given(st.lists(st.text(max_size=60), max_size=3))
def test_the_true_bundle_without_a_true_statement_is_not_followed(statements: list[str]) -> None:
    published = Published(HOME.bundle.dump(), tuple(statements))
    with pytest.raises(ZeroTrustError):
        Trust(HOME.bundle).follow(published, dev=False)


@given(st.text(alphabet="?&=:/unixstateid%é ", max_size=40).filter(lambda t: "state=" not in t))
def test_an_url_is_understood_or_refused(rest: str) -> None:
    with contextlib.suppress(ZeroTrustError):
        open_source(rest, dev=False).close()
