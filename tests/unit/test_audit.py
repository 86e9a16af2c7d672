from __future__ import annotations

import dataclasses
import json
import os
import stat
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from zerotrust.audit import (
    BURST,
    MAX_LINE,
    MAX_ROWS,
    NEVER_HELD_BACK,
    OTHERS,
    WINDOW,
    AuditEvent,
    AuditLog,
    JsonLinesSink,
    line_of,
    printable,
)
from zerotrust.core.errors import AuditUnavailable, ConfigurationError, Reason

NOW = 1_800_000_000.0


class Memory:
    """A sink that remembers, and fails while it is told to."""

    def __init__(self) -> None:
        self.events: list[AuditEvent] = []
        self.full = False

    def write(self, event: AuditEvent) -> None:
        if self.full:
            raise OSError(28, "No space left on device")
        self.events.append(event)


@pytest.fixture
def sink() -> Memory:
    return Memory()


def refusal(
    reason: str = Reason.TOKEN_MISSING, peer: str = "spiffe://a/web", at: float = NOW
) -> AuditEvent:
    return AuditEvent(at, "call.refused", reason=reason, peer=peer)


def allow(log: AuditLog, *, peer: str = "web", mode: str = "bound", at: float = NOW) -> None:
    log.allowed(now=at, peer=peer, route="GET /x", rule="read", mode=mode, micros=5)


def test_one_binding_mismatch_among_a_hundred_thousand_refusals_has_its_line(sink: Memory) -> None:
    log = AuditLog(sink)
    for n in range(100_000):
        if n == 77_777:
            log.refused(refusal(Reason.TOKEN_BINDING, at=NOW + n / 10_000))
        log.refused(refusal(at=NOW + n / 10_000))
    log.flush(NOW + 11)
    assert sum(event.reason == Reason.TOKEN_BINDING for event in sink.events) == 1
    noise = [event for event in sink.events if event.reason == Reason.TOKEN_MISSING]
    assert len(noise) == BURST + 1
    assert (noise[-1].kind, noise[-1].count) == ("calls.refused", 100_000 - BURST)


@pytest.mark.parametrize("reason", sorted(NEVER_HELD_BACK))
def test_signs_of_a_stolen_credential_are_never_held_back(sink: Memory, reason: str) -> None:
    log = AuditLog(sink)
    for _ in range(BURST * 3):
        log.refused(refusal(reason))
    assert len(sink.events) == BURST * 3


def test_what_was_held_back_is_counted_on_the_next_line(sink: Memory) -> None:
    log = AuditLog(sink)
    for _ in range(BURST + 5):
        log.refused(refusal())
    assert len(sink.events) == BURST
    log.refused(refusal(at=NOW + WINDOW))
    assert (len(sink.events), sink.events[-1].held) == (BURST + 1, 5)
    log.refused(refusal(at=NOW + WINDOW))
    assert sink.events[-1].held == 0


def test_peers_and_reasons_are_limited_apart(sink: Memory) -> None:
    log = AuditLog(sink)
    for _ in range(BURST + 1):
        log.refused(refusal())
        log.refused(refusal(Reason.TOKEN_EXPIRED))
        log.refused(refusal(peer="spiffe://a/db"))
    assert len(sink.events) == 3 * BURST


def test_no_number_of_peers_fills_the_memory_or_goes_uncounted(sink: Memory) -> None:
    log = AuditLog(sink)
    total = MAX_ROWS + 500
    for n in range(total):
        log.refused(refusal(peer=f"10.0.{n >> 8}.{n & 255}"))
    assert len(log._refusals) == MAX_ROWS + 1
    log.flush(NOW)
    others = [event for event in sink.events if event.peer == OTHERS]
    assert [event.count for event in others] == [500 - BURST]
    assert sum(event.count for event in sink.events) == total


def test_rows_whose_window_is_over_make_room(sink: Memory) -> None:
    log = AuditLog(sink)
    for n in range(MAX_ROWS):
        log.refused(refusal(peer=str(n)))
    log.refused(refusal(peer="new", at=NOW + WINDOW))
    assert len(log._refusals) == 1
    assert sink.events[-1].peer == "new"


def test_allowed_calls_are_one_line_a_minute(sink: Memory) -> None:
    log = AuditLog(sink)
    for n in range(1000):
        allow(log, at=NOW + n / 1000)
    allow(log, peer="db")
    assert sink.events == []
    allow(log, at=NOW + WINDOW)
    assert [(e.kind, e.peer, e.count, e.micros) for e in sink.events] == [
        ("calls.allowed", "web", 1000, 5000),
        ("calls.allowed", "db", 1, 5),
    ]
    log.flush(NOW + WINDOW)
    assert sink.events[-1].count == 1
    log.flush(NOW + WINDOW)
    assert len(sink.events) == 3


def test_callers_that_fill_the_table_share_a_row(sink: Memory) -> None:
    log = AuditLog(sink)
    for n in range(MAX_ROWS + 50):
        allow(log, peer=str(n))
    assert len(log._calls) == MAX_ROWS + 1
    log.flush(NOW)
    assert [e.count for e in sink.events if e.peer == OTHERS] == [50]


def test_proof_calls_are_one_line_each(sink: Memory) -> None:
    log = AuditLog(sink)
    allow(log, mode="proof")
    allow(log, mode="bound")
    assert [event.kind for event in sink.events] == ["call.allowed"]


def test_a_setting_gives_every_call_its_line(sink: Memory) -> None:
    log = AuditLog(sink, per_call=True)
    allow(log)
    allow(log)
    assert len(sink.events) == 2


def test_threads_lose_no_call(sink: Memory) -> None:
    log = AuditLog(sink)

    def work() -> None:
        for _ in range(5000):
            allow(log)

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    log.flush(NOW)
    assert sum(event.count for event in sink.events) == 20_000


def test_a_full_disk_neither_stops_a_call_nor_hides(sink: Memory) -> None:
    alarms: list[str] = []
    log = AuditLog(sink, per_call=True, alarm=alarms.append)
    sink.full = True
    for n in range(50):
        allow(log, at=NOW + n)
        log.refused(refusal(Reason.TOKEN_REPLAY, at=NOW + n))
    assert log.lost == 100
    assert len(alarms) == 1
    assert "No space left" in alarms[0]
    sink.full = False
    allow(log, at=NOW + 51)
    assert [(e.kind, e.count) for e in sink.events] == [
        ("audit.restored", 100),
        ("call.allowed", 1),
    ]
    assert log.lost == 0


def test_the_alarm_sounds_once_a_minute_while_the_sink_fails(sink: Memory) -> None:
    alarms: list[str] = []
    log = AuditLog(sink, alarm=alarms.append)
    sink.full = True
    for n in range(180):
        log.record(refusal(at=NOW + n))
    assert len(alarms) == 3


def test_any_exception_of_a_sink_is_a_lost_line_and_no_more() -> None:
    class Broken:
        def write(self, event: AuditEvent) -> None:
            raise RuntimeError("boom \x1b[31m")

    alarms: list[str] = []
    log = AuditLog(Broken(), alarm=alarms.append)
    log.refused(refusal())
    assert log.lost == 1
    assert "\x1b" not in alarms[0]


def test_a_required_line_that_cannot_be_written_refuses_the_call(sink: Memory) -> None:
    log = AuditLog(sink, required=True, alarm=lambda _: None)
    allow(log)
    assert len(sink.events) == 1
    sink.full = True
    with pytest.raises(AuditUnavailable) as caught:
        allow(log)
    assert caught.value.category == "unavailable"
    log.refused(refusal())  # a refusal stays what it is
    sink.full = False
    allow(log)
    assert [event.kind for event in sink.events[1:]] == ["audit.restored", "call.allowed"]


def test_a_file_is_made_for_its_owner_alone_and_appended_to(tmp_path: Path) -> None:
    path = tmp_path / "audit.jsonl"
    for kind in ("one", "two"):
        sink = JsonLinesSink(path)
        sink.write(AuditEvent(NOW, kind))
        sink.close()
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert [json.loads(line)["kind"] for line in path.read_text().splitlines()] == ["one", "two"]


def test_a_file_that_others_may_write_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "audit.jsonl"
    path.touch()
    path.chmod(0o622)
    with pytest.raises(ConfigurationError, match="chmod go-w"):
        JsonLinesSink(path)
    path.chmod(0o640)  # readers are the operator's choice
    JsonLinesSink(path).close()


def test_a_link_is_not_followed(tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(ConfigurationError):
        JsonLinesSink(tmp_path / "link")
    assert not (tmp_path / "elsewhere").exists()


def test_a_rotated_file_is_opened_again(tmp_path: Path) -> None:
    path = tmp_path / "audit.jsonl"
    sink = JsonLinesSink(path)
    sink.write(AuditEvent(NOW, "old"))
    path.rename(tmp_path / "audit.1")
    sink.reopen()
    sink.write(AuditEvent(NOW, "new"))
    sink.close()
    assert json.loads(path.read_text())["kind"] == "new"


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
def test_a_full_device_is_told_to_standard_error() -> None:
    code = (
        "from zerotrust.audit import *\n"
        "log = AuditLog(JsonLinesSink('/dev/full'))\n"
        "[log.record(AuditEvent(1.0 + n, 'x')) for n in range(3)]\n"
        "print(log.lost)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "3\n"
    assert done.stderr.count("the audit log cannot be written") == 1


@pytest.fixture
def pipe() -> Iterator[tuple[int, int]]:
    reader, writer = os.pipe()
    yield reader, writer
    os.close(reader)
    os.close(writer)


def test_a_given_descriptor_stays_the_givers(pipe: tuple[int, int]) -> None:
    reader, writer = pipe
    sink = JsonLinesSink(writer)
    sink.reopen()
    sink.close()
    JsonLinesSink(writer).write(AuditEvent(NOW, "x"))
    assert os.read(reader, 4096)


def test_a_pipe_that_nobody_reads_is_an_error_and_no_wait(pipe: tuple[int, int]) -> None:
    reader, writer = pipe
    log = AuditLog(JsonLinesSink(writer), alarm=lambda _: None)
    written = 0
    while not log.lost:
        log.record(AuditEvent(NOW, "x", detail="d" * 200))
        written += 1
    assert written > 10
    os.read(reader, 1 << 20)
    log.record(AuditEvent(NOW, "y"))
    assert [json.loads(line)["kind"] for line in os.read(reader, 4096).splitlines()] == [
        "audit.restored",
        "y",
    ]


def test_a_line_that_was_cut_off_does_not_spoil_the_next(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "audit.jsonl"
    sink = JsonLinesSink(path)
    real = os.write
    monkeypatch.setattr(os, "write", lambda fd, line: real(fd, line[:10]))
    with pytest.raises(OSError, match="10 of"):
        sink.write(AuditEvent(NOW, "torn"))
    monkeypatch.undo()
    sink.write(AuditEvent(NOW, "whole"))
    sink.write(AuditEvent(NOW, "next"))
    sink.close()
    torn, whole, after = path.read_text().split("\n")[:3]
    assert not torn.endswith("}")
    assert [json.loads(line)["kind"] for line in (whole, after)] == ["whole", "next"]


def test_a_line_says_only_what_there_is_to_say() -> None:
    line = line_of(AuditEvent(NOW + 0.5, "call.refused", reason="rule.none"))
    assert line == b'{"at":"2027-01-15T08:00:00.500Z","kind":"call.refused","reason":"rule.none"}\n'


@pytest.mark.parametrize("hostile", ["\x1b\n" * 500, "\U0001f600" * 500, "\x7f" * 500])
def test_no_text_makes_a_line_longer_than_one_write(hostile: str) -> None:
    texts = {f.name: hostile for f in dataclasses.fields(AuditEvent) if f.type == "str"}
    assert len(texts) == 9
    event = dataclasses.replace(AuditEvent(NOW, "x", held=3), **texts)  # type: ignore[arg-type]
    line = line_of(event)
    assert len(line) <= MAX_LINE
    assert line.count(b"\n") == 1
    assert json.loads(line)["held"] == 3
    assert all(0x20 <= byte < 0x7F for byte in line[:-1])


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("plain", "plain"),
        ("a\nb\x1b\x7f", "a\\nb\\u001b\\u007f"),
        ('"\\', '\\"\\\\'),
        ("é\udc80", "\\u00e9\\udc80"),
        (b"\xff\x00a", "\\u00ff\\u0000a"),
        ("", ""),
    ],
)
def test_what_is_printed_is_ascii_with_the_escapes_of_json(text: str | bytes, shown: str) -> None:
    assert printable(text) == shown


def test_what_is_printed_is_cut_between_escapes() -> None:
    assert printable("abcdé", 8) == "abcd"
    assert printable("abcdé", 10) == "abcd\\u00e9"
    assert printable("x" * 100, 10) == "x" * 10
