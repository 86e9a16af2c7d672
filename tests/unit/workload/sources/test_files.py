"""What `files:DIR` says about files that it refuses."""

from __future__ import annotations

from pathlib import Path

import pytest

from zerotrust import clock
from zerotrust.core.errors import BadBundle, CertificateRejected, Reason
from zerotrust.probe.forge import ForgedAuthority
from zerotrust.workload.layout import write_layout
from zerotrust.workload.sources.files import open_source


def test_a_certificate_that_is_not_valid_yet_points_at_the_clock(tmp_path: Path) -> None:
    write_layout(tmp_path / "id", ForgedAuthority(now=clock.now() + 86400).snapshot("web"), {})
    with pytest.raises(CertificateRejected, match=r"svid\.pem: .*look at this machine's clock"):
        open_source(str(tmp_path / "id"), dev=True).fetch(None)


def test_an_expired_certificate_does_not(tmp_path: Path) -> None:
    write_layout(tmp_path / "id", ForgedAuthority(now=clock.now() - 86400).snapshot("web"), {})
    with pytest.raises(CertificateRejected) as caught:
        open_source(str(tmp_path / "id"), dev=True).fetch(None)
    assert caught.value.reason is Reason.PEER_EXPIRED
    assert "clock" not in caught.value.detail


def test_a_bundle_of_others_that_is_refused_is_named(tmp_path: Path) -> None:
    extra = {"federated/other.example.json": b"{}"}
    write_layout(tmp_path / "id", ForgedAuthority(now=clock.now()).snapshot("web"), extra)
    with pytest.raises(BadBundle, match=r"^.*federated/other\.example\.json: "):
        open_source(str(tmp_path / "id"), dev=True).fetch(None)
