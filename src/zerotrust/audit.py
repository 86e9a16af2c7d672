"""What was decided, one line each: for operators, never for the peer.

1. A refusal is one line, limited per (peer, reason); what was held back is counted on the next
   line. Signs of a stolen or replayed credential are never held back.
2. Allowed calls are counted per caller, route and minute and written as one line; proof calls, or
   all by setting, one line each.
3. Every table here is bounded; a caller that fills it shares a row with others from then on.
4. A line that cannot be written never turns a refusal into anything else. It is counted, the alarm
   goes to standard error, and the first line after the sink is back says how many are lost. Where
   audit is `required` an allowed call is refused then (docs/adr/0007-audit-sink-failure.md).
5. A line is one `write` of at most PIPE_BUF bytes in append mode: lines of several processes never
   mix, and a pipe that nobody reads is an error at once instead of a wait.
6. Events never hold a token or a key; all text is escaped to ASCII, once, where it is written.
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
import select
import stat
import threading
from collections.abc import Callable
from dataclasses import dataclass, fields, replace
from datetime import UTC, datetime
from typing import Final, Protocol

from zerotrust.core.errors import AuditUnavailable, ConfigurationError, Reason

BURST: Final = 10  # refusal lines per (peer, reason) and window
WINDOW: Final = 60.0  # seconds
MAX_ROWS: Final = 4096  # of each table
MAX_LINE: Final = select.PIPE_BUF  # bytes, the newline included
MAX_TEXT: Final = 256  # characters of one field
OTHERS: Final = "(others)"

NEVER_HELD_BACK: Final = frozenset(
    {
        Reason.TOKEN_BINDING,
        Reason.TOKEN_WIT_BINDING,
        Reason.TOKEN_OTHER_BINDING,
        Reason.TOKEN_SUBJECT,
        Reason.TOKEN_REPLAY,
        Reason.PEER_RESUMED,
        Reason.LINEAGE_FROZEN,
    }
)
_SHORT: Final = 32  # characters of a field in a crowded line; one takes at most 12 bytes
_PROOF: Final = "proof"


@dataclass(frozen=True, slots=True)
class AuditEvent:
    """One line of the audit log; never holds a token or a key. Empty fields are not written."""

    at: float  # seconds since the epoch
    kind: str  # "call.refused", "call.allowed", "calls.allowed" (counted), "ca.issued", ...
    id: str = ""
    reason: str = ""
    code: str = ""
    detail: str = ""
    peer: str = ""
    route: str = ""  # the template, else at most 128 bytes of the path; never the query
    rule: str = ""
    mode: str = ""
    micros: int = 0  # of all calls that this line counts
    count: int = 1  # how many calls this line stands for
    held: int = 0  # how many like it were held back since the last line


class Tally:
    """Calls of one kind, only ever counted up: what was written is remembered beside it."""

    __slots__ = ("count", "dropped", "micros", "micros_written", "written")

    def __init__(self) -> None:
        self.count = self.written = 0
        self.micros = self.micros_written = 0
        self.dropped = False  # then nobody reads it any more: ask the log for a new one


_FIELDS: Final = tuple(field.name for field in fields(AuditEvent) if field.name != "at")


class Sink(Protocol):
    """Port: where lines go."""

    def write(self, event: AuditEvent) -> None:
        """Write one event before returning, or raise OSError. Never wait."""


class JsonLinesSink:
    """JSON lines to a file (made 0600, appended to) or to an open descriptor such as 2."""

    def __init__(self, target: str | os.PathLike[str] | int) -> None:
        self._path = None if isinstance(target, int) else os.fspath(target)
        self._fd = target if isinstance(target, int) else _opened(os.fspath(target))
        self._torn = False

    def write(self, event: AuditEvent) -> None:
        """Write one line; raise OSError where it cannot be written whole and at once."""
        line = line_of(event)
        if self._torn:
            line = b"\n" + line[: MAX_LINE - 1]  # ends what a full disk cut off
        poll = select.poll()
        poll.register(self._fd, select.POLLOUT)
        if not poll.poll(0):
            raise BlockingIOError(errno.EAGAIN, "nobody reads the audit log")
        written = os.write(self._fd, line)
        if written < len(line):
            self._torn = True
            raise OSError(errno.ENOSPC, f"{written} of {len(line)} bytes were written")
        self._torn = False

    def reopen(self) -> None:
        """Open the path again, after a log rotation moved the file away."""
        if self._path is not None:
            old, self._fd = self._fd, _opened(self._path)
            os.close(old)

    def close(self) -> None:
        """Close the file; a descriptor that was given stays open."""
        if self._path is not None:
            os.close(self._fd)


class AuditLog:
    """Counts, limits and writes events. Any number of threads may share one.

    `per_call` writes a line for every allowed call. `required` does so too, and refuses the call
    whose line cannot be written. `alarm` is told when the sink fails, at most once a minute. Call
    `flush` now and then and at the end: nothing here owns a timer.
    """

    def __init__(
        self,
        sink: Sink,
        *,
        per_call: bool = False,
        required: bool = False,
        alarm: Callable[[str], None] | None = None,
    ) -> None:
        self._sink = sink
        self._per_call = per_call or required
        self._required = required
        self._alarm = alarm or _to_standard_error
        self._lock = threading.Lock()
        self._calls: dict[tuple[str, str, str, str], Tally] = {}
        self._turn = 0.0  # when the counted calls are written next
        self._refusals: dict[tuple[str, str], _Row] = {}
        self._crowded_until = 0.0
        self._alarmed_at = float("-inf")
        self.lost = 0  # lines lost since the sink last worked

    def allowed(
        self, *, now: float, peer: str, route: str, rule: str, mode: str, micros: int
    ) -> None:
        """Count one allowed call before it runs; only `required` raises AuditUnavailable."""
        if self._per_call or mode == _PROOF:
            self._write_call(now, peer, route, rule, mode, micros)
            return
        with self._lock:
            if now >= self._turn:
                self._write_calls(now)
            tally = self._tally((peer, route, rule, mode))
            tally.count += 1
            tally.micros += micros

    def tally(self, *, peer: str, route: str, rule: str, mode: str) -> Tally | None:
        """Return where one event loop may count such calls by itself; None where each is a line.

        What is counted there is written when `flush` is called, until the tally is `dropped`.
        """
        if self._per_call or mode == _PROOF:
            return None
        with self._lock:
            return self._tally((peer, route, rule, mode))

    def refused(self, event: AuditEvent) -> None:
        """Write the refusal, or count it where this peer was refused for this reason too often."""
        with self._lock:
            if event.reason in NEVER_HELD_BACK:
                self._write(event)
                return
            row = self._refusal_row(event)
            if event.at >= row.until:
                row.until, row.lines = event.at + WINDOW, 0
            if row.lines >= BURST:
                row.held += 1
                row.last = event
                return
            row.lines += 1
            held, row.held = row.held, 0
            self._write(replace(event, held=held) if held else event)

    def record(self, event: AuditEvent) -> None:
        """Write one event, neither limited nor counted."""
        with self._lock:
            self._write(event)

    def flush(self, now: float) -> None:
        """Write everything that was counted or held back."""
        with self._lock:
            self._write_calls(now)
            self._forget_refusals(now, everything=True)

    def _write_call(
        self, now: float, peer: str, route: str, rule: str, mode: str, micros: int
    ) -> None:
        event = AuditEvent(
            now, "call.allowed", peer=peer, route=route, rule=rule, mode=mode, micros=micros
        )
        with self._lock:
            written = self._write(event)
        if self._required and not written:
            raise AuditUnavailable("the audit log cannot be written, and it is required")

    def _tally(self, key: tuple[str, str, str, str]) -> Tally:
        tally = self._calls.get(key)
        if tally is None:
            if len(self._calls) >= MAX_ROWS:
                key = (OTHERS, "", "", key[3])
            tally = self._calls.setdefault(key, Tally())
        return tally

    def _write_calls(self, now: float) -> None:
        """Write what was counted since the last time; drop the tallies that counted nothing."""
        self._turn = now - now % WINDOW + WINDOW
        for key, tally in list(self._calls.items()):
            counted, spent = tally.count, tally.micros  # read once: a loop may go on counting
            count, micros = counted - tally.written, spent - tally.micros_written
            if not count:
                tally.dropped = True
                del self._calls[key]
                continue
            tally.written, tally.micros_written = counted, spent
            peer, route, rule, mode = key
            self._write(
                AuditEvent(
                    now,
                    "calls.allowed",
                    peer=peer,
                    route=route,
                    rule=rule,
                    mode=mode,
                    micros=micros,
                    count=count,
                )
            )

    def _refusal_row(self, event: AuditEvent) -> _Row:
        key = (event.peer, event.reason)
        row = self._refusals.get(key)
        if row is None:
            if len(self._refusals) >= MAX_ROWS and event.at >= self._crowded_until:
                # to look through all rows for each call would be an attack of its own
                self._crowded_until = event.at + 1.0
                self._forget_refusals(event.at, everything=False)
            if len(self._refusals) >= MAX_ROWS:
                key = (OTHERS, event.reason)
            row = self._refusals.setdefault(key, _Row(event))
        return row

    def _forget_refusals(self, now: float, *, everything: bool) -> None:
        """Drop the rows whose window is over and write what they, or all, held back."""
        kept = {}
        for key, row in self._refusals.items():
            over = now >= row.until
            if row.held and (over or everything):
                peer, _ = key
                self._write(
                    AuditEvent(
                        now,
                        "calls.refused",
                        reason=row.last.reason,
                        code=row.last.code,
                        peer=peer,
                        count=row.held,
                    )
                )
                row.held = 0
            if not over:
                kept[key] = row
        self._refusals = kept

    def _write(self, event: AuditEvent) -> bool:
        try:
            if self.lost:
                self._sink.write(AuditEvent(event.at, "audit.restored", count=self.lost))
                self.lost = 0
            self._sink.write(event)
        except Exception as exc:  # noqa: BLE001 - a sink of any make must not decide a call
            self.lost += 1
            if not -WINDOW < event.at - self._alarmed_at < WINDOW:
                self._alarmed_at = event.at
                self._alarm(f"zerotrust: the audit log cannot be written: {printable(str(exc))}")
            return False
        return True


def line_of(event: AuditEvent) -> bytes:
    """Return the event as one line of ASCII JSON with its newline, at most MAX_LINE bytes."""
    at = datetime.fromtimestamp(event.at, UTC).isoformat(timespec="milliseconds")
    shown: dict[str, object] = {"at": at.replace("+00:00", "Z")}
    for name in _FIELDS:
        value = getattr(event, name)
        if value and not (name == "count" and value == 1):
            shown[name] = value[:MAX_TEXT] if isinstance(value, str) else value
    line = _ascii_json(shown)
    if len(line) >= MAX_LINE:
        line = _ascii_json({k: v[:_SHORT] if isinstance(v, str) else v for k, v in shown.items()})
    return line + b"\n"


def printable(text: str | bytes, limit: int = MAX_TEXT) -> str:
    """ASCII only, JSON's escapes, at most `limit` characters: safe for a log and for a terminal."""
    plain = text[:limit].decode("latin-1") if isinstance(text, bytes) else text[:limit]
    shown = ""
    for character in plain:
        escaped = _escaped(character)
        if len(shown) + len(escaped) > limit:
            break
        shown += escaped
    return shown


class _Row:
    """The refusals of one peer for one reason."""

    __slots__ = ("held", "last", "lines", "until")

    def __init__(self, first: AuditEvent) -> None:
        self.until = first.at + WINDOW
        self.lines = 0
        self.held = 0
        self.last = first


def _opened(path: str) -> int:
    flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK
    try:
        fd = os.open(path, flags, 0o600)
    except OSError as exc:
        problem = f"the audit log {printable(path)} cannot be opened: {exc.strerror}"
        raise ConfigurationError(problem, Reason.FILE_ACCESS) from exc
    status = os.fstat(fd)
    if stat.S_ISREG(status.st_mode) and status.st_mode & 0o022:
        os.close(fd)
        problem = f"others may write the audit log {printable(path)}: chmod go-w it"
        raise ConfigurationError(problem, Reason.FILE_ACCESS)
    return fd


def _ascii_json(value: object) -> bytes:
    # JSON lets DEL stand; a terminal does not.
    return json.dumps(value, separators=(",", ":")).replace("\x7f", "\\u007f").encode("ascii")


def _escaped(character: str) -> str:
    return _ascii_json(character)[1:-1].decode()


def _to_standard_error(line: str) -> None:
    with contextlib.suppress(OSError):
        os.write(2, line.encode("ascii", "replace") + b"\n")
