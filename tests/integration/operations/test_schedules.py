"""Schedules are paused, resumed, changed and deleted where they are, and nothing else of them changes."""

from typing import Any

import pytest

from schoolbell import aws
from schoolbell.domains.platform.schema import audit_logs
from schoolbell.operations import InvalidExpression, JobClient, NotFound, Refused, ScheduleInfo
from schoolbell.settings import Settings
from tests.fakes.deployed import CALLED, QUEUED, RULED, SCHEDULED, Aws
from tests.fixtures.database import Stored

KINDS = pytest.mark.parametrize("job", [SCHEDULED, RULED])


def schedule(client: JobClient, job: str) -> ScheduleInfo:
    found = client.job(job).schedule
    assert found
    return found


def live(settings: Settings, job: str) -> dict[str, Any]:
    """All that AWS says about a schedule, except what changes with it."""
    name = settings.resource_name(job)
    if job == RULED:
        found = aws.client("events").describe_rule(Name=name)
        found["Targets"] = aws.client("events").list_targets_by_rule(Rule=name)["Targets"]
    else:
        found = aws.client("scheduler").get_schedule(GroupName=settings.schedule_group, Name=name)
    changing = {"ResponseMetadata", "LastModificationDate", "CreationDate"}
    return {key: value for key, value in found.items() if key not in changing}


@KINDS
def test_pausing_and_resuming_changes_the_state_and_nothing_else(
    client: JobClient, settings: Settings, job: str
) -> None:
    before = live(settings, job)
    assert client.pause(job).message == f"{job} is paused"
    assert live(settings, job) == before | {"State": "DISABLED"}
    assert client.resume(job).message == f"{job} is resumed"
    assert live(settings, job) == before


@KINDS
def test_pausing_what_is_paused_is_answered(client: JobClient, job: str) -> None:
    assert client.pause(job).is_changed
    again = client.pause(job)
    assert (again.is_changed, again.message) == (False, f"{job} was paused already")
    assert client.resume(job).is_changed
    again = client.resume(job)
    assert (again.is_changed, again.message) == (False, f"{job} was not paused")


def test_a_schedule_is_changed_with_its_zone(client: JobClient, settings: Settings) -> None:
    before = live(settings, SCHEDULED)
    change = client.reschedule(SCHEDULED, "cron(30 4 ? * MON-FRI *)", "America/New_York")
    assert change.message == f"{SCHEDULED} runs from now on: At 04:30, Monday through Friday, America/New_York"
    assert live(settings, SCHEDULED) == before | {
        "ScheduleExpression": "cron(30 4 ? * MON-FRI *)",
        "ScheduleExpressionTimezone": "America/New_York",
    }


def test_a_schedule_keeps_its_zone_and_stays_paused(client: JobClient) -> None:
    client.pause(SCHEDULED)
    client.reschedule(SCHEDULED, "cron(30 4 * * ? *)")
    found = schedule(client, SCHEDULED)
    assert (found.expression, found.timezone, found.enabled) == ("cron(30 4 * * ? *)", "Europe/Berlin", False)


def test_a_rule_is_changed_and_keeps_its_target(client: JobClient, settings: Settings) -> None:
    before = live(settings, RULED)
    client.reschedule(RULED, "rate(1 hour)")
    assert live(settings, RULED) == before | {"ScheduleExpression": "rate(1 hour)"}


def test_changing_to_what_it_is_changes_nothing(client: JobClient) -> None:
    change = client.reschedule(RULED, "rate(15 minutes)")
    assert (change.is_changed, change.message) == (False, f"{RULED} runs so already: Every 15 minutes")


@pytest.mark.parametrize(
    ("job", "expression", "zone", "reason"),
    [
        (SCHEDULED, "cron(0 3 * * * *)", None, "needs ?"),
        (SCHEDULED, "cron(0 3 * * ? *)", "Europe/Bärlin", "unknown time zone"),
        (SCHEDULED, "cron(0 3 * * ? 2020)", None, "never goes off after 2026-03-02"),
        (SCHEDULED, "at(2027-01-01T00:00:00)", None, "to run it once, trigger it with a time"),
        (RULED, "rate(1 minutes)", None, "must be rate"),
        (RULED, "cron(0 3 * * ? *)", "Europe/Berlin", "an EventBridge rule is always in UTC"),
    ],
)
def test_what_aws_would_reject_never_reaches_it(
    client: JobClient, settings: Settings, stored: Stored, job: str, expression: str, zone: str | None, reason: str
) -> None:
    before = live(settings, job)
    with pytest.raises(InvalidExpression) as refused:
        client.reschedule(job, expression, zone)
    assert reason in str(refused.value)
    assert live(settings, job) == before
    assert not stored(audit_logs)


@KINDS
def test_a_deleted_schedule_is_told_apart_from_none(client: JobClient, job: str) -> None:
    assert "a deployment that changes it in the template brings it back" in client.unschedule(job).message
    assert client.job(job).schedule is None
    assert client.job(job).trigger == "schedule"
    again = client.unschedule(job)
    assert (again.is_changed, again.message) == (False, f"{job} has no schedule any more")
    for change in (client.pause, client.resume):
        with pytest.raises(Refused, match="has no schedule any more"):
            change(job)


@pytest.mark.parametrize(("job", "reason"), [(QUEUED, "its queue rings it"), (CALLED, "it answers those who call it")])
def test_what_no_clock_rings_has_nothing_to_pause(client: JobClient, job: str, reason: str) -> None:
    for change in (
        client.pause,
        client.resume,
        client.unschedule,
        lambda name: client.reschedule(name, "rate(1 hour)"),
    ):
        with pytest.raises(Refused, match=reason):
            change(job)


def test_a_job_that_is_not_there_has_no_schedule(client: JobClient) -> None:
    with pytest.raises(NotFound):
        client.pause("tutoring.drive")


def test_every_change_is_in_the_audit_log_with_how_it_ended(
    client: JobClient, deployed: Aws, stored: Stored, monkeypatch: pytest.MonkeyPatch
) -> None:
    client.pause(SCHEDULED)
    client.pause(SCHEDULED)
    client.reschedule(SCHEDULED, "cron(30 4 * * ? *)")

    class Away:
        def __getattr__(self, operation: str) -> Any:
            if operation != "update_schedule":
                return getattr(deployed.client("scheduler"), operation)
            raise ConnectionError("away")

    monkeypatch.setattr(aws, "client", lambda service: Away() if service == "scheduler" else deployed.client(service))
    with pytest.raises(ConnectionError):
        client.resume(SCHEDULED)
    rows = [(row.action, row.actor, row.subject, row.details["outcome"]) for row in stored(audit_logs)]
    assert rows == [
        ("job.paused", "ada", SCHEDULED, "done"),
        ("job.rescheduled", "ada", SCHEDULED, "done"),
        ("job.resumed", "ada", SCHEDULED, "failed: ConnectionError"),
    ]
    assert stored(audit_logs)[1].details["before"] == {
        "expression": "cron(0 3 * * ? *)",
        "timezone": "Europe/Berlin",
    }
