"""Jobs that a clock rings: EventBridge rules, EventBridge Scheduler, an operator."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import update_wrapper
from typing import Any, Literal
from uuid import UUID

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field, StrictBool, ValidationError
from sqlalchemy import Connection

from schoolbell.jobs import leases, runs
from schoolbell.jobs.context import HandedOn, JobContext
from schoolbell.jobs.invocation import LambdaContext, remaining_time
from schoolbell.jobs.observability import count_failures, logger_of
from schoolbell.jobs.outbox import Outbox
from schoolbell.jobs.outcomes import Discard, InvalidEvent, JobFailed, Payload, Result, in_one_line
from schoolbell.jobs.runtime import Runtime, runtime

CLOCKS = ("aws.events", "aws.scheduler")
COMMENT = "$comment"
"""What an event file may say to its reader, as JSON Schema calls it."""


class NoData(Payload):
    """A manual run of a job that takes no data."""


class _Continuation(BaseModel):
    model_config = ConfigDict(extra="forbid")
    run_id: UUID


class _Occurrence(BaseModel):
    model_config = ConfigDict(extra="forbid")
    scheduled_for: AwareDatetime
    trigger: Literal["schedule", "catch-up"] = "schedule"
    time_zone: str = Field(default="", pattern=r"^([A-Za-z0-9_+-]+(/[A-Za-z0-9_+-]+)*)?$", max_length=50)


class _Named(BaseModel):
    """The run that `schoolbell.operations.client` asks for; beside it stands what a manual run may bring."""

    model_config = ConfigDict(extra="forbid")
    id: UUID
    trigger: Literal["manual", "delayed"] = "manual"


class _Rung(BaseModel):
    time: AwareDatetime


class _Manual(BaseModel):
    dry_run: StrictBool = False


@dataclass(frozen=True, slots=True)
class _Occasion:
    """Why a function was invoked."""

    trigger: str = "manual"
    scheduled_for: datetime | None = None
    time_zone: str = ""
    continues: UUID | None = None
    named: UUID | None = None
    dry_run: bool = False
    data: dict[str, Any] | None = None


def scheduled_job[R: Result | None](
    name: str, *, singleton: bool = False, data: type[Payload] = NoData
) -> Callable[[Callable[..., R]], "ScheduledJob"]:
    """Makes a function of a `JobContext` the Lambda handler of a scheduled job.

    It has a dry run, `{"dry_run": true}`, if its stanza in the template gives it the variable `JOB_DRY_RUN`.

    Args:
        name: the job, e.g. `tutoring.lifecycle-detection`.
        singleton: never runs twice at once, whatever its occurrences: it holds a lease.
        data: what a manual run may bring; the function then takes it as its second argument.
    """
    return lambda function: ScheduledJob(name, function, singleton=singleton, data=data)


class ScheduledJob:
    """The Lambda handler of a scheduled job: one run for one scheduled time, however often that is delivered."""

    def __init__(self, name: str, function: Callable[..., Any], *, singleton: bool, data: type[Payload]) -> None:
        update_wrapper(self, function)
        self.name = name
        self._function = function
        self._singleton = singleton
        self._data = data
        self._logger = logger_of(name)

    def __call__(self, event: Any, context: LambdaContext) -> dict[str, Any]:
        """Runs the job and says how that ended.

        Raises:
            InvalidEvent: the event is none that the job's triggers send.
            JobFailed: the job raised; Lambda tries again, twice.
        """
        on = runtime(remaining_time(context))
        job = JobContext.of(self.name, self._logger, on, context)
        occasion = self._occasion(event, has_dry_run=on.settings.job_dry_run)
        on.database.check()
        run = self._claim(on, job, occasion)
        if run is None:
            self._logger.info("run is done or being done")
            return {"status": "skipped", "reason": "this run is done, or another invocation is at it"}
        self._logger.append_keys(run_id=str(run.id))
        job = job.in_run(run)
        job.send_outbox()
        if self._singleton and not self._take_lease(on, job):
            return self._end(on, job, None, {"status": "skipped", "reason": "an earlier run is not over"})
        try:
            result = self._work(job, run)
        except HandedOn:
            self._logger.info("run goes on in another invocation")
            return {"status": "continued", "run_id": str(run.id)}
        except Exception as error:
            return self._fail(on, job, error)
        count_failures(on.settings, self.name, 0)
        return self._end(on, job, result, {"status": "completed"})

    def _work(self, job: JobContext, run: runs.Run) -> Result | None:
        self._logger.info("run started", attempt=run.attempt, dry_run=run.dry_run)
        if self._data is NoData:
            result: Result | None = self._function(job)
        else:
            result = self._function(job, self._data.model_validate(run.data or {}))
        job.send_outbox()
        return result

    def _claim(self, on: Runtime, job: JobContext, occasion: _Occasion) -> runs.Run | None:
        with on.database.transaction() as connection:
            if occasion.continues:
                run = runs.claim_continued(
                    connection,
                    self.name,
                    occasion.continues,
                    request_id=job.request_id,
                    now=job.now,
                    locked_until=job.deadline,
                )
            else:
                run = runs.claim(
                    connection,
                    self.name,
                    trigger=occasion.trigger,
                    scheduled_for=occasion.scheduled_for,
                    request_id=job.request_id,
                    now=job.now,
                    locked_until=job.deadline,
                    dry_run=occasion.dry_run,
                    data=occasion.data,
                    time_zone=occasion.time_zone,
                    named=occasion.named,
                )
            if run:
                self._tell(on, job.outbox, connection, run.id)
        return run

    def _take_lease(self, on: Runtime, job: JobContext) -> bool:
        with on.database.transaction() as connection:
            return leases.take(connection, self.name, str(job.run_id), job.now, job.deadline + leases.HAND_OVER)

    def _end(self, on: Runtime, job: JobContext, result: Result | None, outcome: dict[str, Any]) -> dict[str, Any]:
        with on.database.transaction() as connection:
            runs.complete(connection, job.run_id, result, on.clock(), skipped=outcome.get("reason"))
            self._tell(on, job.outbox, connection, job.run_id)
            if self._singleton:
                leases.release(connection, self.name, str(job.run_id))
        job.send_outbox()
        stored = runs.as_json(result)
        self._logger.info("run ended", **outcome, result=stored)
        return {**outcome, "run_id": str(job.run_id), "dry_run": job.dry_run, "result": stored}

    def _fail(self, on: Runtime, job: JobContext, error: Exception) -> dict[str, Any]:
        reason = in_one_line(error)
        self._logger.error("run failed", error=reason, frames=runs.frames(error))
        count_failures(on.settings, self.name, 1)
        try:
            with on.database.transaction() as connection:
                runs.fail(connection, job.run_id, error, on.clock())
                self._tell(on, job.outbox, connection, job.run_id)
                if self._singleton:
                    leases.release(connection, self.name, str(job.run_id))
            job.send_outbox()
        except Exception as not_recorded:  # most likely the database is what failed; the run's lock expires
            self._logger.error("failure not recorded", error=in_one_line(not_recorded))
        if isinstance(error, Discard):
            return {"status": "failed", "run_id": str(job.run_id), "error": reason}
        raise JobFailed(reason) from None

    def _tell(self, on: Runtime, outbox: Outbox, connection: Connection, run: UUID) -> None:
        """Has Slack told how the run stands now, if it is to know of this job's runs."""
        if self.name in on.settings.slack_runs:
            from schoolbell.alerts.run_notices import tell_of_runs  # of no use to the other jobs

            tell_of_runs(outbox, connection, [run])

    def _occasion(self, event: Any, *, has_dry_run: bool) -> _Occasion:
        if not isinstance(event, Mapping):
            raise InvalidEvent(f"{self.name}: expected a JSON object, got {type(event).__name__}")
        event = {key: value for key, value in event.items() if key != COMMENT}
        try:
            if "run" in event:
                return self._manual(event, has_dry_run=has_dry_run)
            if "run_id" in event:
                return _Occasion("continuation", continues=_Continuation.model_validate(event).run_id)
            if "source" in event or "Records" in event:
                return self._rung(event)
            if "scheduled_for" in event:
                occurrence = _Occurrence.model_validate(event)
                at = occurrence.scheduled_for.astimezone(UTC)
                return _Occasion(occurrence.trigger, at, occurrence.time_zone)
            return self._manual(event, has_dry_run=has_dry_run)
        except ValidationError as error:
            raise InvalidEvent(f"{self.name}: {in_one_line(error)}") from None

    def _rung(self, event: Mapping[str, Any]) -> _Occasion:
        source = event.get("source", "a queue")
        if source not in CLOCKS:
            raise InvalidEvent(f"{self.name}: source: expected one of {', '.join(CLOCKS)}, got {str(source)[:100]}")
        time = _Rung.model_validate(event).time
        return _Occasion("schedule", time.astimezone(UTC).replace(microsecond=0))

    def _manual(self, event: dict[str, Any], *, has_dry_run: bool) -> _Occasion:
        named = _Named.model_validate(event.pop("run")) if "run" in event else None
        dry_run = _Manual.model_validate(event).dry_run
        event.pop("dry_run", None)
        if dry_run and not has_dry_run:
            raise InvalidEvent(f"{self.name}: dry_run: this job has no dry run")
        data = self._data.model_validate(event)
        return _Occasion(
            trigger=named.trigger if named else "manual",
            named=named.id if named else None,
            dry_run=dry_run,
            data=data.model_dump(mode="json") or None,
        )
