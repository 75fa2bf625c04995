"""What is triggered happens once, by key, and can be cancelled as long as it has not begun."""

import json
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import pytest
from sqlalchemy import insert, select, update

from functions.platform.outbox_relay.app import handler as outbox_relay
from schoolbell import aws
from schoolbell.database import Database
from schoolbell.domains.platform.schema import audit_logs, dead_letters, job_runs, outbox, triggers
from schoolbell.jobs import Deleted, JobContext, scheduled_job
from schoolbell.operations import JobClient, NotFound, Refused, RunHandle
from schoolbell.operations.trigger_records import find
from schoolbell.operations.triggers import arrange
from schoolbell.settings import Settings
from tests.conftest import Queues
from tests.fakes.deployed import CALLED, DRY, PRIORITIES, QUEUED, SCHEDULED, SEVERAL, Aws
from tests.faults.crash import Crashing, assert_crash_safe
from tests.fixtures.database import Stored
from tests.integration.operations.conftest import Clock
from tests.performing import Invocation, Performer

HOUR = timedelta(hours=1)


@scheduled_job(SCHEDULED)
def drive_sync(job: JobContext) -> Deleted:
    return Deleted(rows=7)


def one_shots(settings: Settings) -> list[dict[str, Any]]:
    client = aws.client("scheduler")
    listed = client.list_schedules(GroupName=settings.schedule_group, NamePrefix="trigger-")["Schedules"]
    return [client.get_schedule(GroupName=settings.schedule_group, Name=each["Name"]) for each in listed]


def test_a_queue_job_gets_a_message(client: JobClient, queues: Queues) -> None:
    handle = client.trigger(QUEUED, {"session_id": "7"})
    assert handle.is_new
    (message,) = queues.messages(QUEUED)
    assert json.loads(message["Body"]) == {"session_id": "7"}


def test_a_scheduled_job_is_invoked_with_the_name_of_its_run(client: JobClient, deployed: Aws) -> None:
    handle = client.trigger(DRY, {"only": "7"}, dry_run=True)
    run = {"id": str(handle.id), "trigger": "manual"}
    assert deployed.invoked == [("schoolbell-tutoring-data-retention", {"only": "7", "dry_run": True, "run": run})]


def test_a_run_is_found_by_its_handle(client: JobClient, deployed: Aws, perform: Performer) -> None:
    handle = client.trigger(SCHEDULED)
    assert client.outcome(handle).state == "waiting"
    perform(drive_sync, data=deployed.invoked[0][1])
    outcome = client.outcome(handle)
    assert outcome.state == "completed"
    assert outcome.is_final
    assert outcome.run
    assert (outcome.run.id, outcome.run.trigger, outcome.run.result) == (handle.id, "manual", {"rows": 7})
    assert client.run(handle.id) == outcome.run


@pytest.mark.parametrize(
    ("status", "state"), [("failed", "failed"), ("timed_out", "timed_out"), ("running", "running")]
)
def test_a_run_that_did_not_complete_says_so(client: JobClient, database: Database, status: str, state: str) -> None:
    handle = client.trigger(SCHEDULED)
    with database.transaction() as connection:
        connection.execute(insert(job_runs).values(id=handle.id, job=SCHEDULED, status=status, error="why"))
    outcome = client.outcome(handle)
    assert (outcome.state, outcome.error) == (state, "why")


def test_a_message_is_waited_for_by_its_row_in_the_outbox(client: JobClient, database: Database, now: datetime) -> None:
    handle = client.trigger(QUEUED, {"session_id": "7"})
    assert client.outcome(handle).state == "waiting"
    with database.transaction() as connection:
        connection.execute(update(outbox).values(handled_at=now))
    assert client.outcome(handle).state == "completed"


def test_a_message_that_died_says_why(client: JobClient, database: Database, settings: Settings) -> None:
    handle = client.trigger(QUEUED, {"session_id": "7"})
    with database.transaction() as connection:
        row = connection.execute(select(outbox.c.id)).scalar_one()
        letter = {"job": QUEUED, "queue": settings.resource_name(QUEUED), "error": "session_id: no session"}
        connection.execute(insert(dead_letters).values(attributes={"outbox-id": str(row)}, **letter))
    outcome = client.outcome(handle)
    assert (outcome.state, outcome.error) == ("failed", "session_id: no session")


@pytest.mark.parametrize("job", [QUEUED, SCHEDULED])
def test_the_same_key_starts_nothing_twice(client: JobClient, queues: Queues, deployed: Aws, job: str) -> None:
    first = client.trigger(job, key="import 7")
    second = client.trigger(job, key="import 7")
    assert (first.is_new, second.is_new) == (True, False)
    assert first.id == second.id
    assert len(queues.messages(QUEUED)) + len(deployed.invoked) == 1


@pytest.mark.parametrize("job", [QUEUED, SCHEDULED])
def test_a_delayed_one_with_the_same_key_is_one_schedule(client: JobClient, settings: Settings, job: str) -> None:
    first = client.trigger(job, {"n": 1}, delay=HOUR, key="import 7")
    second = client.trigger(job, {"n": 1}, delay=2 * HOUR, key="import 7")
    assert (first.is_new, second.is_new) == (True, False)
    assert first.due_at == second.due_at
    (schedule,) = one_shots(settings)
    assert schedule["Name"] == first.schedule == second.schedule


def test_a_key_belongs_to_one_job(client: JobClient) -> None:
    client.trigger(QUEUED, key="import 7")
    with pytest.raises(Refused, match=f"the key import 7 is that of a trigger of {QUEUED}"):
        client.trigger(SCHEDULED, key="import 7")


def test_a_delayed_scheduled_job_has_a_one_shot_that_names_its_run(client: JobClient, settings: Settings) -> None:
    handle = client.trigger(SCHEDULED, at=datetime(2026, 3, 2, 12, 0, 0, 5, tzinfo=UTC))
    (schedule,) = one_shots(settings)
    assert schedule["ScheduleExpression"] == "at(2026-03-02T12:00:01)"
    assert schedule["ScheduleExpressionTimezone"] == "UTC"
    assert schedule["ActionAfterCompletion"] == "DELETE"
    target = schedule["Target"]
    assert target["Arn"] == settings.function_arn(SCHEDULED)
    assert target["DeadLetterConfig"] == {"Arn": settings.dead_letter_queue_arn(SCHEDULED)}
    assert json.loads(target["Input"]) == {"run": {"id": str(handle.id), "trigger": "delayed"}}


def test_a_delayed_queue_job_has_a_one_shot_with_its_message(client: JobClient, settings: Settings) -> None:
    client.trigger(PRIORITIES[0], {"n": 1}, delay=HOUR)
    (schedule,) = one_shots(settings)
    assert schedule["Target"]["Arn"] == settings.queue_arn(PRIORITIES[0])
    assert json.loads(schedule["Target"]["Input"]) == {"n": 1}


@pytest.mark.parametrize("job", [QUEUED, SCHEDULED])
def test_what_a_one_time_schedule_cannot_deliver_is_tried_again_for_an_hour(
    client: JobClient, settings: Settings, job: str
) -> None:
    client.trigger(job, delay=HOUR)
    (schedule,) = one_shots(settings)
    assert schedule["Target"]["RetryPolicy"] == {"MaximumRetryAttempts": 5, "MaximumEventAgeInSeconds": 3600}


def test_a_delayed_run_says_that_it_was_delayed(
    client: JobClient, settings: Settings, perform: Performer, stored: Stored
) -> None:
    client.trigger(SCHEDULED, delay=HOUR)
    (schedule,) = one_shots(settings)
    perform(drive_sync, data=json.loads(schedule["Target"]["Input"]))
    (run,) = stored(job_runs)
    assert (run.trigger, run.status) == ("delayed", "completed")


def test_what_is_due_soon_is_left_to_the_relay(
    client: JobClient, queues: Queues, settings: Settings, stored: Stored, now: datetime
) -> None:
    handle = client.trigger(QUEUED, {"n": 1}, delay=timedelta(seconds=5))
    assert one_shots(settings) == []
    assert queues.messages(QUEUED) == []
    (row,) = stored(outbox)
    assert (row.available_at, row.claimed_by, row.sent_at) == (now + timedelta(seconds=5), None, None)
    assert client.outcome(handle).state == "waiting"


def test_a_process_that_ends_before_the_one_shot_is_made_makes_it_when_asked_again(
    client: JobClient, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    original = aws.client

    class Away:
        def create_schedule(self, **_: Any) -> None:
            raise ConnectionError("away")

        update_schedule = create_schedule

    with monkeypatch.context() as patch:
        patch.setattr(aws, "client", lambda service: Away() if service == "scheduler" else original(service))
        with pytest.raises(ConnectionError):
            client.trigger(SCHEDULED, delay=HOUR, key="import 7")
    assert one_shots(settings) == []
    handle = client.trigger(SCHEDULED, delay=HOUR, key="import 7")
    (schedule,) = one_shots(settings)
    assert json.loads(schedule["Target"]["Input"])["run"]["id"] == str(handle.id)


@pytest.mark.parametrize(
    ("job", "given", "reason"),
    [
        (CALLED, {}, "tutoring.waitlist-offer answers those who call it, and can't be triggered"),
        (SEVERAL, {}, "has several queues; say which: platform.notifications-high"),
        (SCHEDULED, {"dry_run": True}, "tutoring.drive-sync has no dry run"),
        (QUEUED, {"dry_run": True}, "tutoring.auto-complete has no dry run"),
        (QUEUED, {"delay": HOUR, "at": datetime(2026, 3, 3, tzinfo=UTC)}, "give a delay or a time, not both"),
        (QUEUED, {"at": datetime(2026, 3, 2, 9, 59, tzinfo=UTC)}, "2026-03-02 09:59:00 UTC has passed"),
        (QUEUED, {"at": datetime(2026, 3, 3)}, "the time has no time zone"),  # noqa: DTZ001
        (QUEUED, {"delay": -HOUR}, "a delay can't be negative"),
        (QUEUED, {"delay": timedelta(days=400)}, "more than a year ahead"),
        (QUEUED, {"key": ""}, "a key has 1 to 200 characters"),
        (QUEUED, {"data": {"x": object()}}, "data: not a JSON object"),
        (QUEUED, {"data": {"x": float("nan")}}, "data: not a JSON object"),
        (QUEUED, {"data": {7: "x"}}, "data: not a JSON object: its names are texts"),
        (QUEUED, {"data": {"x": "x" * 250_000}}, "data: 250,009 bytes; 250,000 are the most"),
        (SCHEDULED, {"data": {"run": "x"}}, "data: run: this name is taken"),
    ],
)
def test_what_cannot_be_done_is_refused_with_the_reason(
    client: JobClient, stored: Stored, job: str, given: dict[str, Any], reason: str
) -> None:
    with pytest.raises(Refused, match=reason):
        client.trigger(job, given.pop("data", None), **given)
    assert not stored(triggers)
    assert not stored(outbox)


def test_a_job_that_is_not_there_is_not_triggered(client: JobClient) -> None:
    with pytest.raises(NotFound):
        client.trigger("tutoring.drive")


# Cancelling


@pytest.mark.parametrize("job", [QUEUED, SCHEDULED])
def test_cancelling_removes_the_one_shot(client: JobClient, settings: Settings, job: str) -> None:
    handle = client.trigger(job, delay=HOUR, key="import 7")
    assert client.cancel("import 7").is_cancelled
    assert one_shots(settings) == []
    assert client.outcome(handle).state == "cancelled"
    again = client.cancel("import 7")
    assert again.is_cancelled
    assert again.message == f"{job} with the key import 7 was cancelled already"


def test_a_cancelled_run_does_not_begin_when_its_one_shot_was_faster(
    client: JobClient, settings: Settings, perform: Performer
) -> None:
    client.trigger(SCHEDULED, delay=HOUR, key="import 7")
    (schedule,) = one_shots(settings)
    client.cancel("import 7")
    assert perform(drive_sync, data=json.loads(schedule["Target"]["Input"])).status == "skipped"


def test_a_run_that_has_begun_is_not_cancelled(client: JobClient, deployed: Aws, perform: Performer) -> None:
    client.trigger(SCHEDULED, key="import 7")
    perform(drive_sync, data=deployed.invoked[0][1])
    answer = client.cancel("import 7")
    assert not answer.is_cancelled
    assert answer.message == "tutoring.drive-sync with the key import 7 has begun or was sent"
    assert client.cancel("import 7") == answer


def test_an_invocation_that_has_not_begun_is_cancelled(client: JobClient, deployed: Aws, perform: Performer) -> None:
    handle = client.trigger(SCHEDULED, key="import 7")
    assert client.cancel("import 7").is_cancelled
    assert perform(drive_sync, data=deployed.invoked[0][1]).status == "skipped"
    assert client.outcome(handle).state == "cancelled"


def test_a_message_that_was_sent_is_not_cancelled(client: JobClient) -> None:
    client.trigger(QUEUED, key="import 7")
    assert not client.cancel("import 7").is_cancelled


def test_a_message_that_waits_for_the_relay_is_cancelled(client: JobClient, stored: Stored) -> None:
    client.trigger(QUEUED, delay=timedelta(seconds=30), key="import 7")
    assert client.cancel("import 7").is_cancelled
    assert not stored(outbox)


def test_a_one_shot_that_has_gone_off_is_not_cancelled(client: JobClient, settings: Settings, clock: Clock) -> None:
    handle = client.trigger(QUEUED, delay=HOUR, key="import 7")
    aws.client("scheduler").delete_schedule(GroupName=settings.schedule_group, Name=handle.schedule)
    clock.turn(2 * HOUR)
    assert not client.cancel("import 7").is_cancelled
    assert client.outcome(handle).state == "sent"


def test_a_key_that_was_cancelled_is_free_again(client: JobClient, settings: Settings) -> None:
    first = client.trigger(SCHEDULED, delay=HOUR, key="import 7")
    client.cancel("import 7")
    second = client.trigger(SCHEDULED, delay=HOUR, key="import 7")
    assert second.is_new
    assert second.id != first.id
    assert len(one_shots(settings)) == 1


def test_cancelling_what_was_never_asked_for_is_answered(client: JobClient) -> None:
    answer = client.cancel("import 7")
    assert not answer.is_cancelled
    assert answer.message == "nothing was triggered with the key import 7"


def test_everything_an_operator_triggers_or_cancels_is_in_the_audit_log(client: JobClient, stored: Stored) -> None:
    handle = client.trigger(SCHEDULED, delay=HOUR, key="import 7")
    client.trigger(SCHEDULED, delay=HOUR, key="import 7")
    client.acting_as("grace").cancel("import 7")
    client.acting_as("grace").cancel("import 7")
    rows = [(row.action, row.actor, row.subject, row.details) for row in stored(audit_logs)]
    assert rows == [
        ("job.triggered", "ada", SCHEDULED, {"run": str(handle.id), "key": "import 7", "dry_run": False}),
        ("job.cancelled", "grace", SCHEDULED, {"key": "import 7"}),
    ]


def test_what_is_no_longer_remembered_is_not_found(client: JobClient) -> None:
    with pytest.raises(NotFound, match="nothing was triggered with the key gone"):
        client.outcome(RunHandle(UUID(int=7), SCHEDULED, "gone", is_new=True, due_at=None))


def test_watching_ends_with_the_run_or_with_the_time(client: JobClient, deployed: Aws, perform: Performer) -> None:
    handle = client.trigger(SCHEDULED)
    seen = [outcome.state for outcome in client.watch(handle, timedelta(0))]
    assert seen == ["waiting"]
    perform(drive_sync, data=deployed.invoked[0][1], invocation=Invocation())
    assert [outcome.state for outcome in client.watch(handle, HOUR)] == ["completed"]


# Crashes


@dataclass
class Outside:
    """What AWS holds, comparable: run and trigger ids differ from one time to the next."""

    queues: Queues
    deployed: Aws
    settings: Settings

    def __call__(self) -> dict[str, Any]:
        sent = {each["MessageAttributes"]["outbox-id"]["StringValue"]: each for each in self.queues.messages(QUEUED)}
        events = {event["run"]["id"]: (function, event["run"]["trigger"]) for function, event in self.deployed.invoked}
        return {
            "messages": sorted(each["Body"] for each in sent.values()),
            "invocations": sorted(events.values()),
            "one-shots": [each["Name"] for each in one_shots(self.settings)],
        }

    def reset(self) -> None:
        self.deployed.invoked.clear()
        self.queues.messages(QUEUED)
        for each in one_shots(self.settings):
            aws.client("scheduler").delete_schedule(GroupName=self.settings.schedule_group, Name=each["Name"])


VOLATILE = frozenset({"payload", "dedup_key", "details", "arranged_at", "cancelled_at", "occurred_at", "sent_at"})


@pytest.mark.parametrize("delay", [None, HOUR])
@pytest.mark.parametrize("job", [QUEUED, SCHEDULED])
def test_what_is_asked_for_again_after_a_crash_happens_once(
    deployed: Aws,
    database: Database,
    settings: Settings,
    queues: Queues,
    clock: Clock,
    now: datetime,
    perform: Performer,
    job: str,
    delay: timedelta | None,
) -> None:
    outside = Outside(queues, deployed, settings)

    def run() -> None:
        JobClient(database, settings, actor="ada", clock=clock).trigger(job, {"n": 1}, delay=delay, key="import 7")

    def recover() -> None:
        clock.now = now + timedelta(minutes=2)
        perform(outbox_relay, now=clock())
        run()
        perform(outbox_relay, now=clock() + timedelta(minutes=2))
        clock.now = now

    volatile = VOLATILE | {"due_at", "available_at", "created_at"}
    assert_crash_safe(database, Crashing(run, recover, outside, outside.reset), volatile=volatile)


@pytest.mark.parametrize("job", [QUEUED, SCHEDULED])
def test_a_cancellation_that_is_asked_for_again_after_a_crash_comes_to_its_end(
    deployed: Aws, database: Database, settings: Settings, queues: Queues, clock: Clock, job: str
) -> None:
    outside = Outside(queues, deployed, settings)
    client = JobClient(database, settings, actor="ada", clock=clock)
    handle = client.trigger(job, {"n": 1}, delay=HOUR, key="import 7")

    def reset() -> None:
        outside.reset()
        with database.transaction(read_only=True) as connection:
            trigger = find(connection, handle.key)
        assert trigger
        arrange(trigger, {}, settings, settings.scheduler_role_arn)

    def cancel() -> None:
        client.cancel(handle.key)

    assert_crash_safe(database, Crashing(cancel, cancel, outside, reset), volatile=VOLATILE)
    assert one_shots(settings) == []
