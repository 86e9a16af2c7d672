"""Administration: entries and join tokens, by an operator on this machine or a proven caller.

    GET  /v1/admin/entries                                              -> {"entries": [...]}
    POST /v1/admin/entries         {path, selectors, dns_names, ttl, wit_ttl}  -> an entry
    POST /v1/admin/entries/delete  {id}                                 -> {}
    POST /v1/admin/tokens          {entry, ttl, address, csr_key}       -> {"token": ...}

1. The local socket yields an Operator: the kernel says which user it is. It is never a Caller.
2. Over the network the CA's own policy file says who may call these routes; the store cannot.
3. Every act is one audit line, with who did it.
"""

from __future__ import annotations

import asyncio
import http.client
import json
import os
import socket
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, final

from zerotrust.asgi import CALLER
from zerotrust.audit import AuditEvent, AuditLog
from zerotrust.ca.app import UID, Arrival, Routes
from zerotrust.ca.authority.entries import NewEntry, RegistrationEntry
from zerotrust.ca.service import TOKEN_TTL
from zerotrust.core.enrolment import MAX_REQUEST_BYTES, MEDIA_TYPE, JoinToken
from zerotrust.core.errors import (
    ConfigurationError,
    IssuanceError,
    MalformedError,
    NotEntitled,
    Reason,
    RequestRefused,
)
from zerotrust.core.jose import parse_json_object
from zerotrust.core.spiffe.ids import SpiffeId

if TYPE_CHECKING:
    from collections.abc import Mapping

    from zerotrust.ca.service import CertificateAuthority

ENTRIES_PATH: Final = "/v1/admin/entries"
DELETE_PATH: Final = "/v1/admin/entries/delete"
TOKENS_PATH: Final = "/v1/admin/tokens"
_TIMEOUT: Final = 10.0
_MAX_LIST_BYTES: Final = 64 * 1024 * 1024  # some 200,000 entries, from our own user's socket
_OK: Final = 200
_KEY_DIGEST_HEX: Final = 64


@final
@dataclass(frozen=True, slots=True)
class Operator:
    """Who acts: a user of this machine, or a caller the guard let through."""

    name: str


class Administration:
    """The admin routes over one CA."""

    def __init__(self, ca: CertificateAuthority, audit: AuditLog) -> None:
        self._ca, self._audit = ca, audit

    def routes(self) -> Routes:
        """Return the fixed table."""
        return {
            ("GET", ENTRIES_PATH.encode()): self.entries,
            ("POST", ENTRIES_PATH.encode()): self.create_entry,
            ("POST", DELETE_PATH.encode()): self.delete_entry,
            ("POST", TOKENS_PATH.encode()): self.create_token,
        }

    async def entries(self, arrival: Arrival) -> bytes:
        """List the entries."""
        _operator(arrival)
        entries = await asyncio.to_thread(self._ca.entries)
        return json.dumps({"entries": [_members(entry) for entry in entries]}).encode()

    async def create_entry(self, arrival: Arrival) -> bytes:
        """Register an identity."""
        operator, asked = _operator(arrival), _asked(arrival.body, _ENTRY)
        new = NewEntry(
            asked["path"],
            _strings(asked["selectors"]),
            _strings(asked["dns_names"]),
            float(asked["ttl"]),
            None if asked["wit_ttl"] is None else float(asked["wit_ttl"]),
        )
        entry = await asyncio.to_thread(self._ca.create_entry, new, now=arrival.now)
        self._record(arrival, operator, f"created entry {entry.id} for {entry.spiffe_id}")
        return json.dumps(_members(entry)).encode()

    async def delete_entry(self, arrival: Arrival) -> bytes:
        """Remove an entry."""
        operator, asked = _operator(arrival), _asked(arrival.body, {"id": (str,)})
        await asyncio.to_thread(self._ca.delete_entry, asked["id"], now=arrival.now)
        self._record(arrival, operator, f"deleted entry {asked['id'][:32]}")
        return b"{}"

    async def create_token(self, arrival: Arrival) -> bytes:
        """Make a join token."""
        operator, asked = _operator(arrival), _asked(arrival.body, _TOKEN)
        token = await asyncio.to_thread(
            self._ca.create_token,
            asked["entry"],
            address=asked["address"],
            now=arrival.now,
            ttl=float(asked["ttl"]),
            csr_key=_digest(asked["csr_key"]),
        )
        self._record(arrival, operator, f"created a join token for entry {asked['entry'][:32]}")
        return json.dumps({"token": token.dump()}).encode()

    def _record(self, arrival: Arrival, operator: Operator, act: str) -> None:
        self._audit.record(
            AuditEvent(at=arrival.now, kind="ca.admin", detail=act, peer=operator.name)
        )


class AdminClient:
    """The same acts from another process of this machine, over the local admin socket."""

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self._path = os.fspath(path)

    def create_entry(self, new: NewEntry) -> RegistrationEntry:
        """Register an identity; raise RequestRefused(ENTRY)."""
        return _entry(
            self._ask(
                "POST",
                ENTRIES_PATH,
                {
                    "path": new.path,
                    "selectors": list(new.selectors),
                    "dns_names": list(new.dns_names),
                    "ttl": new.ttl,
                    "wit_ttl": new.wit_ttl,
                },
            )
        )

    def entries(self) -> tuple[RegistrationEntry, ...]:
        """Return every entry."""
        return tuple(map(_entry, self._ask("GET", ENTRIES_PATH)["entries"]))

    def delete_entry(self, entry_id: str) -> None:
        """Remove an entry."""
        self._ask("POST", DELETE_PATH, {"id": entry_id})

    def create_token(
        self,
        entry_id: str,
        *,
        ttl: float = TOKEN_TTL,
        address: str | None = None,
        csr_key: bytes | None = None,
    ) -> JoinToken:
        """Make a join token; by default for the bootstrap listener as the CA knows it."""
        key = csr_key.hex() if csr_key else None
        asked = {"entry": entry_id, "ttl": ttl, "address": address, "csr_key": key}
        return JoinToken.parse(self._ask("POST", TOKENS_PATH, asked)["token"])

    def _ask(
        self, method: str, path: str, asked: Mapping[str, object] | None = None
    ) -> dict[str, Any]:
        connection = _UnixConnection(self._path)
        body = None if asked is None else json.dumps(asked).encode()
        try:
            headers = {"content-type": MEDIA_TYPE} if body is not None else {}
            connection.request(method, path, body, headers)
            response = connection.getresponse()
            answer = response.read(_MAX_LIST_BYTES + 1)
        except OSError as exc:
            raise ConfigurationError(
                f"no CA answers at {self._path}: {exc.strerror or exc}", Reason.FILE_ACCESS
            ) from exc
        finally:
            connection.close()
        members = parse_json_object(answer, max_bytes=_MAX_LIST_BYTES, max_members=1_000_000)
        if response.status != _OK:
            raise _refusal(members)
        return members


class _UnixConnection(http.client.HTTPConnection):
    def __init__(self, path: str) -> None:
        super().__init__("localhost", timeout=_TIMEOUT)
        self._unix_path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(_TIMEOUT)
        self.sock.connect(self._unix_path)


_Names = dict[str, tuple[type, ...]]
_NUMBER: Final = (int, float)
_MAYBE_TEXT: Final = (str, type(None))
_ENTRY: Final[_Names] = {
    "path": (str,),
    "selectors": (list,),
    "dns_names": (list,),
    "ttl": _NUMBER,
    "wit_ttl": (*_NUMBER, type(None)),
}
_TOKEN: Final[_Names] = {
    "entry": (str,),
    "ttl": _NUMBER,
    "address": _MAYBE_TEXT,
    "csr_key": _MAYBE_TEXT,
}


def _operator(arrival: Arrival) -> Operator:
    uid = (arrival.scope.get("extensions") or {}).get(UID)
    if uid is not None:
        return Operator(f"uid:{uid}")
    caller = arrival.scope.get(CALLER)
    if caller is None:
        raise NotEntitled(Reason.NOT_ENTITLED, "nobody is proven to ask")
    return Operator(str(caller.id))


def _asked(body: bytes, names: _Names) -> dict[str, Any]:
    asked = parse_json_object(body, max_bytes=MAX_REQUEST_BYTES, max_depth=3)
    if asked.keys() != names.keys():
        raise MalformedError(Reason.BAD_MESSAGE, f"expected exactly {', '.join(sorted(names))}")
    for name, kinds in names.items():
        if type(asked[name]) not in kinds:
            raise MalformedError(Reason.BAD_MESSAGE, f"{name} has the wrong type")
    return asked


def _strings(values: list[Any]) -> tuple[str, ...]:
    if not all(isinstance(value, str) for value in values):
        raise MalformedError(Reason.BAD_MESSAGE, "a list of strings is expected")
    return tuple(values)


def _digest(text: str | None) -> bytes | None:
    if text is None:
        return None
    try:
        digest = bytes.fromhex(text)
    except ValueError as exc:
        raise MalformedError(Reason.BAD_MESSAGE, "csr_key is hex") from exc
    if len(text) != _KEY_DIGEST_HEX:
        raise MalformedError(Reason.BAD_MESSAGE, "csr_key is a SHA-256")
    return digest


def _members(entry: RegistrationEntry) -> dict[str, Any]:
    return {
        "id": entry.id,
        "spiffe_id": str(entry.spiffe_id),
        "selectors": list(entry.selectors),
        "dns_names": list(entry.dns_names),
        "ttl": entry.ttl,
        "wit_ttl": entry.wit_ttl,
        "created_at": entry.created_at,
    }


def _refusal(members: Mapping[str, Any]) -> RequestRefused:
    known = {str(reason): reason for reason in Reason}
    reason = known.get(str(members.get("reason")), Reason.ENTRY)
    return RequestRefused(reason, str(members.get("detail", members.get("title"))))


def _entry(members: Mapping[str, Any]) -> RegistrationEntry:
    try:
        return RegistrationEntry(
            members["id"],
            SpiffeId.parse(members["spiffe_id"]),
            tuple(members["selectors"]),
            tuple(members["dns_names"]),
            members["ttl"],
            members["wit_ttl"],
            members["created_at"],
        )
    except (KeyError, TypeError) as exc:
        raise IssuanceError(Reason.BAD_MESSAGE, "the CA's answer is unreadable") from exc
