"""What takes minutes, begun as soon as the stack is up; `conftest.py` says how."""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import uuid4
from zoneinfo import ZoneInfo

import pytest
from sqlalchemy import Row

from schoolbell.domains.tutoring.schema import sessions, waitlist_answers
from schoolbell.jobs.one_time_schedules import TOO_LATE
from tests.end_to_end.command_line import CommandLine
from tests.end_to_end.failing import accept, refuse
from tests.end_to_end.google import Google, Material, material
from tests.end_to_end.stack import Stack
from tests.end_to_end.waiting import eventually
from tests.factories import Make

COPY = "tutoring.drive-copy"
COMPLETE = "tutoring.auto-complete"
ANSWERS = "tutoring.waitlist-answers"
SCHEDULED = "platform.run-history-cleanup"
TO_COME = TOO_LATE + timedelta(minutes=2)
"""When a one-shot of these tests is due: what is due too soon gets none. Two minutes are enough for cold starts."""

PATIENCE = TO_COME.total_seconds() + 120
FIELDS_OF_TARGET = ("Arn", "RoleArn", "Input", "RetryPolicy", "DeadLetterConfig")


@pytest.fixture(scope="session")
def begun_poison(stack: Stack) -> Iterator[Row[Any]]:
    """An offer of a seat, whose answer can't be recorded: its message is failing."""
    entry = Make(stack.database, datetime.now(UTC)).entry(status="notified")
    refuse(stack, waitlist_answers.c.entry_id, entry.id)
    stack.drop(ANSWERS, {"entry_id": str(entry.id), "answer": "accept"})
    yield entry
    accept(stack, waitlist_answers.c.entry_id, entry.id)


@pytest.fixture(scope="session")
def begun_throttled_copy(stack: Stack) -> Material:
    """A copy that Google has no time for yet."""
    google = Google(stack, Make(stack.database, datetime.now(UTC)))
    wanted = material(google)
    google.fail(wanted.account, path="^/drive/", status=429, reason="rateLimitExceeded", retry_after=2, times=1)
    stack.drop(COPY, wanted.message)
    return wanted


@pytest.fixture(scope="session")
def begun_outbox_row(stack: Stack) -> Row[Any]:
    """What a crash between commit and sending leaves behind."""
    make = Make(stack.database, datetime.now(UTC))
    lesson = make.session()
    return make.outbox("tutoring.auto-complete", payload={"session_id": str(lesson.id)}, dedup_key=str(uuid4()))


@pytest.fixture(scope="session")
def begun_schedule(stack: Stack) -> Iterator[datetime]:
    """A job that no other test reschedules, changed to go off in a minute or two."""
    name = stack.resource(SCHEDULED)
    schedule = stack.scheduler.get_schedule(GroupName=stack.name, Name=name)
    changed = {
        "GroupName": stack.name,
        "Name": name,
        "FlexibleTimeWindow": {"Mode": "OFF"},
        "ScheduleExpressionTimezone": schedule["ScheduleExpressionTimezone"],
        "Target": {field: schedule["Target"][field] for field in FIELDS_OF_TARGET if field in schedule["Target"]},
    }
    at = (datetime.now(UTC) + timedelta(minutes=2)).replace(second=0, microsecond=0)
    local = at.astimezone(ZoneInfo(schedule["ScheduleExpressionTimezone"]))
    stack.scheduler.update_schedule(**changed, ScheduleExpression=f"cron({local.minute} {local.hour} * * ? *)")
    yield at
    stack.scheduler.update_schedule(**changed, ScheduleExpression=schedule["ScheduleExpression"])


@dataclass(frozen=True)
class Copied:
    """A schedule of the templates, of which there are two one-time copies with the same role."""

    job: str
    at: datetime
    """When the copies trigger their targets: what the job is told it was scheduled for."""
    dead: str
    """What the second copy sends to the job's dead-letter queue."""


@pytest.fixture(scope="session")
def begun_copies(stack: Stack) -> list[Copied]:
    """Every schedule of the templates, due at once: as its role it triggers its job, and sends a dead letter."""
    pages = stack.scheduler.get_paginator("list_schedules").paginate(GroupName=stack.name, NamePrefix=f"{stack.name}-")
    at, copied = (datetime.now(UTC) + timedelta(seconds=5)).replace(microsecond=0), []
    for name in [each["Name"] for page in pages for each in page["Schedules"]]:
        target = stack.scheduler.get_schedule(GroupName=stack.name, Name=name)["Target"]
        copy = Copied(stack.job(name), at, str(uuid4()))
        to_dead_letters = {"Arn": target["DeadLetterConfig"]["Arn"], "RoleArn": target["RoleArn"], "Input": copy.dead}
        to_job = {field: target[field] for field in FIELDS_OF_TARGET if field in target}
        for prefix, to in (("copy", to_job), ("dead", to_dead_letters)):
            stack.scheduler.create_schedule(
                Name=f"{prefix}-{name}",
                GroupName=stack.name,
                ScheduleExpression=f"at({at:%Y-%m-%dT%H:%M:%S})",
                FlexibleTimeWindow={"Mode": "OFF"},
                ActionAfterCompletion="DELETE",
                Target=to,
            )
        copied.append(copy)
    return copied


@dataclass(frozen=True)
class Lessons:
    """Lessons that had a schedule, and what happened to them before it went off."""

    held: Row[Any]
    """Nothing."""
    moved: Row[Any]
    """Moved to tomorrow, which was told."""
    moved_untold: Row[Any]
    """Moved to tomorrow, which was not told: the schedule goes off too early."""
    cancelled: Row[Any]
    tomorrow: datetime


@pytest.fixture(scope="session")
def begun_lessons(stack: Stack) -> Lessons:
    now = datetime.now(UTC)
    make = Make(stack.database, now)
    end, tomorrow = now + TO_COME, (now + timedelta(days=1)).replace(microsecond=0)
    held, moved, untold, cancelled = (make.session(ends_at=end, grace_period_minutes=0) for _ in range(4))
    lessons = Lessons(held, moved, untold, cancelled, tomorrow)
    tell(stack, "session.scheduled", held, moved, untold, cancelled)
    for lesson in (held, moved, untold, cancelled):
        eventually(lambda lesson=lesson: stack.one_shot(f"session-{lesson.id}"), "schedule")  # type: ignore[misc]
    for lesson in (moved, untold):
        stack.change(sessions, lesson.id, starts_at=tomorrow - timedelta(hours=1), ends_at=tomorrow)
    stack.change(sessions, cancelled.id, status="cancelled")
    tell(stack, "session.rescheduled", moved)
    tell(stack, "session.cancelled", cancelled)
    return lessons


def tell(stack: Stack, kind: str, *lessons: Row[Any]) -> None:
    """Says that something has happened to lessons."""
    stack.drop("tutoring.session-events", *({"type": kind, "session_id": str(lesson.id)} for lesson in lessons))


@pytest.fixture(scope="session")
def begun_message(stack: Stack) -> Row[Any]:
    now = datetime.now(UTC)
    message = Make(stack.database, now).message(send_at=now + TO_COME)
    stack.drop("tutoring.message-events", {"type": "message.scheduled", "message_id": str(message.id)})
    eventually(lambda: stack.one_shot(f"message-{message.id}"), "schedule")
    return message


@pytest.fixture(scope="session")
def begun_triggers(stack: Stack) -> dict[str, Any]:
    """A scheduled job and a queue job that are to run in a while, by the command line."""
    schoolbell = CommandLine(stack)
    lesson = Make(stack.database, datetime.now(UTC)).session()
    delay = f"{TO_COME.total_seconds():.0f}s"
    data = json.dumps({"session_id": str(lesson.id)})
    return {
        "lesson": lesson,
        "scheduled": schoolbell.json("trigger", "tutoring.message-sweep", "--delay", delay),
        "queued": schoolbell.json("trigger", COMPLETE, "--data", data, "--delay", delay),
    }
