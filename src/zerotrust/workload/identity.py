"""The one identity of a process: a snapshot that is replaced whole, and the thread that renews it.

1. Readers read `current`: one attribute and one comparison, no lock, no waiting. Nobody is
   notified.
2. A snapshot is published whole or not at all. What fails keeps the last good one, until its
   certificate is over; then there is no identity, whatever the source says.
3. Bundles keep their object while their content is the same: `is` tells connections whether trust
   has changed.
4. Foreign bundles are screened against our own bundle and chain each time, because any of the three
   may have changed.
5. A forked child has no renewal thread and must not use its parent's key: it gets an error that
   says what to do.
"""

from __future__ import annotations

import atexit
import contextlib
import multiprocessing
import os
import secrets
import threading
import weakref
from collections.abc import Callable
from dataclasses import dataclass, replace
from types import TracebackType
from typing import Final, NamedTuple, NoReturn, Protocol, Self

from zerotrust import clock, plugins, settings
from zerotrust.core import rotation
from zerotrust.core.errors import (
    Closed,
    ConfigurationError,
    IdentityUnavailable,
    Reason,
    RenewalFailed,
    ZeroTrustError,
)
from zerotrust.core.jose import SigningKey
from zerotrust.core.spiffe.bundle import BundleSet, screen_foreign
from zerotrust.core.spiffe.ids import SpiffeId
from zerotrust.core.spiffe.x509_svid import X509Svid

OnAlarm = Callable[[str, str], None]

LONGEST_WAIT: Final = (
    30.0  # seconds: a suspended machine's timers stand still, its certificates do not
)
TIMER_SLACK: Final = 0.01  # seconds that a timer may be early
JOIN_SECONDS: Final = 2.0
FORKED: Final = (
    "this process was forked from the one that holds the identity; for several processes use "
    "`zerotrust serve --workers N`, or make the identity after the fork"
)


@dataclass(frozen=True, slots=True)
class WitCredential:
    """Our WIT and the key it names; `expires_at` in seconds since the epoch."""

    token: str
    key: SigningKey
    expires_at: float

    def __repr__(self) -> str:
        return f"WitCredential(<redacted>, expires_at={self.expires_at})"

    def __reduce__(self) -> NoReturn:
        raise TypeError("a credential is not pickled")


@dataclass(frozen=True, slots=True)
class Snapshot:
    """Everything one process needs to prove itself and to judge others, never torn."""

    svid: X509Svid
    wit: WitCredential | None  # None: may serve, may not call
    bundles: BundleSet  # the same object as before while its content is the same
    dev: bool = False

    def __reduce__(self) -> NoReturn:
        raise TypeError("a snapshot holds keys and is not pickled")


class Source(Protocol):
    """Port: where snapshots come from. Blocking; one thread at a time calls fetch and wait."""

    def fetch(self, previous: Snapshot | None) -> Snapshot:
        """Return a fully checked snapshot (may equal `previous`) or raise ZeroTrustError."""

    def wait(self, seconds: float) -> None:
        """Sleep up to that long; return early for news, and at once when closed."""

    def close(self) -> None:
        """Let go of everything; a `wait` in progress returns."""


@dataclass(frozen=True, slots=True)
class Status:
    """What an operator wants to know; times in seconds since the epoch. Holds no secret."""

    id: str
    not_before: float
    not_after: float
    wit_expires_at: float | None
    trust_domains: tuple[str, ...]
    dev: bool
    attempts: int  # renewals since the snapshot in hand that brought nothing newer
    last_error: str  # empty when the last attempt succeeded
    usable: bool


class _Held(NamedTuple):
    snapshot: Snapshot
    not_after: float


class WorkloadIdentity:
    """Who this process is, kept alive: use as a context manager or call `close`.

    The first fetch happens in the constructor, blocks and raises. `on_alarm(reason, detail)` is
    told of failed renewals, of foreign anchors left out, and of an identity about to end; it is
    called from the renewal thread.
    """

    def __init__(self, source: Source, *, on_alarm: OnAlarm | None = None) -> None:
        self._source = source
        self._on_alarm = on_alarm
        self._gone: IdentityUnavailable | None = None
        self._held: _Held | None = None
        self._attempts = 0
        self._last_error = ""
        self._stop = threading.Event()
        try:
            first = self._admitted(source.fetch(None), None)
        except BaseException:
            source.close()
            raise
        self._id = first.svid.id
        self._publish(first)
        self._thread = threading.Thread(
            target=self._renew_until_closed, name="zerotrust-identity", daemon=True
        )
        self._thread.start()
        _ALIVE.add(self)
        atexit.register(self.close)

    @classmethod
    def from_url(
        cls, url: str, *, dev: bool | None = None, on_alarm: OnAlarm | None = None
    ) -> Self:
        """Open `files:DIR`, `ca:TOKENFILE[?state=DIR]`, `ca:unix:PATH` or `worker:PATH`.

        `dev` accepts identities and bundles of a throw-away CA; by default only where `zerotrust
        dev run` says so.
        """
        scheme, colon, rest = url.partition(":")
        if not colon or not rest:
            raise ConfigurationError(
                "an identity is written scheme:where, such as files:/run/identity"
            )
        open_source = plugins.load("zerotrust.sources", scheme)
        allow_dev = settings.from_environment().dev if dev is None else dev
        return cls(open_source(rest, dev=allow_dev), on_alarm=on_alarm)

    @classmethod
    def from_env(cls, *, on_alarm: OnAlarm | None = None) -> Self:
        """Return what ZEROTRUST_IDENTITY names: one identity for all who ask in this process.

        A join token works once, so the server and the application's own clients share what it
        bought. `on_alarm` is heeded from whoever asks first; `close` closes it for all.
        """
        found = settings.from_environment()
        if found.identity is None:
            raise ConfigurationError(
                "ZEROTRUST_IDENTITY is not set; set it to files:DIR or ca:TOKENFILE, or start with "
                "`zerotrust dev run`"
            )
        if multiprocessing.parent_process() is not None and not found.identity.startswith(
            "worker:"
        ):
            raise ConfigurationError(
                "this is a worker of a multi-process server: each would spend the join token and "
                "remember used proofs alone; start it with `zerotrust serve --workers N`"
            )
        with _SHARING:
            shared = _SHARED.get(found.identity)
            if not isinstance(shared, cls) or shared._is_over():  # noqa: SLF001 - our own class
                shared = cls.from_url(found.identity, dev=found.dev, on_alarm=on_alarm)
                _SHARED[found.identity] = shared
            return shared

    @property
    def current(self) -> Snapshot:
        """The snapshot of this moment; IdentityUnavailable when closed, forked or expired."""
        held = self._held
        if held is None:
            raise self._gone or Closed()
        if clock.now() >= held.not_after:
            raise IdentityUnavailable(
                Reason.IDENTITY_EXPIRED,
                f"the certificate of {self._id} is over: {self._last_error or 'not renewed'}",
            )
        return held.snapshot

    @property
    def id(self) -> SpiffeId:
        """Our SPIFFE ID; it never changes within one identity."""
        return self._id

    def status(self) -> Status | None:
        """Return how the identity is doing, for `doctor` and health; None once closed."""
        held = self._held
        if held is None:
            return None
        snapshot = held.snapshot
        return Status(
            id=str(self._id),
            not_before=snapshot.svid.not_before,
            not_after=held.not_after,
            wit_expires_at=snapshot.wit.expires_at if snapshot.wit else None,
            trust_domains=tuple(str(bundle.origin) for bundle in snapshot.bundles),
            dev=snapshot.dev,
            attempts=self._attempts,
            last_error=self._last_error,
            usable=clock.now() < held.not_after,
        )

    def close(self) -> None:
        """End renewal and forget the key; later reads raise Closed."""
        if self._stop.is_set():
            return
        self._stop.set()
        self._held, self._gone = None, Closed()
        _ALIVE.discard(self)
        atexit.unregister(self.close)
        with contextlib.suppress(Exception):
            self._source.close()
        if self._thread is not threading.current_thread():
            self._thread.join(JOIN_SECONDS)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"WorkloadIdentity({self._id})"

    def __reduce__(self) -> NoReturn:
        raise TypeError("an identity belongs to one process and is not pickled")

    def _publish(self, snapshot: Snapshot) -> None:
        self._held = _Held(snapshot, snapshot.svid.not_after)

    def _renew_until_closed(self) -> None:
        while (held := self._held) is not None:
            step = rotation.next_step(
                not_before=held.snapshot.svid.not_before,
                not_after=held.not_after,
                now=clock.now(),
                attempts=self._attempts,
                jitter=_jitter(),
            )
            self._wait_until(clock.now() + step.wait)
            if not self._stop.is_set():
                self._refresh(held.snapshot)

    def _wait_until(self, due: float) -> None:
        """Wait until the source is to be asked: it is due, or the source ended a wait early."""
        while not self._stop.is_set() and (left := due - clock.now()) > 0:
            asked = min(left, LONGEST_WAIT)
            begun = clock.monotonic()
            self._source.wait(asked)
            if clock.monotonic() - begun < asked - TIMER_SLACK:
                return

    def _refresh(self, previous: Snapshot) -> None:
        try:
            fresh = self._admitted(self._source.fetch(previous), previous)
        except ZeroTrustError as exc:
            self._failed(exc)
        except Exception as exc:  # noqa: BLE001 - a broken source must not end renewal
            self._failed(RenewalFailed(f"unforeseen {type(exc).__name__}"))
        else:
            self._last_error = ""
            renewed = fresh.svid.thumbprint != previous.svid.thumbprint
            self._attempts = 0 if renewed else self._attempts + 1
            if fresh is not previous and not self._stop.is_set():
                self._publish(fresh)
        self._warn_when_ending()

    def _admitted(self, fresh: Snapshot, previous: Snapshot | None) -> Snapshot:
        """Judge what the source gave; return `previous` itself when nothing changed."""
        if fresh is previous:
            return fresh
        if previous is not None and fresh.svid.id != previous.svid.id:
            raise RenewalFailed(f"the source now says {fresh.svid.id}, we are {previous.svid.id}")
        if fresh.svid.not_after <= clock.now():
            raise IdentityUnavailable(
                Reason.IDENTITY_EXPIRED,
                f"the source holds an expired certificate of {fresh.svid.id}",
            )
        bundles = self._screened(fresh)
        if previous is None:
            return replace(fresh, bundles=bundles)
        if bundles == previous.bundles:
            bundles = previous.bundles
        same = (
            bundles is previous.bundles
            and fresh.svid.thumbprint == previous.svid.thumbprint
            and (fresh.wit and fresh.wit.token) == (previous.wit and previous.wit.token)
        )
        return previous if same else replace(fresh, bundles=bundles)

    def _screened(self, snapshot: Snapshot) -> BundleSet:
        own = snapshot.bundles.of(snapshot.svid.id.trust_domain)
        if own is None:
            raise RenewalFailed(f"no bundle of our own domain {snapshot.svid.id.trust_domain}")
        kept = [own]
        for bundle in snapshot.bundles:
            if bundle.origin != own.origin:
                screened = screen_foreign(own, snapshot.svid.chain, bundle)
                kept.append(screened.bundle)
                for alarm in screened.alarms:
                    self._alarm(Reason.BAD_BUNDLE, alarm)
        return BundleSet(kept)

    def _failed(self, error: ZeroTrustError) -> None:
        self._attempts += 1
        if self._stop.is_set():
            return
        if self._attempts == 1 or str(error) != self._last_error:
            self._alarm(error.reason, error.detail)
        self._last_error = str(error)

    def _warn_when_ending(self) -> None:
        held = self._held
        if held is None:
            return
        now = clock.now()
        step = rotation.next_step(
            not_before=held.snapshot.svid.not_before,
            not_after=held.not_after,
            now=now,
            attempts=self._attempts,
            jitter=0.0,
        )
        if step.emergency:
            self._alarm(
                Reason.IDENTITY_EXPIRED,
                f"{self._id} ends in {held.not_after - now:.0f} s and is not renewed",
            )

    def _alarm(self, reason: Reason, detail: str) -> None:
        if self._on_alarm is not None:
            with contextlib.suppress(Exception):  # a broken log must not end renewal
                self._on_alarm(str(reason), detail)

    def _is_over(self) -> bool:
        """Whether it was closed; in a forked child, raise what it is told instead."""
        if self._gone is not None:
            raise self._gone
        return self._held is None

    def _abandon(self) -> None:
        """In a forked child: forget the parent's key, and say why there is none."""
        self._held, self._gone = None, Closed(FORKED)
        self._stop = threading.Event()
        self._stop.set()


def _jitter() -> float:
    return secrets.randbelow(1 << 32) / (1 << 32)


_ALIVE: Final[weakref.WeakSet[WorkloadIdentity]] = weakref.WeakSet()
_SHARED: Final[dict[str, WorkloadIdentity]] = {}  # by URL, for from_env
_SHARING: Final = threading.Lock()


def _after_fork() -> None:
    for identity in list(_ALIVE):
        identity._abandon()  # noqa: SLF001 - same module


os.register_at_fork(after_in_child=_after_fork)
