"""The CA's records in one SQLite file.

1. One process: an exclusive lock on a file beside the database; a second one is told so.
2. One writer thread. It commits every change that waits together (WAL, synchronous=FULL): one fsync
   for all of them, and no future completes before it. When one of them meets a conflict, all are
   rolled back and written again, each under its own savepoint.
3. Once-only facts are unique constraints and conditional updates, so that no earlier reading can
   be wrong about them.
4. A full or broken disk is StoreUnavailable for the changes of that commit; nothing of it is kept.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import queue
import sqlite3
import threading
import time
from concurrent.futures import Future
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, TypeVar, cast

from zerotrust.ca.authority.authority import Certificate, Lineage
from zerotrust.ca.authority.entries import RegistrationEntry
from zerotrust.ca.stores import (
    AddEntry,
    AddToken,
    CertificateOf,
    Change,
    ChildOf,
    Conflict,
    DeleteEntry,
    Entries,
    EntryOf,
    Forget,
    FreezeLineage,
    LineageOf,
    Question,
    RecordIssue,
    StoreUnavailable,
    TokenOf,
    TokenRecord,
)
from zerotrust.core.errors import ConfigurationError, MalformedError, Reason
from zerotrust.core.spiffe.ids import SpiffeId

if TYPE_CHECKING:
    from collections.abc import Callable

T = TypeVar("T")
Row = tuple[Any, ...]

SCHEMA_VERSION: Final = 1
MAX_GROUP: Final = 256  # changes in one commit
MAX_WAITING: Final = 4096  # changes in line before new ones are refused
GATHER_SECONDS: Final = 0.001  # within which a crowd sends one more change
GATHER_TURNS: Final = 5

_FROZEN: Final = "SELECT 1 FROM lineages WHERE id = ? AND frozen_at IS NOT NULL"
_FORGET_ANSWERS: Final = (
    "UPDATE certificates SET leaf = x'', issuer = x'', wit = '' WHERE not_after < ? AND wit <> ''"
)
_SCHEMA: Final = """
CREATE TABLE entries (
  id TEXT PRIMARY KEY, spiffe_id TEXT NOT NULL UNIQUE, selectors TEXT NOT NULL, dns_names TEXT NOT
  NULL,
  ttl REAL NOT NULL, wit_ttl REAL, created_at REAL NOT NULL) STRICT;
CREATE TABLE tombstones (spiffe_id TEXT PRIMARY KEY, until REAL NOT NULL) STRICT;
CREATE TABLE join_tokens (
  hash BLOB PRIMARY KEY, entry TEXT NOT NULL, csr_key BLOB, expires_at REAL NOT NULL, used_for TEXT
  UNIQUE) STRICT;
CREATE TABLE lineages (
  id TEXT PRIMARY KEY, entry TEXT NOT NULL, attested_at REAL NOT NULL, selectors TEXT NOT NULL,
  frozen_at REAL) STRICT;
CREATE TABLE certificates (
  serial TEXT PRIMARY KEY, lineage TEXT NOT NULL, parent TEXT UNIQUE, spiffe_id TEXT NOT NULL, spki
  BLOB NOT NULL,
  wit_jkt TEXT NOT NULL, issued_at REAL NOT NULL, not_after REAL NOT NULL,
  leaf BLOB NOT NULL, issuer BLOB NOT NULL, wit TEXT NOT NULL) STRICT;
CREATE INDEX certificates_of ON certificates (spiffe_id, not_after);
CREATE INDEX tokens_by_end ON join_tokens (expires_at);
"""
_INDEX: Final = (  # older stores get it when they are opened: it changes nothing they say
    "CREATE INDEX IF NOT EXISTS answers_by_end ON certificates (not_after) WHERE wit <> ''"
)


class SqliteStore:
    """The records in `path`; `path` + `.lock` is held until `close`."""

    def __init__(self, path: Path) -> None:
        self._lock_file = hold(path.with_name(path.name + ".lock"))
        with contextlib.ExitStack() as undo:
            undo.callback(os.close, self._lock_file)
            try:
                self._writer = undo.enter_context(contextlib.closing(_connect(path)))
                _prepare(self._writer, path)
                self._reader = undo.enter_context(contextlib.closing(_connect(path)))
            except sqlite3.Error as exc:
                raise ConfigurationError(f"{path.name}: {exc}", Reason.STORE) from exc
            undo.pop_all()
        self._reading, self._lining_up = threading.Lock(), threading.Lock()
        self._waiting: queue.SimpleQueue[tuple[Change, Future[None]] | None] = queue.SimpleQueue()
        self._closed = False
        self._thread = threading.Thread(target=self._write, name="zerotrust-ca-store", daemon=True)
        self._thread.start()

    def read(self, question: Question[T]) -> T:
        """Answer from what is committed."""
        answer = cast("Callable[[sqlite3.Connection, Any], T]", _ANSWERS[type(question)])
        try:
            with self._reading:
                return answer(self._reader, question)
        except (sqlite3.Error, MalformedError, json.JSONDecodeError) as exc:
            raise StoreUnavailable(f"the records cannot be read: {exc}") from exc

    def apply(self, change: Change) -> Future[None]:
        """Put the change in line for the next commit."""
        done: Future[None] = Future()
        with self._lining_up:  # nobody comes to stand behind the end of the line
            if self._closed:
                done.set_exception(StoreUnavailable("the store is closed"))
            elif self._waiting.qsize() >= MAX_WAITING:
                done.set_exception(StoreUnavailable("too many changes wait for the disk"))
            else:
                self._waiting.put((change, done))
        return done

    def close(self) -> None:
        """Commit what waits and let go of the file."""
        with self._lining_up:
            if self._closed:
                return
            self._closed = True
            self._waiting.put(None)
        self._thread.join()
        with self._reading:
            self._reader.close()
        self._writer.close()
        os.close(self._lock_file)

    def _write(self) -> None:
        crowded = False
        while True:
            group = [self._waiting.get()]
            if crowded:
                self._gather()
            with contextlib.suppress(queue.Empty):
                while len(group) < MAX_GROUP:
                    group.append(self._waiting.get_nowait())
            changes = [item for item in group if item is not None]
            self._commit(changes)
            if len(changes) < len(group):
                return
            crowded = not self._waiting.empty()

    def _gather(self) -> None:
        """Wait for as long as the line grows, a few milliseconds at most."""
        for _ in range(GATHER_TURNS):
            length = self._waiting.qsize()
            time.sleep(GATHER_SECONDS)
            if self._waiting.qsize() == length:
                return

    def _commit(self, changes: list[tuple[Change, Future[None]]]) -> None:
        if not changes:
            return
        wanted = [change for change, _ in changes]
        outcomes: list[Exception | None]
        try:
            try:
                outcomes = self._together(wanted, _write)
            except (Conflict, sqlite3.IntegrityError):  # rare: find out whose, change by change
                outcomes = self._together(wanted, _attempt)
        except sqlite3.Error as exc:
            outcomes = [StoreUnavailable(f"the records cannot be written: {exc}")] * len(changes)
        except Exception as exc:  # noqa: BLE001 - without this thread nobody is answered again
            detail = f"the records cannot be written: {type(exc).__name__}"
            outcomes = [StoreUnavailable(detail)] * len(changes)
        for (_, done), outcome in zip(changes, outcomes, strict=True):
            if outcome is None:
                done.set_result(None)
            else:
                done.set_exception(outcome)

    def _together(
        self,
        changes: list[Change],
        write: Callable[[sqlite3.Connection, Change], Exception | None],
    ) -> list[Exception | None]:
        """Write all in one transaction; whatever is raised leaves nothing of it."""
        self._writer.execute("BEGIN IMMEDIATE")
        try:
            outcomes = [write(self._writer, change) for change in changes]
            self._writer.execute("COMMIT")
        except BaseException:
            with contextlib.suppress(sqlite3.Error):
                self._writer.execute("ROLLBACK")
            raise
        return outcomes


def hold(path: Path) -> int:
    """Lock a CA's files for us alone; return the descriptor or raise ConfigurationError(STORE)."""
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as exc:
        os.close(descriptor)
        raise ConfigurationError(
            f"another process runs this CA ({path.name} is locked): stop it first", Reason.STORE
        ) from exc
    return descriptor


def _connect(path: Path) -> sqlite3.Connection:
    if not path.exists():
        os.close(os.open(path, os.O_RDWR | os.O_CREAT, 0o600))
    connection = sqlite3.connect(path, isolation_level=None, check_same_thread=False, timeout=10)
    connection.execute("PRAGMA journal_mode=WAL")
    connection.execute("PRAGMA synchronous=FULL")
    connection.execute("PRAGMA trusted_schema=OFF")
    return connection


def _prepare(connection: sqlite3.Connection, path: Path) -> None:
    (version,) = connection.execute("PRAGMA user_version").fetchone()
    if version == 0:
        connection.executescript(f"BEGIN;{_SCHEMA}PRAGMA user_version={SCHEMA_VERSION};COMMIT;")
    elif version != SCHEMA_VERSION:
        raise ConfigurationError(
            f"{path.name} has schema {version}; this release reads {SCHEMA_VERSION}", Reason.STORE
        )
    connection.execute(_INDEX)


def _write(connection: sqlite3.Connection, change: Change) -> None:
    _WRITES[type(change)](connection, change)


def _attempt(connection: sqlite3.Connection, change: Change) -> Exception | None:
    connection.execute("SAVEPOINT one")
    try:
        _WRITES[type(change)](connection, change)
    except (Conflict, sqlite3.IntegrityError) as exc:
        connection.execute("ROLLBACK TO one")
        connection.execute("RELEASE one")
        return exc if isinstance(exc, Conflict) else Conflict(str(exc))
    connection.execute("RELEASE one")
    return None


def _one(connection: sqlite3.Connection, sql: str, *values: object) -> Row | None:
    return cast("Row | None", connection.execute(sql, values).fetchone())


def _token_of(connection: sqlite3.Connection, question: TokenOf) -> TokenRecord | None:
    row = _one(connection, "SELECT * FROM join_tokens WHERE hash = ?", question.hash)
    return TokenRecord(*row) if row else None


@lru_cache(maxsize=4096)  # the same row is the same entry
def _entry(row: Row) -> RegistrationEntry:
    entry_id, spiffe_id, selectors, dns_names, ttl, wit_ttl, created_at = row
    return RegistrationEntry(
        entry_id,
        SpiffeId.parse(spiffe_id),
        tuple(json.loads(selectors)),
        tuple(json.loads(dns_names)),
        ttl,
        wit_ttl,
        created_at,
    )


def _entry_of(connection: sqlite3.Connection, question: EntryOf) -> RegistrationEntry | None:
    row = _one(connection, "SELECT * FROM entries WHERE id = ?", question.id)
    return _entry(row) if row else None


def _entries(connection: sqlite3.Connection, _: Entries) -> tuple[RegistrationEntry, ...]:
    return tuple(map(_entry, connection.execute("SELECT * FROM entries ORDER BY spiffe_id")))


def _certificate_of(connection: sqlite3.Connection, question: CertificateOf) -> Certificate | None:
    row = _one(connection, "SELECT * FROM certificates WHERE serial = ?", question.serial)
    return Certificate(*row) if row else None


def _child_of(connection: sqlite3.Connection, question: ChildOf) -> Certificate | None:
    row = _one(connection, "SELECT * FROM certificates WHERE parent = ?", question.serial)
    return Certificate(*row) if row else None


def _lineage_of(connection: sqlite3.Connection, question: LineageOf) -> Lineage | None:
    row = _one(connection, "SELECT * FROM lineages WHERE id = ?", question.id)
    if row is None:
        return None
    lineage, entry, attested_at, selectors, frozen_at = row
    return Lineage(lineage, entry, attested_at, frozenset(json.loads(selectors)), frozen_at)


def _add_entry(connection: sqlite3.Connection, change: AddEntry) -> None:
    entry = change.entry
    reserved = "SELECT 1 FROM tombstones WHERE spiffe_id = ? AND until > ?"
    if _one(connection, reserved, str(entry.spiffe_id), entry.created_at):
        raise Conflict("a deleted entry's certificates for this identity still live")
    connection.execute(
        "INSERT INTO entries VALUES (?, ?, ?, ?, ?, ?, ?)",
        (
            entry.id,
            str(entry.spiffe_id),
            json.dumps(entry.selectors),
            json.dumps(entry.dns_names),
            entry.ttl,
            entry.wit_ttl,
            entry.created_at,
        ),
    )


def _delete_entry(connection: sqlite3.Connection, change: DeleteEntry) -> None:
    row = _one(connection, "DELETE FROM entries WHERE id = ? RETURNING spiffe_id", change.id)
    if row is None:
        raise Conflict("there is no such entry")
    connection.execute("DELETE FROM join_tokens WHERE entry = ?", (change.id,))
    connection.execute(
        "INSERT OR REPLACE INTO tombstones SELECT ?, max(not_after) FROM certificates"
        " WHERE spiffe_id = ? AND not_after > ? HAVING count(*) > 0",
        (row[0], row[0], change.now),
    )


def _add_token(connection: sqlite3.Connection, change: AddToken) -> None:
    token = change.token
    _require_entry(connection, token.entry)
    values = (token.hash, token.entry, token.csr_key, token.expires_at, token.used_for)
    connection.execute("INSERT INTO join_tokens VALUES (?, ?, ?, ?, ?)", values)


def _record_issue(connection: sqlite3.Connection, change: RecordIssue) -> None:
    certificate, lineage = change.certificate, change.lineage
    if change.entry is not None and change.token is None:  # a deleted entry takes its tokens along
        _require_entry(connection, change.entry)
    if lineage is not None:
        selectors = json.dumps(sorted(lineage.selectors))
        values = (lineage.id, lineage.entry, lineage.attested_at, selectors, lineage.frozen_at)
        connection.execute("INSERT INTO lineages VALUES (?, ?, ?, ?, ?)", values)
    elif _one(connection, _FROZEN, certificate.lineage):
        raise Conflict("the lineage is frozen")
    if change.token is not None:
        spent = "UPDATE join_tokens SET used_for = ? WHERE hash = ? AND used_for IS NULL"
        if connection.execute(spent, (certificate.serial, change.token)).rowcount != 1:
            raise Conflict("the join token is spent")
    connection.execute(
        "INSERT INTO certificates VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
        tuple(getattr(certificate, name) for name in Certificate.__slots__),
    )


def _freeze(connection: sqlite3.Connection, change: FreezeLineage) -> None:
    connection.execute(
        "UPDATE lineages SET frozen_at = coalesce(frozen_at, ?) WHERE id = ?",
        (change.now, change.id),
    )


def _forget(connection: sqlite3.Connection, change: Forget) -> None:
    connection.execute("DELETE FROM join_tokens WHERE expires_at < ?", (change.before,))
    connection.execute("DELETE FROM tombstones WHERE until < ?", (change.before,))
    connection.execute(_FORGET_ANSWERS, (change.before,))


def _require_entry(connection: sqlite3.Connection, entry: str) -> None:
    if not _one(connection, "SELECT 1 FROM entries WHERE id = ?", entry):
        raise Conflict("the entry is gone")


_ANSWERS: Final[dict[type, Callable[[sqlite3.Connection, Any], Any]]] = {
    TokenOf: _token_of,
    EntryOf: _entry_of,
    Entries: _entries,
    CertificateOf: _certificate_of,
    ChildOf: _child_of,
    LineageOf: _lineage_of,
}
_WRITES: Final[dict[type, Callable[[sqlite3.Connection, Any], None]]] = {
    AddEntry: _add_entry,
    DeleteEntry: _delete_entry,
    AddToken: _add_token,
    RecordIssue: _record_issue,
    FreezeLineage: _freeze,
    Forget: _forget,
}
