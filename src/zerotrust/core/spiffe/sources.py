"""Ports of the core's readers: one in-memory read each, no I/O, no waiting."""

from __future__ import annotations

from typing import Protocol

from zerotrust.core.spiffe.bundle import BundleSet
from zerotrust.core.spiffe.x509_svid import X509Svid


class X509Source(Protocol):
    """Where our own SVID is read from."""

    def svid(self) -> X509Svid:
        """Return the current SVID; raise IdentityUnavailable when there is none."""


class BundleSource(Protocol):
    """Where trust bundles are read from."""

    def bundles(self) -> BundleSet:
        """Return the current bundles; raise IdentityUnavailable when there are none."""
