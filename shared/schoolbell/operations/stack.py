"""One stack as its client sees it: the jobs there are, and who asks. All that the client does stands on this."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import cached_property
from typing import Any, Final
from uuid import UUID

from aws_lambda_powertools import Logger
from sqlalchemy import Connection

from schoolbell import aws
from schoolbell.database import Database
from schoolbell.jobs import audit
from schoolbell.jobs.outbox import Outbox
from schoolbell.operations import catalogue
from schoolbell.operations.catalogue import JobInfo, ScheduleInfo
from schoolbell.operations.models import NotFound, Refused
from schoolbell.operations.queues import Thresholds
from schoolbell.settings import Settings

KNOWN_FOR: Final = timedelta(minutes=1)
"""How long what AWS said about the jobs there are is trusted; schedules are asked for each time."""

type KnownJobs = dict[str, tuple[datetime, list[JobInfo]]]
"""The jobs that AWS listed, and when; clients that act for several people share it."""


@dataclass(frozen=True)
class Stack:
    """Where jobs are looked up, and changes are audited."""

    database: Database
    settings: Settings
    actor: str
    clock: Callable[[], datetime]
    logger: Logger
    known: KnownJobs

    def functions(self, *, fresh: bool = False) -> list[JobInfo]:
        """The jobs without their schedules, as AWS listed them within the last minute."""
        now = self.clock()
        known = self.known.get("functions")
        if known and not fresh and now - known[0] < KNOWN_FOR:
            return known[1]
        found = catalogue.functions(self.settings)
        self.known["functions"] = (now, found)
        return found

    def jobs(self) -> list[JobInfo]:
        """The jobs with their schedules, as AWS has them at this moment."""
        return catalogue.scheduled(self.functions(fresh=True), self.database, self.settings, self.clock())

    def function(self, name: str) -> JobInfo:
        """One job without its schedule.

        Raises:
            NotFound: no job is called so.
        """
        return _named(self.functions(), name)

    def job(self, name: str) -> JobInfo:
        """One job with its schedule.

        Raises:
            NotFound: no job is called so.
        """
        return _named(self.jobs(), name)

    def scheduled(self, name: str) -> tuple[JobInfo, ScheduleInfo]:
        """A job that has a schedule, and that.

        Raises:
            NotFound: no job is called so.
            Refused: it has no schedule.
        """
        info = self.job(name)
        if info.schedule is None:
            raise Refused(why_unscheduled(info))
        return info, info.schedule

    def thresholds(self) -> Thresholds:
        """From when on a queue is behind: as this process is told, else as the stack's own functions and alarms are."""
        given = self.settings.model_fields_set
        missing = {"queue_backlog_messages", "oldest_message_seconds"} - given
        if not missing:
            return Thresholds.of(self.settings)
        deployed = catalogue.environment_of("platform.health", self.settings)
        found = {name: int(value) for name in missing if (value := deployed.get(name.upper()))}
        return Thresholds.of(self.settings.model_copy(update=found))

    def outbox(self) -> Outbox:
        """A new outbox."""
        return Outbox(self.clock)

    def flush(self, outbox: Outbox) -> None:
        """Sends what committed transactions wrote to an outbox."""
        outbox.flush(self.database, self.settings, self.logger)

    def audit(self, connection: Connection, action: str, subject: str, details: Mapping[str, Any]) -> UUID:
        """Records what is done, in the transaction that does it."""
        return audit.record(connection, action, self.actor, subject, details, self.clock())

    @contextmanager
    def audited(self, action: str, subject: str, details: Mapping[str, Any]) -> Iterator[None]:
        """Records what is about to be changed in AWS, and then how that ended: no change is without its record."""
        with self.database.transaction() as connection:
            record = self.audit(connection, action, subject, {**details, "outcome": "begun"})
        outcome = "failed"
        try:
            yield
            outcome = "done"
        except Exception as error:
            outcome = f"failed: {aws.error_code(error) or type(error).__name__}"
            raise
        finally:
            with self.database.transaction() as connection:
                audit.note_outcome(connection, record, outcome)

    @cached_property
    def scheduler_role_arn(self) -> str:
        """The role by which EventBridge Scheduler delivers what is triggered for later."""
        if self.settings.scheduler_role_arn:
            return self.settings.scheduler_role_arn
        stacks = aws.client("cloudformation").describe_stacks(StackName=self.settings.schoolbell_stack)["Stacks"]
        outputs = {output["OutputKey"]: output["OutputValue"] for output in stacks[0].get("Outputs", [])}
        return str(outputs["DelayedTriggerRoleArn"])


def why_unscheduled(job: JobInfo) -> str:
    """Why a job has no schedule."""
    if job.trigger == "schedule":
        return f"{job.name} has no schedule any more; a deployment that changes it brings it back"
    if job.trigger == "queue":
        return f"{job.name} has no schedule: its queue rings it"
    return f"{job.name} has no schedule: it answers those who call it"


def _named(jobs: Sequence[JobInfo], name: str) -> JobInfo:
    found = next((job for job in jobs if job.name == name), None)
    if found is None:
        raise NotFound(f"there is no job {name}")
    return found
