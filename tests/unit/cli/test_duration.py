from __future__ import annotations

import click
import pytest
from hypothesis import given
from hypothesis import strategies as st

from zerotrust.cli.duration import Duration, spoken


@pytest.mark.parametrize(
    ("text", "seconds"), [("5s", 5.0), ("5m", 300.0), ("1h", 3600.0), ("7d", 604800.0)]
)
def test_a_lifetime_is_a_number_with_its_unit(text: str, seconds: float) -> None:
    assert Duration().convert(text, None, None) == seconds


@pytest.mark.parametrize(
    "text", ["", "5", "0s", "-5s", "1.5h", "5 s", "5S", "5s\n", "\u0665s", "1w"]
)
def test_anything_else_is_refused(text: str) -> None:
    with pytest.raises(click.BadParameter):
        Duration().convert(text, None, None)


@given(st.integers(1, 10**6), st.sampled_from("smhd"))
def test_what_is_spoken_adds_up(number: int, unit: str) -> None:
    seconds = Duration().convert(f"{number}{unit}", None, None)
    parts = spoken(seconds).split()
    assert sum(Duration().convert(part, None, None) for part in parts) == seconds


def test_what_is_over_is_spoken_as_nothing() -> None:
    assert spoken(-3) == spoken(0) == "0s"
