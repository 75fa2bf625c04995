"""The admin API, in JSON under `/admin/api`: each call carries a bearer token. Its OpenAPI document describes it."""

from http import HTTPStatus
from typing import Annotated
from uuid import UUID

from aws_lambda_powertools.event_handler import Response
from aws_lambda_powertools.event_handler.api_gateway import Router
from aws_lambda_powertools.event_handler.openapi.params import Path, Query

from schoolbell.admin.acts import Acts
from schoolbell.admin.desk import MOST_ROWS_A_PAGE, ROWS_A_PAGE, Desk
from schoolbell.admin.models import (
    Done,
    Job,
    LetterInFull,
    Letters,
    Preview,
    Reschedule,
    Runs,
    RunStatus,
    RunWithLog,
    Trigger,
    Triggered,
)

router = Router()  # type: ignore[no-untyped-call]
"""Its context holds `desk` and `acts`."""

type JobName = Annotated[str, Path(description="The job, e.g. `tutoring.drive-sync`")]
type Before = Annotated[str | None, Query(description="The `next` of the page before", max_length=100)]
type Expression = Annotated[
    str, Query(min_length=1, max_length=256, description="A rate or a cron, as EventBridge takes it")
]
type Timezone = Annotated[str, Query(min_length=1, max_length=50, description="An IANA time zone")]

JOBS, SCHEDULES, RUNS, LETTERS = ["Jobs"], ["Schedules"], ["Runs"], ["Dead letters"]


def desk() -> Desk:
    """What this request works with."""
    found: Desk = router.context["desk"]
    return found


def acts() -> Acts:
    """What this request's operator may do."""
    found: Acts = router.context["acts"]
    return found


@router.get("/admin/api/jobs", tags=JOBS, summary="All jobs, those that need somebody first")
def list_jobs() -> list[Job]:
    return list(desk().jobs(fresh=True))


@router.get("/admin/api/jobs/<job>", tags=JOBS, summary="One job")
def read_job(job: JobName) -> Job:
    return desk().job(job)


@router.post("/admin/api/jobs/<job>/trigger", tags=JOBS, summary="Run a job now")
def trigger(job: JobName, wanted: Trigger) -> Triggered:
    return acts().run(job, wanted)


@router.post("/admin/api/jobs/<job>/pause", tags=SCHEDULES, summary="Switch a job's schedule off")
def pause(job: JobName) -> Done:
    return acts().pause(job)


@router.post("/admin/api/jobs/<job>/resume", tags=SCHEDULES, summary="Switch a job's schedule on again")
def resume(job: JobName) -> Done:
    return acts().resume(job)


@router.get("/admin/api/jobs/<job>/schedule/preview", tags=SCHEDULES, summary="What another schedule would do")
def preview(job: JobName, expression: Expression, timezone: Timezone = "UTC") -> Preview:
    return acts().preview(job, expression, timezone)


@router.put("/admin/api/jobs/<job>/schedule", tags=SCHEDULES, summary="Change when a job runs")
def reschedule(job: JobName, wanted: Reschedule) -> Done:
    return acts().reschedule(job, wanted)


@router.delete("/admin/api/jobs/<job>/schedule", tags=SCHEDULES, summary="Delete a job's schedule")
def unschedule(job: JobName) -> Done:
    return acts().unschedule(job)


@router.get("/admin/api/jobs/<job>/runs", tags=RUNS, summary="A job's runs, the newest first")
def list_runs(
    job: JobName,
    status: Annotated[RunStatus | None, Query(description="Only these")] = None,
    before: Before = None,
    limit: Annotated[int, Query(ge=1, le=MOST_ROWS_A_PAGE)] = ROWS_A_PAGE,
) -> Runs:
    return desk().runs(job, status=status, before=before, size=limit)


@router.get("/admin/api/jobs/<job>/runs/<run>", tags=RUNS, summary="One run, with its log")
def read_run(job: JobName, run: UUID) -> RunWithLog:
    found = desk().run(job, run)
    log, problem = desk().log(found)
    return RunWithLog(run=found, log=log, log_problem=problem)


@router.get("/admin/api/jobs/<job>/dead-letters", tags=LETTERS, summary="A job's dead letters, the newest first")
def list_letters(
    job: JobName,
    resolved: Annotated[bool, Query(description="Those that were redriven or dropped")] = False,
    before: Before = None,
    limit: Annotated[int, Query(ge=1, le=MOST_ROWS_A_PAGE)] = ROWS_A_PAGE,
) -> Letters:
    return desk().letters(job, resolved=resolved, before=before, size=limit)


@router.get("/admin/api/jobs/<job>/dead-letters/<letter>", tags=LETTERS, summary="One dead letter, with its message")
def read_letter(job: JobName, letter: UUID) -> LetterInFull:
    return desk().letter(job, letter)


@router.post("/admin/api/jobs/<job>/dead-letters/redrive", tags=LETTERS, summary="Try all dead letters of a job again")
def redrive_all(job: JobName) -> Done:
    return acts().redrive_all(job)


@router.post("/admin/api/jobs/<job>/dead-letters/drop", tags=LETTERS, summary="Give up all dead letters of a job")
def drop_all(job: JobName) -> Done:
    return acts().drop_all(job)


@router.post("/admin/api/jobs/<job>/dead-letters/<letter>/redrive", tags=LETTERS, summary="Try a dead letter again")
def redrive(job: JobName, letter: UUID) -> Done:
    return acts().redrive(job, letter)


@router.post("/admin/api/jobs/<job>/dead-letters/<letter>/drop", tags=LETTERS, summary="Give a dead letter up")
def drop(job: JobName, letter: UUID) -> Done:
    return acts().drop(job, letter)


def answer(status: HTTPStatus, message: str) -> Response[dict[str, str]]:
    """An answer that is only a message."""
    return Response(status, "application/json", {"message": message})
