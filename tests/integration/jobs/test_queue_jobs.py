"""What becomes of a message: done, tried again, sent again later, or dead, and never lost."""

import json
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import pytest
from sqlalchemy import insert, select, text

from schoolbell import aws
from schoolbell.database import Database, DatabaseAddress
from schoolbell.domains.platform.schema import audit_logs, dead_letters, job_runs
from schoolbell.jobs import Batch, Discard, JobContext, Payload, Result, Snooze, batch_job, queue_job
from schoolbell.jobs.outcomes import InvalidEvent
from schoolbell.jobs.runtime import install
from tests.conftest import Queues
from tests.fixtures.database import Stored, open_database
from tests.performing import Invocation, Performer, sqs_event

JOB = "tutoring.bell"


class Ring(Payload):
    times: int


class Rung(Result):
    times: int


@queue_job(JOB, Ring)
def ring(job: JobContext, message: Ring) -> Rung:
    with job.transaction() as connection:
        connection.execute(insert(audit_logs).values(action="rung", subject=str(message.times)))
    if message.times == 0:
        raise RuntimeError("the bell is broken")
    if message.times < 0:
        raise Discard("times: a bell can't be un-rung")
    if message.times > 100:
        raise Snooze(timedelta(minutes=2))
    return Rung(times=message.times)


@batch_job(JOB, Ring)
def ring_all(job: JobContext, batch: Batch[Ring]) -> Rung:
    with job.transaction() as connection:
        for payload in batch.payloads:
            connection.execute(insert(audit_logs).values(action="rung", subject=str(payload.times)))
        if 0 in [payload.times for payload in batch.payloads]:
            connection.execute(text("SELECT 1 / 0"))
    for message in batch.messages:
        if message.payload.times < 0:
            batch.discard(message, "times: a bell can't be un-rung")
        if message.payload.times > 100:
            batch.snooze(message, timedelta(minutes=2))
    return Rung(times=sum(payload.times for payload in batch.payloads))


@pytest.fixture(autouse=True)
def bell_queues(queues: Queues) -> None:
    queues.make(JOB)


@pytest.fixture
def visibility(queues: Queues) -> Iterator[list[int]]:
    """For how many seconds messages were made invisible."""
    seconds: list[int] = []

    def listen(params: dict[str, Any], **_: Any) -> None:
        seconds.extend(entry["VisibilityTimeout"] for entry in params["Entries"])

    events = aws.client("sqs").meta.events
    events.register("provide-client-params.sqs.ChangeMessageVisibilityBatch", listen)
    yield seconds
    events.unregister("provide-client-params.sqs.ChangeMessageVisibilityBatch", listen)


@pytest.fixture
def sent(queues: Queues) -> Iterator[list[dict[str, Any]]]:
    """The messages that were sent, those with a delay too."""
    entries: list[dict[str, Any]] = []

    def listen(params: dict[str, Any], **_: Any) -> None:
        entries.extend(params["Entries"])

    events = aws.client("sqs").meta.events
    events.register("provide-client-params.sqs.SendMessageBatch", listen)
    yield entries
    events.unregister("provide-client-params.sqs.SendMessageBatch", listen)


def rung(database: Database) -> list[int]:
    with database.transaction() as connection:
        return sorted(int(subject) for subject in connection.execute(select(audit_logs.c.subject)).scalars())


def test_done_messages_are_not_reported_as_failed(perform: Performer, database: Database) -> None:
    assert perform(ring, {"times": 1}, {"times": 2}).failed == []
    assert rung(database) == [1, 2]


def test_one_failure_takes_no_other_message_with_it(perform: Performer) -> None:
    assert perform(ring, {"times": 1}, {"times": 0}, {"times": 3}).failed == [1]


def test_a_batch_is_halved_until_the_poisoned_message_stands_alone(perform: Performer, database: Database) -> None:
    payloads = [{"times": n} for n in (1, 2, 3, 0, 5, 6, 7, 8)]
    assert perform(ring_all, *payloads).failed == [3]
    assert rung(database) == [1, 2, 3, 5, 6, 7, 8]


def test_an_invocation_is_one_run_with_its_counts_and_summed_result(perform: Performer, stored: Stored) -> None:
    perform(ring, {"times": 1}, {"times": 0}, {"times": 3})
    (run,) = stored(job_runs)
    assert (run.job, run.trigger, run.status) == (JOB, "queue", "failed")
    assert (run.items_total, run.items_done, run.items_failed) == (3, 2, 1)
    assert run.result == {"times": 4}
    assert run.error == "RuntimeError: the bell is broken"


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        ("not json", "message: Invalid JSON"),
        ("[]", "message: Input should be an object"),
        ("{}", "times: Field required"),
        ('{"times": "many"}', "times: Input should be a valid integer"),
        ('{"times": 1, "colour": "red"}', "colour: Extra inputs are not permitted"),
        ('{"times": 1, "name": "Ada Lovelace"}', "name: Extra inputs are not permitted"),
    ],
)
def test_an_invalid_message_is_recorded_and_dead_at_once_with_the_field(
    perform: Performer, queues: Queues, stored: Stored, body: str, reason: str
) -> None:
    assert perform(ring, body, {"times": 1}).failed == []
    (letter,) = stored(dead_letters)
    assert letter.reason == "discarded"
    assert letter.error.startswith(reason)
    assert "\n" not in letter.error
    assert "Lovelace" not in letter.error
    assert letter.payload == body
    (dead,) = queues.messages(JOB, dead=True)
    assert dead["Body"] == body
    assert dead["MessageAttributes"]["reason"]["StringValue"].startswith(reason)
    assert dead["MessageAttributes"]["recorded-as"]["StringValue"] == letter.message_id


def test_a_redriven_message_that_is_discarded_again_names_its_new_record(
    perform: Performer, queues: Queues, stored: Stored
) -> None:
    perform(ring, {"times": -1})
    (first,) = queues.messages(JOB, dead=True)
    event = sqs_event([first["Body"]], queue=JOB)
    event["Records"][0]["messageAttributes"] = {
        name: {"dataType": "String", "stringValue": value["StringValue"]}
        for name, value in (first["MessageAttributes"] | _attributes(8)).items()
    }
    perform(ring, event=event)
    (second,) = queues.messages(JOB, dead=True)
    assert len(second["MessageAttributes"]) == 10
    assert second["MessageAttributes"]["recorded-as"]["StringValue"] == event["Records"][0]["messageId"]
    assert {letter.message_id for letter in stored(dead_letters)} == {
        dead["MessageAttributes"]["recorded-as"]["StringValue"] for dead in (first, second)
    }


def _attributes(number: int) -> dict[str, dict[str, str]]:
    return {f"of-its-own-{n}": {"DataType": "String", "StringValue": "x"} for n in range(number)}


def test_a_discarded_message_is_dead_at_its_first_attempt(perform: Performer, queues: Queues, stored: Stored) -> None:
    assert perform(ring, {"times": -1}).failed == []
    (letter,) = stored(dead_letters)
    assert (letter.attempts, letter.error) == (1, "times: a bell can't be un-rung")
    assert len(queues.messages(JOB, dead=True)) == 1


def test_a_discarded_message_that_could_not_be_put_on_the_dlq_is_tried_again(
    perform: Performer, queues: Queues, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: Any) -> set[str]:
        raise ConnectionError("SQS is away")

    monkeypatch.setattr("schoolbell.jobs.queues.send_to_dead_letter_queue", refuse)
    assert perform(ring, {"times": -1}, {"times": 1}).failed == [0]


MIB = 1_048_576
"""What SQS takes, in bytes: a message's body with the name, type and value of each attribute."""

NAMES_ITS_RECORD = len("recorded-as" + "String") + len(str(UUID(int=0)))
SAYS_WHY = len("reason" + "String" + "more: Extra inputs are not permitted")


def large(size: int, letter: str = "x") -> str:
    """A message that is invalid, and so many bytes long."""
    empty = json.dumps({"times": 1, "more": ""})
    left, width = size - len(empty), len(letter.encode())
    return empty.replace('""', f'"{letter * (left // width)}{"-" * (left % width)}"')


def with_attributes(body: str, attributes: dict[str, str]) -> dict[str, Any]:
    """An event of a message that has attributes."""
    event = sqs_event([body], queue=JOB)
    event["Records"][0]["messageAttributes"] = {
        name: {"dataType": "String", "stringValue": value} for name, value in attributes.items()
    }
    return event


@pytest.mark.parametrize("letter", ["x", "ü"])
@pytest.mark.parametrize(
    ("room", "kept"),
    [
        (NAMES_ITS_RECORD, {"recorded-as"}),
        (NAMES_ITS_RECORD + SAYS_WHY - 1, {"recorded-as"}),
        (NAMES_ITS_RECORD + SAYS_WHY, {"recorded-as", "reason"}),
        (NAMES_ITS_RECORD + SAYS_WHY + len("hueString") + len("red" * 20), {"recorded-as", "reason", "hue"}),
    ],
)
def test_a_discarded_message_is_dead_at_once_with_as_many_attributes_as_sqs_takes(
    perform: Performer, queues: Queues, stored: Stored, strict_sqs: None, room: int, kept: set[str], letter: str
) -> None:
    body = large(MIB - room, letter)
    assert perform(ring, event=with_attributes(body, {"hue": "red" * 20})).failed == []
    (dead,) = queues.messages(JOB, dead=True)
    assert dead["Body"] == body
    assert dead["MessageAttributes"].keys() == kept
    (record,) = stored(dead_letters)
    assert dead["MessageAttributes"]["recorded-as"]["StringValue"] == record.message_id
    assert (record.reason, record.error) == ("discarded", "more: Extra inputs are not permitted")


def test_a_discarded_message_too_large_for_a_copy_is_recorded_and_left_to_sqs_without_a_wait(
    perform: Performer, queues: Queues, stored: Stored, strict_sqs: None, visibility: list[int]
) -> None:
    """SQS moves it after its last attempt, under the id that the record has."""
    event = sqs_event([large(MIB - NAMES_ITS_RECORD + 1), {"times": -1}], queue=JOB)
    assert perform(ring, event=event).failed == [0]
    assert visibility == [0]
    assert [dead["Body"] for dead in queues.messages(JOB, dead=True)] == ['{"times": -1}']
    too_large = event["Records"][0]["messageId"]
    assert [letter.error for letter in stored(dead_letters, message_id=too_large)] == [
        "more: Extra inputs are not permitted"
    ]


def test_large_attributes_of_one_message_hold_up_no_other(perform: Performer, queues: Queues, strict_sqs: None) -> None:
    event = sqs_event([{"times": -1}] * 3, queue=JOB)
    for record in event["Records"]:
        record["messageAttributes"] = {"hue": {"dataType": "String", "stringValue": "x" * (MIB // 2)}}
    assert perform(ring, event=event).failed == []
    assert [dead["MessageAttributes"].keys() for dead in queues.messages(JOB, dead=True)] == [
        {"recorded-as", "reason", "hue"}
    ] * 3


def test_of_ten_attributes_the_last_give_way_to_those_that_say_why(perform: Performer, queues: Queues) -> None:
    event = with_attributes('{"times": -1}', {f"hue-{n}": "red" for n in range(10)})
    assert perform(ring, event=event).failed == []
    (dead,) = queues.messages(JOB, dead=True)
    assert dead["MessageAttributes"].keys() == {"recorded-as", "reason", *(f"hue-{n}" for n in range(8))}


def test_a_message_with_ten_attributes_is_sent_again_with_those(perform: Performer, sent: list[dict[str, Any]]) -> None:
    event = with_attributes('{"times": 101}', {f"hue-{n}": "red" for n in range(10)})
    assert perform(ring, event=event).failed == []
    assert [entry["MessageAttributes"].keys() for entry in sent] == [{f"hue-{n}" for n in range(10)}]


def test_a_large_message_is_sent_again_without_its_first_id(
    perform: Performer, sent: list[dict[str, Any]], strict_sqs: None
) -> None:
    event = with_attributes('{"times": 101}', {"hue": "x" * (MIB - len('{"times": 101}hueString'))})
    assert perform(ring, event=event).failed == []
    assert [entry["MessageAttributes"].keys() for entry in sent] == [{"hue"}]


def test_a_snoozed_message_is_sent_again_and_is_no_failure(
    perform: Performer, queues: Queues, stored: Stored, sent: list[dict[str, Any]]
) -> None:
    event = sqs_event([{"times": 101}], queue=JOB)
    event["Records"][0]["attributes"]["MessageGroupId"] = "tenant-7"
    event["Records"][0]["messageAttributes"] = {"kept": {"stringValue": "yes", "dataType": "String"}}
    assert perform(ring, event=event).failed == []
    (entry,) = sent
    assert json.loads(entry["MessageBody"]) == {"times": 101}
    assert entry["DelaySeconds"] == 120
    assert entry["MessageGroupId"] == "tenant-7"
    first_id = {"StringValue": event["Records"][0]["messageId"], "DataType": "String"}
    assert entry["MessageAttributes"] == {
        "kept": {"StringValue": "yes", "DataType": "String"},
        "first-message-id": first_id,
    }
    (run,) = stored(job_runs)
    assert run.status == "completed"


def test_a_job_with_several_queues_sends_a_message_back_to_the_one_it_came_from(
    perform: Performer, queues: Queues, stored: Stored
) -> None:
    queues.make(f"{JOB}-loud", f"{JOB}-quiet")
    perform(ring, {"times": 101}, {"times": -1}, queue=f"{JOB}-loud")
    perform(ring, {"times": 0}, queue=f"{JOB}-quiet", attempt=5)
    assert [bool(queues.messages(f"{JOB}-loud", dead=is_dead)) for is_dead in (False, True)] == [False, True]
    assert delayed(f"{JOB}-loud") == 1
    assert not queues.messages(f"{JOB}-quiet", dead=True), "SQS moves it, by the redrive policy"
    assert [letter.queue for letter in stored(dead_letters)] == [
        "schoolbell-tutoring-bell-loud",
        "schoolbell-tutoring-bell-quiet",
    ]
    assert not queues.messages(JOB)
    assert not queues.messages(JOB, dead=True)


def test_the_backoff_is_asked_of_the_queue_that_a_message_came_from(
    perform: Performer, queues: Queues, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[str] = []
    monkeypatch.setattr("schoolbell.jobs.queues.wait_before_retry", lambda url, _: asked.append(url))
    perform(ring, {"times": 0}, queue=f"{JOB}-loud")
    assert [url.rpartition("/")[2] for url in asked] == ["schoolbell-tutoring-bell-loud"]


def delayed(job: str) -> int:
    """How many messages wait for their delay to pass."""
    counted = "ApproximateNumberOfMessagesDelayed"
    url = aws.client("sqs").get_queue_url(QueueName=f"schoolbell-{job.replace('.', '-')}")["QueueUrl"]
    return int(aws.client("sqs").get_queue_attributes(QueueUrl=url, AttributeNames=[counted])["Attributes"][counted])


def test_a_snoozed_message_that_could_not_be_sent_again_stays_on_the_queue(
    perform: Performer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("schoolbell.jobs.queues.send_again", lambda *_: set())
    assert perform(ring, {"times": 101}).failed == [0]


def test_single_messages_of_a_batch_can_be_discarded_and_snoozed(
    perform: Performer, queues: Queues, stored: Stored
) -> None:
    assert perform(ring_all, {"times": 1}, {"times": -1}, {"times": 101}).failed == []
    assert len(queues.messages(JOB, dead=True)) == 1
    assert [letter.reason for letter in stored(dead_letters)] == ["discarded"]


def test_the_last_failure_is_recorded_before_sqs_moves_the_message(perform: Performer, stored: Stored) -> None:
    perform(ring, {"times": 0}, attempt=4)
    assert stored(dead_letters) == []
    assert perform(ring, {"times": 0}, attempt=5).failed == [0]
    (letter,) = stored(dead_letters)
    assert (letter.reason, letter.attempts) == ("failed", 5)
    assert letter.error == "RuntimeError: the bell is broken"
    assert "in ring" in letter.traceback


def test_a_message_that_dies_again_after_a_redrive_is_unresolved_again(
    perform: Performer, database: Database, stored: Stored
) -> None:
    perform(ring, {"times": 0}, attempt=5, message_ids=["m-1"])
    with database.transaction() as connection:
        connection.execute(
            text("UPDATE platform.dead_letters SET resolved_at = dead_at, resolution = 'redriven', resolved_by = 'op'")
        )
    perform(ring, {"times": 0}, attempt=5, message_ids=["m-1"])
    (letter,) = stored(dead_letters)
    assert (letter.resolved_at, letter.resolution, letter.resolved_by) == (None, None, None)


def test_a_failed_message_waits_by_its_backoff(
    perform: Performer, visibility: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("schoolbell.jobs.messages.random.random", lambda: 0.5)
    perform(ring, {"times": 0}, attempt=3)
    perform(ring, {"times": 0}, attempt=5)
    assert visibility == [10, 0], "half of up to 20 seconds; the last is dead at once"


def test_a_second_delivery_of_an_outbox_message_is_dropped(perform: Performer, database: Database) -> None:
    with database.transaction() as connection:
        connection.execute(text("INSERT INTO platform.outbox (destination, payload) VALUES ('tutoring.bell', '{}')"))
        outbox_id = connection.execute(text("SELECT id::text FROM platform.outbox")).scalar_one()
    assert perform(ring, event=sqs_event([{"times": 1}], queue=JOB, outbox_id=outbox_id)).failed == []
    assert perform(ring, event=sqs_event([{"times": 1}], queue=JOB, outbox_id=outbox_id)).failed == []
    assert rung(database) == [1]


def test_two_copies_of_an_outbox_message_in_one_batch_are_one(perform: Performer, database: Database) -> None:
    with database.transaction() as connection:
        connection.execute(text("INSERT INTO platform.outbox (destination, payload) VALUES ('tutoring.bell', '{}')"))
        outbox_id = connection.execute(text("SELECT id::text FROM platform.outbox")).scalar_one()
    assert perform(ring, event=sqs_event([{"times": 1}] * 2, queue=JOB, outbox_id=outbox_id)).failed == []
    assert rung(database) == [1]


def test_a_failed_outbox_message_is_handled_when_it_comes_again(perform: Performer, database: Database) -> None:
    with database.transaction() as connection:
        connection.execute(text("INSERT INTO platform.outbox (destination, payload) VALUES ('tutoring.bell', '{}')"))
        outbox_id = connection.execute(text("SELECT id::text FROM platform.outbox")).scalar_one()
    assert perform(ring, event=sqs_event([{"times": 0}], queue=JOB, outbox_id=outbox_id)).failed == [0]
    assert perform(ring, event=sqs_event([{"times": 2}], queue=JOB, outbox_id=outbox_id)).failed == []
    assert rung(database) == [0, 2]


def test_a_message_is_not_begun_in_the_last_seconds(perform: Performer, database: Database, stored: Stored) -> None:
    late = Invocation(remaining=lambda: timedelta(seconds=2))
    assert perform(ring, {"times": 1}, attempt=5, invocation=late).failed == [0]
    assert rung(database) == []


@pytest.mark.parametrize(
    "event",
    [
        None,
        "ring",
        {},
        {"Records": [{"eventSource": "aws:s3"}]},
        {"source": "aws.events", "detail-type": "Scheduled Event"},
        {"Records": [{"eventSource": "aws:sqs"}]},
    ],
)
def test_an_event_from_elsewhere_is_refused(perform: Performer, event: Any) -> None:
    with pytest.raises(InvalidEvent, match=r"tutoring.bell: .*Records"):
        ring(event, Invocation())


def test_ten_thousand_messages_with_one_bad_one(perform: Performer, stored: Stored, queues: Queues) -> None:
    @batch_job(JOB, Ring)
    def count(job: JobContext, batch: Batch[Ring]) -> Rung:
        return Rung(times=len(batch.messages))

    bodies: list[Any] = [{"times": 1}] * 9_999
    bodies.insert(5_000, '{"times": ')
    assert perform(count, *bodies).failed == []
    (run,) = stored(job_runs)
    assert run.result == {"times": 9_999}
    assert len(queues.messages(JOB, dead=True)) == 1


def test_a_message_near_a_mebibyte_and_one_with_a_nul_are_recorded(
    perform: Performer, stored: Stored, queues: Queues
) -> None:
    large = json.dumps({"times": 1, "more": "x" * 1_000_000})
    assert perform(ring, large, '{"times": "\x00"}').failed == []
    assert sorted(len(letter.payload) for letter in stored(dead_letters)) == [14, len(large)]


@pytest.mark.parametrize(
    "body",
    [
        json.dumps({"times": 1, "more\x00\n\ufffe": 1}),
        json.dumps({"times": 1, "more" + "x" * 1_000_000: 1}),
        json.dumps({"times": 1} | {f"more{n}": n for n in range(20_000)}),
    ],
    ids=["characters that nobody takes", "a long name", "many names"],
)
def test_a_reason_that_the_sender_has_a_say_in_is_a_short_line(
    perform: Performer, stored: Stored, queues: Queues, body: str
) -> None:
    assert perform(ring, body).failed == []
    (letter,) = stored(dead_letters)
    assert letter.error.startswith("more")
    assert letter.error.isprintable()
    assert len(letter.error) <= 500
    (dead,) = queues.messages(JOB, dead=True)
    assert dead["MessageAttributes"]["reason"]["StringValue"] == letter.error


def test_messages_go_back_when_the_database_is_away(perform: Performer, database: Database) -> None:
    nowhere = DatabaseAddress.from_url("postgresql://nobody:@127.0.0.1:1/none?sslmode=disable")
    away = replace(perform.runtime, database=Database(lambda: nowhere, timedelta(seconds=5)))
    install(away)
    performer = Performer(away)
    assert performer(ring, {"times": 1}, {"times": 2}, "not json").failed == [0, 1, 2]
    assert perform(ring, {"times": 1}, {"times": 2}).failed == []
    assert rung(database) == [1, 2]


def test_no_message_dies_while_the_database_is_away(
    perform: Performer, queues: Queues, stored: Stored, sent: list[dict[str, Any]]
) -> None:
    """On its last attempt it is sent again, as what it was: an outage may last longer than all attempts."""
    nowhere = DatabaseAddress.from_url("postgresql://nobody:@127.0.0.1:1/none?sslmode=disable")
    away = Performer(replace(perform.runtime, database=Database(lambda: nowhere, timedelta(seconds=5))))
    assert away(ring, {"times": 1}, "not json", attempt=4).failed == [0, 1]
    assert sent == []
    assert away(ring, {"times": 1}, "not json", attempt=5, message_ids=["first", "second"]).failed == []
    assert sorted((entry["MessageBody"], _first_id(entry)) for entry in sent) == [
        ("not json", "second"),
        ('{"times": 1}', "first"),
    ]
    assert queues.messages(JOB, dead=True) == []
    assert stored(dead_letters) == []


def test_message_keeps_its_first_id_however_often_it_is_sent_again(
    perform: Performer, sent: list[dict[str, Any]]
) -> None:
    event = sqs_event([{"times": 101}], queue=JOB)
    event["Records"][0]["messageAttributes"] = {"first-message-id": {"stringValue": "first", "dataType": "String"}}
    perform(ring, event=event)
    assert [_first_id(entry) for entry in sent] == ["first"]


def _first_id(entry: dict[str, Any]) -> str:
    return str(entry["MessageAttributes"]["first-message-id"]["StringValue"])


def test_work_goes_on_after_the_server_ended_the_connection(
    perform: Performer, database: Database, migrated: str
) -> None:
    perform(ring, {"times": 1})
    administrator = open_database(migrated)
    with administrator.transaction() as connection:
        connection.execute(
            text(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
                "WHERE datname = current_database() AND pid <> pg_backend_pid()"
            )
        )
    administrator.close()
    assert perform(ring, {"times": 2}).failed == []
    assert rung(database) == [1, 2]


def test_the_run_says_when(perform: Performer, stored: Stored) -> None:
    at = datetime(2026, 3, 29, 1, 30, tzinfo=UTC)
    perform(ring, {"times": 1}, now=at)
    (run,) = stored(job_runs)
    assert run.started_at == at
