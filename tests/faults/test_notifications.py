"""Delivery that dies anywhere: nothing is lost, and nothing comes more than twice, or than once where keys count."""

from collections import Counter
from concurrent.futures import wait
from datetime import datetime, timedelta
from typing import Any

import pytest
from sqlalchemy import update

from functions.platform.email_queue.app import handler as email_queue
from functions.platform.notification_delivery.app import handler
from functions.platform.outbox_relay.app import handler as relay
from schoolbell.database import Database
from schoolbell.domains.platform.schema import dead_letters, notifications
from schoolbell.gateways.errors import NeverWorks
from schoolbell.notifications.channels import Channel
from schoolbell.notifications.providers import Outgoing
from schoolbell.resilience.circuit import forget_circuits
from schoolbell.settings import Settings
from tests.factories import Make
from tests.faults.crash import Crashed, Crashing, assert_crash_safe
from tests.fixtures.database import Stored
from tests.fixtures.notifications import NORMAL, Providers
from tests.performing import Invocation, Performer

TIMEOUT = timedelta(minutes=1)
LATER = timedelta(minutes=10)
WHEN = frozenset(
    {
        *("notifications.sent_at", "notifications.handed_over_at", "notifications.uncertain"),
        *("dead_letters.dead_at", "dead_letters.id", "dead_letters.attempts"),
        *("outbox.available_at", "outbox.sent_at", "outbox.dedup_key"),
    }
)


@pytest.fixture
def settings(settings: Settings) -> Settings:
    """All the tries are made at the same time, and so within one window of the rate limit."""
    return settings.model_copy(update={"emails_a_second": 10_000})


@pytest.fixture(params=["one at a time", "all at once"])
def _calls(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """How the provider's answers come, which is otherwise a matter of threads: each try must have the same points."""
    if request.param == "one at a time":
        monkeypatch.setattr("schoolbell.notifications.delivery.SENDERS", 1)
    else:
        monkeypatch.setattr(
            "schoolbell.notifications.delivery.wait",
            lambda calls, return_when: wait(calls),
        )


@pytest.mark.usefixtures("_calls")
@pytest.mark.parametrize("honours_key", [False, True])
def test_a_delivery_that_dies_anywhere_loses_nothing_and_doubles_at_most_once(
    perform: Performer, make: Make, database: Database, providers: Providers, now: datetime, honours_key: bool
) -> None:
    provider = providers[Channel.EMAIL]
    provider.honours_key = honours_key

    def reject_one(message: Outgoing) -> None:
        if message.address == "rejected@example.org":
            raise NeverWorks("fake: 400")

    provider.before = reject_one
    good = [make.to_deliver(recipient=f"someone-{number}@example.org") for number in range(3)]
    bad = [make.to_deliver(recipient="rejected@example.org"), make.to_deliver(data={})]
    gone = make.to_deliver(make.student(email=None))
    message = {"notification_ids": [str(row.id) for row in (*good, *bad, gone)]}
    most = 1 if honours_key else 2

    def deliver(at: datetime) -> None:
        forget_circuits()
        perform(handler, message, queue=NORMAL, now=at, invocation=Invocation(remaining=lambda: TIMEOUT))

    def recover() -> None:
        """The message comes back when it is no longer hidden, and the relay sends what is in the outbox."""
        deliver(now + LATER)
        perform(relay, now=now + LATER)

    def arrived() -> list[str]:
        times = Counter(message.address for message in provider.accepted)
        assert all(number <= most for number in times.values()), times
        return sorted(times)

    points = assert_crash_safe(
        database,
        Crashing(
            run=lambda: deliver(now), recover=recover, outside=arrived, reset_outside=lambda: provider.accepted.clear()
        ),
        volatile=WHEN,
    )
    assert len(points) > 10


def test_death_right_after_the_provider_accepted(
    perform: Performer, make: Make, providers: Providers, stored: Stored, now: datetime, database: Database
) -> None:
    """Twice in a row, the worst there is: the second copy is the last, and an operator is told."""
    provider = providers[Channel.EMAIL]
    row = make.to_deliver()

    def die(_: Any) -> None:
        with database.transaction() as connection:  # as the process leaves the row: claimed, and nothing else
            left = connection.execute(update(notifications).values(attempts=notifications.c.attempts)).rowcount
        assert left == 1
        raise Crashed("accepted, and dead")

    provider.after = die
    for attempt in range(2):
        with pytest.raises(Crashed):
            perform(
                handler,
                {"notification_ids": [str(row.id)]},
                queue=NORMAL,
                now=now + attempt * LATER,
                invocation=Invocation(remaining=lambda: TIMEOUT),
            )
    assert len(provider.accepted) == 2
    provider.after = lambda _: None
    perform(email_queue, now=now + 2 * LATER)
    perform(handler, {"notification_ids": [str(row.id)]}, queue=NORMAL, now=now + 2 * LATER)
    assert len(provider.accepted) == 2
    assert [each.status for each in stored(notifications)] == ["failed"]
    assert stored(dead_letters)[0].error.startswith("may have been accepted 2 times")
