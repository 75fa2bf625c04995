"""One run for one scheduled time, resumed where it stopped, alone where it must be, and harmless when dry."""

import json
import re
from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import pytest
from sqlalchemy import Delete, Update, delete, func, insert, select, text, update
from sqlalchemy import event as events
from sqlalchemy.exc import DBAPIError

from schoolbell.database import Database, DatabaseAddress
from schoolbell.domains.platform.schema import audit_logs, job_runs, leases, outbox
from schoolbell.jobs import Chunk, Cursor, Deleted, Discard, JobContext, Payload, Result, scheduled_job
from schoolbell.jobs.outbox import Outgoing
from schoolbell.jobs.outcomes import InvalidEvent, JobFailed
from tests.fixtures.database import Stored
from tests.performing import Invocation, Performer, rule_event

JOB = "tutoring.chime"


class Chimed(Result):
    chimes: int


@scheduled_job(JOB)
def chime(job: JobContext) -> Chimed:
    with job.transaction() as connection:
        connection.execute(insert(audit_logs).values(action="chimed"))
    return Chimed(chimes=1)


def chimes(database: Database) -> int:
    with database.transaction() as connection:
        return connection.execute(select(func.count()).select_from(audit_logs)).scalar_one()


def test_a_scheduled_time_has_one_run_however_often_it_is_delivered(
    perform: Performer, database: Database, stored: Stored, now: datetime
) -> None:
    assert perform(chime).status == "completed"
    assert perform(chime).status == "skipped"
    assert chimes(database) == 1
    (run,) = stored(job_runs)
    assert (run.job, run.trigger, run.scheduled_for, run.status) == (JOB, "schedule", now, "completed")
    assert run.result == {"chimes": 1}


@pytest.mark.parametrize(
    "event",
    [
        {"scheduled_for": "2026-03-02T10:00:00Z"},
        {"scheduled_for": "2026-03-02T05:00:00-05:00"},
        {"source": "aws.scheduler", "time": "2026-03-02T10:00:00.250Z", "detail": "{}"},
        {"scheduled_for": "2026-03-02T10:00:00Z", "trigger": "catch-up"},
        {"$comment": "As event files have it.", "scheduled_for": "2026-03-02T10:00:00Z"},
    ],
)
def test_every_clock_means_the_same_time(perform: Performer, database: Database, now: datetime, event: Any) -> None:
    perform(chime, event=rule_event(now))
    assert perform(chime, event=event).status == "skipped"
    assert chimes(database) == 1


def test_a_scheduled_time_has_one_run_in_each_time_zone(
    perform: Performer, database: Database, stored: Stored, now: datetime
) -> None:
    zones: list[str | None] = []

    @scheduled_job(JOB)
    def dawn(job: JobContext) -> None:
        zones.append(job.time_zone)

    at = now.isoformat()
    assert perform(dawn, event={"scheduled_for": at, "time_zone": "Europe/Madrid"}).status == "completed"
    assert perform(dawn, event={"scheduled_for": at, "time_zone": "Europe/Paris"}).status == "completed"
    assert perform(dawn, event={"scheduled_for": at, "time_zone": "Europe/Paris"}).status == "skipped"
    assert perform(dawn, event={"scheduled_for": at}).status == "completed"
    assert zones == ["Europe/Madrid", "Europe/Paris", None]
    assert {run.time_zone for run in stored(job_runs)} == {"Europe/Madrid", "Europe/Paris", ""}


def test_a_manual_run_is_a_run_of_its_own_but_its_retry_is_not(perform: Performer, database: Database) -> None:
    once = Invocation()
    assert perform(chime, data={}, invocation=once).status == "completed"
    assert perform(chime, data={}, invocation=once).status == "skipped"
    assert perform(chime, data={}).status == "completed"
    assert chimes(database) == 2


@pytest.mark.parametrize(
    ("event", "named"),
    [
        ([], "expected a JSON object, got list"),
        ("now", "expected a JSON object, got str"),
        ({"source": "aws.s3", "time": "2026-03-02T10:00:00Z"}, "source: expected one of aws.events, aws.scheduler"),
        ({"Records": []}, "source: expected one of"),
        ({"source": "aws.events"}, "time: Field required"),
        ({"source": "aws.events", "time": "yesterday"}, "time: Input should be a valid datetime"),
        ({"scheduled_for": "2026-03-02T10:00:00"}, "scheduled_for: Input should have timezone info"),
        ({"scheduled_for": "2026-03-02T10:00:00Z", "trigger": "manual"}, "trigger: Input should be 'schedule' or"),
        ({"scheduled_for": "2026-03-02T10:00:00Z", "time_zone": "Mars\nUTC"}, "time_zone: String should match pattern"),
        ({"loud": True}, "loud: Extra inputs are not permitted"),
        ({"dry_run": True}, "dry_run: this job has no dry run"),
        ({"dry_run": "yes"}, "dry_run: Input should be a valid boolean"),
        ({"run_id": "7"}, "run_id: Input should be a valid UUID"),
        ({"run": "7"}, "message: Input should be a valid dictionary"),
        ({"run": {"id": "7"}}, "id: Input should be a valid UUID"),
        ({"run": {"id": str(UUID(int=7)), "trigger": "schedule"}}, "trigger: Input should be 'manual' or 'delayed'"),
        ({"run": {"id": str(UUID(int=7))}, "colour": "red"}, "colour: Extra inputs are not permitted"),
        ({"run": {"id": str(UUID(int=7))}, "run_id": str(UUID(int=7))}, "run_id: Extra inputs are not permitted"),
    ],
)
def test_an_event_that_no_trigger_sends_is_refused_by_name(
    perform: Performer, stored: Stored, event: Any, named: str
) -> None:
    with pytest.raises(InvalidEvent, match=named) as refusal:
        perform(chime, event=event)
    assert "\n" not in str(refusal.value)
    assert stored(job_runs) == []


class Loudness(Payload):
    decibels: int


@scheduled_job(JOB, data=Loudness)
def chime_loudly(job: JobContext, loudness: Loudness) -> Chimed:
    return Chimed(chimes=loudness.decibels)


def test_a_manual_run_brings_validated_data(perform: Performer, stored: Stored) -> None:
    assert perform(chime_loudly, data={"decibels": 3}).result == {"chimes": 3}
    with pytest.raises(InvalidEvent, match="decibels: Input should be a valid integer"):
        perform(chime_loudly, data={"decibels": "loud"})


def test_a_job_is_given_its_name_its_run_and_a_logger_that_knows_both(
    perform: Performer, stored: Stored, capsys: pytest.CaptureFixture[str]
) -> None:
    name = "tutoring.diary"  # of this test alone, so that its logger writes where this test reads

    @scheduled_job(name)
    def tell(job: JobContext) -> Chimed:
        assert (job.name, job.run_id) == (name, stored(job_runs)[0].id)
        job.logger.info("told", chimes=1)
        return Chimed(chimes=1)

    assert perform(tell).status == "completed"
    (run,) = stored(job_runs)
    (record,) = (json.loads(line) for line in capsys.readouterr().out.splitlines() if '"message":"told"' in line)
    assert (record["service"], record["run_id"], record["chimes"]) == (name, str(run.id), 1)


def test_a_failed_run_is_recorded_and_raised_without_personal_data_and_tried_again(
    perform: Performer, database: Database, stored: Stored
) -> None:
    broken = [True]

    @scheduled_job(JOB)
    def sometimes(job: JobContext) -> Chimed:
        if broken:
            with job.transaction() as connection:
                connection.execute(insert(audit_logs).values(action="Ada Lovelace", id=text("'not a uuid'")))
        return Chimed(chimes=1)

    with pytest.raises(JobFailed) as failure:
        perform(sometimes)
    assert "Lovelace" not in str(failure.value)
    (run,) = stored(job_runs)
    assert run.status == "failed"
    assert "invalid input syntax for type uuid" in run.error
    assert "in sometimes" in run.traceback
    assert "Lovelace" not in run.traceback.replace('action="Ada Lovelace"', "")
    broken.clear()
    assert perform(sometimes).status == "completed"
    (run,) = stored(job_runs)
    assert (run.status, run.attempt, run.error) == ("completed", 2, None)


def test_a_discarded_run_fails_without_being_tried_again(perform: Performer, stored: Stored) -> None:
    @scheduled_job(JOB)
    def never(job: JobContext) -> Chimed:
        raise Discard("tower: there is none")

    assert perform(never).answer["error"] == "tower: there is none"
    assert stored(job_runs)[0].status == "failed"


class Killed(BaseException):
    """Stands for the end of the process."""


def test_a_second_delivery_waits_for_a_killed_run_but_lambdas_own_retry_does_not(
    perform: Performer, database: Database, now: datetime
) -> None:
    deadly = [True]

    @scheduled_job(JOB)
    def killed_once(job: JobContext) -> Chimed:
        if deadly:
            raise Killed
        return Chimed(chimes=1)

    first = Invocation()
    with pytest.raises(Killed):
        perform(killed_once, event=rule_event(now), invocation=first)
    deadly.clear()
    assert perform(killed_once, event=rule_event(now)).status == "skipped"
    assert perform(killed_once, event=rule_event(now), invocation=first).status == "completed"


def test_a_killed_run_is_free_again_when_its_invocation_must_have_ended(perform: Performer, now: datetime) -> None:
    deadly = [True]

    @scheduled_job(JOB)
    def killed_once(job: JobContext) -> Chimed:
        if deadly:
            raise Killed
        return Chimed(chimes=job.attempt)

    with pytest.raises(Killed):
        perform(killed_once, event=rule_event(now))
    deadly.clear()
    assert perform(killed_once, event=rule_event(now), now=now + timedelta(minutes=14)).status == "skipped"
    assert perform(killed_once, event=rule_event(now), now=now + timedelta(minutes=15)).result == {"chimes": 2}


def test_a_singleton_never_overlaps_itself(
    perform: Performer, database: Database, now: datetime, stored: Stored
) -> None:
    inner: list[str] = []

    @scheduled_job(JOB, singleton=True)
    def alone(job: JobContext) -> Chimed:
        if not inner:
            inner.append("")
            inner[0] = perform(alone, event=rule_event(now + timedelta(minutes=5))).answer["reason"]
        return Chimed(chimes=1)

    assert perform(alone).status == "completed"
    assert inner == ["an earlier run is not over"]
    assert stored(leases) == []
    assert perform(alone, event=rule_event(now + timedelta(minutes=10))).status == "completed"


def test_a_dead_singletons_lease_expires(perform: Performer, now: datetime) -> None:
    deadly = [True]

    @scheduled_job(JOB, singleton=True)
    def alone(job: JobContext) -> Chimed:
        if deadly:
            raise Killed
        return Chimed(chimes=1)

    with pytest.raises(Killed):
        perform(alone)
    deadly.clear()
    soon, later = now + timedelta(minutes=5), now + timedelta(minutes=25)
    assert perform(alone, now=soon).status == "skipped"
    assert perform(alone, now=later).status == "completed"


# Work in chunks

WORDS = 10


def fill(database: Database) -> None:
    with database.transaction() as connection:
        connection.execute(insert(audit_logs).values([{"action": "word", "subject": f"{n:02}"} for n in range(WORDS)]))


def words_of(connection: Any, after: Cursor, size: int) -> list[str]:
    query = select(audit_logs.c.subject).where(audit_logs.c.action == "word").order_by(audit_logs.c.subject)
    return list(connection.execute(query.where(audit_logs.c.subject > (after or "")).limit(size)).scalars())


def spell(job: JobContext, connection: Any, cursor: Cursor, size: int = 3) -> Chunk | None:
    words = words_of(connection, cursor, size)
    if not words:
        return None
    if not job.dry_run:
        connection.execute(insert(audit_logs).values([{"action": "spelled", "subject": word} for word in words]))
    return Chunk(cursor=words[-1], items=len(words), counts={"chunks": 1})


def spelled(database: Database) -> list[str]:
    with database.transaction() as connection:
        query = select(audit_logs.c.subject).where(audit_logs.c.action == "spelled").order_by(audit_logs.c.subject)
        return list(connection.execute(query).scalars())


class Spelled(Result):
    words: int
    chunks: int


@scheduled_job(JOB, singleton=True)
def spelling(job: JobContext) -> Spelled:
    done = job.in_chunks(lambda connection, cursor: spell(job, connection, cursor))
    return Spelled(words=done.items, chunks=done.counts["chunks"])


def test_chunks_go_to_the_end_and_are_counted(perform: Performer, database: Database, stored: Stored) -> None:
    fill(database)
    assert perform(spelling).result == {"words": 10, "chunks": 4}
    (run,) = stored(job_runs)
    assert run.items_done == 10


def test_a_killed_run_goes_on_from_its_last_chunk(perform: Performer, database: Database, now: datetime) -> None:
    fill(database)
    seen: list[Cursor] = []

    @scheduled_job(JOB)
    def killed_in_the_third(job: JobContext) -> Spelled:
        def step(connection: Any, cursor: Cursor) -> Chunk | None:
            seen.append(cursor)
            chunk = spell(job, connection, cursor)
            if len(seen) == 3:
                raise Killed
            return chunk

        done = job.in_chunks(step)
        return Spelled(words=done.items, chunks=done.counts["chunks"])

    first = Invocation()
    with pytest.raises(Killed):
        perform(killed_in_the_third, event=rule_event(now), invocation=first)
    assert spelled(database) == [f"{n:02}" for n in range(6)]
    assert perform(killed_in_the_third, event=rule_event(now), invocation=first).result == {"words": 10, "chunks": 4}
    assert seen == [None, "02", "05", "05", "08", "09"]
    assert spelled(database) == [f"{n:02}" for n in range(10)]


def test_a_run_that_died_and_was_sent_on_goes_on_from_its_last_chunk(
    perform: Performer, database: Database, stored: Stored, now: datetime
) -> None:
    fill(database)

    @scheduled_job(JOB)
    def dying(job: JobContext) -> None:
        def step(connection: Any, cursor: Cursor) -> Chunk | None:
            if cursor:
                raise Killed
            return spell(job, connection, cursor)

        job.in_chunks(step)

    with pytest.raises(Killed):
        perform(dying, event=rule_event(now))
    (died,) = stored(job_runs)
    with database.transaction() as connection:
        connection.execute(update(job_runs).values(status="timed_out", finished_at=now, error="died"))
    sent_on = {"run_id": str(died.id)}
    assert perform(spelling, event=sent_on, now=now + timedelta(hours=1)).result == {"words": 10, "chunks": 4}
    (run,) = stored(job_runs)
    assert (run.status, run.attempt, run.error) == ("completed", 2, None)
    assert perform(spelling, event=sent_on, now=now + timedelta(hours=2)).status == "skipped"
    assert spelled(database) == [f"{n:02}" for n in range(10)]


def test_a_run_near_its_deadline_hands_on_to_itself_and_keeps_its_lease(
    perform: Performer, database: Database, stored: Stored, now: datetime, monkeypatch: pytest.MonkeyPatch
) -> None:
    fill(database)
    invoked: list[Outgoing] = []

    def invoke(batch: Sequence[Outgoing], function: str) -> dict[str, str]:
        invoked.extend(batch)
        return {}

    monkeypatch.setattr("schoolbell.jobs.outbox._invoke", invoke)

    @scheduled_job(JOB, singleton=True)
    def slow(job: JobContext) -> Spelled:
        def step(connection: Any, cursor: Cursor) -> Chunk | None:
            left[0] -= timedelta(minutes=7)
            return spell(job, connection, cursor)

        done = job.in_chunks(step)
        return Spelled(words=done.items, chunks=done.counts["chunks"])

    left = [timedelta(minutes=14, seconds=30)]
    assert perform(slow, invocation=Invocation(remaining=lambda: left[0])).status == "continued"
    (run,) = stored(job_runs)
    (message,) = invoked
    assert message.destination == f"function/{JOB}"
    assert UUID(parsed(message.body)["run_id"]) == run.id
    assert (run.status, run.items_done) == ("running", 6)
    assert perform(slow, event=rule_event(now + timedelta(minutes=1))).answer["reason"] == "an earlier run is not over"
    left[0] = timedelta(minutes=60)
    continued = perform(slow, event=parsed(message.body), invocation=Invocation(remaining=lambda: left[0]))
    assert continued.result == {"words": 10, "chunks": 4}
    assert perform(slow, event=parsed(message.body)).status == "skipped"
    assert stored(leases) == []
    assert spelled(database) == [f"{n:02}" for n in range(10)]


def parsed(text: str) -> dict[str, Any]:
    loaded = json.loads(text)
    assert isinstance(loaded, dict)
    return loaded


def test_a_dry_run_reports_and_can_not_write(perform: Performer, database: Database, stored: Stored) -> None:
    fill(database)
    answer = perform.given(job_dry_run=True)(spelling, data={"dry_run": True})
    assert answer.result == {"words": 10, "chunks": 4}
    assert spelled(database) == []
    assert stored(job_runs)[0].dry_run

    @scheduled_job(JOB)
    def forgetful(job: JobContext) -> Chimed:
        with job.transaction() as connection:
            connection.execute(delete(audit_logs).where(audit_logs.c.action == "word"))
        return Chimed(chimes=1)

    with pytest.raises(JobFailed, match="read-only transaction"):
        perform.given(job_dry_run=True)(forgetful, data={"dry_run": True})


def test_batches_respect_their_size_and_end(perform: Performer, database: Database) -> None:
    fill(database)
    sizes: list[int] = []

    @scheduled_job(JOB)
    def forget(job: JobContext) -> Deleted:
        sizes.append(0)
        return Deleted(rows=job.in_batches(delete(audit_logs).where(audit_logs.c.subject < "07"), size=3))

    assert perform.given(job_dry_run=True)(forget, data={"dry_run": True}).result == {"rows": 7}
    assert chimes(database) == 10
    statements: list[int] = []
    events.listen(
        database.engine,
        "after_cursor_execute",
        lambda _c, cursor, statement, *_: statements.append(cursor.rowcount) if "DELETE" in statement else None,
    )
    assert perform(forget, data={}).result == {"rows": 7}
    assert statements == [3, 3, 1, 0]
    assert chimes(database) == 3


def test_updates_in_batches(perform: Performer, database: Database) -> None:
    fill(database)

    @scheduled_job(JOB)
    def rename(job: JobContext) -> Deleted:
        statement = update(audit_logs).where(audit_logs.c.action == "word").values(action="renamed")
        return Deleted(rows=job.in_batches(statement, size=4))

    assert perform(rename).result == {"rows": 10}


@pytest.mark.usefixtures("nested_loops")
@pytest.mark.parametrize(
    "statement", [delete(audit_logs), update(audit_logs).values(action="renamed")], ids=["delete", "update"]
)
def test_batches_respect_their_size_whatever_the_plan(
    perform: Performer, database: Database, statement: Delete | Update
) -> None:
    fill(database)
    sizes: list[int] = []
    start = "DELETE" if isinstance(statement, Delete) else "UPDATE platform.audit_logs"
    events.listen(
        database.engine,
        "after_cursor_execute",
        lambda _c, cursor, statement, *_: sizes.append(cursor.rowcount) if statement.startswith(start) else None,
    )

    @scheduled_job(JOB)
    def clear(job: JobContext) -> Deleted:
        return Deleted(rows=job.in_batches(statement.where(audit_logs.c.action == "word"), size=4))

    assert perform(clear).result == {"rows": 10}
    assert sizes == [4, 4, 2, 0]


def test_batches_leave_what_somebody_else_has_locked_to_the_next_run(perform: Performer, database: Database) -> None:
    fill(database)

    @scheduled_job(JOB)
    def clear(job: JobContext) -> Deleted:
        return Deleted(rows=job.in_batches(delete(audit_logs).where(audit_logs.c.action == "word"), size=4))

    with database.transaction() as other:
        other.execute(select(audit_logs.c.id).where(audit_logs.c.subject < "03").with_for_update())
        assert perform(clear, data={}).result == {"rows": 7}
    assert perform(clear, data={}).result == {"rows": 3}


def test_batches_without_a_condition_are_refused(perform: Performer, database: Database) -> None:
    @scheduled_job(JOB)
    def all_of_it(job: JobContext) -> Deleted:
        return Deleted(rows=job.in_batches(delete(audit_logs)))

    fill(database)
    with pytest.raises(JobFailed, match="without a condition"):
        perform(all_of_it)
    assert chimes(database) == 10


def test_nothing_is_sent_for_a_transaction_that_rolled_back(
    perform: Performer, database: Database, stored: Stored
) -> None:
    @scheduled_job(JOB)
    def regretful(job: JobContext) -> Chimed:
        with job.transaction() as connection:
            job.outbox.send(connection, "tutoring.bell", {"times": 1}, dedup_key="once")
            raise RuntimeError("no")

    with pytest.raises(JobFailed):
        perform(regretful)
    assert stored(outbox) == []


def test_a_run_cannot_start_while_the_database_is_away(perform: Performer, now: datetime) -> None:
    nowhere = DatabaseAddress.from_url("postgresql://nobody:@127.0.0.1:1/none?sslmode=disable")
    away = Performer(replace(perform.runtime, database=Database(lambda: nowhere, timedelta(seconds=5))))
    with pytest.raises(DBAPIError, match="can't reach the database"):
        away(chime, event=rule_event(now))
    assert perform(chime, event=rule_event(now)).status == "completed"


def test_the_utc_day_of_a_run_is_its_scheduled_one(perform: Performer, stored: Stored) -> None:
    perform(chime, event={"scheduled_for": "2026-10-25T02:30:00+01:00"})
    assert stored(job_runs)[0].scheduled_for == datetime(2026, 10, 25, 1, 30, tzinfo=UTC)


def test_a_run_that_was_named_is_one_run_however_often_it_is_asked_for(
    perform: Performer, database: Database, stored: Stored
) -> None:
    asked = {"run": {"id": str(UUID(int=7)), "trigger": "delayed"}}
    assert perform(chime, data=asked).status == "completed"
    assert perform(chime, data=asked).status == "skipped"
    assert chimes(database) == 1
    (run,) = stored(job_runs)
    assert (run.id, run.trigger, run.scheduled_for, run.status) == (UUID(int=7), "delayed", None, "completed")


def test_a_named_run_that_failed_is_tried_again_as_the_same_run(
    perform: Performer, database: Database, stored: Stored
) -> None:
    asked = {"run": {"id": str(UUID(int=7))}}
    with database.transaction() as connection:
        connection.execute(insert(job_runs).values(id=UUID(int=7), job=JOB, status="failed", request_id="earlier"))
    assert perform(chime, data=asked).status == "completed"
    (run,) = stored(job_runs)
    assert (run.id, run.trigger, run.attempt, run.status) == (UUID(int=7), "manual", 2, "completed")


@pytest.mark.parametrize(("critical", "failures"), [(True, ["0", "1"]), (False, [])])
def test_failures_of_critical_jobs_are_counted_for_their_alarm_and_no_others(
    perform: Performer, capsys: pytest.CaptureFixture[str], critical: bool, failures: list[str]
) -> None:
    """A run that succeeds counts none, which ends the alarm; a metric of every job would be most of the bill."""

    @scheduled_job(JOB)
    def fragile(job: JobContext) -> None:
        if job.scheduled_for and job.scheduled_for.hour == 11:
            raise ValueError("no")

    perform.given(job_critical=critical)(fragile, event={"scheduled_for": "2026-03-02T10:00:00Z"})
    with pytest.raises(JobFailed):
        perform.given(job_critical=critical)(fragile, event={"scheduled_for": "2026-03-02T11:00:00Z"})
    assert re.findall(r'"Failures":\[(\d)', capsys.readouterr().out) == failures
