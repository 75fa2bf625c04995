"""One-shot schedules of EventBridge Scheduler: something put on a queue once, at a time that is known beforehand.

They stand in the stack's own schedule group, have a name that says what they are for (so that setting one twice makes
one), send to a job's queue, and are deleted by EventBridge Scheduler when they have gone off.
"""

import json
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, Final, Literal

from schoolbell import aws
from schoolbell.settings import Settings

CALLS_AT_ONCE: Final = 10
"""Scheduler has no call for many; each waits on the network. A region allows hundreds a second for the account."""

PRECISION: Final = timedelta(seconds=1)

# An `at()` that has passed is refused or never goes off, and a function has a minute from its `now` to its last call.
TOO_LATE: Final = timedelta(seconds=90)
"""What is due sooner than this is not worth a schedule: it could have passed before the call is through."""

RETRY_POLICY: Final = {"MaximumRetryAttempts": 5, "MaximumEventAgeInSeconds": 3600}
"""What can't be delivered within an hour is on the dead-letter queue of its job, where people are told of it. Left to
itself, EventBridge Scheduler would try for a day; by then a sweep has long done what was due."""

_CREATE_OR_UPDATE_TRIES = 6
_NOT_NOW = frozenset({"ThrottlingException", "TooManyRequestsException", "ServiceQuotaExceededException"})


@dataclass(frozen=True, slots=True)
class OneShot:
    """What is to be sent, where and when."""

    at: datetime
    """Timezone-aware; rounded up to the whole second that EventBridge Scheduler can express."""
    job: str
    """The job that gets the payload, e.g. `tutoring.auto-complete`, or the queue of one that has several."""
    payload: Mapping[str, Any]
    is_move: bool = False
    """A schedule of this name probably exists: saves the call that would find out."""
    target: Literal["queue", "function"] = "queue"
    """Where the payload goes: onto the job's queue, or, of a scheduled job, to its function."""
    description: str = ""
    """For whoever reads the schedule in the console."""
    role_arn: str = ""
    """The role that EventBridge Scheduler takes on; the settings' own, if not given."""


def is_throttled(error: Exception) -> bool:
    """Whether EventBridge Scheduler said "not now": over its request rate, or over the number of schedules."""
    return aws.error_code(error) in _NOT_NOW


def arrange(wanted: Mapping[str, OneShot | None], settings: Settings) -> dict[str, Exception]:
    """Makes the schedules of these names what they should be, and returns why for each that could not be.

    Whether a schedule existed before makes no difference. Never call this inside a transaction.

    Args:
        wanted: by name (64 of letters, digits, `-`, `_` and `.` at most) the schedule, or `None` for there is none.
        settings: the stack's account, group and role.
    """
    if not wanted:
        return {}
    client = aws.client("scheduler")  # made here, since making one is not what threads should race for

    def arrange_one(name: str, one_shot: OneShot | None) -> Exception | None:
        try:
            if one_shot is None:
                _delete(client, name, settings)
            else:
                put(client, name, one_shot, settings)
        except Exception as error:
            return error
        return None

    if len(wanted) == 1:
        ((name, one_shot),) = wanted.items()
        errors = [arrange_one(name, one_shot)]
    else:
        with ThreadPoolExecutor(max_workers=min(CALLS_AT_ONCE, len(wanted))) as callers:
            errors = list(callers.map(arrange_one, wanted.keys(), wanted.values()))
    return {name: error for name, error in zip(wanted, errors, strict=True) if error is not None}


def expression(at: datetime) -> str:
    """A time as EventBridge Scheduler takes it: in UTC, to the second, without a zone.

    Rounded up, since what is sent before its time would find nothing to do.
    """
    instant = at.astimezone(UTC)
    if instant.microsecond:
        instant = instant.replace(microsecond=0) + PRECISION
    return f"at({instant:%Y-%m-%dT%H:%M:%S})"


def put(client: Any, name: str, one_shot: OneShot, settings: Settings) -> None:
    """Makes the schedule of a name what it should be, whether there is one or not. Never call this in a transaction.

    Raises:
        ScheduleContended: others made and deleted it as often as it was tried.
        botocore.exceptions.ClientError: EventBridge Scheduler refused.
    """
    # botocore adds a ClientToken of its own to each call and repeats it when it retries. One made from name and time
    # would be worse than none: Scheduler would take a schedule that is set, deleted and set again for a repetition.
    request = _request(name, one_shot, settings)
    exists = one_shot.is_move
    for _ in range(_CREATE_OR_UPDATE_TRIES):
        try:
            if exists:
                client.update_schedule(**request)
            else:
                client.create_schedule(**request)
        except Exception as error:
            # It went off and was deleted, or somebody else set it, between one call and the next.
            if aws.error_code(error) != ("ResourceNotFoundException" if exists else "ConflictException"):
                raise
            exists = not exists
        else:
            return
    raise ScheduleContended(f"schedule {name} was made and deleted concurrently {_CREATE_OR_UPDATE_TRIES} times")


def _request(name: str, one_shot: OneShot, settings: Settings) -> dict[str, Any]:
    is_queue = one_shot.target == "queue"
    return {
        "Name": name,
        "GroupName": settings.schedule_group or settings.schoolbell_stack,
        "ScheduleExpression": expression(one_shot.at),
        "ScheduleExpressionTimezone": "UTC",
        "FlexibleTimeWindow": {"Mode": "OFF"},
        "ActionAfterCompletion": "DELETE",
        **({"Description": one_shot.description} if one_shot.description else {}),
        "Target": {
            "Arn": settings.queue_arn(one_shot.job) if is_queue else settings.function_arn(one_shot.job),
            "RoleArn": one_shot.role_arn or settings.scheduler_role_arn,
            "Input": json.dumps(dict(one_shot.payload), separators=(",", ":"), default=str),
            "DeadLetterConfig": {"Arn": settings.dead_letter_queue_arn(one_shot.job)},
            "RetryPolicy": RETRY_POLICY,
        },
    }


def _delete(client: Any, name: str, settings: Settings) -> None:
    try:
        client.delete_schedule(Name=name, GroupName=settings.schedule_group or settings.schoolbell_stack)
    except Exception as error:
        if aws.error_code(error) != "ResourceNotFoundException":
            raise


class ScheduleContended(Exception):
    """A schedule was made and deleted by others as often as it was tried to be set."""
