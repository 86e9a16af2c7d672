"""An identity as files: what `files:DIR` reads, written so that no reader sees half of it.

1. One generation is one hidden folder, complete and on the disk before `..data` points to it; the
   names that readers open (`svid.pem`, ...) are links through `..data`, as Kubernetes mounts them.
2. The folder is 0700 and every file in it 0600: there are private keys among them.
3. A writer that is killed leaves the last complete generation in place.
"""

from __future__ import annotations

import os
import secrets
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Final

from zerotrust.core.errors import ConfigurationError, Reason
from zerotrust.workload.identity import Snapshot

_CURRENT: Final = "..data"


def own_folder(path: Path) -> None:
    """Make `path` (0700), or see that it is ours alone; raise ConfigurationError."""
    try:
        path.mkdir(mode=0o700, parents=True, exist_ok=True)
        about = path.lstat()
    except OSError as exc:
        detail = f"{path} cannot be used: {exc.strerror}"
        raise ConfigurationError(detail, Reason.FILE_ACCESS) from exc
    if path.is_symlink() or about.st_uid != os.geteuid() or about.st_mode & 0o077:
        raise ConfigurationError(
            f"{path} must be a folder of your own that nobody else can enter: chmod 700 {path}",
            Reason.FILE_ACCESS,
        )


def write_layout(directory: Path, snapshot: Snapshot, extra: Mapping[str, bytes]) -> None:
    """Publish a snapshot (and further files beside it) in `directory`; raise ConfigurationError."""
    own_folder(directory)
    generation = f"..{secrets.token_hex(8)}"
    try:
        for name, content in (*_files(snapshot), *extra.items()):
            write_private(directory / generation / name, content)
        _point(directory / _CURRENT, generation)
        for name in {path.name for path in (directory / generation).iterdir()}:
            _point(directory / name, f"{_CURRENT}/{name}")
        _sync(directory)
    except OSError as exc:
        shutil.rmtree(directory / generation, ignore_errors=True)
        detail = f"{directory} cannot be written: {exc.strerror}"
        raise ConfigurationError(detail, Reason.FILE_ACCESS) from exc
    for old in directory.glob("..?*"):
        if old.name not in {_CURRENT, generation}:
            shutil.rmtree(old, ignore_errors=True)


def write_private(path: Path, content: bytes) -> None:
    """Write a file (0600) whole or not at all, and see it on the disk; raise OSError."""
    path.parent.mkdir(mode=0o700, exist_ok=True, parents=True)
    fresh = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
    descriptor = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(descriptor)
        fresh.replace(path)
    except OSError:
        fresh.unlink(missing_ok=True)
        raise
    _sync(path.parent)


def _files(snapshot: Snapshot) -> Iterator[tuple[str, bytes]]:
    own = snapshot.svid.id.trust_domain
    yield "svid.pem", snapshot.svid.chain_pem
    yield "svid.key", snapshot.svid.key_pem
    for bundle in snapshot.bundles:
        mine = bundle.origin == own
        yield "bundle.json" if mine else f"federated/{bundle.origin.name}.json", bundle.dump()
    if snapshot.wit is not None:
        yield "wit.jwt", snapshot.wit.token.encode("ascii")
        yield "wit.key", snapshot.wit.key.to_pem()


def _point(link: Path, target: str) -> None:
    if link.is_symlink() and str(link.readlink()) == target:
        return
    fresh = link.with_name(f".{link.name}.{secrets.token_hex(4)}")
    fresh.symlink_to(target)
    fresh.replace(link)


def _sync(directory: Path) -> None:
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
