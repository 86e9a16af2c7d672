"""INTERFACE STUB (owner: policy/audit)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol


@dataclass(frozen=True, slots=True)
class AuditEvent:
    """One line of the audit log; never holds a token or key."""

    at: float
    kind: str  # "call.refused", "call.allowed", "calls.allowed" (aggregate), "peer.refused", "ca.issued", ...
    id: str = ""
    reason: str = ""
    code: str = ""
    detail: str = ""
    peer: str = ""
    route: str = ""
    rule: str = ""
    mode: str = ""
    micros: int = 0
    count: int = 1


class Sink(Protocol):
    def write(self, event: AuditEvent) -> None: ...


class JsonLinesSink:
    """JSON lines to a text stream or file (append, 0600); see the ADR for what happens when it fails."""


class AuditLog:
    """Rate-limits refusals per (peer, reason), aggregates allowed calls per caller, route and minute. Given `now`; never blocks a call."""

    def __init__(self, sink: Sink, *, per_call: bool = False) -> None: ...
    def refused(self, event: AuditEvent) -> None: ...
    def allowed(self, *, now: float, peer: str, route: str, rule: str, mode: str, micros: int) -> None: ...
    def record(self, event: AuditEvent) -> None: ...
    def flush(self, now: float) -> None: ...


def printable(text: str | bytes, limit: int = 256) -> str:
    """ASCII only, JSON-style escapes, cut to limit: for logs and terminals alike."""
    raise NotImplementedError
