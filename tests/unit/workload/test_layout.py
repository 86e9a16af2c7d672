from __future__ import annotations

import os
import signal
import stat
import subprocess
import sys
import time
from pathlib import Path

import pytest

from zerotrust import clock
from zerotrust.core.errors import ConfigurationError, Reason
from zerotrust.core.spiffe.ids import TrustDomain
from zerotrust.probe.forge import ForgedAuthority
from zerotrust.workload import layout
from zerotrust.workload.identity import Snapshot
from zerotrust.workload.layout import own_folder, write_layout, write_private
from zerotrust.workload.sources import files

HOME = ForgedAuthority(now=clock.now())
PARTNER = ForgedAuthority("partner.test", now=clock.now())


def read(directory: Path) -> Snapshot:
    return files.open_source(str(directory), dev=False).fetch(None)


def test_what_is_written_is_what_files_reads(tmp_path: Path) -> None:
    snapshot = HOME.snapshot("web", bundles=[PARTNER])
    write_layout(tmp_path / "id", snapshot, {"extra.json": b"{}"})
    found = read(tmp_path / "id")
    assert found.svid.thumbprint == snapshot.svid.thumbprint
    assert found.svid.key_pem == snapshot.svid.key_pem
    assert found.bundles == snapshot.bundles
    assert found.bundles.of(TrustDomain("partner.test")) is not None
    assert found.wit is not None
    assert snapshot.wit is not None
    assert found.wit.token == snapshot.wit.token
    assert (tmp_path / "id" / "extra.json").read_bytes() == b"{}"


def test_nobody_else_can_enter_or_read(tmp_path: Path) -> None:
    before = os.umask(0)
    try:
        write_layout(tmp_path / "id", HOME.snapshot("web"), {})
    finally:
        os.umask(before)
    for path in (tmp_path / "id", *(tmp_path / "id").rglob("*")):
        if not path.is_symlink():
            assert stat.S_IMODE(path.stat().st_mode) == (0o700 if path.is_dir() else 0o600)


def test_one_generation_is_left_and_what_it_lacks_is_gone(tmp_path: Path) -> None:
    write_layout(tmp_path / "id", HOME.snapshot("web"), {})
    write_layout(tmp_path / "id", HOME.snapshot("web", with_wit=False), {})
    assert read(tmp_path / "id").wit is None
    kept = [p for p in (tmp_path / "id").iterdir() if p.is_dir() and not p.is_symlink()]
    assert len(kept) == 1


def test_a_full_disk_leaves_the_last_good_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    snapshot = HOME.snapshot("web")
    write_layout(tmp_path / "id", snapshot, {})

    def full(path: Path, content: bytes) -> None:
        if path.name == "wit.key":
            raise OSError(28, "No space left on device")
        write_private(path, content)

    monkeypatch.setattr(layout, "write_private", full)
    with pytest.raises(ConfigurationError, match="No space left") as caught:
        write_layout(tmp_path / "id", HOME.snapshot("web"), {})
    assert caught.value.reason is Reason.FILE_ACCESS
    assert read(tmp_path / "id").svid.thumbprint == snapshot.svid.thumbprint


WRITER = """
import sys
from pathlib import Path
from zerotrust import clock
from zerotrust.probe.forge import ForgedAuthority
from zerotrust.workload.layout import write_layout
home = ForgedAuthority(now=clock.now())
print("go", flush=True)
while True:
    write_layout(Path(sys.argv[1]), home.snapshot("web"), {})
"""


def test_a_writer_that_is_killed_leaves_something_whole(tmp_path: Path) -> None:
    argv = [sys.executable, "-c", WRITER, str(tmp_path / "id")]
    with subprocess.Popen(argv, stdout=subprocess.PIPE) as writer:
        assert writer.stdout is not None
        writer.stdout.readline()
        time.sleep(0.3)
        writer.send_signal(signal.SIGKILL)
    assert str(read(tmp_path / "id").svid.id) == "spiffe://example.org/web"
    write_layout(tmp_path / "id", HOME.snapshot("web"), {})
    assert read(tmp_path / "id").bundles == HOME.bundles


@pytest.mark.parametrize("mode", [0o750, 0o705, 0o777])
def test_a_folder_that_others_can_enter_is_refused(tmp_path: Path, mode: int) -> None:
    (tmp_path / "id").mkdir()
    (tmp_path / "id").chmod(mode)
    with pytest.raises(ConfigurationError, match="chmod 700"):
        own_folder(tmp_path / "id")


def test_a_folder_that_is_a_link_or_a_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir(mode=0o700)
    (tmp_path / "link").symlink_to("real")
    (tmp_path / "file").touch()
    for name in ("link", "file"):
        with pytest.raises(ConfigurationError):
            own_folder(tmp_path / name)
