"""What the end-to-end tests stand on: the whole stack, deployed once, with IAM enforced.

They run one after the other in one process (`tests/fixtures/processes.py`), since a test may stop the database. What
takes minutes (a schedule's time to come, an attempt's backoff) is begun when the stack is up, by session fixtures whose
names begin with `begun_`; tests that use one come last.

A test here shares queues, tables and schedules with the others and with the stack's own clocks, so that it

* finds what it made by an id of its own, and counts nothing that others may add to (an address, a batch, a run);
* waits for what it looks at, and not for a state that passes, or a state that comes before;
* leaves time enough for a cold start on a busy machine between what it makes and when that is due;
* runs a job by `stack.run`, which goes on until no run by the job's own schedule is in the way.

While you write a test, `KEEP_STACK=1` leaves the stack running and takes it up again with what has changed.
"""

import fcntl
import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import nullcontext
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from local import stack as embedded
from local.home import CHECKOUT, Home
from local.processes import at_the_end
from schoolbell.database import Database, DatabaseAddress
from tests.end_to_end.begun import (
    begun_copies,
    begun_lessons,
    begun_message,
    begun_outbox_row,
    begun_poison,
    begun_schedule,
    begun_throttled_copy,
    begun_triggers,
)
from tests.end_to_end.stack import Stack
from tests.factories import Make

__all__ = [  # fixtures, which have to be here to be found
    "begun_copies",
    "begun_lessons",
    "begun_message",
    "begun_outbox_row",
    "begun_poison",
    "begun_schedule",
    "begun_throttled_copy",
    "begun_triggers",
]

NAME = "end-to-end"
BEGUN = "begun_"
LAST = ("interruptible", "whole_log")
"""Fixtures of tests that come last of all: they disturb what others have begun, or look back at them."""
FOLDER = CHECKOUT / ".local" / NAME
DOWN: Sequence[str | Path] = [sys.executable, "-m", "local", "down", "--purge", "--home", FOLDER]
PARAMETERS = {"SlackRuns": "platform.audit-cleanup,platform.notification-cleanup"}
"""Of whose runs Slack is told: of jobs that run seldom, and that no other test has fail."""
NIGHT = range(8)
"""The hours in which the daily, weekly and monthly schedules of the templates are."""
STATEMENT_TIMEOUT = timedelta(seconds=60)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Puts these tests behind all others, which are quicker, and those last that look at what has been begun."""
    items.sort(key=_turn)


def _turn(item: pytest.Item) -> int:
    if "end_to_end" not in item.path.parts:
        return 0
    names = getattr(item, "fixturenames", ())
    last = [turn for turn, name in enumerate(LAST, start=3) if name in names]
    return max(last, default=2 if _begun(item) else 1)


def _zone_of_day() -> str:
    """A time zone in which it is day, so that no nightly schedule runs a job while a test does."""
    return "Etc/GMT-12" if datetime.now(UTC).hour in NIGHT else "UTC"


def _begun(item: pytest.Item) -> list[str]:
    return [name for name in getattr(item, "fixturenames", ()) if name.startswith(BEGUN)]


@pytest.fixture(scope="session")
def stack() -> Iterator[Stack]:
    """The stack, up and with IAM enforced, which ends with this process; one that was kept ends first."""
    keep = bool(os.environ.get("KEEP_STACK"))
    FOLDER.mkdir(parents=True, exist_ok=True)
    with (FOLDER / "in-use").open("w") as in_use:
        fcntl.flock(in_use, fcntl.LOCK_EX)
        home = Home(FOLDER)
        if not keep:
            embedded.down(home, purge=True)
        with nullcontext() if keep else at_the_end(DOWN, folder=CHECKOUT, holding=in_use.fileno()):
            embedded.up(home, NAME, enforce_iam=True, parameters=PARAMETERS | {"TimeZone": _zone_of_day()})
            url = embedded.postgres_of(home).url()
            address = DatabaseAddress.from_url(url)
            database = Database(lambda: address, STATEMENT_TIMEOUT)
            yield Stack(NAME, home, database, f"http://127.0.0.1:{home.state().ports['sandbox']}")
            database.close()


@pytest.fixture(scope="session", autouse=True)
def _begin(request: pytest.FixtureRequest) -> None:
    """Begins at once what tests that were asked for will look at in minutes."""
    for item in request.session.items:
        for name in _begun(item):
            request.getfixturevalue(name)


@pytest.fixture
def database(stack: Stack) -> Database:
    """The stack's database, with what other tests left in it."""
    return stack.database


@pytest.fixture
def now() -> datetime:
    """The time; the stack's clock is the machine's."""
    return datetime.now(UTC)


@pytest.fixture
def make(database: Database, now: datetime) -> Make:
    """Factories that write rows as an application would."""
    return Make(database, now)
