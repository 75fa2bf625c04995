"""Slack is to be told, once each, that a run begins and how it ends, of the jobs that were named and of no other."""

import json
from collections.abc import Callable, Sequence
from contextlib import suppress
from datetime import datetime, timedelta
from typing import Any

import pytest
from sqlalchemy import Row, event, insert, text

from functions.platform.outbox_relay.app import handler as relay
from schoolbell.alerts.run_notices import RunNotice
from schoolbell.database import Database
from schoolbell.domains.platform.schema import audit_logs, job_runs
from schoolbell.jobs import Chunk, Cursor, Discard, JobContext, Result, scheduled_job
from schoolbell.jobs.outcomes import JobFailed
from schoolbell.settings import Settings
from tests.conftest import Queues
from tests.faults.crash import Crashed, Points, contents, observed, restore
from tests.fixtures.database import Stored
from tests.performing import Invocation, Performer, rule_event

JOB = "tutoring.chime"
ROUTER = "platform.alert-router"

type Told = Callable[[], list[RunNotice]]


class Chimed(Result):
    chimes: int


@scheduled_job(JOB)
def chime(job: JobContext) -> Chimed:
    return Chimed(chimes=12)


@pytest.fixture
def settings(settings: Settings) -> Settings:
    return settings.model_copy(update={"slack_runs": frozenset({JOB})})


@pytest.fixture
def told(queues: Queues, sent: Callable[[str], list[Any]]) -> Told:
    """The notices that have reached the router's queue since the last look."""
    queues.make(ROUTER)
    return lambda: [RunNotice.model_validate_json(json.dumps(body)) for body in sent(ROUTER)]


def states(notices: Sequence[RunNotice]) -> list[tuple[str, int]]:
    return [(each.status, each.attempt) for each in notices]


def test_a_run_is_told_when_it_begins_and_when_it_ends(
    perform: Performer, told: Told, stored: Stored, now: datetime
) -> None:
    meanwhile: list[RunNotice] = []

    @scheduled_job(JOB)
    def listening(job: JobContext) -> Chimed:
        meanwhile.extend(told())
        return Chimed(chimes=12)

    perform(listening)
    (run,) = stored(job_runs)
    (begun,), (ended,) = meanwhile, told()
    assert (begun.run_id, begun.job, begun.status, begun.scheduled_for) == (run.id, JOB, "running", now)
    assert (begun.started_at, begun.finished_at, begun.dry_run) == (now, None, False)
    assert (ended.run_id, ended.status, ended.finished_at) == (run.id, "completed", run.finished_at)
    assert (ended.result, ended.error) == ({"chimes": 12}, None)


def test_a_job_that_was_not_named_is_not_told_of_and_asks_the_database_nothing_more(
    perform: Performer, database: Database, told: Told
) -> None:
    @scheduled_job("tutoring.chimes")
    def unnamed(job: JobContext) -> Chimed:
        return Chimed(chimes=1)

    statements: list[str] = []
    event.listen(
        database.engine, "before_cursor_execute", lambda _c, _cursor, statement, *_: statements.append(statement)
    )
    perform(unnamed)
    assert told() == []
    assert [statement for statement in statements if "outbox" in statement] == []


def test_a_second_delivery_tells_nothing(perform: Performer, told: Told) -> None:
    perform(chime)
    assert states(told()) == [("running", 1), ("completed", 1)]
    perform(chime)
    assert told() == []


def test_a_failure_is_told_without_personal_data_and_so_is_each_attempt(perform: Performer, told: Told) -> None:
    broken = [True]

    @scheduled_job(JOB)
    def sometimes(job: JobContext) -> Chimed:
        if broken:
            with job.transaction() as connection:
                connection.execute(insert(audit_logs).values(action="Ada Lovelace", id=text("'not a uuid'")))
        return Chimed(chimes=1)

    for attempt in (1, 2):
        with pytest.raises(JobFailed):
            perform(sometimes)
        begun, failed = told()
        assert states([begun, failed]) == [("running", attempt), ("failed", attempt)]
        assert begun.error is None
        assert "invalid input syntax for type uuid" in str(failed.error)
        assert "Lovelace" not in failed.model_dump_json()
    broken.clear()
    perform(sometimes)
    assert states(told()) == [("running", 3), ("completed", 3)]


def test_a_discarded_run_is_told_as_failed(perform: Performer, told: Told) -> None:
    @scheduled_job(JOB)
    def never(job: JobContext) -> Chimed:
        raise Discard("tower: there is none")

    perform(never)
    assert [(each.status, each.error) for each in told()] == [("running", None), ("failed", "tower: there is none")]


def test_a_run_with_nothing_to_do_is_told_with_the_reason(perform: Performer, told: Told, now: datetime) -> None:
    @scheduled_job(JOB, singleton=True)
    def alone(job: JobContext) -> Chimed:
        told()
        perform(alone, event=rule_event(now + timedelta(minutes=5)))
        raise Discard("once is enough")

    perform(alone)
    assert [(each.status, each.error) for each in told()] == [
        ("running", None),
        ("completed", "an earlier run is not over"),
        ("failed", "once is enough"),
    ]


def test_a_dry_run_by_hand_is_told_as_that(perform: Performer, told: Told) -> None:
    perform.given(job_dry_run=True)(chime, data={"dry_run": True})
    assert [(each.status, each.dry_run, each.scheduled_for) for each in told()] == [
        ("running", True, None),
        ("completed", True, None),
    ]


def test_a_run_by_time_zone_says_whose_turn_it_was(perform: Performer, told: Told, now: datetime) -> None:
    perform(chime, event={"scheduled_for": now.isoformat(), "time_zone": "Europe/Madrid"})
    assert {each.time_zone for each in told()} == {"Europe/Madrid"}


def count_to_ten(connection: Any, cursor: Cursor) -> Chunk | None:
    return None if cursor == 10 else Chunk(cursor=(cursor or 0) + 1, items=3)


def test_a_run_that_hands_on_to_itself_is_told_once_at_its_beginning_and_once_at_its_end(
    perform: Performer, told: Told, stored: Stored, now: datetime, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("schoolbell.jobs.outbox._invoke", lambda *_: {})

    @scheduled_job(JOB)
    def slow(job: JobContext) -> Chimed:
        def step(connection: Any, cursor: Cursor) -> Chunk | None:
            left[0] -= timedelta(minutes=6)
            return count_to_ten(connection, cursor)

        return Chimed(chimes=job.in_chunks(step).items)

    left = [timedelta(minutes=15)]
    assert perform(slow, invocation=Invocation(remaining=lambda: left[0])).status == "continued"
    (run,) = stored(job_runs)
    event, later = {"run_id": str(run.id)}, now + timedelta(minutes=20)
    left = [timedelta(minutes=15)]
    assert perform(slow, event=event, now=later, invocation=Invocation(remaining=lambda: left[0])).status == "continued"
    assert states(told()) == [("running", 1)]
    left = [timedelta(hours=9)]
    perform(slow, event=event, now=later, invocation=Invocation(remaining=lambda: left[0]))
    (ended,) = told()
    assert (ended.status, ended.attempt, ended.items_done) == ("completed", 1, 30)
    assert (ended.started_at, ended.finished_at) == (now, later)


def test_what_could_not_be_sent_is_sent_by_the_relay(
    perform: Performer, told: Told, now: datetime, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as broken:
        broken.setattr("schoolbell.jobs.outbox._enqueue", lambda batch, _: {each.id: "Throttled" for each in batch})
        assert perform(chime).status == "completed"
    assert told() == []
    perform(relay, now=now + timedelta(minutes=2))
    assert sorted(states(told())) == [("completed", 1), ("running", 1)]


@pytest.mark.parametrize("fails", [False, True])
def test_a_crash_anywhere_leaves_no_attempt_untold_and_tells_none_that_was_not(
    perform: Performer,
    database: Database,
    told: Told,
    stored: Stored,
    outbox_rows: Callable[[], list[Row[Any]]],
    now: datetime,
    fails: bool,
) -> None:
    @scheduled_job(JOB, singleton=True)
    def chunked(job: JobContext) -> Chimed:
        items = job.in_chunks(count_to_ten).items
        if fails and job.attempt == 1:
            raise RuntimeError("once")
        return Chimed(chimes=items)

    invocation = Invocation()

    def run() -> None:
        with suppress(JobFailed):
            perform(chunked, event=rule_event(now), invocation=invocation)

    def attempts() -> list[tuple[str, int]]:
        return [(row.status, row.attempt) for row in stored(job_runs, job=JOB)]

    start, points = contents(database), Points()
    with observed(database, points):
        run()
    for position, name in enumerate(points.passed):
        restore(database, start)
        told()
        crash = Points(crash_at=position)
        with suppress(Crashed), observed(database, crash):
            run()
        assert crash.is_dead, name
        database.close()
        before = attempts()
        run()  # Lambda tries again, once or twice
        run()
        perform(relay, now=now + timedelta(minutes=30))
        ((status, last),) = attempts()
        assert status == "completed", name
        ended = [(status, last)]
        if before == [("failed", 1)] or (fails and not before):
            ended.append(("failed", 1))
        notices = [(row.payload["status"], row.payload["attempt"]) for row in outbox_rows()]
        assert sorted(notices) == sorted([*ended, *(("running", attempt + 1) for attempt in range(last))]), name
        assert set(states(told())) == set(notices), name
