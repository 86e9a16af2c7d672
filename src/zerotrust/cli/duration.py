"""`20s`, `5m`, `1h`: how a command line says a lifetime."""

from __future__ import annotations

import re
from typing import Final

import click

_FORM: Final = re.compile(r"([1-9][0-9]{0,6})(s|m|h|d)", re.ASCII)
_SECONDS: Final = {"s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}


class Duration(click.ParamType[float]):
    """A whole number with its unit, as seconds."""

    name = "duration"

    def convert(
        self, value: object, param: click.Parameter | None, ctx: click.Context | None
    ) -> float:
        """Parse; fail as a usage error."""
        if isinstance(value, float):
            return value
        match = _FORM.fullmatch(str(value))
        if match is None:
            self.fail(f"{value!r} is no lifetime: write 20s, 5m, 1h or 7d", param, ctx)
        return int(match[1]) * _SECONDS[match[2]]


def spoken(seconds: float) -> str:
    """Write a lifetime as people do: `4m 10s`."""
    whole = max(0, int(seconds))
    days, hours, minutes = whole // 86400, whole % 86400 // 3600, whole % 3600 // 60
    parts = [(days, "d"), (hours, "h"), (minutes, "m"), (whole % 60, "s")]
    return " ".join(f"{n}{unit}" for n, unit in parts if n) or "0s"
