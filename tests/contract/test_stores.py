"""Every store against the one suite of its port."""

from __future__ import annotations

import threading
from concurrent.futures import wait
from dataclasses import replace
from typing import TYPE_CHECKING, Any, cast

import pytest

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
    RecordIssue,
    Store,
    StoreUnavailable,
    TokenOf,
    TokenRecord,
    sqlite,
)
from zerotrust.ca.stores.sqlite import SqliteStore
from zerotrust.core.errors import ConfigurationError
from zerotrust.core.spiffe.ids import SpiffeId

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

ENTRY = RegistrationEntry(
    "e1", SpiffeId.parse("spiffe://example.org/a"), ("unix:uid:1",), ("a",), 60.0, None, 1.0
)
TOKEN = TokenRecord(b"h" * 32, "e1", None, 100.0)
LINEAGE = Lineage("l1", "e1", 1.0, frozenset({"unix:uid:1"}))
FIRST = Certificate(
    "01", "l1", None, "spiffe://example.org/a", b"s", "j", 1.0, 61.0, b"leaf", b"issuer", "wit"
)
CHILD = replace(FIRST, serial="02", parent="01")


@pytest.fixture(params=["sqlite"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Store]:
    store = {"sqlite": SqliteStore}[request.param](tmp_path / "records.db")
    yield store
    store.close()


def put(store: Store, *changes: Change) -> None:
    for change in changes:
        store.apply(change).result(10)


def test_what_was_put_is_read(store: Store) -> None:
    put(store, AddEntry(ENTRY), AddToken(TOKEN), RecordIssue(FIRST, "e1", LINEAGE, TOKEN.hash))
    put(store, RecordIssue(CHILD, "e1"))
    assert store.read(EntryOf("e1")) == ENTRY
    assert store.read(Entries()) == (ENTRY,)
    assert store.read(TokenOf(TOKEN.hash)) == replace(TOKEN, used_for="01")
    assert store.read(CertificateOf("01")) == FIRST
    assert store.read(ChildOf("01")) == CHILD
    assert store.read(LineageOf("l1")) == LINEAGE


def test_what_was_not_put_is_none(store: Store) -> None:
    assert store.read(EntryOf("e1")) is None
    assert store.read(TokenOf(b"h")) is None
    assert store.read(CertificateOf("01")) is None
    assert store.read(ChildOf("01")) is None
    assert store.read(LineageOf("l1")) is None


def test_an_identity_is_registered_once(store: Store) -> None:
    put(store, AddEntry(ENTRY))
    with pytest.raises(Conflict):
        put(store, AddEntry(replace(ENTRY, id="e2")))


def test_a_token_is_spent_once_and_the_loser_leaves_nothing(store: Store) -> None:
    put(store, AddEntry(ENTRY), AddToken(TOKEN), RecordIssue(FIRST, "e1", LINEAGE, TOKEN.hash))
    second = replace(FIRST, serial="03", lineage="l2")
    with pytest.raises(Conflict):
        put(store, RecordIssue(second, "e1", replace(LINEAGE, id="l2"), TOKEN.hash))
    assert store.read(CertificateOf("03")) is None
    assert store.read(LineageOf("l2")) is None


def test_a_parent_has_one_child(store: Store) -> None:
    put(store, AddEntry(ENTRY), RecordIssue(FIRST, "e1", LINEAGE), RecordIssue(CHILD, "e1"))
    with pytest.raises(Conflict):
        put(store, RecordIssue(replace(CHILD, serial="03"), "e1"))


def test_a_frozen_lineage_takes_no_child(store: Store) -> None:
    put(store, AddEntry(ENTRY), RecordIssue(FIRST, "e1", LINEAGE), FreezeLineage("l1", 5.0))
    put(store, FreezeLineage("l1", 9.0))
    assert store.read(LineageOf("l1")) == replace(LINEAGE, frozen_at=5.0)
    with pytest.raises(Conflict):
        put(store, RecordIssue(CHILD, "e1"))


def test_a_deleted_entry_takes_its_tokens_and_leaves_its_name_reserved(store: Store) -> None:
    put(store, AddEntry(ENTRY), AddToken(TOKEN), RecordIssue(FIRST, "e1", LINEAGE))
    put(store, DeleteEntry("e1", 2.0))
    assert store.read(TokenOf(TOKEN.hash)) is None
    with pytest.raises(Conflict):
        put(store, RecordIssue(CHILD, "e1"))
    with pytest.raises(Conflict):
        put(store, AddEntry(replace(ENTRY, id="e2", created_at=60.9)))
    put(store, AddEntry(replace(ENTRY, id="e2", created_at=61.0)))


def test_what_is_not_there_is_not_deleted_and_gets_no_token(store: Store) -> None:
    with pytest.raises(Conflict):
        put(store, DeleteEntry("e1", 2.0))
    with pytest.raises(Conflict):
        put(store, AddToken(TOKEN))


def test_forgetting_keeps_records(store: Store) -> None:
    put(store, AddEntry(ENTRY), AddToken(TOKEN), RecordIssue(FIRST, "e1", LINEAGE))
    put(store, Forget(61.5))
    assert store.read(CertificateOf("01")) == replace(FIRST, leaf=b"", issuer=b"", wit="")
    assert store.read(TokenOf(TOKEN.hash)) == TOKEN


def test_a_conflict_harms_no_other_change_of_its_commit(store: Store) -> None:
    put(store, AddEntry(ENTRY))
    entries = [
        replace(ENTRY, id=f"n{n}", spiffe_id=SpiffeId.parse(f"spiffe://example.org/{n}"))
        for n in range(50)
    ]
    futures = [store.apply(AddEntry(e)) for entry in entries for e in (entry, ENTRY)]
    wait(futures, 10)
    assert sum(future.exception() is None for future in futures) == 50
    assert len(store.read(Entries())) == 51


def test_a_change_that_cannot_be_written_ends_no_other(store: Store) -> None:
    with pytest.raises(StoreUnavailable):
        put(store, DeleteEntry("\ud800", 1.0))  # no text that SQLite could hold
    put(store, AddEntry(ENTRY))
    assert store.read(EntryOf("e1")) == ENTRY


def test_records_survive_a_restart(tmp_path: Path) -> None:
    store = SqliteStore(tmp_path / "records.db")
    put(store, AddEntry(ENTRY))
    store.close()
    store = SqliteStore(tmp_path / "records.db")
    assert store.read(Entries()) == (ENTRY,)
    store.close()


def test_a_closed_store_takes_nothing(tmp_path: Path) -> None:
    store = SqliteStore(tmp_path / "records.db")
    store.close()
    with pytest.raises(StoreUnavailable, match="closed"):
        put(store, AddEntry(ENTRY))
    with pytest.raises(StoreUnavailable):
        store.read(Entries())


def test_a_full_disk_refuses_and_loses_nothing(tmp_path: Path) -> None:
    store = SqliteStore(tmp_path / "records.db")
    put(store, AddEntry(ENTRY))
    pages = store._writer.execute("PRAGMA page_count").fetchone()[0]
    store._writer.execute(f"PRAGMA max_page_count={pages}")
    big = replace(FIRST, leaf=b"x" * 100_000)
    with pytest.raises(StoreUnavailable, match="full"):
        put(store, RecordIssue(big, "e1", LINEAGE))
    assert store.read(CertificateOf("01")) is None
    store._writer.execute("PRAGMA max_page_count=100000")
    put(store, RecordIssue(FIRST, "e1", LINEAGE))
    assert store.read(Entries()) == (ENTRY,)
    store.close()


def test_one_process_at_a_time(tmp_path: Path) -> None:
    store = SqliteStore(tmp_path / "records.db")
    with pytest.raises(ConfigurationError, match="another process"):
        SqliteStore(tmp_path / "records.db")
    store.close()


def test_a_newer_schema_and_a_broken_file_are_refused(tmp_path: Path) -> None:
    store = SqliteStore(tmp_path / "records.db")
    store._writer.execute("PRAGMA user_version=99")
    store.close()
    with pytest.raises(ConfigurationError, match="schema 99"):
        SqliteStore(tmp_path / "records.db")
    (tmp_path / "broken.db").write_bytes(b"no database" * 1000)
    with pytest.raises(ConfigurationError):
        SqliteStore(tmp_path / "broken.db")


def test_forgetting_reads_only_what_it_forgets_in_an_older_store_too(tmp_path: Path) -> None:
    store = SqliteStore(tmp_path / "records.db")
    put(store, AddEntry(ENTRY), RecordIssue(FIRST, "e1", LINEAGE))
    store._writer.execute("DROP INDEX answers_by_end")
    store.close()
    store = SqliteStore(tmp_path / "records.db")
    plan = store._writer.execute(f"EXPLAIN QUERY PLAN {sqlite._FORGET_ANSWERS}", (1.0,)).fetchall()
    assert [p[3] for p in plan] == ["SEARCH certificates USING INDEX answers_by_end (not_after<?)"]
    put(store, Forget(61.5))
    assert store.read(CertificateOf("01")) == replace(FIRST, leaf=b"", issuer=b"", wit="")
    store.close()


class ClosingMeanwhile:
    """A line whose store is closed by another thread while somebody looks at its length."""

    def __init__(self, store: SqliteStore) -> None:
        self._line = store._waiting
        self.closing = threading.Thread(target=store.close)

    def qsize(self) -> int:
        if self.closing.ident is None:  # the store's own thread looks too
            self.closing.start()
            self.closing.join(0.2)
        return 0

    def __getattr__(self, name: str) -> object:
        return getattr(self._line, name)


def test_a_change_that_meets_the_end_of_its_store_is_answered(tmp_path: Path) -> None:
    store = SqliteStore(tmp_path / "records.db")
    line = ClosingMeanwhile(store)
    store._waiting = cast("Any", line)
    assert store.apply(AddEntry(ENTRY)).result(10) is None
    line.closing.join(10)
    with pytest.raises(StoreUnavailable, match="closed"):
        put(store, AddEntry(ENTRY))
    store = SqliteStore(tmp_path / "records.db")
    assert store.read(Entries()) == (ENTRY,)
    store.close()
