"""How strongly a call's token is tied to the call: bound < proof < sealed. There is no bearer."""

from __future__ import annotations

from enum import IntEnum

from zerotrust.core.errors import MalformedError, Reason


class Mode(IntEnum):
    """A stronger mode always satisfies a weaker one."""

    BOUND = 1
    PROOF = 2
    SEALED = 3

    @classmethod
    def parse(cls, text: str) -> Mode:
        """Turn `bound`, `proof` or `sealed` into a Mode; raise MalformedError for anything else."""
        for mode in cls:
            if mode.label == text:
                return mode
        raise MalformedError(Reason.SETTING, f"{text!r} is no mode; use bound or proof")

    @property
    def label(self) -> str:
        """The word used in policies, headers of logs and settings."""
        return self.name.lower()
