from __future__ import annotations

import os
from pathlib import Path

import pytest

from zerotrust.core.errors import ConfigurationError
from zerotrust.workload.trusted_path import read_trusted


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "policy.toml"
    path.write_bytes(b"content")
    path.chmod(0o644)
    return path


def refusal(path: str | Path, **more: bool) -> str:
    with pytest.raises(ConfigurationError) as caught:
        read_trusted(path, max_bytes=100, **more)
    return caught.value.detail


def test_a_file_of_our_own_is_read(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert read_trusted(file, max_bytes=7) == b"content"
    assert read_trusted(str(file), max_bytes=100) == b"content"
    monkeypatch.chdir(file.parent)
    assert read_trusted("./policy.toml", max_bytes=100) == b"content"
    assert read_trusted(f"../{file.parent.name}/policy.toml", max_bytes=100) == b"content"


def test_a_file_that_is_too_large_is_refused(file: Path) -> None:
    with pytest.raises(ConfigurationError, match="larger than 6 bytes"):
        read_trusted(file, max_bytes=6)


@pytest.mark.parametrize("mode", [0o664, 0o646, 0o666])
def test_a_file_that_others_may_write_is_refused(file: Path, mode: int) -> None:
    file.chmod(mode)
    assert "chmod go-w" in refusal(file)


@pytest.mark.parametrize("mode", [0o775, 0o757])
def test_a_folder_that_others_may_write_is_refused(file: Path, mode: int) -> None:
    file.parent.chmod(mode)
    assert "chmod go-w" in refusal(file)


def test_a_sticky_folder_may_be_shared(file: Path) -> None:
    file.parent.chmod(0o1777)
    assert read_trusted(file, max_bytes=100) == b"content"


def test_a_sticky_file_that_others_may_write_is_refused(file: Path) -> None:
    file.chmod(0o1644)
    assert read_trusted(file, max_bytes=100) == b"content"
    file.chmod(0o1666)
    assert "chmod go-w" in refusal(file)


def test_a_folder_far_above_counts_too(tmp_path: Path) -> None:
    deep = tmp_path / "open" / "closed"
    deep.mkdir(parents=True)
    (deep / "f").write_bytes(b"x")
    (deep / "f").chmod(0o600)
    deep.chmod(0o700)
    (tmp_path / "open").chmod(0o777)
    assert "'open' on the way" in refusal(deep / "f")
    (tmp_path / "open").chmod(0o755)
    assert read_trusted(deep / "f", max_bytes=9) == b"x"


def test_a_file_of_another_user_is_refused(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    if os.geteuid() == 0:
        os.chown(file, 4242, -1)
    else:
        monkeypatch.setattr(os, "geteuid", lambda: 4242)
    assert "belongs to user" in refusal(file)


def test_a_link_of_another_user_is_refused(file: Path) -> None:
    if os.geteuid() != 0:
        pytest.skip("only root can give a link away")
    link = file.parent / "link"
    link.symlink_to(file)
    assert read_trusted(link, max_bytes=100) == b"content"
    os.lchown(link, 4242, -1)
    assert "'link' on the way" in refusal(link)


def test_links_are_followed_through_folders_that_are_judged_too(tmp_path: Path) -> None:
    # the layout of a Kubernetes mount: name -> ..data/name, ..data -> a dated folder
    (tmp_path / "..2026").mkdir(mode=0o755)
    (tmp_path / "..2026" / "f").write_bytes(b"x")
    (tmp_path / "..2026" / "f").chmod(0o644)
    (tmp_path / "..data").symlink_to("..2026")
    (tmp_path / "f").symlink_to("..data/f")
    (tmp_path / "abs").symlink_to(tmp_path / "..data" / ".." / "f")
    assert read_trusted(tmp_path / "f", max_bytes=9) == b"x"
    assert read_trusted(tmp_path / "abs", max_bytes=9) == b"x"
    (tmp_path / "..2026").chmod(0o777)
    assert "'..2026' on the way" in refusal(tmp_path / "f")


def test_what_is_no_file_is_refused_without_waiting(tmp_path: Path, file: Path) -> None:
    os.mkfifo(tmp_path / "fifo", 0o600)
    assert "no regular file" in refusal(tmp_path / "fifo")
    assert "is a folder" in refusal(tmp_path)
    assert "Not a directory" in refusal(file / "x")
    assert "No such file" in refusal(tmp_path / "nothing")
    (tmp_path / "loop").symlink_to("loop")
    assert "Too many levels" in refusal(tmp_path / "loop")
    assert "is a folder" in refusal("/")


def test_forty_links_are_followed_and_one_more_is_not(file: Path) -> None:
    target = file
    for n in range(40):
        link = file.parent / f"link{n}"
        link.symlink_to(target.name)
        target = link
    assert read_trusted(target, max_bytes=100) == b"content"
    (file.parent / "last").symlink_to(target.name)
    assert "Too many levels" in refusal(file.parent / "last")


def test_a_secret_is_closed_to_others(file: Path) -> None:
    assert "chmod 600" in refusal(file, secret=True)
    file.chmod(0o600)
    assert read_trusted(file, max_bytes=100, secret=True) == b"content"
    file.chmod(0o640)
    if os.geteuid() == 0:  # a mounted key: root owns it, the group of the process reads it
        assert read_trusted(file, max_bytes=100, secret=True) == b"content"
    else:
        assert "chmod 600" in refusal(file, secret=True)


def test_no_descriptor_is_left_open(file: Path) -> None:
    before = len(list(Path("/proc/self/fd").iterdir()))
    read_trusted(file, max_bytes=100)
    refusal(file, secret=True)
    refusal(file / "x")
    assert len(list(Path("/proc/self/fd").iterdir())) == before
