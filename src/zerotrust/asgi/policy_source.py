"""Where the middleware reads the policy in force: a file that is followed, or one fixed policy."""

from __future__ import annotations

from typing import Protocol

from zerotrust.core.policy.model import Policy


class PolicySource(Protocol):
    """The current policy, one attribute; readers compare it with `is`."""

    current: Policy

    def start(self) -> None:
        """Begin to follow changes; may be called again."""

    def stop(self) -> None:
        """Stop following changes; may be called again."""

    def reload(self) -> None:
        """Read again soon; safe inside a signal handler."""


class FixedPolicy:
    """A policy that never changes."""

    def __init__(self, policy: Policy) -> None:
        self.current = policy

    def start(self) -> None:
        """Do nothing: there is no file to follow."""

    def stop(self) -> None:
        """Do nothing."""

    def reload(self) -> None:
        """Do nothing."""
