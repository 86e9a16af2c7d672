"""Every source gives checked snapshots, ends a wait when closed, and keeps to one port."""

from __future__ import annotations

import os
import signal
import socket
import ssl
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from support.identities import FixedIdentity
from zerotrust.core.errors import (
    BadBundle,
    CertificateRejected,
    ConfigurationError,
    MalformedError,
    NotYetIssued,
    TokenRejected,
    ZeroTrustError,
)
from zerotrust.core.jose import SigningKey
from zerotrust.probe.forge import ForgedAuthority
from zerotrust.workload import snapshot_feed
from zerotrust.workload.identity import Snapshot, WorkloadIdentity
from zerotrust.workload.layout import write_layout
from zerotrust.workload.snapshot_feed import (
    SnapshotFeed,
    decode_snapshot,
    encode_frame,
    read_frame,
)
from zerotrust.workload.sources import files, worker

NOW = time.time()
CA = ForgedAuthority(now=NOW)
PARTNER = ForgedAuthority("partner.example", now=NOW)


def lay_out(folder: Path, snapshot: Snapshot) -> Path:
    """Write the files plainly, as anybody might."""
    folder.mkdir(mode=0o700, exist_ok=True)
    parts = {
        "svid.pem": snapshot.svid.chain_pem,
        "svid.key": snapshot.svid.key_pem,
        "bundle.json": CA.bundle_document(),
    }
    if snapshot.wit is not None:
        parts |= {"wit.jwt": snapshot.wit.token.encode(), "wit.key": snapshot.wit.key.to_pem()}
    for name, data in parts.items():
        path = folder / name
        path.write_bytes(data)
        path.chmod(0o600)
    return folder


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return lay_out(tmp_path / "identity", CA.snapshot("web"))


def fetch(folder: Path, previous: Snapshot | None = None, *, dev: bool = False) -> Snapshot:
    return files.open_source(str(folder), dev=dev).fetch(previous)


def test_files_are_read_as_one_snapshot(folder: Path) -> None:
    found = fetch(folder)
    assert str(found.svid.id) == "spiffe://example.org/web"
    assert found.wit is not None
    assert found.wit.expires_at > NOW
    assert found.bundles == CA.bundles
    assert found.dev is False


def test_the_layout_we_write_is_the_layout_we_read(tmp_path: Path) -> None:
    given = CA.snapshot("web", bundles=[PARTNER])
    write_layout(tmp_path / "out", given, {})
    found = fetch(tmp_path / "out")
    assert found.svid.thumbprint == given.svid.thumbprint
    assert found.bundles == given.bundles
    assert found.wit is not None
    assert given.wit is not None
    assert found.wit.token == given.wit.token


def test_without_a_wit_the_identity_may_serve_only(folder: Path) -> None:
    (folder / "wit.jwt").unlink()
    (folder / "wit.key").unlink()
    assert fetch(folder).wit is None


def test_a_pem_bundle_brings_no_token_keys(folder: Path) -> None:
    (folder / "bundle.json").unlink()
    (folder / "bundle.pem").write_text(_pem(CA))
    own = fetch(folder).bundles.own
    assert own is not None
    assert not own.wit_keys


def test_federated_bundles_are_read_by_name(folder: Path) -> None:
    _federate(folder, "partner.example.json", PARTNER.bundle_document())
    assert fetch(folder).bundles.of(PARTNER.trust_domain) == PARTNER.bundle


def test_an_empty_bundle_is_obeyed(folder: Path) -> None:
    before = fetch(folder)
    (folder / "bundle.json").write_bytes(CA.bundle_document(keys=[], spiffe_sequence=2))
    own = fetch(folder, before).bundles.own
    assert own is not None
    assert own.x509_authorities == ()


def _pem(authority: ForgedAuthority) -> str:
    return "".join(map(ssl.DER_cert_to_PEM_cert, authority.bundle.anchors_der))


def _federate(folder: Path, name: str, document: bytes) -> None:
    (folder / "federated").mkdir(exist_ok=True)
    (folder / "federated" / name).write_bytes(document)


def _overwrite(name: str, data: Callable[[], bytes]) -> Callable[[Path], object]:
    return lambda folder: (folder / name).write_bytes(data())


def _remove(name: str) -> Callable[[Path], object]:
    return lambda folder: (folder / name).unlink()


def _wit(path: str, key: SigningKey | None = None) -> Callable[[Path], object]:
    def change(folder: Path) -> None:
        bound = key or SigningKey.from_pem((folder / "wit.key").read_bytes())
        (folder / "wit.jwt").write_text(CA.wit(CA.id(path), bound))

    return change


def _same_key(folder: Path) -> None:
    pem = (folder / "svid.key").read_bytes()
    (folder / "wit.key").write_bytes(pem)
    (folder / "wit.jwt").write_text(CA.wit(CA.id("web"), SigningKey.from_pem(pem)))


def _dev_document() -> bytes:
    return ForgedAuthority(now=NOW, dev=True).bundle_document()


BAD: dict[str, tuple[Callable[[Path], object], type[ZeroTrustError], str]] = {
    "no certificate": (_remove("svid.pem"), NotYetIssued, "svid.pem"),
    "no key": (_remove("svid.key"), NotYetIssued, "svid.key"),
    "no bundle": (_remove("bundle.json"), NotYetIssued, "bundle"),
    "a certificate that is none": (
        _overwrite("svid.pem", lambda: b"x"),
        MalformedError,
        "svid.pem",
    ),
    "a key of another certificate": (
        _overwrite("svid.key", lambda: CA.issue("web").key_pem),
        MalformedError,
        "not the one the certificate names",
    ),
    "a bundle that does not vouch for us": (
        _overwrite("bundle.json", ForgedAuthority(now=NOW).bundle_document),
        CertificateRejected,
        "",
    ),
    "a bundle that is no bundle": (
        _overwrite("bundle.json", lambda: b"{"),
        BadBundle,
        "bundle.json",
    ),
    "a bundle of a throw-away CA": (
        _overwrite("bundle.json", _dev_document),
        BadBundle,
        "throw-away",
    ),
    "a token for somebody else": (_wit("admin"), TokenRejected, "wit.jwt is for"),
    "a token over another key": (_wit("web", SigningKey.generate()), TokenRejected, "another key"),
    "a token of another issuer": (
        lambda f: (f / "wit.jwt").write_text(
            ForgedAuthority(now=NOW).wit(
                CA.id("web"), SigningKey.from_pem((f / "wit.key").read_bytes())
            )
        ),
        TokenRejected,
        "kid",
    ),
    "a token without its key": (_remove("wit.key"), MalformedError, "come together"),
    "one key for certificate and token": (_same_key, MalformedError, "use two"),
    "a federated bundle of our own domain": (
        lambda f: _federate(f, "example.org.json", CA.bundle_document()),
        BadBundle,
        "not federated with itself",
    ),
    "a federated bundle that is none": (
        lambda f: _federate(f, "partner.example.json", b"[]"),
        BadBundle,
        "federated/partner.example.json",
    ),
    "a federated name that is no trust domain": (
        lambda f: _federate(f, "Partner.json", PARTNER.bundle_document()),
        MalformedError,
        "federated/Partner.json",
    ),
    "a key that everybody can read": (
        lambda f: (f / "svid.key").chmod(0o644),
        ConfigurationError,
        "others can read",
    ),
    "a token key that everybody can read": (
        lambda f: (f / "wit.key").chmod(0o644),
        ConfigurationError,
        "others can read",
    ),
    "a bundle that others can write": (
        lambda f: (f / "bundle.json").chmod(0o622),
        ConfigurationError,
        "others can write",
    ),
    "a folder that others can write": (
        lambda f: f.chmod(0o770),
        ConfigurationError,
        "others can write",
    ),
    "a folder above that others can write": (
        lambda f: f.parent.chmod(0o777),
        ConfigurationError,
        "others can write",
    ),
    "a chain of a megabyte": (
        _overwrite("svid.pem", lambda: b"x" * (1 << 20)),
        ConfigurationError,
        "larger",
    ),
}


@pytest.mark.parametrize("case", BAD)
def test_files_that_do_not_fit_are_refused_by_name(case: str, folder: Path) -> None:
    change, kind, named = BAD[case]
    fetch(folder)
    change(folder)
    with pytest.raises(kind) as caught:
        fetch(folder)
    assert named in str(caught.value)
    assert "PRIVATE" not in str(caught.value)


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root to give a file away")
def test_files_of_another_user_are_refused(folder: Path) -> None:
    os.chown(folder / "bundle.json", 65534, 65534)
    with pytest.raises(ConfigurationError, match="belongs to user 65534"):
        fetch(folder)


def test_a_lower_sequence_is_refused(folder: Path) -> None:
    (folder / "bundle.json").write_bytes(CA.bundle_document(spiffe_sequence=7))
    before = fetch(folder)
    (folder / "bundle.json").write_bytes(CA.bundle_document(spiffe_sequence=6))
    with pytest.raises(BadBundle, match="never falls"):
        fetch(folder, before)


def test_a_bundle_that_lost_its_sequence_is_refused(folder: Path) -> None:
    before = fetch(folder)
    (folder / "bundle.json").unlink()
    (folder / "bundle.pem").write_text(_pem(CA))
    with pytest.raises(BadBundle, match="never falls"):
        fetch(folder, before)


def test_a_throw_away_identity_is_read_where_dev_is_said(tmp_path: Path) -> None:
    dev = ForgedAuthority(now=NOW, dev=True)
    write_layout(tmp_path / "dev", dev.snapshot("web"), {})
    assert fetch(tmp_path / "dev", dev=True).dev
    with pytest.raises(BadBundle):
        fetch(tmp_path / "dev")


def test_a_change_ends_the_wait_and_nothing_else_does(folder: Path) -> None:
    source = files.open_source(str(folder), dev=False)
    source.fetch(None)
    begun = time.monotonic()
    source.wait(0.7)
    assert time.monotonic() - begun >= 0.7
    threading.Timer(0.2, lambda: _federate(folder, "partner.example.json", b"[]")).start()
    source.wait(10)
    assert time.monotonic() - begun < 5


def test_bad_files_keep_the_last_good_snapshot_and_alarm(folder: Path) -> None:
    alarms: list[tuple[str, str]] = []
    url = f"files:{folder}"
    with WorkloadIdentity.from_url(
        url, dev=False, on_alarm=lambda *alarm: alarms.append(alarm)
    ) as me:
        before = me.current
        (folder / "bundle.json").write_bytes(b"{")
        _until(lambda: bool(alarms))
        assert me.current is before
        lay_out(folder, CA.snapshot("web"))
        _until(lambda: me.current is not before)
        assert me.current.bundles is before.bundles


def test_a_writer_killed_mid_write_leaves_a_whole_identity(tmp_path: Path) -> None:
    target = tmp_path / "out"
    write_layout(target, CA.snapshot("web"), {})
    lay_out(tmp_path / "source", CA.snapshot("web"))
    script = (
        "import sys\nfrom pathlib import Path\n"
        "from zerotrust.workload.layout import write_layout\n"
        "from zerotrust.workload.sources import files\n"
        "snapshot = files.open_source(sys.argv[1], dev=False).fetch(None)\n"
        "print('ready', flush=True)\n"
        "while True:\n    write_layout(Path(sys.argv[2]), snapshot, {})\n"
    )
    for delay in (0.0, 0.003, 0.011, 0.027, 0.05):
        with subprocess.Popen(
            [sys.executable, "-c", script, str(tmp_path / "source"), str(target)],
            stdout=subprocess.PIPE,
        ) as writer:
            assert writer.stdout is not None
            writer.stdout.readline()
            time.sleep(delay)
            writer.send_signal(signal.SIGKILL)
        assert str(fetch(target).svid.id) == "spiffe://example.org/web"


def _until(true: Callable[[], bool]) -> None:
    end = time.monotonic() + 5
    while not true() and time.monotonic() < end:
        time.sleep(0.01)
    assert true()


def test_a_worker_reads_what_its_parent_holds_and_each_new_one() -> None:
    holder = FixedIdentity(CA.snapshot("web", bundles=[PARTNER]))
    with SnapshotFeed(holder) as feed, WorkloadIdentity.from_url(feed.url, dev=False) as me:
        assert me.current.svid.thumbprint == holder.current.svid.thumbprint
        assert me.current.bundles == holder.current.bundles
        before = me.current
        holder.rotate(CA.snapshot("web", bundles=[PARTNER]))
        _until(lambda: me.current is not before)
        assert me.current.svid.thumbprint == holder.current.svid.thumbprint
        assert me.current.bundles is before.bundles


def test_when_the_parent_is_gone_the_last_snapshot_stays_and_an_alarm_is_raised() -> None:
    alarms: list[tuple[str, str]] = []
    holder = FixedIdentity(CA.snapshot("web"))
    feed = SnapshotFeed(holder)
    with WorkloadIdentity.from_url(
        feed.url, dev=False, on_alarm=lambda *alarm: alarms.append(alarm)
    ) as me:
        feed.close()
        _until(lambda: bool(alarms))
        assert me.current.svid.thumbprint == holder.current.svid.thumbprint
        assert alarms[0][0] == "identity.renewal_failed"


def test_workers_that_crash_and_come_again_hold_nothing_in_their_parent() -> None:
    def descriptors() -> int:
        return len(os.listdir("/proc/self/fd"))  # noqa: PTH208 - links that go while they are read

    with SnapshotFeed(FixedIdentity(CA.snapshot("web"))) as feed:
        before = descriptors()
        for _ in range(20):
            with socket.socket(socket.AF_UNIX) as crashing:
                crashing.settimeout(5)
                crashing.connect(str(feed.path))
                assert crashing.recv(4)
        assert descriptors() <= before + 3


def test_without_a_parent_there_is_no_identity(tmp_path: Path) -> None:
    with pytest.raises(NotYetIssued, match="does not answer"):
        worker.open_source(str(tmp_path / "feed"), dev=False).fetch(None)


def test_the_feed_lies_in_a_folder_of_its_own_and_is_gone_afterwards() -> None:
    with SnapshotFeed(FixedIdentity(CA.snapshot("web"))) as feed:
        assert feed.path.parent.stat().st_mode & 0o777 == 0o700
    assert not feed.path.parent.exists()


def test_a_process_that_is_no_worker_gets_no_byte(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(snapshot_feed, "_parent_of", lambda _: 1)
    monkeypatch.setattr(snapshot_feed, "peer_credentials", lambda _: (1, os.geteuid()))
    with (
        SnapshotFeed(FixedIdentity(CA.snapshot("web"))) as feed,
        socket.socket(socket.AF_UNIX) as stranger,
    ):
        stranger.settimeout(5)
        stranger.connect(str(feed.path))
        assert stranger.recv(1) == b""


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root to become another user")
def test_another_user_gets_no_byte() -> None:
    with SnapshotFeed(FixedIdentity(CA.snapshot("web"))) as feed:
        feed.path.parent.chmod(0o777)
        feed.path.chmod(0o777)
        script = (
            "import os, socket, sys\nos.setuid(65534)\ns = socket.socket(socket.AF_UNIX)\n"
            "s.settimeout(5)\ns.connect(sys.argv[1])\nprint(len(s.recv(1)))"
        )
        said = subprocess.run(
            [sys.executable, "-c", script, str(feed.path)], capture_output=True, check=True
        )
        assert said.stdout == b"0\n"


def test_a_frame_is_read_back_whole() -> None:
    given = CA.snapshot("web", bundles=[PARTNER])
    found = decode_snapshot(encode_frame(given)[4:], dev=False)
    assert found.bundles == given.bundles
    assert found.wit is not None
    assert given.wit is not None
    assert found.wit.key.alg == given.wit.key.alg


@pytest.mark.parametrize("body", [b"", b"{}", b"[]", b"\x80\x04.", b'{"chain":1}'])
def test_a_frame_that_is_no_snapshot_is_refused(body: bytes) -> None:
    with pytest.raises(MalformedError):
        decode_snapshot(body, dev=False)


def test_a_frame_over_the_limit_is_refused_before_it_is_read() -> None:
    left, right = socket.socketpair()
    with left, right:
        left.sendall(b"\xff\xff\xff\xff")
        with pytest.raises(MalformedError):
            read_frame(right)
