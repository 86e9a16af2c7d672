"""One table of reasons: stable, unique, and nothing of the detail for the peer."""

from __future__ import annotations

import re

import pytest

from zerotrust.core.errors import (
    PUBLIC_TEXT,
    Category,
    ConfigurationError,
    MissingExtra,
    Reason,
    TokenRejected,
)


def test_every_code_and_every_name_is_unique() -> None:
    reasons = list(Reason)
    assert len({reason.code for reason in reasons}) == len(reasons)
    assert len({str(reason) for reason in reasons}) == len(reasons)
    assert all(re.fullmatch(r"ZT\d{4}", reason.code) for reason in reasons)


def test_every_category_has_a_constant_text() -> None:
    assert PUBLIC_TEXT.keys() == set(Category)


@pytest.mark.parametrize("detail", ["", "the token of mallory"])
def test_the_peer_is_told_the_category_and_never_the_detail(detail: str) -> None:
    error = TokenRejected(Reason.TOKEN_AUDIENCE, detail)
    assert error.public == PUBLIC_TEXT[Category.UNAUTHENTICATED]
    assert "mallory" not in error.public
    assert str(error).startswith("ZT4018 token.audience")
    assert detail in str(error)


def test_an_error_of_ours_says_how_to_mend_it() -> None:
    assert 'pip install "zerotrust-kit[redis]"' in str(MissingExtra("redis"))
    assert ConfigurationError("x").reason is Reason.SETTING
