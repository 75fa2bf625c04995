"""Dead letters are sent again once, or given up, whoever asks how often, and wherever a process ends."""

import json
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID, uuid4

import pytest
from sqlalchemy import insert, text, update

from functions.platform.outbox_relay.app import handler as outbox_relay
from schoolbell import aws
from schoolbell.database import Database
from schoolbell.domains.platform.schema import audit_logs, dead_letters, outbox
from schoolbell.jobs.message_attributes import BYTES_A_MESSAGE
from schoolbell.jobs.messages import RECORDED_AS
from schoolbell.operations import Change, JobClient, NotFound, Refused
from schoolbell.settings import Settings
from tests.conftest import Queues
from tests.fakes.deployed import QUEUED, SCHEDULED, Aws
from tests.faults import crash
from tests.faults.crash import Crashing, assert_crash_safe
from tests.fixtures.database import Stored
from tests.integration.operations.conftest import Clock
from tests.performing import Performer

NOW = datetime(2026, 3, 2, 10, 0, tzinfo=UTC)  # as the fixture `now` has it
BODY = '{ "session_id":  "7" }'  # as somebody typed it


class Dead:
    """Writes dead letters as the jobs and SQS do: a record, and the message on the dead-letter queue."""

    def __init__(self, database: Database, settings: Settings) -> None:
        self._database = database
        self._settings = settings

    def letter(self, body: str | None = BODY, *, job: str = QUEUED, is_discarded: bool = False) -> UUID:
        """A message that died, and the id of its record."""
        message = str(uuid4())
        attributes = {RECORDED_AS: {"DataType": "String", "StringValue": message}} if is_discarded else {}
        sent = aws.client("sqs").send_message(
            QueueUrl=self._settings.dead_letter_queue_url(job), MessageBody=body or "{}", MessageAttributes=attributes
        )
        values = {
            "job": job,
            "queue": self._settings.resource_name(job),
            "message_id": message if is_discarded else sent["MessageId"],
            "payload": body,
            "error": "why",
            "dead_at": NOW,
        }
        with self._database.transaction() as connection:
            found: UUID = connection.execute(
                insert(dead_letters).values(values).returning(dead_letters.c.id)
            ).scalar_one()
        return found


@pytest.fixture
def dead(deployed: Aws, database: Database, settings: Settings) -> Dead:
    return Dead(database, settings)


def bodies(queues: Queues, job: str = QUEUED, *, dead: bool = False) -> list[str]:
    return [message["Body"] for message in queues.messages(job, dead=dead)]


# One


@pytest.mark.parametrize("is_discarded", [True, False])
def test_one_is_sent_again_to_the_letter_and_leaves_the_others(
    client: JobClient, dead: Dead, queues: Queues, stored: Stored, is_discarded: bool
) -> None:
    others = [dead.letter(f'{{"session_id": "{n}"}}') for n in range(12)]
    letter = dead.letter(is_discarded=is_discarded)
    assert client.redrive(letter) == Change(is_changed=True, message=f"a message of {QUEUED} is sent again", count=1)
    assert bodies(queues) == [BODY]
    assert BODY not in (left := bodies(queues, dead=True))
    assert len(left) == len(others)
    (row,) = stored(dead_letters, id=letter)
    assert (row.resolution, row.resolved_by, row.resolved_at) == ("redriven", "ada", client.clock())
    assert not stored(dead_letters, resolution="redriven")[1:]


def test_what_is_no_json_is_sent_again_as_it_was(client: JobClient, dead: Dead, queues: Queues) -> None:
    client.redrive(dead.letter("not json\n"))
    assert bodies(queues) == ["not json\n"]


def test_a_copy_keeps_what_its_message_is_known_by(
    client: JobClient, dead: Dead, database: Database, queues: Queues
) -> None:
    letter = dead.letter(is_discarded=True)
    attributes = {"priority": "high", "outbox-id": "0", "reason": "why", RECORDED_AS: "x", "binary": None}
    with database.transaction() as connection:
        message = connection.execute(
            update(dead_letters).values(attributes=attributes).returning(dead_letters.c.message_id)
        ).scalar_one()
    client.redrive(letter)
    (sent,) = queues.messages(QUEUED)
    values = {name: value["StringValue"] for name, value in sent["MessageAttributes"].items()}
    assert values.pop("outbox-id") != "0", "its own, which begin at 1"
    assert values == {"priority": "high", "first-message-id": message}


ITS_ID = len("outbox-idString1")
FIRST_ID = len("first-message-idString") + len(str(UUID(int=0)))


@pytest.mark.parametrize(
    ("room", "kept"),
    [
        (0, set()),
        (ITS_ID, {"outbox-id"}),
        (ITS_ID + FIRST_ID, {"outbox-id", "first-message-id"}),
        (ITS_ID + FIRST_ID + len("hueStringred"), {"outbox-id", "first-message-id", "hue"}),
    ],
)
@pytest.mark.usefixtures("strict_sqs")
def test_a_copy_of_the_largest_message_goes_with_what_it_has_room_for(
    client: JobClient, dead: Dead, database: Database, queues: Queues, room: int, kept: set[str]
) -> None:
    with database.transaction() as connection:
        connection.execute(text("ALTER TABLE platform.outbox ALTER COLUMN id RESTART"))
    letter = dead.letter("x" * (BYTES_A_MESSAGE - room))
    with database.transaction() as connection:
        connection.execute(update(dead_letters).values(attributes={"hue": "red"}))
    client.redrive(letter)
    (sent,) = queues.messages(QUEUED)
    assert sent.get("MessageAttributes", {}).keys() == kept


def test_redriving_twice_sends_once(client: JobClient, dead: Dead, queues: Queues) -> None:
    letter = dead.letter()
    client.redrive(letter)
    again = client.redrive(letter)
    assert (again.is_changed, again.message) == (False, f"this dead letter of {QUEUED} was redriven already")
    assert bodies(queues) == [BODY]


def test_what_dies_again_can_be_sent_again(
    client: JobClient, dead: Dead, database: Database, queues: Queues, clock: Clock
) -> None:
    letter = dead.letter()
    client.redrive(letter)
    with database.transaction() as connection:
        died = {"dead_at": clock() + timedelta(hours=1), "resolved_at": None, "resolution": None}
        connection.execute(update(dead_letters).values(died))
    assert client.redrive(letter).is_changed
    assert bodies(queues) == [BODY, BODY]


def test_what_was_reopened_since_its_message_lingers_is_not_sent_a_second_time(
    client: JobClient, dead: Dead, database: Database, queues: Queues, settings: Settings
) -> None:
    letter = dead.letter()
    aws.client("sqs").receive_message(QueueUrl=settings.dead_letter_queue_url(QUEUED), VisibilityTimeout=60)
    client.redrive(letter)  # somebody else looks at the message, so that it stays
    with database.transaction() as connection:
        connection.execute(update(dead_letters).values(resolved_at=None, resolution=None))
    assert not client.redrive(letter).is_changed
    assert bodies(queues) == [BODY]


def test_a_message_that_nobody_recorded_is_not_made_up(client: JobClient, dead: Dead) -> None:
    letter = dead.letter(None)
    with pytest.raises(Refused, match="nobody recorded the message"):
        client.redrive(letter)


def test_a_dead_letter_that_is_not_there_is_not_redriven_nor_dropped(client: JobClient) -> None:
    for act in (client.redrive, client.drop):
        with pytest.raises(NotFound, match="there is no dead letter"):
            act(UUID(int=7))


def test_a_scheduled_jobs_dead_letter_is_an_invocation_again(client: JobClient, dead: Dead, deployed: Aws) -> None:
    event = {"scheduled_for": "2026-03-02T02:00:00Z"}
    letter = dead.letter(json.dumps(event), job=SCHEDULED)
    assert client.redrive(letter).is_changed
    assert deployed.invoked == [("schoolbell-tutoring-drive-sync", event)]


# All


def test_all_of_a_queue_are_moved_by_sqs_and_resolved(
    client: JobClient, dead: Dead, queues: Queues, stored: Stored
) -> None:
    for n in range(13):
        dead.letter(f'{{"n": {n}}}', is_discarded=n % 2 == 0)
    change = client.redrive(QUEUED)
    assert (change.is_changed, change.count) == (True, 13)
    assert change.message == f"13 messages of {QUEUED} are sent again"
    assert len(bodies(queues)) == 13
    assert bodies(queues, dead=True) == []
    assert {row.resolution for row in stored(dead_letters)} == {"redriven"}
    again = client.redrive(QUEUED)
    assert (again.is_changed, again.message) == (False, f"{QUEUED} has no dead letters")


def test_what_was_sent_again_by_itself_does_not_go_with_the_others(
    client: JobClient, dead: Dead, database: Database, queues: Queues, settings: Settings
) -> None:
    letter, other = dead.letter(), dead.letter('{"n": 1}')
    taken = aws.client("sqs").receive_message(
        QueueUrl=settings.dead_letter_queue_url(QUEUED), MaxNumberOfMessages=10, VisibilityTimeout=60
    )
    client.redrive(letter)
    for message in taken["Messages"]:  # whoever looked at them hands them back
        aws.client("sqs").change_message_visibility(
            QueueUrl=settings.dead_letter_queue_url(QUEUED), ReceiptHandle=message["ReceiptHandle"], VisibilityTimeout=0
        )
    assert client.redrive(QUEUED).count == 1
    assert sorted(bodies(queues)) == sorted([BODY, '{"n": 1}'])
    assert not client.redrive(other).is_changed


def test_while_sqs_moves_a_queue_it_is_not_asked_again(
    client: JobClient, dead: Dead, deployed: Aws, settings: Settings, stored: Stored
) -> None:
    dead.letter()
    deployed.moving.add(settings.dead_letter_queue_arn(QUEUED))
    change = client.redrive(QUEUED)
    assert (change.is_changed, change.message) == (False, f"the dead letters of {QUEUED} are being redriven already")
    assert not stored(audit_logs)


def test_of_two_who_ask_at_once_the_second_is_told_of_the_first(
    client: JobClient, dead: Dead, deployed: Aws, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    dead.letter()
    deployed.is_overtaken = True  # SQS takes one such task at a time
    change = client.redrive(QUEUED)
    assert (change.is_changed, change.message) == (False, f"the dead letters of {QUEUED} are being redriven already")


def test_all_of_a_scheduled_job_are_invocations_again(client: JobClient, dead: Dead, deployed: Aws) -> None:
    for hour in (1, 2):
        dead.letter(json.dumps({"scheduled_for": f"2026-03-02T0{hour}:00:00Z"}), job=SCHEDULED)
    assert client.redrive(SCHEDULED).count == 2
    assert len(deployed.invoked) == 2
    assert not client.redrive(SCHEDULED).is_changed
    assert len(deployed.invoked) == 2


# Dropping


def test_dropping_one_takes_its_message_and_keeps_its_record(
    client: JobClient, dead: Dead, queues: Queues, stored: Stored
) -> None:
    other, letter = dead.letter('{"n": 1}'), dead.letter(is_discarded=True)
    assert client.drop(letter).message == f"1 message of {QUEUED} is dropped"
    assert bodies(queues, dead=True) == ['{"n": 1}']
    assert bodies(queues) == []
    (row,) = stored(dead_letters, id=letter)
    assert (row.resolution, row.resolved_by) == ("dropped", "ada")
    again = client.drop(letter)
    assert (again.is_changed, again.message) == (False, f"this dead letter of {QUEUED} was dropped already")
    assert not client.redrive(letter).is_changed
    assert stored(dead_letters, id=other)[0].resolved_at is None


def test_dropping_all_of_a_job_takes_what_is_dead_now(
    client: JobClient, dead: Dead, queues: Queues, stored: Stored
) -> None:
    for n in range(3):
        dead.letter(f'{{"n": {n}}}')
    assert client.drop(QUEUED).count == 3
    assert bodies(queues, dead=True) == []
    assert client.drop(QUEUED).message == f"{QUEUED} has no dead letters"
    (record,) = stored(audit_logs)
    assert (record.action, record.actor, record.subject) == ("dead-letters.dropped", "ada", QUEUED)


def test_everything_that_is_sent_again_is_in_the_audit_log_once(client: JobClient, dead: Dead, stored: Stored) -> None:
    one = dead.letter()
    dead.letter(json.dumps({"scheduled_for": "2026-03-02T01:00:00Z"}), job=SCHEDULED)
    dead.letter()
    for what in (one, QUEUED, SCHEDULED):
        assert client.redrive(what).is_changed
        assert not client.redrive(what).is_changed
    assert [(row.action, row.actor, row.subject, row.details) for row in stored(audit_logs)] == [
        ("dead-letter.redriven", "ada", QUEUED, {"dead_letter": str(one)}),
        ("dead-letters.redriven", "ada", QUEUED, {"queue": QUEUED, "messages": 1, "outcome": "done"}),
        ("dead-letters.redriven", "ada", SCHEDULED, {"messages": 1}),
    ]


@pytest.fixture
def orphan(dead: Dead, database: Database, settings: Settings) -> UUID:
    """A dead letter of a job that a deployment has taken away, with its queues."""
    letter = dead.letter()
    aws.client("sqs").delete_queue(QueueUrl=settings.dead_letter_queue_url(QUEUED))
    gone = {"job": "tutoring.gone", "queue": settings.resource_name("tutoring.gone")}
    with database.transaction() as connection:
        connection.execute(update(dead_letters).values(gone))
    return letter


def test_a_dead_letter_whose_job_is_gone_is_dropped(client: JobClient, orphan: UUID) -> None:
    assert client.drop(orphan).message == "1 message of tutoring.gone is dropped"
    assert client.drop(orphan).message == "this dead letter of tutoring.gone was dropped already"


def test_a_dead_letter_whose_job_is_gone_is_sent_nowhere(client: JobClient, orphan: UUID, stored: Stored) -> None:
    with pytest.raises(Refused, match=r"there is no job tutoring\.gone any more"):
        client.redrive(orphan)
    assert stored(dead_letters)[0].resolved_at is None
    assert not stored(outbox)


def test_dead_letters_are_listed_latest_first_and_unresolved(client: JobClient, dead: Dead) -> None:
    first, second = dead.letter(), dead.letter(job=SCHEDULED)
    assert {letter.id for letter in client.dead_letters()} == {first, second}
    assert [letter.id for letter in client.dead_letters(QUEUED)] == [first]
    client.drop(first)
    assert client.dead_letters(QUEUED) == []
    assert [letter.resolution for letter in client.dead_letters(QUEUED, resolved=True)] == ["dropped"]
    assert client.dead_letter(second).payload == BODY


# Crashes


@pytest.mark.parametrize("act", ["redrive", "drop"])
@pytest.mark.parametrize("is_one", [True, False])
def test_a_process_that_ends_anywhere_loses_nothing_and_sends_nothing_twice(
    dead: Dead,
    database: Database,
    queues: Queues,
    settings: Settings,
    perform: Performer,
    clock: Clock,
    monkeypatch: pytest.MonkeyPatch,
    act: str,
    is_one: bool,
) -> None:
    letters = [dead.letter(f'{{"n": {n}}}') for n in range(2)]
    # An act that is begun twice is twice in the audit log.
    monkeypatch.setattr(crash, "NOT_COMPARED", {*crash.NOT_COMPARED, "platform.audit_logs"})
    asked = letters[0] if is_one else QUEUED

    def run() -> None:
        process = JobClient(database, settings, actor="ada", clock=clock)  # which knows nothing yet
        getattr(process, act)(asked)

    def recover() -> None:
        clock.turn(timedelta(minutes=2))
        perform(outbox_relay, now=clock())
        _hand_all_back(settings)
        run()

    def outside() -> dict[str, list[str]]:
        # A job drops what it has handled already, by outbox id.
        sent = {
            message.get("MessageAttributes", {}).get("outbox-id", {}).get("StringValue", message["MessageId"]): message
            for message in queues.messages(QUEUED)
        }
        return {
            "queue": sorted(message["Body"] for message in sent.values()),
            "dead": sorted(bodies(queues, dead=True)),
        }

    def reset() -> None:
        clock.now = NOW
        for messages in _held(settings):
            messages.clear()
        for n in range(2):
            sent = aws.client("sqs").send_message(
                QueueUrl=settings.dead_letter_queue_url(QUEUED), MessageBody=f'{{"n": {n}}}'
            )
            with database.transaction() as connection:
                moved = update(dead_letters).where(dead_letters.c.id == letters[n]).values(message_id=sent["MessageId"])
                connection.execute(moved)

    volatile = frozenset(
        {"message_id", "attributes", "resolved_at", "occurred_at", "sent_at", "available_at", "details"}
    )
    points = assert_crash_safe(database, Crashing(run, recover, outside, reset), volatile=volatile)
    assert len(points) > 10


def _hand_all_back(settings: Settings) -> None:
    """What a process that ended was looking at is visible again in time."""
    for messages in _held(settings):
        for message in messages:
            message.change_visibility(0)


def _held(settings: Settings) -> list[list[Any]]:
    """The messages of each queue as moto keeps them."""
    from moto.sqs.models import sqs_backends

    return [queue._messages for queue in sqs_backends[settings.aws_account_id][settings.aws_region].queues.values()]
