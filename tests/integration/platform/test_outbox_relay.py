"""What a transaction wants sent is sent after it, once, whatever dies in between."""

import json
from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Any

import pytest
from sqlalchemy import Row, func, insert, literal, select, text

from functions.platform.outbox_relay.app import handler as relay
from schoolbell import aws as clients
from schoolbell.database import Database
from schoolbell.domains.platform.schema import outbox
from schoolbell.jobs import JobContext, Result, scheduled_job
from schoolbell.jobs.outbox import claim_oldest
from tests.conftest import Queues
from tests.faults.crash import Crashing, assert_crash_safe
from tests.fixtures.database import Stored
from tests.performing import Invocation, Performer, rule_event

JOB, BELL = "tutoring.sexton", "tutoring.bell"
type Sent = Callable[[str], list[Any]]


class Done(Result):
    written: int


@scheduled_job(JOB)
def sexton(job: JobContext) -> Done:
    """Orders three rings, in two ways."""
    with job.transaction() as connection:
        job.outbox.send(connection, BELL, {"times": 0}, dedup_key="ring/0", tenant=None)
        numbers = func.generate_series(1, 2).table_valued("n").render_derived()
        written = job.outbox.send_from(
            connection,
            select(
                literal(BELL).label("destination"),
                func.jsonb_build_object("times", numbers.c.n).label("payload"),
                func.concat("ring/", numbers.c.n).label("dedup_key"),
            ),
        )
    return Done(written=written)


@pytest.fixture(autouse=True)
def bell_queues(queues: Queues) -> None:
    queues.make(BELL)


def test_messages_are_sent_after_the_commit_with_their_outbox_id(
    perform: Performer, queues: Queues, stored: Stored
) -> None:
    perform(sexton)
    messages = queues.messages(BELL)
    assert sorted(json.loads(message["Body"])["times"] for message in messages) == [0, 1, 2]
    ids = {int(message["MessageAttributes"]["outbox-id"]["StringValue"]) for message in messages}
    assert ids == {row.id for row in stored(outbox)}
    assert all(row.sent_at for row in stored(outbox))


def test_a_run_sends_all_it_wrote_however_many_portions_that_takes(
    perform: Performer, sent: Sent, database: Database, now: datetime, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("schoolbell.jobs.outbox.SEND_AT_ONCE", 2)
    with database.transaction() as connection:
        connection.execute(text("ALTER TABLE platform.outbox ALTER COLUMN id RESTART WITH 7"))

    @scheduled_job(JOB)
    def rings(job: JobContext) -> None:
        with job.transaction() as connection:
            for times, ago in enumerate([0, 3, 1, 2, 0, 0, 5]):
                at = job.now - timedelta(minutes=ago)
                job.outbox.send(connection, BELL, {"times": times}, dedup_key=f"{times}", available_at=at)

    perform(rings)
    assert sorted(message["times"] for message in sent(BELL)) == [0, 1, 2, 3, 4, 5, 6]


def test_the_same_event_is_sent_once(perform: Performer, sent: Sent, now: datetime) -> None:
    perform(sexton)
    perform(sexton, event=rule_event(now + timedelta(days=1)))
    assert len(sent(BELL)) == 3


def test_what_a_crash_left_is_sent_by_the_relay_a_minute_later(
    perform: Performer, sent: Sent, now: datetime, monkeypatch: pytest.MonkeyPatch
) -> None:
    def away(*_: Any) -> int:
        raise ConnectionError("SQS is away")

    with monkeypatch.context() as patched:
        patched.setattr("schoolbell.jobs.outbox.deliver", away)
        assert perform(sexton).status == "completed"
    perform(relay, now=now + timedelta(seconds=30))
    assert sent(BELL) == []
    assert perform(relay, now=now + timedelta(seconds=61)).result["sent"] == 3
    assert len(sent(BELL)) == 3
    assert perform(relay, now=now + timedelta(minutes=9)).result["sent"] == 0


def test_a_relay_begins_nothing_that_it_has_no_time_to_end(
    database: Database, perform: Performer, now: datetime, stored: Stored
) -> None:
    with database.transaction() as connection:
        row = {"destination": BELL, "payload": {}, "available_at": now}
        connection.execute(insert(outbox).values(row))
    perform(relay, invocation=Invocation(remaining=lambda: timedelta(seconds=19)))
    assert [row.sent_at for row in stored(outbox, destination=BELL)] == [None]
    perform(relay, now=now + timedelta(minutes=1))
    assert all(row.sent_at for row in stored(outbox, destination=BELL))


@pytest.mark.usefixtures("strict_sqs")
def test_messages_with_large_attributes_share_no_call(perform: Performer, sent: Sent) -> None:
    @scheduled_job(JOB)
    def rings(job: JobContext) -> None:
        with job.transaction() as connection:
            for number in range(2):
                job.outbox.send(
                    connection, BELL, {"of": "x" * 450_000}, dedup_key=f"{number}", attributes={"hue": "x" * 100_000}
                )

    perform(rings)
    assert len(sent(BELL)) == 2


def test_a_message_for_later_is_not_sent_before(
    perform: Performer, sent: Sent, database: Database, now: datetime
) -> None:
    @scheduled_job(JOB)
    def later(job: JobContext) -> None:
        with job.transaction() as connection:
            at = job.now + timedelta(hours=1)
            job.outbox.send(connection, BELL, {"times": 1}, dedup_key="later", available_at=at)

    perform(later)
    perform(relay, now=now + timedelta(minutes=59))
    assert sent(BELL) == []
    perform(relay, now=now + timedelta(minutes=60))
    assert len(sent(BELL)) == 1


def test_two_relays_never_take_the_same_row(database: Database, perform: Performer, now: datetime) -> None:
    with database.transaction() as connection:
        connection.execute(
            text(
                "INSERT INTO platform.outbox (destination, payload, available_at) "
                "SELECT 'tutoring.bell', '{}', :now FROM generate_series(1, 10)"
            ),
            {"now": now},
        )
    with database.transaction() as one, database.transaction() as two:
        assert len(claim_oldest(one, now, size=6)) == 6
        assert len(claim_oldest(two, now, size=6)) == 4


@pytest.mark.usefixtures("nested_loops")
def test_the_oldest_go_first_and_no_more_than_asked_for(database: Database, now: datetime) -> None:
    with database.transaction() as connection:
        connection.execute(
            text(
                "INSERT INTO platform.outbox (destination, payload, available_at) "
                "SELECT 'tutoring.bell', '{}', cast(:now AS timestamptz) - n * interval '1 minute' "
                "FROM unnest(ARRAY[1, 10, 9, 8, 7, 6, 5, 4, 3, 2]) AS n"
            ),
            {"now": now},
        )
        claimed = claim_oldest(connection, now, size=3)
        assert len(claimed) == 3
        ages = select(now - outbox.c.available_at).where(outbox.c.claimed_by.is_not(None))
        taken = sorted(connection.execute(ages).scalars())
    assert taken == [timedelta(minutes=8), timedelta(minutes=9), timedelta(minutes=10)]


def test_a_refused_message_keeps_no_other_and_is_tried_again(
    perform: Performer, database: Database, sent: Sent, now: datetime, stored: Stored, queues: Queues
) -> None:
    with database.transaction() as connection:
        connection.execute(
            text(
                "INSERT INTO platform.outbox (destination, payload, available_at) VALUES "
                "('tutoring.nowhere', '{}', :now), ('tutoring.bell', '{\"times\": 1}', :now)"
            ),
            {"now": now},
        )
    assert perform(relay).result["sent"] == 1
    assert sent(BELL) == [{"times": 1}]
    (refused,) = [row for row in stored(outbox) if row.sent_at is None]
    assert "NonExistentQueue" in refused.last_error or "QueueDoesNotExist" in refused.last_error
    queues.make("tutoring.nowhere")
    assert perform(relay, now=now + timedelta(minutes=2)).result["sent"] == 1


def test_a_topic_gets_its_messages(perform: Performer, aws: None, database: Database, now: datetime) -> None:
    topic = clients.client("sns").create_topic(Name="schoolbell-alerts")["TopicArn"]
    url = clients.client("sqs").create_queue(QueueName="listener")["QueueUrl"]
    arn = clients.client("sqs").get_queue_attributes(QueueUrl=url, AttributeNames=["QueueArn"])["Attributes"]
    clients.client("sns").subscribe(
        TopicArn=topic, Protocol="sqs", Endpoint=arn["QueueArn"], Attributes={"RawMessageDelivery": "true"}
    )
    with database.transaction() as connection:
        connection.execute(
            text(
                "INSERT INTO platform.outbox (destination, payload, available_at) "
                "VALUES ('topic/alerts', '{\"kind\": \"offer\"}', :now)"
            ),
            {"now": now},
        )
    perform(relay)
    (message,) = clients.client("sqs").receive_message(QueueUrl=url)["Messages"]
    assert json.loads(message["Body"]) == {"kind": "offer"}


def test_large_messages_are_not_put_into_one_request(
    perform: Performer, database: Database, sent: Sent, now: datetime
) -> None:
    with database.transaction() as connection:
        connection.execute(
            text(
                "INSERT INTO platform.outbox (destination, payload, available_at) "
                "SELECT 'tutoring.bell', jsonb_build_object('x', repeat('x', 200000)), :now FROM generate_series(1, 6)"
            ),
            {"now": now},
        )
    assert perform(relay).result["sent"] == 6


def test_what_was_sent_long_ago_is_forgotten(
    perform: Performer, now: datetime, outbox_rows: Callable[[], list[Row[Any]]]
) -> None:
    perform(sexton)
    perform(relay, now=now + timedelta(days=13))
    assert len(outbox_rows()) == 3
    assert perform(relay, now=now + timedelta(days=15)).result["forgotten"] == 3
    assert outbox_rows() == []


def test_a_crash_anywhere_loses_no_message(
    perform: Performer, queues: Queues, database: Database, now: datetime, sent: Sent
) -> None:
    ring = rule_event(now)
    invocation = Invocation()

    def recover() -> None:
        perform(sexton, event=ring, invocation=invocation)
        perform(relay, now=now + timedelta(minutes=2))

    points = assert_crash_safe(
        database,
        Crashing(
            run=lambda: perform(sexton, event=ring, invocation=invocation),
            recover=recover,
            outside=lambda: sorted({json.dumps(body) for body in sent(BELL)}),
            reset_outside=lambda: queues.messages(BELL),
        ),
        volatile=frozenset({"outbox.sent_at", "outbox.available_at"}),
    )
    assert "after sqs.send_message_batch" in points
