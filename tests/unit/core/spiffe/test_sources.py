from __future__ import annotations

import pytest

from support.identities import FixedIdentity
from zerotrust.core.errors import Closed
from zerotrust.core.spiffe.bundle import BundleSet
from zerotrust.core.spiffe.sources import BundleSource, X509Source
from zerotrust.core.spiffe.x509_svid import X509Svid
from zerotrust.probe.forge import ForgedAuthority

NOW = 1_800_000_000


class Sources:
    """Both ports over an identity: one read each, of its current snapshot."""

    def __init__(self, identity: FixedIdentity) -> None:
        self.identity = identity

    def svid(self) -> X509Svid:
        return self.identity.current.svid

    def bundles(self) -> BundleSet:
        return self.identity.current.bundles


def test_a_source_reads_the_current_snapshot_and_fails_when_there_is_none() -> None:
    authority = ForgedAuthority(now=NOW)
    first, second = authority.snapshot("web"), authority.snapshot("web")
    with FixedIdentity(first) as identity:
        source = Sources(identity)
        x509_source: X509Source = source
        bundle_source: BundleSource = source
        assert x509_source.svid() is first.svid
        assert bundle_source.bundles() is first.bundles
        identity.rotate(second)
        assert x509_source.svid() is second.svid
        assert identity.id == second.svid.id
    with pytest.raises(Closed):
        x509_source.svid()
