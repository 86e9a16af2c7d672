"""Answers that are on their way: futures that always end, and end only when it is on record.

1. A reader cannot cancel one: what was begun is finished and recorded.
2. Whatever goes wrong on the way is told to the one who waits.
"""

from __future__ import annotations

from concurrent.futures import Future
from typing import TYPE_CHECKING

from zerotrust.ca.stores import Conflict, StoreUnavailable

if TYPE_CHECKING:
    from collections.abc import Callable

    from zerotrust.core.enrolment import Issued


def done(issued: Issued) -> Future[Issued]:
    """Return a future that has ended with this answer."""
    future = _pending()
    future.set_result(issued)
    return future


def recorded(
    commit: Future[None],
    issued: Callable[[], Issued],
    retry: Callable[[], Future[Issued]] | None,
) -> Future[Issued]:
    """Return a future that ends as the commit does; a conflict is judged again by `retry`."""
    answer = _pending()

    def settle(commit: Future[None]) -> None:
        error = commit.exception()
        if error is None:
            answer.set_result(issued())
        elif isinstance(error, Conflict) and retry is not None:
            _follow(retry, answer)
        elif isinstance(error, Conflict):
            answer.set_exception(StoreUnavailable(f"the records changed twice: {error}"))
        else:
            answer.set_exception(error)

    commit.add_done_callback(settle)
    return answer


def refused(commit: Future[None], error: Exception) -> Future[Issued]:
    """Return a future that ends with this error once the commit has."""
    answer = _pending()
    commit.add_done_callback(lambda commit: answer.set_exception(commit.exception() or error))
    return answer


def _pending() -> Future[Issued]:
    """Return a future that its reader cannot cancel."""
    future: Future[Issued] = Future()
    future.set_running_or_notify_cancel()
    return future


def _follow(retry: Callable[[], Future[Issued]], answer: Future[Issued]) -> None:
    """Judge again on the store's own thread, which must not wait.

    It only reads and puts in line.
    """

    def settle(again: Future[Issued]) -> None:
        error = again.exception()
        if error is None:
            answer.set_result(again.result())
        else:
            answer.set_exception(error)

    try:
        retry().add_done_callback(settle)
    except Exception as exc:  # noqa: BLE001 - whatever it is, the one who waits must learn it
        answer.set_exception(exc)
