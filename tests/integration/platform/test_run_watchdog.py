"""What should have run has, once; what died is told and goes on; what takes too long is told."""

from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import pytest
from sqlalchemy import Row, update

from functions.platform.outbox_relay.app import handler as relay
from functions.platform.run_watchdog.app import handler as watchdog
from schoolbell import aws as clients
from schoolbell.database import Database
from schoolbell.domains.platform.schema import (
    job_runs,
    job_statistics,
    job_totals,
    outbox,
    seen_schedules,
    standing_alerts,
)
from schoolbell.settings import Settings
from tests.conftest import Queues
from tests.factories import Make
from tests.faults.crash import Crashing, assert_crash_safe
from tests.fixtures.database import Stored
from tests.fixtures.deployed import Deployed
from tests.performing import Invocation, Performer, rule_event

CHIME = "tutoring.chime"
MINUTE, HOUR, DAY = timedelta(minutes=1), timedelta(hours=1), timedelta(days=1)
NEVER_CHANGED = datetime(2026, 1, 1, tzinfo=UTC)

type OutboxRows = Callable[[], list[Row[Any]]]


@pytest.fixture(autouse=True)
def long_unchanged(monkeypatch: pytest.MonkeyPatch) -> None:
    """Schedules that moto made just now were made long before the tests' `now`."""
    from schoolbell.operations import catalogue

    original = catalogue.info_of

    def info_of(schedule: Any) -> Any:
        return original({**schedule, "LastModificationDate": NEVER_CHANGED})

    monkeypatch.setattr(catalogue, "info_of", info_of)


def alerts(outbox_rows: OutboxRows, kind: str = "") -> list[tuple[str, str, str]]:
    """What was told, oldest first: trigger or resolve, the key, the severity."""
    told = [row.payload for row in outbox_rows() if row.destination == "topic/alerts"]
    return [(each["action"], each["key"], each["severity"]) for each in told if each["key"].startswith(kind)]


def ran(make: Make, at: datetime, **columns: object) -> Row[Any]:
    """A run of the chime's that is over."""
    defaults = {
        "job": CHIME,
        "trigger": "schedule",
        "scheduled_for": at,
        "started_at": at,
        "finished_at": at + timedelta(seconds=1),
        "status": "completed",
    }
    return make.row(job_runs, **defaults | columns)


# Times that passed without a run


def test_a_time_that_passed_without_a_run_is_fired_once_under_its_own_name(
    perform: Performer, deployed: Deployed, now: datetime
) -> None:
    deployed.schedule(CHIME, "cron(30 10 * * ? *)")
    perform(watchdog)
    assert perform(watchdog, now=now + 34 * MINUTE).result["missed"] == 0, "it may still come"
    assert perform(watchdog, now=now + 36 * MINUTE).result["missed"] == 1
    assert perform(watchdog, now=now + 41 * MINUTE).result["missed"] == 0
    assert deployed.events(CHIME) == [{"scheduled_for": "2026-03-02T10:30:00+00:00", "trigger": "catch-up"}]


@pytest.mark.parametrize("status", ["running", "completed", "failed", "timed_out"])
def test_a_time_that_has_a_run_is_not_missed(
    perform: Performer, deployed: Deployed, make: Make, now: datetime, status: str
) -> None:
    deployed.schedule(CHIME, "cron(30 10 * * ? *)")
    perform(watchdog)
    ran(make, now + 30 * MINUTE, status=status, locked_until=now + DAY)
    assert perform(watchdog, now=now + 40 * MINUTE).result["missed"] == 0


def test_each_time_of_an_outage_is_made_good_but_not_for_longer_than_a_day(
    perform: Performer, deployed: Deployed, now: datetime
) -> None:
    deployed.schedule(CHIME, "cron(30 */6 * * ? *)")
    perform(watchdog)
    perform(watchdog, now=now + 2 * DAY)
    assert [event["scheduled_for"] for event in deployed.events(CHIME)] == [
        f"2026-03-0{day}T{hour:02}:30:00+00:00" for day, hour in ((3, 12), (3, 18), (4, 0), (4, 6))
    ]


def test_no_more_times_are_made_good_than_a_day_has_hours(
    perform: Performer, deployed: Deployed, now: datetime
) -> None:
    deployed.schedule(CHIME, "cron(*/10 * * * ? *)")
    perform(watchdog)
    result = perform(watchdog, now=now + 10 * HOUR).result
    assert (result["missed"], result["started"]) == (59, 24)
    assert deployed.events(CHIME)[-1]["scheduled_for"] == "2026-03-02T19:50:00+00:00"


@pytest.mark.parametrize("seconds", [0, 40])
def test_a_rules_run_belongs_to_its_minute(
    perform: Performer, deployed: Deployed, make: Make, now: datetime, seconds: int
) -> None:
    deployed.rule(CHIME, "cron(30 10 * * ? *)")
    perform(watchdog)
    ran(make, now + 30 * MINUTE + timedelta(seconds=seconds))
    assert perform(watchdog, now=now + 40 * MINUTE).result["missed"] == 0


def test_the_hour_that_spring_leaves_out_is_made_good_without_an_alarm(
    perform: Performer, deployed: Deployed, outbox_rows: OutboxRows
) -> None:
    deployed.schedule(CHIME, "cron(30 2 * * ? *)", "Europe/Berlin")
    midnight = datetime(2026, 3, 29, 0, 0, tzinfo=UTC)  # 01:00 in Berlin, where 02:00 will be 03:00
    perform(watchdog, now=midnight)
    result = perform(watchdog, now=midnight + 2 * HOUR).result
    assert (result["missed"], result["started"]) == (0, 1)
    assert deployed.events(CHIME) == [{"scheduled_for": "2026-03-29T01:30:00+00:00", "trigger": "catch-up"}]
    assert alerts(outbox_rows) == []


def test_of_an_interval_the_latest_time_alone_is_fired(
    perform: Performer, deployed: Deployed, make: Make, now: datetime
) -> None:
    deployed.rule(CHIME, "rate(15 minutes)")
    perform(watchdog)
    ran(make, now + 7 * MINUTE)
    assert perform(watchdog, now=now + 26 * MINUTE).result["missed"] == 0
    assert perform(watchdog, now=now + 90 * MINUTE).result["missed"] == 1
    assert [event["scheduled_for"] for event in deployed.events(CHIME)] == ["2026-03-02T11:22:00+00:00"]


def test_an_interval_that_rings_at_odd_times_is_not_missed(
    perform: Performer, deployed: Deployed, make: Make, now: datetime
) -> None:
    deployed.rule(CHIME, "rate(5 minutes)")
    perform(watchdog)
    for minutes in range(3, 60, 5):
        ran(make, now + minutes * MINUTE + timedelta(seconds=17))
    assert perform(watchdog, now=now + 62 * MINUTE).result["missed"] == 0


def test_what_is_paused_is_left_alone_and_has_missed_nothing_when_it_is_resumed(
    perform: Performer, deployed: Deployed, settings: Settings, now: datetime
) -> None:
    name = settings.resource_name(CHIME)
    deployed.schedule(CHIME, "cron(30 * * * ? *)", enabled=False)
    perform(watchdog)
    assert perform(watchdog, now=now + 2 * HOUR).result["started"] == 0
    deployed.change(name, State="ENABLED")
    assert perform(watchdog, now=now + 3 * HOUR).result["started"] == 0
    perform(watchdog, now=now + 4 * HOUR)
    assert [event["scheduled_for"] for event in deployed.events(CHIME)] == ["2026-03-02T13:30:00+00:00"]


def test_what_was_due_just_before_a_schedule_was_seen_to_be_resumed_is_not_missed(
    perform: Performer, deployed: Deployed, settings: Settings, now: datetime
) -> None:
    deployed.schedule(CHIME, "cron(58 * * * ? *)", enabled=False)
    perform(watchdog)
    deployed.change(settings.resource_name(CHIME), State="ENABLED")
    perform(watchdog, now=now + HOUR)
    assert perform(watchdog, now=now + HOUR + 10 * MINUTE).result["started"] == 0


def test_times_before_a_schedule_was_changed_are_not_missed(
    perform: Performer, deployed: Deployed, settings: Settings, now: datetime
) -> None:
    deployed.schedule(CHIME, "cron(30 10 * * ? *)")
    perform(watchdog)
    deployed.change(settings.resource_name(CHIME), ScheduleExpression="cron(35 10 * * ? *)")
    assert perform(watchdog, now=now + HOUR).result["started"] == 0
    perform(watchdog, now=now + HOUR + DAY)
    assert [event["scheduled_for"] for event in deployed.events(CHIME)] == ["2026-03-03T10:35:00+00:00"]


def test_a_schedule_that_was_paused_and_resumed_between_two_looks_missed_nothing(
    perform: Performer, deployed: Deployed, now: datetime, monkeypatch: pytest.MonkeyPatch
) -> None:
    deployed.schedule(CHIME, "cron(30 10 * * ? *)")
    perform(watchdog)
    monkeypatch.setattr("tests.integration.platform.test_run_watchdog.NEVER_CHANGED", now + 31 * MINUTE)
    assert perform(watchdog, now=now + 40 * MINUTE).result["started"] == 0


def test_a_schedule_that_was_deleted_is_forgotten(
    perform: Performer, deployed: Deployed, settings: Settings, stored: Stored, now: datetime
) -> None:
    deployed.schedule(CHIME, "cron(30 10 * * ? *)")
    perform(watchdog)
    clients.client("scheduler").delete_schedule(Name=settings.resource_name(CHIME), GroupName=settings.schedule_group)
    assert perform(watchdog, now=now + HOUR).result["started"] == 0
    assert stored(seen_schedules) == []


def test_a_schedule_of_one_time_zone_is_made_good_in_that_zone(
    perform: Performer, deployed: Deployed, settings: Settings, make: Make, now: datetime
) -> None:
    by_zone = {"JOB_BY_TIME_ZONE": "true"}
    deployed.schedule(CHIME, "cron(30 11 * * ? *)", enabled=False, function=by_zone)
    client = clients.client("scheduler")
    found = client.get_schedule(Name=settings.resource_name(CHIME), GroupName=settings.schedule_group)
    for zone in ("Europe/Madrid", "Europe/Paris"):
        client.create_schedule(
            Name=f"{settings.resource_name(CHIME)}-{zone.replace('/', '-').lower()}",
            GroupName=settings.schedule_group,
            ScheduleExpression="cron(30 11 * * ? *)",
            ScheduleExpressionTimezone=zone,
            FlexibleTimeWindow={"Mode": "OFF"},
            Target=found["Target"],
        )
    perform(watchdog)
    ran(make, now + 30 * MINUTE, time_zone="Europe/Madrid")
    perform(watchdog, now=now + HOUR)
    assert deployed.events(CHIME) == [
        {"scheduled_for": "2026-03-02T10:30:00+00:00", "trigger": "catch-up", "time_zone": "Europe/Paris"}
    ]


def test_a_missed_time_is_told_until_the_schedule_rings_again(
    perform: Performer, deployed: Deployed, make: Make, outbox_rows: OutboxRows, now: datetime
) -> None:
    deployed.schedule(CHIME, "cron(30 * * * ? *)")
    perform(watchdog)
    perform(watchdog, now=now + 36 * MINUTE)
    ran(make, now + 30 * MINUTE, trigger="catch-up")
    perform(watchdog, now=now + 41 * MINUTE)
    assert alerts(outbox_rows) == [("trigger", f"missed-run/{CHIME}", "critical")]
    ran(make, now + 90 * MINUTE)
    perform(watchdog, now=now + 96 * MINUTE)
    assert alerts(outbox_rows)[1:] == [("resolve", f"missed-run/{CHIME}", "critical")]


def test_a_missed_time_of_a_schedule_that_is_then_paused_is_no_longer_told(
    perform: Performer, deployed: Deployed, outbox_rows: OutboxRows, settings: Settings, now: datetime
) -> None:
    deployed.schedule(CHIME, "cron(30 * * * ? *)")
    perform(watchdog)
    perform(watchdog, now=now + 36 * MINUTE)
    deployed.change(settings.resource_name(CHIME), State="DISABLED")
    perform(watchdog, now=now + 41 * MINUTE)
    assert [action for action, _, _ in alerts(outbox_rows)] == ["trigger", "resolve"]


def test_another_stacks_schedules_are_not_watched(
    perform: Performer, deployed: Deployed, stored: Stored, now: datetime
) -> None:
    deployed.schedule(CHIME, "cron(30 * * * ? *)", function={"stack": "schoolbell-tutoring"})
    perform(watchdog)
    assert stored(seen_schedules) == []


# Runs that died


def died(make: Make, now: datetime, **columns: object) -> Row[Any]:
    """A run whose invocation ended ten minutes ago, without a word."""
    defaults = {
        "status": "running",
        "started_at": now - 20 * MINUTE,
        "finished_at": None,
        "locked_until": now - 10 * MINUTE,
        "request_id": "r",
    }
    return ran(make, now - 20 * MINUTE, **defaults | columns)


def test_a_run_whose_invocation_ended_without_a_word_is_timed_out(
    perform: Performer, deployed: Deployed, make: Make, stored: Stored, outbox_rows: OutboxRows, now: datetime
) -> None:
    deployed.function(CHIME)
    died(make, now)
    assert perform(watchdog).result["timed_out"] == 1
    (run,) = stored(job_runs, job=CHIME)
    assert (run.status, run.finished_at, run.locked_until) == ("timed_out", now - 10 * MINUTE, None)
    assert "without a word" in run.error
    assert deployed.invoked == [], "it had not got anywhere, so it would die again"
    assert alerts(outbox_rows) == [("trigger", f"timed-out-run/{CHIME}", "warning")]


def test_slack_is_told_once_of_a_death_if_it_is_told_of_the_jobs_runs(
    perform: Performer, deployed: Deployed, queues: Queues, make: Make, outbox_rows: OutboxRows, now: datetime
) -> None:
    queues.make("platform.alert-router")
    died(make, now, attempt=2)
    died(make, now, job="tutoring.bell")
    telling = telling_of_chimes(perform)
    for minutes in (0, 5):
        telling(watchdog, now=now + minutes * MINUTE)
    notices = [row.payload for row in outbox_rows() if row.destination == "platform.alert-router"]
    assert [(each["job"], each["status"], each["attempt"]) for each in notices] == [(CHIME, "timed_out", 2)]
    assert "without a word" in notices[0]["error"]


def telling_of_chimes(perform: Performer) -> Performer:
    """A stack whose Slack is told of the chime's runs."""
    settings = perform.runtime.settings.model_copy(update={"slack_runs": frozenset({CHIME})})
    return Performer(replace(perform.runtime, settings=settings))


def test_a_critical_jobs_death_is_critical(
    perform: Performer, deployed: Deployed, make: Make, outbox_rows: OutboxRows, now: datetime
) -> None:
    deployed.function(CHIME, JOB_CRITICAL="true")
    died(make, now)
    perform(watchdog)
    assert alerts(outbox_rows) == [("trigger", f"timed-out-run/{CHIME}", "critical")]


@pytest.mark.parametrize(
    "columns",
    [
        {"locked_until": timedelta(minutes=1)},
        {"locked_until": timedelta(minutes=-4)},  # Lambda may still try it again
        {"status": "completed"},
        {"status": "failed"},
        {"locked_until": None, "started_at": timedelta(minutes=-10)},  # it is between two invocations
    ],
)
def test_a_run_that_may_be_alive_is_left_alone(
    perform: Performer, deployed: Deployed, make: Make, now: datetime, columns: dict[str, Any]
) -> None:
    deployed.function(CHIME)
    moments = {name: now + value for name, value in columns.items() if isinstance(value, timedelta)}
    died(make, now, **columns | moments)
    assert perform(watchdog).result["timed_out"] == 0


def test_a_run_that_had_got_somewhere_goes_on_from_there(
    perform: Performer, deployed: Deployed, make: Make, stored: Stored, now: datetime
) -> None:
    deployed.function(CHIME)
    run = died(make, now, cursor={"main": {"cursor": 7}}, heartbeat_at=now - 15 * MINUTE)
    assert perform(watchdog).result["resumed"] == 1
    assert perform(watchdog, now=now + 5 * MINUTE).result["timed_out"] == 0
    assert [UUID(event["run_id"]) for event in deployed.events(CHIME)] == [run.id]


def test_a_run_that_dies_at_the_same_spot_is_not_sent_on_again(
    perform: Performer, deployed: Deployed, make: Make, database: Database, now: datetime
) -> None:
    deployed.function(CHIME)
    died(make, now, cursor={"main": {"cursor": 7}}, heartbeat_at=now - 15 * MINUTE)
    perform(watchdog)
    dead_again = {"status": "running", "attempt": 2, "locked_until": now + 10 * MINUTE}
    _change(database, **dead_again)
    result = perform(watchdog, now=now + HOUR).result
    assert (result["timed_out"], result["resumed"]) == (1, 0)
    _change(database, **dead_again | {"attempt": 3, "heartbeat_at": now + MINUTE})
    assert perform(watchdog, now=now + 2 * HOUR).result["resumed"] == 1, "this time it had got further"


@pytest.mark.parametrize(("is_waiting", "died_of_it"), [(True, 0), (False, 1)])
def test_a_run_that_handed_on_is_dead_when_nobody_picks_it_up_and_nothing_is_on_its_way(
    perform: Performer,
    deployed: Deployed,
    make: Make,
    database: Database,
    now: datetime,
    is_waiting: bool,
    died_of_it: int,
) -> None:
    deployed.function(CHIME)
    run = died(make, now, locked_until=None, cursor={"main": {}}, heartbeat_at=now - 18 * MINUTE)
    _change(database, updated_at=now - 18 * MINUTE)
    make.row(
        outbox,
        destination=f"function/{CHIME}",
        payload={"run_id": str(run.id)},
        available_at=now + DAY,
        sent_at=None if is_waiting else now - 18 * MINUTE,
    )
    result = perform(watchdog).result
    assert (result["timed_out"], result["resumed"]) == (died_of_it, died_of_it)


def test_a_death_is_told_until_a_run_completes(
    perform: Performer, deployed: Deployed, make: Make, outbox_rows: OutboxRows, now: datetime
) -> None:
    deployed.function(CHIME)
    died(make, now)
    perform(watchdog)
    perform(watchdog, now=now + 5 * MINUTE)
    assert len(alerts(outbox_rows)) == 1
    ran(make, now + 10 * MINUTE)
    perform(watchdog, now=now + 15 * MINUTE)
    assert alerts(outbox_rows)[1:] == [("resolve", f"timed-out-run/{CHIME}", "warning")]


# Runs that take long


@pytest.mark.parametrize(
    ("took", "columns", "is_told"),
    [
        (280, {}, True),
        (260, {}, False),
        (280, {"trigger": "queue", "scheduled_for": None}, True),
        (280, {"cursor": {"main": {}}}, False),  # it hands on before its time is over
        (280, {"attempt": 2}, False),  # the time between two tries counts too
        (280, {"error": "an earlier run is not over"}, False),
        (280, {"status": "running", "finished_at": None}, True),
    ],
)
def test_a_run_near_its_time_limit_is_told(
    perform: Performer,
    deployed: Deployed,
    make: Make,
    outbox_rows: OutboxRows,
    now: datetime,
    took: int,
    columns: dict[str, Any],
    is_told: bool,
) -> None:
    deployed.function(CHIME, timeout=300)
    started = now - timedelta(seconds=took)
    ran(make, started, **{"finished_at": now, "locked_until": now + HOUR} | columns)
    perform(watchdog)
    assert alerts(outbox_rows) == ([("trigger", f"slow-run/{CHIME}", "warning")] if is_told else [])


@pytest.mark.parametrize(
    ("usual", "runs", "took", "trigger", "is_told"),
    [
        (20, 5, 50, "schedule", True),
        (20, 5, 30, "schedule", False),
        (20, 3, 50, "schedule", False),
        (2, 5, 9, "schedule", False),
        (20, 5, 50, "queue", False),
        (20, 5, 50, "task", False),
    ],
)
def test_a_run_over_twice_its_usual_duration_is_told(
    perform: Performer,
    deployed: Deployed,
    make: Make,
    outbox_rows: OutboxRows,
    now: datetime,
    usual: int,
    runs: int,
    took: int,
    trigger: str,
    is_told: bool,
) -> None:
    deployed.function(CHIME, timeout=900)
    for hours in range(1, runs + 1):
        started = now - hours * HOUR
        ran(make, started, finished_at=started + timedelta(seconds=usual))
    started = now - timedelta(seconds=took)
    ran(make, started, trigger=trigger, status="running", finished_at=None, locked_until=now + HOUR)
    perform(watchdog)
    assert alerts(outbox_rows) == ([("trigger", f"slow-run/{CHIME}", "warning")] if is_told else [])


def test_a_slow_run_is_told_until_the_next_is_not_slow(
    perform: Performer, deployed: Deployed, make: Make, outbox_rows: OutboxRows, now: datetime
) -> None:
    deployed.function(CHIME, timeout=300)
    ran(make, now - 290 * timedelta(seconds=1), finished_at=now)
    perform(watchdog)
    perform(watchdog, now=now + 20 * MINUTE)
    assert len(alerts(outbox_rows)) == 1, "no run has ended since"
    ran(make, now + 30 * MINUTE)
    perform(watchdog, now=now + 35 * MINUTE)
    assert alerts(outbox_rows)[1:] == [("resolve", f"slow-run/{CHIME}", "warning")]


def test_runs_that_have_ended_are_counted(
    perform: Performer, deployed: Deployed, make: Make, stored: Stored, now: datetime
) -> None:
    ran(make, now - HOUR)
    assert perform(watchdog).result["counted"] == 1
    assert {row.job: row.runs for row in stored(job_totals)} == {CHIME: 1}


# Faults


def test_a_watchdog_that_dies_anywhere_is_made_good_by_the_next(
    perform: Performer,
    deployed: Deployed,
    queues: Queues,
    make: Make,
    database: Database,
    stored: Stored,
    now: datetime,
) -> None:
    queues.make("platform.alert-router")
    perform = telling_of_chimes(perform)
    deployed.schedule(CHIME, "cron(30 10 * * ? *)")
    deployed.rule("tutoring.bell", "rate(5 minutes)")
    perform(watchdog)
    died(make, now + HOUR, cursor={"main": {}}, heartbeat_at=now + 45 * MINUTE, trigger="manual", scheduled_for=None)
    deployed.invoked.clear()
    later = now + HOUR
    event, invocation = rule_event(later), Invocation()

    own_statistics = {  # a crashed try is a run of the watchdog's own
        f"{table.name}.{column.name}" for table in (job_statistics, job_totals) for column in table.columns
    }

    def recover() -> None:
        perform(watchdog, event=event, invocation=invocation, now=later)
        perform(watchdog, now=later + MINUTE)
        perform(relay, now=later + 3 * MINUTE)

    assert_crash_safe(
        database,
        Crashing(
            run=lambda: perform(watchdog, event=event, invocation=invocation, now=later),
            recover=recover,
            outside=lambda: sorted({(message.destination, message.body) for message in deployed.invoked}),
            reset_outside=deployed.invoked.clear,
        ),
        volatile=frozenset({"outbox.sent_at", "outbox.available_at", *own_statistics}),
    )
    assert len(stored(standing_alerts)) == 3
    assert len(stored(outbox, destination="platform.alert-router")) == 1


def _change(database: Database, **columns: object) -> None:
    with database.transaction() as connection:
        connection.execute(update(job_runs).where(job_runs.c.job == CHIME).values(**columns))
