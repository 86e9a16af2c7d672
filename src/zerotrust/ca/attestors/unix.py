"""Processes on this machine, told apart by the user they run as (SO_PEERCRED). For development.

1. The uid is what the kernel said of the connection; the message cannot state one.
2. The evidence's value may name the wanted identity: it picks among the entitled ones, it entitles
   to nothing.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from zerotrust.ca.authority.attestation import Attested, Connection
from zerotrust.core.errors import AttestationFailed
from zerotrust.core.spiffe.ids import SpiffeId

if TYPE_CHECKING:
    from zerotrust.core.enrolment import Evidence


class UnixAttestor:
    """Judges `unix` evidence; holds only on a unix socket."""

    def attest(self, evidence: Evidence, connection: Connection, now: float) -> Attested:  # noqa: ARG002 - the port's
        """Return `unix:uid:<N>`."""
        if connection.uid is None:
            raise AttestationFailed("unix evidence counts on a unix socket only")
        wanted = str(SpiffeId.parse(evidence.value)) if evidence.value else None
        return Attested(frozenset({f"unix:uid:{connection.uid}"}), wanted=wanted)
