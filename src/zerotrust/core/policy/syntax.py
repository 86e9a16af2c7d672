"""INTERFACE STUB (owner: policy)."""

from __future__ import annotations

from zerotrust.core.policy.model import Policy


def parse_policy(text: bytes, *, name: str = "policy.toml") -> Policy:
    """TOML -> Policy, inline [[test]] run at load; BadPolicy names file, line and key."""
    raise NotImplementedError


def format_policy(policy: Policy) -> str:
    """Policy -> canonical TOML; parse_policy(format_policy(p)) == p."""
    raise NotImplementedError
