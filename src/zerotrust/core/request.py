"""INTERFACE STUB (owner: guard)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

Headers = Sequence[tuple[bytes, bytes]]


@dataclass(frozen=True, slots=True)
class Target:
    """A request target that has exactly one reading."""

    path: str  # decoded
    raw_path: bytes
    query: bytes


def parse_target(target: bytes) -> Target:
    """Origin-form only; RequestRejected(PATH_AMBIGUOUS)."""
    raise NotImplementedError
