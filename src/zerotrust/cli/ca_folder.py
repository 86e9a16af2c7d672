"""What the commands that talk to a CA of this machine share: its folder, where its socket is."""

from __future__ import annotations

import socket
from pathlib import Path
from typing import TYPE_CHECKING, Final

from zerotrust.core.errors import ConfigurationError, NotYetIssued
from zerotrust.core.spiffe.ids import SpiffeId

if TYPE_CHECKING:
    from zerotrust.ca.admin import AdminClient
    from zerotrust.ca.authority.entries import RegistrationEntry

SOCKET: Final = "admin.sock"


def admin_of(directory: Path) -> AdminClient:
    """Return the client of the CA that runs in `directory`; raise NotYetIssued when none does."""
    from zerotrust.ca.admin import AdminClient

    try:
        with socket.socket(socket.AF_UNIX) as probe:
            probe.connect(str(directory / SOCKET))
    except OSError as exc:
        raise NotYetIssued(
            f"no CA runs in {directory} ({exc.strerror or exc}); start it: "
            f"zerotrust ca run {directory}, or name its folder with --ca"
        ) from exc
    return AdminClient(directory / SOCKET)


def entry_of(client: AdminClient, wanted: str) -> RegistrationEntry:
    """Return the entry with this SPIFFE ID or entry ID; raise ConfigurationError."""
    for entry in client.entries():
        if wanted in {str(entry.spiffe_id), entry.id}:
            return entry
    SpiffeId.parse(wanted)  # a misspelt ID is the likelier cause
    raise ConfigurationError(f"no entry for {wanted}; make it: zerotrust entry create {wanted}")
