"""A job that runs by time zone has a schedule in each zone in use, like its pattern, and in no other."""

import json
from datetime import UTC, datetime, timedelta
from typing import Any
from zoneinfo import available_timezones

import pytest
from sqlalchemy import delete, text, update

from functions.platform.schedule_sync.app import handler as sync
from schoolbell import aws
from schoolbell.database import Database
from schoolbell.domains.platform.schema import audit_logs, outbox, zone_schedules
from schoolbell.domains.tutoring.schema import teachers
from schoolbell.operations import JobClient, Refused, schedule_control
from schoolbell.operations.catalogue import ScheduleInfo
from schoolbell.operations.zone_schedules import Zone, name_of
from schoolbell.settings import Settings
from tests.factories import Make
from tests.faults.crash import Crashing, assert_crash_safe
from tests.fixtures.database import Stored
from tests.fixtures.deployed import Deployed
from tests.performing import Invocation, Performer, rule_event

CHIME = "tutoring.chime"
PATTERN = "schoolbell-tutoring-chime"
MADRID, PARIS, LATE = f"{PATTERN}-europe-madrid", f"{PATTERN}-europe-paris", f"{PATTERN}-late"
HOUR, DAY = timedelta(hours=1), timedelta(days=1)


@pytest.fixture(autouse=True)
def chime(deployed: Deployed) -> None:
    deployed.schedule(CHIME, "cron(0 6 * * ? *)", "Europe/London", enabled=False, function={"JOB_BY_TIME_ZONE": "true"})


def schedules(settings: Settings) -> dict[str, dict[str, Any]]:
    """The schedules of zones, by name."""
    client, group = aws.client("scheduler"), settings.schedule_group
    listed = client.list_schedules(GroupName=group)["Schedules"]
    names = [each["Name"] for each in listed if each["Name"] != PATTERN]
    return {name: client.get_schedule(Name=name, GroupName=group) for name in names}


def states(settings: Settings) -> dict[str, str]:
    """Which schedules are on, the pattern included."""
    listed = aws.client("scheduler").list_schedules(GroupName=settings.schedule_group)["Schedules"]
    return {each["Name"]: each["State"] for each in listed}


@pytest.fixture
def operator(database: Database, settings: Settings, now: datetime) -> JobClient:
    """An operator's client."""
    return JobClient(database, settings, actor="ada", clock=lambda: now)


def test_each_zone_in_use_has_a_schedule_like_the_pattern(
    perform: Performer, make: Make, settings: Settings, deployed: Deployed
) -> None:
    for zone in ("Europe/Madrid", "Europe/Madrid", "America/New_York"):
        make.teacher(timezone=zone)
    assert perform(sync).result == {"jobs": 1, "zones": 2, "created": 2, "updated": 0, "deleted": 0, "failed": 0}
    made = schedules(settings)
    assert made.keys() == {MADRID, f"{PATTERN}-america-new-york"}
    madrid = made[MADRID]
    assert (madrid["ScheduleExpression"], madrid["ScheduleExpressionTimezone"]) == (
        "cron(0 6 * * ? *)",
        "Europe/Madrid",
    )
    assert madrid["State"] == "ENABLED"
    pattern = aws.client("scheduler").get_schedule(Name=PATTERN, GroupName=settings.schedule_group)
    assert {**madrid["Target"], "Input": ""} == {**pattern["Target"], "Input": ""}
    assert json.loads(madrid["Target"]["Input"]) == {
        "scheduled_for": "<aws.scheduler.scheduled-time>",
        "time_zone": "Europe/Madrid",
    }


def test_a_second_run_changes_nothing(perform: Performer, make: Make, now: datetime) -> None:
    make.teacher(timezone="Europe/Madrid")
    perform(sync)
    result = perform(sync, now=now + HOUR).result
    assert (result["created"], result["updated"], result["deleted"]) == (0, 0, 0)


def test_a_changed_pattern_is_followed_and_a_paused_schedule_stays_paused(
    perform: Performer, make: Make, settings: Settings, deployed: Deployed, now: datetime
) -> None:
    make.teacher(timezone="Europe/Madrid")
    make.teacher(timezone="Europe/Paris")
    perform(sync)
    deployed.change(MADRID, State="DISABLED")
    deployed.change(PATTERN, ScheduleExpression="cron(0 7 * * ? *)")
    assert perform(sync, now=now + HOUR).result["updated"] == 2
    made = schedules(settings)
    assert {each["ScheduleExpression"] for each in made.values()} == {"cron(0 7 * * ? *)"}
    assert {name: each["State"] for name, each in made.items()} == {
        MADRID: "DISABLED",
        PARIS: "ENABLED",
    }


@pytest.mark.parametrize(("is_paused", "state"), [(True, "DISABLED"), (False, "ENABLED")])
def test_a_new_zone_of_a_paused_job_is_paused_too(
    perform: Performer,
    make: Make,
    settings: Settings,
    deployed: Deployed,
    now: datetime,
    is_paused: bool,
    state: str,
) -> None:
    make.teacher(timezone="Europe/Madrid")
    make.teacher(timezone="Europe/Paris")
    perform(sync)
    deployed.change(MADRID, State="DISABLED")
    deployed.change(PARIS, State="DISABLED" if is_paused else "ENABLED")
    make.teacher(timezone="Europe/Rome")
    assert perform(sync, now=now + HOUR).result["created"] == 1
    assert schedules(settings)[f"{PATTERN}-europe-rome"]["State"] == state


@pytest.mark.parametrize("moment", ["before it is made", "after it is made"])
@pytest.mark.parametrize("is_paused", [True, False])
def test_a_new_zone_of_a_job_that_is_paused_or_resumed_meanwhile_is_as_the_others_are(
    perform: Performer,
    make: Make,
    settings: Settings,
    operator: JobClient,
    now: datetime,
    monkeypatch: pytest.MonkeyPatch,
    moment: str,
    is_paused: bool,
) -> None:
    make.teacher(timezone="Europe/Madrid")
    perform(sync)
    act, state = (operator.pause, "DISABLED") if is_paused else (operator.resume, "ENABLED")
    if not is_paused:
        operator.pause(CHIME)
    make.teacher(timezone="Europe/Paris")
    client = aws.client("scheduler")
    original = client.create_schedule

    def meanwhile(**request: Any) -> None:
        if moment == "before it is made":
            act(CHIME)
        original(**request)
        if moment == "after it is made":
            act(CHIME)

    monkeypatch.setattr(client, "create_schedule", meanwhile)
    assert perform(sync, now=now + HOUR).result["created"] == 1
    assert states(settings) == {PATTERN: "DISABLED", MADRID: state, PARIS: state}


def test_a_new_zone_of_a_job_that_is_paused_and_resumed_meanwhile_is_on(
    perform: Performer,
    make: Make,
    settings: Settings,
    operator: JobClient,
    now: datetime,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    make.teacher(timezone="Europe/Madrid")
    perform(sync)
    make.teacher(timezone="Europe/Paris")
    client = aws.client("scheduler")
    create, change = client.create_schedule, client.update_schedule

    def after_a_pause(**request: Any) -> None:
        operator.pause(CHIME)
        create(**request)
        monkeypatch.setattr(client, "update_schedule", after_it_was_resumed)

    def after_it_was_resumed(**request: Any) -> None:
        monkeypatch.undo()
        operator.resume(CHIME)
        change(**request)

    monkeypatch.setattr(client, "create_schedule", after_a_pause)
    perform(sync, now=now + HOUR)
    assert states(settings) == {PATTERN: "DISABLED", MADRID: "ENABLED", PARIS: "ENABLED"}


@pytest.mark.parametrize("is_paused", [True, False])
def test_a_zone_that_is_made_while_its_job_is_being_paused_or_resumed_is_switched_too(
    perform: Performer,
    make: Make,
    settings: Settings,
    operator: JobClient,
    now: datetime,
    monkeypatch: pytest.MonkeyPatch,
    is_paused: bool,
) -> None:
    """The whole of a sync passes after the client has looked which zones there are."""
    make.teacher(timezone="Europe/Madrid")
    perform(sync)
    act, state = (operator.pause, "DISABLED") if is_paused else (operator.resume, "ENABLED")
    if not is_paused:
        operator.pause(CHIME)
    make.teacher(timezone="Europe/Paris")
    switch = schedule_control.switch

    def meanwhile(schedule: ScheduleInfo, settings: Settings, *, enable: bool) -> None:
        monkeypatch.undo()
        perform(sync, now=now + HOUR)
        switch(schedule, settings, enable=enable)

    monkeypatch.setattr(schedule_control, "switch", meanwhile)
    assert act(CHIME).is_changed
    assert states(settings) == {PATTERN: "DISABLED", MADRID: state, PARIS: state}


def test_pausing_the_job_pauses_it_in_all_its_zones_and_leaves_the_pattern_off(
    perform: Performer,
    make: Make,
    settings: Settings,
    deployed: Deployed,
    operator: JobClient,
    stored: Stored,
    now: datetime,
) -> None:
    deployed.schedule(
        "tutoring.chime-late", "cron(0 9 * * ? *)"
    )  # a job of its own, with the name of a zone's schedule
    for zone in ("Europe/Madrid", "Europe/Paris"):
        make.teacher(timezone=zone)
    perform(sync)
    deployed.change(MADRID, State="DISABLED")  # one zone by hand
    assert operator.pause(CHIME).message == f"{CHIME} is paused"
    assert states(settings) == {PATTERN: "DISABLED", MADRID: "DISABLED", PARIS: "DISABLED", LATE: "ENABLED"}
    assert operator.pause(CHIME).message == f"{CHIME} was paused already"
    perform(sync, now=now + HOUR)
    assert operator.health().paused == (CHIME,)
    assert operator.resume(CHIME).message == f"{CHIME} is resumed"
    assert states(settings) == {PATTERN: "DISABLED", MADRID: "ENABLED", PARIS: "ENABLED", LATE: "ENABLED"}
    assert operator.resume(CHIME).message == f"{CHIME} was not paused"
    acts = [(row.action, row.details["time_zones"], row.details["outcome"]) for row in stored(audit_logs)]
    assert acts == [
        ("job.paused", ["Europe/Paris"], "done"),
        ("job.resumed", ["Europe/Madrid", "Europe/Paris"], "done"),
    ]


def test_a_job_is_told_as_its_zones_ring(
    perform: Performer, make: Make, deployed: Deployed, operator: JobClient, now: datetime
) -> None:
    pattern = operator.job(CHIME).schedule
    assert pattern
    assert (pattern.enabled, pattern.next_run) == (True, None), "no zone is in use, and nobody has paused it"
    for zone in ("Europe/Madrid", "America/New_York"):
        make.teacher(timezone=zone)
    perform(sync)
    told = operator.job(CHIME)
    assert {zone.timezone: zone.next_run for zone in told.zones} == {
        "America/New_York": datetime(2026, 3, 2, 11, tzinfo=UTC),
        "Europe/Madrid": datetime(2026, 3, 3, 5, tzinfo=UTC),
    }
    assert told.schedule
    assert (told.schedule.enabled, told.schedule.next_run) == (True, datetime(2026, 3, 2, 11, tzinfo=UTC))


def test_what_is_rung_in_no_zone_yet_has_nothing_to_pause(operator: JobClient) -> None:
    for change in (operator.pause, operator.resume):
        with pytest.raises(Refused, match="no schedule in any time zone yet"):
            change(CHIME)


def test_deleting_the_jobs_schedule_deletes_those_of_its_zones(
    perform: Performer, make: Make, settings: Settings, operator: JobClient, now: datetime
) -> None:
    make.teacher(timezone="Europe/Madrid")
    perform(sync)
    assert operator.unschedule(CHIME).is_changed
    assert states(settings) == {}
    assert perform(sync, now=now + HOUR).result["created"] == 0


def test_the_jobs_time_changes_and_its_zones_are_its_tenants(
    perform: Performer, make: Make, settings: Settings, operator: JobClient, now: datetime
) -> None:
    make.teacher(timezone="Europe/Madrid")
    perform(sync)
    with pytest.raises(Refused, match="time zones of its tenants"):
        operator.reschedule(CHIME, "cron(0 7 * * ? *)", "Europe/Paris")
    assert operator.reschedule(CHIME, "cron(0 7 * * ? *)").is_changed
    perform(sync, now=now + HOUR)
    assert schedules(settings)[MADRID]["ScheduleExpression"] == "cron(0 7 * * ? *)"


def test_a_schedule_that_somebody_changed_is_put_right(
    perform: Performer, make: Make, settings: Settings, deployed: Deployed, now: datetime
) -> None:
    make.teacher(timezone="Europe/Madrid")
    perform(sync)
    deployed.change(MADRID, ScheduleExpressionTimezone="UTC")
    assert perform(sync, now=now + HOUR).result["updated"] == 1
    assert schedules(settings)[MADRID]["ScheduleExpressionTimezone"] == "Europe/Madrid"


def test_a_zone_that_nobody_is_in_keeps_its_schedule_for_a_day(
    perform: Performer, make: Make, settings: Settings, database: Database, stored: Stored, now: datetime
) -> None:
    make.teacher(timezone="Europe/Madrid")
    perform(sync)
    with database.transaction() as connection:
        connection.execute(delete(teachers))
    assert perform(sync, now=now + DAY - HOUR).result["deleted"] == 0
    assert perform(sync, now=now + DAY).result["deleted"] == 1
    assert schedules(settings) == {}
    assert stored(zone_schedules) == []


def test_a_zone_that_somebody_comes_back_to_keeps_its_schedule(
    perform: Performer, make: Make, settings: Settings, database: Database, now: datetime
) -> None:
    make.teacher(timezone="Europe/Madrid")
    perform(sync)
    for hours, zone in ((1, "Europe/Paris"), (23, "Europe/Madrid"), (25, "Europe/Madrid")):
        with database.transaction() as connection:
            connection.execute(update(teachers).values(timezone=zone))
        perform(sync, now=now + hours * HOUR)
    assert MADRID in schedules(settings)


def test_a_name_that_is_no_time_zone_counts_as_utc(perform: Performer, make: Make, settings: Settings) -> None:
    make.teacher(timezone="Mars/Olympus")
    make.teacher(timezone="")
    assert perform(sync).result["zones"] == 1
    assert schedules(settings).keys() == {f"{PATTERN}-utc"}


@pytest.mark.parametrize("what_goes", ["pattern", "function"])
def test_a_job_that_is_no_longer_there_loses_its_schedules_at_once(
    perform: Performer, make: Make, settings: Settings, now: datetime, what_goes: str
) -> None:
    make.teacher(timezone="Europe/Madrid")
    perform(sync)
    if what_goes == "pattern":
        aws.client("scheduler").delete_schedule(Name=PATTERN, GroupName=settings.schedule_group)
    else:
        aws.client("lambda").delete_function(FunctionName=PATTERN)
    assert perform(sync, now=now + HOUR).result["deleted"] == 1
    assert schedules(settings) == {}


def test_other_jobs_are_left_alone(perform: Performer, make: Make, settings: Settings, deployed: Deployed) -> None:
    deployed.schedule("tutoring.bell", "cron(0 5 * * ? *)")
    make.teacher(timezone="Europe/Madrid")
    perform(sync)
    assert schedules(settings).keys() == {MADRID, "schoolbell-tutoring-bell"}


def test_a_schedule_that_cannot_be_made_keeps_none_from_the_others_and_is_told(
    perform: Performer, make: Make, settings: Settings, stored: Stored, now: datetime, monkeypatch: pytest.MonkeyPatch
) -> None:
    for zone in ("Europe/Madrid", "Europe/Paris"):
        make.teacher(timezone=zone)
    client = aws.client("scheduler")
    original = client.create_schedule

    def refuse(**request: Any) -> Any:
        if request["Name"] == MADRID:
            raise client.exceptions.ValidationException({"Error": {"Code": "ValidationException"}}, "CreateSchedule")
        return original(**request)

    with monkeypatch.context() as patched:
        patched.setattr(client, "create_schedule", refuse)
        result = perform(sync).result
    assert (result["created"], result["failed"]) == (1, 1)
    (told,) = stored(outbox)
    assert (told.payload["action"], told.payload["key"]) == ("trigger", f"schedule-sync/{CHIME}")
    assert "Europe/Madrid: ValidationException" in told.payload["summary"]
    assert perform(sync, now=now + HOUR).result["created"] == 1
    assert [row.payload["action"] for row in stored(outbox)] == ["trigger", "resolve"]


def test_every_zone_has_a_name_of_its_own_that_eventbridge_takes() -> None:
    settings = Settings(schoolbell_stack="schoolbell-production")
    zones = available_timezones()
    names = {name_of(Zone("tutoring.lifecycle-detection", zone, is_wanted=True), settings) for zone in zones}
    assert len(names) == len(zones)
    assert max(map(len, names)) <= 64
    allowed = set("abcdefghijklmnopqrstuvwxyz0123456789-_.")
    assert {character for name in names for character in name} <= allowed


def test_a_sync_that_dies_anywhere_is_made_good_by_the_next(
    perform: Performer, make: Make, settings: Settings, database: Database, now: datetime
) -> None:
    make.teacher(timezone="Europe/Madrid")
    make.row(zone_schedules, job=CHIME, time_zone="Europe/Paris", in_use_at=now - 2 * DAY)
    client, group = aws.client("scheduler"), settings.schedule_group

    def reset() -> None:
        for name in schedules(settings):
            client.delete_schedule(Name=name, GroupName=group)
        pattern = client.get_schedule(Name=PATTERN, GroupName=group)
        keys = ("ScheduleExpression", "FlexibleTimeWindow", "Target")
        client.create_schedule(Name=PARIS, GroupName=group, **{key: pattern[key] for key in keys})

    reset()
    event, invocation = rule_event(now), Invocation()
    once = lambda: perform(sync, event=event, invocation=invocation)  # noqa: E731
    points = assert_crash_safe(
        database,
        Crashing(run=once, recover=once, outside=lambda: sorted(schedules(settings)), reset_outside=reset),
    )
    assert "after scheduler.create_schedule" in points
    assert "after scheduler.delete_schedule" in points
    assert schedules(settings).keys() == {MADRID}


def test_the_zones_in_use_are_those_of_the_teachers(database: Database, make: Make) -> None:
    for zone in ("Europe/Madrid", "Europe/Madrid", "UTC"):
        make.teacher(timezone=zone)
    with database.transaction() as connection:
        zones = connection.execute(text("SELECT time_zone FROM platform.time_zones ORDER BY 1")).scalars().all()
    assert zones == ["Europe/Madrid", "UTC"]
