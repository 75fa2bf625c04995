"""Which jobs need somebody, and how old what is shown may be."""

import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from uuid import UUID

import pytest

from schoolbell.admin.catalogue import KEPT, Kept, problems_of
from schoolbell.admin.models import DeadLetters, LastRun, Queue, RunStatus
from schoolbell.alerts.wording import duration, relative
from schoolbell.operations.queues import Thresholds

NOW = datetime(2026, 3, 2, 10, tzinfo=UTC)
TIMEOUT = timedelta(minutes=10)
THRESHOLDS = Thresholds(waiting=1_000, oldest=timedelta(seconds=300))


def last(status: RunStatus, minutes_ago: float = 1) -> LastRun:
    return LastRun(
        id=UUID(int=1), status=status, started_at=NOW - timedelta(minutes=minutes_ago), finished_at=None, error=None
    )


def queue(waiting: int = 0, oldest: float | None = None) -> Queue:
    return Queue(
        name="q",
        waiting=waiting,
        in_flight=0,
        delayed=0,
        oldest=None if oldest is None else timedelta(seconds=oldest),
    )


@pytest.mark.parametrize(
    ("run", "letters", "queues", "expected"),
    [
        (None, 0, [], []),
        (last("completed"), 0, [queue()], []),
        (last("failed"), 0, [], [("bad", "The last run failed")]),
        (last("timed_out"), 0, [], [("bad", "The last run died")]),
        (last("completed"), 1, [], [("bad", "1 dead letter")]),
        (last("completed"), 1_200, [], [("bad", "1,200 dead letters")]),
        (last("failed"), 2, [], [("bad", "The last run failed"), ("bad", "2 dead letters")]),
        (None, 0, [queue(1_000, 300)], []),
        (None, 0, [queue(1_001, 299)], [("warning", "1,001 messages wait")]),
        (None, 0, [queue(1, 301)], [("warning", "The oldest message has waited 5 min 1 s")]),
        (None, 1, [queue(1_001)], [("bad", "1 dead letter"), ("warning", "1,001 messages wait")]),
        (last("running", 8), 0, [], []),
        (last("running", 8.1), 0, [], [("warning", "The last run has been running for 8 min 6 s")]),
        (last("completed", 60), 0, [], []),
    ],
)
def test_a_job_needs_somebody(
    run: LastRun | None, letters: int, queues: list[Queue], expected: list[tuple[str, str]]
) -> None:
    found = problems_of(run, DeadLetters(count=letters), queues, THRESHOLDS, TIMEOUT, NOW)
    assert [(problem.severity.value, problem.text) for problem in found] == expected


def test_what_aws_said_is_asked_for_anew_when_it_is_old_or_somebody_must_see_the_truth() -> None:
    now, asked = 0.0, 0

    def ask() -> int:
        nonlocal asked
        asked += 1
        return asked

    kept = Kept(ask, clock=lambda: now)
    assert [kept.get(), kept.get(), kept.last] == [1, 1, 1]
    now = KEPT.total_seconds()
    assert kept.get() == 1
    now += 1
    assert kept.last == 1
    assert kept.get() == 2
    assert kept.get(fresh=True) == 3


def test_threads_that_want_it_at_once_have_it_asked_for_once() -> None:
    asked = 0
    both_want_it, both_ask = threading.Barrier(2), threading.Barrier(2)

    def ask() -> int:
        nonlocal asked
        asked += 1
        with suppress(threading.BrokenBarrierError):  # as it should be: the other thread is not let in meanwhile
            both_ask.wait(timeout=0.5)
        return asked

    kept = Kept(ask)

    def want() -> int:
        both_want_it.wait(timeout=60)
        return kept.get()

    with ThreadPoolExecutor(2) as threads:
        assert [wanted.result() for wanted in [threads.submit(want), threads.submit(want)]] == [1, 1]


class Announced:
    """A lock that says when somebody waits for it."""

    def __init__(self) -> None:
        self.is_waited_for = threading.Event()
        self._lock = threading.Lock()

    def __enter__(self) -> None:
        if not self._lock.acquire(blocking=False):
            self.is_waited_for.set()
            self._lock.acquire()

    def __exit__(self, *_: object) -> None:
        self._lock.release()


def test_threads_that_want_it_at_once_share_a_failure_and_the_next_one_asks_again() -> None:
    """Each would else wait in turn for a service that does not answer."""
    lock, is_asked = Announced(), threading.Event()
    asked = 0

    def ask() -> int:
        nonlocal asked
        asked += 1
        is_asked.set()
        if asked == 1:
            assert lock.is_waited_for.wait(timeout=60)
            raise TimeoutError
        return asked

    kept = Kept(ask, _asking=lock)  # type: ignore[arg-type]
    with ThreadPoolExecutor(2) as threads:
        first = threads.submit(kept.get)
        is_asked.wait(timeout=60)
        second = threads.submit(kept.get)
        assert [type(wanted.exception()) for wanted in (first, second)] == [TimeoutError, TimeoutError]
    assert kept.get() == 2


def test_a_thread_that_would_take_what_is_known_shares_no_failure() -> None:
    lock, is_asked = Announced(), threading.Event()
    fails = False

    def ask() -> str:
        if fails:
            is_asked.set()
            assert lock.is_waited_for.wait(timeout=60)
            raise TimeoutError
        return "known"

    kept = Kept(ask, _asking=lock)  # type: ignore[arg-type]
    kept.get()
    fails = True
    with ThreadPoolExecutor(2) as threads:
        first = threads.submit(kept.get, fresh=True)
        is_asked.wait(timeout=60)
        second = threads.submit(kept.get)
        assert type(first.exception()) is TimeoutError
        assert second.result() == "known"


@pytest.mark.parametrize(
    ("seconds", "expected"),
    [
        (0, "now"),
        (59, "in 59 seconds"),
        (60, "in 1 minute"),
        (-1, "1 second ago"),
        (-3_599, "59 minutes ago"),
        (-3_600, "1 hour ago"),
        (86_400 * 400, "in 400 days"),
    ],
)
def test_times_are_told_in_words(seconds: int, expected: str) -> None:
    assert relative(NOW + timedelta(seconds=seconds), NOW) == expected


def test_a_duration_that_is_not_known_is_a_dash() -> None:
    assert duration(None) == "–"
