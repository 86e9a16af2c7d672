"""Join tokens: one entry, one certificate, a few minutes.

1. Unknown, expired, bound to another key and used by someone else are one refusal with one text.
2. A spent token is not refused here: its rightful holder may have lost the answer. Whether the
   keys are those it was
   spent on is seen when the certificate is looked at.
"""

from __future__ import annotations

import hashlib
import hmac
from typing import TYPE_CHECKING

from zerotrust.ca.authority.attestation import Attested, Connection
from zerotrust.ca.stores import Store, TokenOf
from zerotrust.core.errors import AttestationFailed

if TYPE_CHECKING:
    from zerotrust.core.enrolment import Evidence

REFUSAL = "the join token is unknown, expired or used"


class JoinTokenAttestor:
    """Judges `join_token` evidence by the store's records."""

    def __init__(self, store: Store) -> None:
        self._store = store

    def attest(self, evidence: Evidence, connection: Connection, now: float) -> Attested:  # noqa: ARG002 - the port's
        """Return the one entry the token stands for."""
        digest = hashlib.sha256(evidence.value.encode()).digest()
        token = self._store.read(TokenOf(digest))
        if token is None or not hmac.compare_digest(token.hash, digest) or now >= token.expires_at:
            raise AttestationFailed(REFUSAL)
        return Attested(
            frozenset(),
            entry=token.entry,
            token=token.hash,
            csr_key=token.csr_key,
            spent_on=token.used_for,
        )
