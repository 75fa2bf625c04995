"""The catalogue tells what is deployed, and what EventBridge says at this moment."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from sqlalchemy import insert

from schoolbell import aws
from schoolbell.database import Database
from schoolbell.domains.platform.schema import dead_letters, job_runs
from schoolbell.operations import JobClient, NotFound
from schoolbell.settings import Settings
from tests.fakes.deployed import (
    CALLED,
    DRY,
    JOBS,
    PRIORITIES,
    QUEUED,
    RULED,
    SCHEDULED,
    SEVERAL,
    let_a_message_wait,
    tell_health_function,
)


def test_every_job_of_this_stack_is_in_it_and_none_of_another(client: JobClient) -> None:
    assert [job.name for job in client.jobs()] == sorted(JOBS)


def test_a_job_says_what_it_is(client: JobClient) -> None:
    jobs = {job.name: job for job in client.jobs()}
    assert {name: job.trigger for name, job in jobs.items()} == {
        SEVERAL: "queue",
        QUEUED: "queue",
        DRY: "schedule",
        SCHEDULED: "schedule",
        RULED: "schedule",
        CALLED: "called",
    }
    assert jobs[SEVERAL].queues == PRIORITIES
    assert [name for name, job in jobs.items() if job.has_dry_run] == [DRY]
    assert {name for name, job in jobs.items() if job.is_critical} == {DRY, RULED, QUEUED}
    assert jobs[DRY].description == "Does what tutoring.data-retention does"
    assert jobs[DRY].timeout == timedelta(minutes=15)


def test_a_schedule_goes_off_by_the_clock_of_its_zone(client: JobClient) -> None:
    schedule = client.job(SCHEDULED).schedule
    assert schedule
    assert (schedule.kind, schedule.expression, schedule.timezone) == (
        "scheduler",
        "cron(0 3 * * ? *)",
        "Europe/Berlin",
    )
    assert schedule.next_run == datetime(2026, 3, 3, 2, 0, tzinfo=UTC)


def test_a_rate_counts_from_the_last_time_it_went_off(client: JobClient, database: Database, now: datetime) -> None:
    schedule = client.job(RULED).schedule
    assert schedule
    assert (schedule.kind, schedule.expression, schedule.timezone) == ("rule", "rate(15 minutes)", "UTC")
    assert schedule.next_run is None  # it has never gone off, as far as is known
    with database.transaction() as connection:
        for minutes in (7, 22, 52):
            scheduled_for = now - timedelta(minutes=minutes)
            connection.execute(insert(job_runs).values(job=RULED, trigger="schedule", scheduled_for=scheduled_for))
    schedule = client.job(RULED).schedule
    assert schedule
    assert schedule.next_run == now + timedelta(minutes=8)


def test_what_is_changed_elsewhere_shows_at_once(client: JobClient, settings: Settings) -> None:
    client.jobs()
    aws.client("events").disable_rule(Name=settings.resource_name(RULED))
    schedule = client.job(RULED).schedule
    assert schedule
    assert not schedule.enabled
    assert schedule.next_run is None


def test_one_shots_are_no_schedules_of_jobs(client: JobClient, settings: Settings) -> None:
    client.trigger(SCHEDULED, delay=timedelta(hours=1))
    assert client.job(SCHEDULED).schedule == client.job(SCHEDULED).schedule
    assert [job.name for job in client.jobs()] == sorted(JOBS)


def test_there_is_no_job_of_another_name(client: JobClient) -> None:
    with pytest.raises(NotFound, match=r"there is no job tutoring\.drive$"):
        client.job("tutoring.drive")


def test_a_queues_size_counts_what_waits_what_is_delayed_and_what_is_in_flight(
    client: JobClient, settings: Settings
) -> None:
    sqs, url = aws.client("sqs"), settings.queue_url(QUEUED)
    for _ in range(3):
        sqs.send_message(QueueUrl=url, MessageBody="{}")
    sqs.send_message(QueueUrl=url, MessageBody="{}", DelaySeconds=60)
    sqs.receive_message(QueueUrl=url)
    sqs.send_message(QueueUrl=settings.dead_letter_queue_url(QUEUED), MessageBody="{}")
    (queue,) = client.queues(QUEUED)
    assert (queue.waiting, queue.delayed, queue.in_flight, queue.dead) == (2, 1, 1, 1)
    assert client.queue_size(QUEUED) == 4
    assert client.queue_size(SEVERAL) == 0
    assert client.queue_size(SCHEDULED) == 0


def test_a_stack_that_does_its_work_is_healthy(client: JobClient) -> None:
    health = client.health()
    assert health.is_healthy
    assert (health.jobs, health.queue_size, health.dead_letters, health.problems) == (len(JOBS), 0, 0, ())


def test_a_queue_that_falls_behind_is_named(client: JobClient, settings: Settings) -> None:
    client = replace(client, settings=settings.model_copy(update={"queue_backlog_messages": 2}))
    for number, problems in ((2, ()), (1, (f"{QUEUED}: 3 messages",))):
        for _ in range(number):
            aws.client("sqs").send_message(QueueUrl=settings.queue_url(QUEUED), MessageBody="{}")
        assert client.health().problems == problems


@pytest.mark.parametrize(("allowed", "problems"), [(500, ()), (400, ("its oldest message has waited 7 min",))])
def test_a_queue_whose_oldest_message_waits_too_long_is_named(
    client: JobClient, settings: Settings, now: datetime, allowed: int, problems: tuple[str, ...]
) -> None:
    client = replace(client, settings=settings.model_copy(update={"oldest_message_seconds": allowed}))
    let_a_message_wait(QUEUED, 420, settings, now)
    assert client.health().problems == tuple(f"{QUEUED}: {problem}" for problem in problems)


@pytest.mark.parametrize(
    ("deployed_with", "told", "is_healthy"),
    [
        ({}, {}, True),
        ({"QUEUE_BACKLOG_MESSAGES": "0"}, {}, False),
        ({"OLDEST_MESSAGE_SECONDS": "100"}, {}, False),
        ({"QUEUE_BACKLOG_MESSAGES": "0", "OLDEST_MESSAGE_SECONDS": "100"}, {"queue_backlog_messages": 1}, False),
        (
            {"QUEUE_BACKLOG_MESSAGES": "0", "OLDEST_MESSAGE_SECONDS": "100"},
            {"queue_backlog_messages": 1, "oldest_message_seconds": 200},
            True,
        ),
    ],
)
def test_outside_a_function_a_queue_is_judged_as_the_stacks_alarms_do(
    client: JobClient,
    settings: Settings,
    now: datetime,
    deployed_with: dict[str, str],
    told: dict[str, int],
    is_healthy: bool,
) -> None:
    tell_health_function(settings, **deployed_with)
    let_a_message_wait(QUEUED, 150, settings, now)
    assert replace(client, settings=settings.model_copy(update=told)).health().is_healthy is is_healthy


def test_what_is_wrong_is_named(client: JobClient, database: Database, settings: Settings, now: datetime) -> None:
    with database.transaction() as connection:
        connection.execute(insert(dead_letters).values(job=QUEUED, queue=settings.resource_name(QUEUED)))
        for job in (DRY, SCHEDULED):
            for hours, status in ((5, "completed"), (2, "failed")):
                at = now - timedelta(hours=hours)
                connection.execute(insert(job_runs).values(job=job, status=status, started_at=at, finished_at=at))
    client.pause(SCHEDULED)
    health = client.health()
    assert not health.is_healthy
    assert health.problems == (f"{QUEUED}: 1 dead letter", f"{DRY}: its last run failed")
    assert health.paused == (SCHEDULED,)


def test_a_database_that_is_away_is_no_error_but_an_answer(client: JobClient, database: Database) -> None:
    database.close()
    broken = Database(lambda: (_ for _ in ()).throw(ConnectionError("away")), timedelta(seconds=5))
    health = JobClient(broken, client.settings, clock=client.clock).health()
    assert not health.is_healthy
    assert health.problems[0].startswith("the database does not answer")
