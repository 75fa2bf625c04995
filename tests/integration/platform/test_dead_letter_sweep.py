"""Dead letters that no worker recorded are found, records keep in step with their messages, and messages stay."""

import json
from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Any

import pytest
from botocore.exceptions import ClientError
from moto.sqs.models import sqs_backends
from sqlalchemy import Row, update

from functions.platform.dead_letter_sweep.app import handler as sweep
from schoolbell import aws
from schoolbell.database import Database
from schoolbell.domains.platform.schema import dead_letters, outbox, standing_alerts
from schoolbell.jobs import Discard, JobContext, Payload, queue_job
from schoolbell.operations import dead_letter_queues
from schoolbell.settings import Settings
from tests.conftest import ACCOUNT, Queues
from tests.factories import Make
from tests.fakes.redrives import RedrivingSqs, dropped_by_lambda
from tests.faults.crash import Crashing, assert_crash_safe
from tests.fixtures.database import Stored
from tests.performing import Invocation, Performer, rule_event

BELL, CHIME = "tutoring.bell", "tutoring.chime"
LATER = timedelta(minutes=30)

type OutboxRows = Callable[[], list[Row[Any]]]


class Ring(Payload):
    times: int


@queue_job(BELL, Ring)
def ring(job: JobContext, message: Ring) -> None:
    if message.times < 0:
        raise Discard("times: a bell can't be un-rung")
    raise RuntimeError("the bell is broken")


@pytest.fixture(autouse=True)
def sqs(queues: Queues, settings: Settings, monkeypatch: pytest.MonkeyPatch) -> RedrivingSqs:
    """SQS with two jobs' queues, of which the bell's moves messages after five receives."""
    queues.make(BELL, CHIME)
    made = RedrivingSqs(aws.client("sqs"))
    policy = {"deadLetterTargetArn": settings.dead_letter_queue_arn(BELL), "maxReceiveCount": 5}
    made.set_queue_attributes(
        QueueUrl=settings.queue_url(BELL), Attributes={"RedrivePolicy": json.dumps(policy), "VisibilityTimeout": "0"}
    )
    original = aws.client
    monkeypatch.setattr(dead_letter_queues, "WAIT", 0)
    monkeypatch.setattr(aws, "client", lambda service: made if service == "sqs" else original(service))
    return made


@pytest.fixture
def die(sqs: RedrivingSqs, settings: Settings) -> Callable[..., str]:
    """Lets a message of the bell's die by being received too often; returns its id."""

    def let(body: str = '{"times": 0}') -> str:
        url = settings.queue_url(BELL)
        sent = sqs.send_message(QueueUrl=url, MessageBody=body)["MessageId"]
        for _ in range(6):
            sqs.receive_message(QueueUrl=url, MaxNumberOfMessages=10)
        return str(sent)

    return let


@pytest.fixture
def drop(sqs: RedrivingSqs, settings: Settings) -> Callable[..., str]:
    """Puts a message on a job's dead-letter queue; returns its id."""

    def put(body: str, job: str = CHIME) -> str:
        url = settings.dead_letter_queue_url(job)
        return str(sqs.send_message(QueueUrl=url, MessageBody=body)["MessageId"])

    return put


def alerts(outbox_rows: OutboxRows) -> list[tuple[str, str, str]]:
    """What was told, oldest first: trigger or resolve, the key, the summary."""
    told = [row.payload for row in outbox_rows() if row.destination == "topic/alerts"]
    return [(alert["action"], alert["key"], alert["summary"]) for alert in told]


# Records


def test_a_message_whose_function_ended_silently_is_recorded(
    perform: Performer, stored: Stored, die: Callable[..., str], now: datetime
) -> None:
    dead = die('{"times": 1}')
    assert perform(sweep).result["recorded"] == 1
    (letter,) = stored(dead_letters)
    assert (letter.job, letter.queue, letter.message_id) == (BELL, "schoolbell-tutoring-bell", dead)
    assert (letter.payload, letter.reason, letter.last_seen_at) == ('{"times": 1}', "unknown", now)


def test_a_message_that_its_worker_recorded_is_not_recorded_twice(
    perform: Performer, stored: Stored, die: Callable[..., str]
) -> None:
    dead = die()
    perform(ring, {"times": 0}, message_ids=[dead], attempt=5)
    assert perform(sweep).result["recorded"] == 0
    (letter,) = stored(dead_letters)
    assert (letter.reason, letter.error) == ("failed", "RuntimeError: the bell is broken")


def test_a_discarded_message_is_not_recorded_again_under_its_copys_id(perform: Performer, stored: Stored) -> None:
    perform(ring, {"times": -1}, message_ids=["m-1"])
    assert perform(sweep).result == perform(sweep, now=perform.runtime.clock() + LATER).result
    (letter,) = stored(dead_letters)
    assert (letter.message_id, letter.reason) == ("m-1", "discarded")


def test_a_second_copy_of_a_discarded_message_makes_no_second_record(perform: Performer, stored: Stored) -> None:
    for _ in range(2):  # the first time, the worker died before it deleted the message
        perform(ring, {"times": -1}, message_ids=["m-1"])
    assert perform(sweep).result["messages"] == 2
    assert len(stored(dead_letters)) == 1


def test_a_scheduled_jobs_failed_invocation_is_recorded_with_its_event(
    perform: Performer, stored: Stored, drop: Callable[..., str]
) -> None:
    event = {"scheduled_for": "2026-03-02T09:00:00Z"}
    own = drop(
        dropped_by_lambda(event, errorType="Sandbox.Timedout", errorMessage="Task timed out after 60.00 seconds")
    )
    perform(sweep)
    (letter,) = stored(dead_letters)
    assert (letter.job, letter.message_id, letter.reason, letter.attempts) == (CHIME, own, "timed_out", 3)
    assert json.loads(letter.payload) == event


def test_a_workers_word_comes_before_the_sweeps_guess(
    perform: Performer, stored: Stored, die: Callable[..., str]
) -> None:
    dead = die()
    perform(sweep)
    perform(ring, {"times": 0}, message_ids=[dead], attempt=5)
    (letter,) = stored(dead_letters)
    assert letter.reason == "failed"


def test_another_stacks_dead_letters_are_its_own(
    perform: Performer, stored: Stored, sqs: RedrivingSqs, die: Callable[..., str]
) -> None:
    for name in ("schoolbell-dev-tutoring-bell-dlq", "other-tutoring-bell-dlq", "schoolbell-tutoring-bell-dlq-x"):
        url = sqs.create_queue(QueueName=name)["QueueUrl"]
        sqs.send_message(QueueUrl=url, MessageBody="{}")
    assert perform(sweep).result["queues"] == 2
    assert stored(dead_letters) == []


# Messages stay


def test_messages_stay_on_their_queue_visible_to_others(
    perform: Performer, queues: Queues, drop: Callable[..., str]
) -> None:
    dropped = {drop(f"{n}") for n in range(23)}
    assert perform(sweep).result["messages"] == 23
    assert {message["MessageId"] for message in queues.messages(CHIME, dead=True)} == dropped


def test_no_more_messages_are_looked_at_than_a_run_may(
    perform: Performer, stored: Stored, drop: Callable[..., str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for n in range(30):
        drop(f"{n}")
    monkeypatch.setattr(dead_letter_queues, "MESSAGES_A_QUEUE", 20)
    result = perform(sweep).result
    assert (result["recorded"], result["messages"]) == (20, 30)
    monkeypatch.setattr(dead_letter_queues, "MESSAGES_A_QUEUE", 100)
    assert perform(sweep, now=perform.runtime.clock() + LATER).result["recorded"] == 10


def test_a_run_that_is_out_of_time_looks_no_further(
    perform: Performer, stored: Stored, drop: Callable[..., str]
) -> None:
    for n in range(30):
        drop(f"{n}")
    hurried = Invocation(remaining=lambda: timedelta(seconds=59))
    assert perform(sweep, invocation=hurried).result["recorded"] == 10


def test_a_queue_that_cannot_be_read_keeps_nobody_from_the_others(
    perform: Performer,
    stored: Stored,
    drop: Callable[..., str],
    sqs: RedrivingSqs,
    settings: Settings,
    outbox_rows: OutboxRows,
    now: datetime,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    drop("1")
    drop("2", BELL)
    perform(sweep)
    original = sqs.client.get_queue_attributes

    def refused(**request: Any) -> Any:
        if request["QueueUrl"] == settings.dead_letter_queue_url(BELL):
            raise ClientError({"Error": {"Code": "AccessDenied"}}, "GetQueueAttributes")
        return original(**request)

    monkeypatch.setattr(sqs, "get_queue_attributes", refused, raising=False)
    drop("3")
    result = perform(sweep, now=now + LATER).result
    assert (result["unreadable"], result["recorded"]) == (1, 1)
    assert "resolve" not in {action for action, _, _ in alerts(outbox_rows)}


# Records whose messages have gone


def test_a_redrive_from_the_console_resolves_the_records_it_took_along(
    perform: Performer, stored: Stored, die: Callable[..., str], sqs: RedrivingSqs, now: datetime
) -> None:
    die()
    perform(sweep)
    sqs.redrive("schoolbell-tutoring-bell-dlq", "schoolbell-tutoring-bell", now + timedelta(minutes=1))
    assert perform(sweep, now=now + LATER).result["redriven"] == 1
    (letter,) = stored(dead_letters)
    assert (letter.resolution, letter.resolved_by, letter.resolved_at) == ("redriven", "console", now + LATER)


def test_a_message_that_is_merely_out_of_sight_is_not_taken_to_be_redriven(
    perform: Performer, stored: Stored, drop: Callable[..., str], sqs: RedrivingSqs, settings: Settings, now: datetime
) -> None:
    drop("1")
    drop("2")
    perform(sweep)
    sqs.receive_message(QueueUrl=settings.dead_letter_queue_url(CHIME), VisibilityTimeout=600)  # somebody looks at it
    moved = sqs.redrive("schoolbell-tutoring-chime-dlq", "schoolbell-tutoring-chime", now + timedelta(minutes=1))
    assert len(moved) == 1
    assert perform(sweep, now=now + LATER).result["redriven"] == 0
    assert [letter.resolved_at for letter in stored(dead_letters)] == [None, None]


@pytest.mark.parametrize(
    ("minutes", "status", "why"),
    [
        (-1, "COMPLETED", "it began before the message was last seen"),
        (1, "RUNNING", "it may not have come to the message"),
        (1, "FAILED", "it may have left the message"),
        (25, "COMPLETED", "a look or two must have missed the message since"),
    ],
)
def test_a_redrive_that_may_not_have_taken_the_message_resolves_nothing(
    perform: Performer,
    stored: Stored,
    die: Callable[..., str],
    sqs: RedrivingSqs,
    now: datetime,
    minutes: int,
    status: str,
    why: str,
) -> None:
    die()
    perform(sweep)
    at = now + timedelta(minutes=minutes)
    sqs.redrive("schoolbell-tutoring-bell-dlq", "schoolbell-tutoring-bell", at, status=status)
    assert perform(sweep, now=now + LATER).result["redriven"] == 0, why
    assert [letter.resolved_at for letter in stored(dead_letters)] == [None]


def test_a_message_that_nobody_redrove_is_not_resolved(
    perform: Performer, stored: Stored, die: Callable[..., str], queues: Queues, now: datetime
) -> None:
    die()
    perform(sweep)
    queues.messages(BELL, dead=True)  # it is out of sight
    perform(sweep, now=now + LATER)
    assert [letter.resolved_at for letter in stored(dead_letters)] == [None]


def test_a_message_that_sqs_no_longer_keeps_is_dropped_by_retention(
    perform: Performer, stored: Stored, make: Make, now: datetime
) -> None:
    kept = timedelta(days=4)  # moto's queues are made with SQS's default
    for hours, name in ((1, "old"), (-1, "young")):
        make.row(
            dead_letters,
            job=CHIME,
            queue="schoolbell-tutoring-chime",
            message_id=name,
            dead_at=now - kept - timedelta(hours=hours),
        )
    assert perform(sweep).result["expired"] == 1
    resolved = {letter.message_id: (letter.resolution, letter.resolved_by) for letter in stored(dead_letters)}
    assert resolved == {"old": ("dropped", "retention"), "young": (None, None)}


def test_a_record_whose_message_is_there_after_all_is_open_again(
    perform: Performer, stored: Stored, drop: Callable[..., str], database: Database, now: datetime
) -> None:
    drop("1")
    perform(sweep)
    with database.transaction() as connection:
        connection.execute(update(dead_letters).values(resolved_at=now, resolution="dropped", resolved_by="ada"))
    assert perform(sweep, now=now + timedelta(minutes=5)).result["reopened"] == 0, "it is being taken away"
    assert perform(sweep, now=now + LATER).result["reopened"] == 1
    (letter,) = stored(dead_letters)
    assert (letter.resolved_at, letter.resolution, letter.resolved_by) == (None, None, None)


# Alerts


def test_there_is_one_alert_a_job_and_not_one_a_message(
    perform: Performer, outbox_rows: OutboxRows, drop: Callable[..., str], now: datetime
) -> None:
    for n in range(3):
        drop(f"{n}")
    drop(dropped_by_lambda({}, errorType="JobFailed", errorMessage="no"), BELL)
    perform(sweep)
    assert sorted(alerts(outbox_rows)) == [
        ("trigger", f"dead-letters/{BELL}", f"1 dead letter of {BELL} (1 failed)"),
        ("trigger", f"dead-letters/{CHIME}", f"3 dead letters of {CHIME} (3 unknown)"),
    ]
    assert outbox_rows()[0].payload["severity"] == "warning"


def test_a_job_with_several_queues_has_one_alert(
    perform: Performer,
    outbox_rows: OutboxRows,
    drop: Callable[..., str],
    stored: Stored,
    settings: Settings,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    reads = {BELL: "tutoring.tower", CHIME: "tutoring.tower"}
    monkeypatch.setattr(dead_letter_queues, "reader_of", lambda settings, name: reads[name])
    drop("1", BELL)
    drop("2", CHIME)
    perform(sweep)
    assert alerts(outbox_rows) == [
        ("trigger", "dead-letters/tutoring.tower", "2 dead letters of tutoring.tower (2 unknown)")
    ]
    assert {(letter.job, letter.queue) for letter in stored(dead_letters)} == {
        ("tutoring.tower", settings.resource_name(BELL)),
        ("tutoring.tower", settings.resource_name(CHIME)),
    }


def test_an_alert_that_stands_is_told_again_only_when_it_changes(
    perform: Performer, outbox_rows: OutboxRows, drop: Callable[..., str], stored: Stored, now: datetime
) -> None:
    drop("1")
    perform(sweep)
    perform(sweep, now=now + LATER)
    assert len(alerts(outbox_rows)) == 1
    drop("2")
    perform(sweep, now=now + 2 * LATER)
    assert alerts(outbox_rows)[1] == ("trigger", f"dead-letters/{CHIME}", f"2 dead letters of {CHIME} (2 unknown)")
    assert [alert.since for alert in stored(standing_alerts)] == [now]


def test_an_alert_is_resolved_when_the_queue_is_empty_and_raised_anew_by_the_next_message(
    perform: Performer,
    outbox_rows: OutboxRows,
    drop: Callable[..., str],
    sqs: RedrivingSqs,
    settings: Settings,
    now: datetime,
) -> None:
    drop("1")
    perform(sweep)
    sqs.purge_queue(QueueUrl=settings.dead_letter_queue_url(CHIME))
    perform(sweep, now=now + LATER)
    perform(sweep, now=now + 2 * LATER)
    drop("2")
    perform(sweep, now=now + 3 * LATER)
    assert [action for action, _, _ in alerts(outbox_rows)] == ["trigger", "resolve", "trigger"]


def test_the_alarm_over_all_queues_is_told_their_number(
    perform: Performer, drop: Callable[..., str], capsys: pytest.CaptureFixture[str]
) -> None:
    drop("1")
    drop("2", BELL)
    perform(sweep)
    told = [json.loads(line) for line in capsys.readouterr().out.splitlines() if '"DeadLetters"' in line]
    assert [each["DeadLetters"] for each in told] == [[2.0]]


def test_an_alert_says_nothing_of_what_the_messages_hold(
    perform: Performer, outbox_rows: OutboxRows, drop: Callable[..., str]
) -> None:
    drop('{"name": "Ada Lovelace"}')
    perform(sweep)
    assert "Lovelace" not in json.dumps([row.payload for row in outbox_rows()])


# Faults


def test_a_sweep_that_dies_anywhere_is_made_good_by_the_next(
    perform: Performer, database: Database, drop: Callable[..., str], settings: Settings, now: datetime, stored: Stored
) -> None:
    drop(dropped_by_lambda({}, errorType="JobFailed", errorMessage="no"))
    event, invocation = rule_event(now), Invocation()

    def recover() -> None:
        show_again("schoolbell-tutoring-chime-dlq")
        perform(sweep, event=event, invocation=invocation)
        perform(sweep, now=now + LATER)

    points = assert_crash_safe(
        database,
        Crashing(run=lambda: perform(sweep, event=event, invocation=invocation), recover=recover),
        volatile=frozenset({"outbox.sent_at", "outbox.available_at"}),
    )
    assert "after sqs.receive_message" in points
    assert len(stored(dead_letters)) == len(stored(standing_alerts)) == len(stored(outbox)) == 1


def show_again(queue: str) -> None:
    """As when the time is up for which a look hides messages."""
    for message in sqs_backends[ACCOUNT]["us-east-1"].queues[queue]._messages:
        message.visible_at = 0


def test_what_the_alarm_of_all_dead_letters_watches_is_counted(
    perform: Performer, queues: Queues, capsys: pytest.CaptureFixture[str]
) -> None:
    perform(sweep)
    assert '"DeadLetters":[0.0]' in capsys.readouterr().out
