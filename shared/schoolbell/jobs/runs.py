"""Runs: one row in `platform.job_runs` for each, from which a killed run goes on.

                    claimed                      finished
    (no row) ───────────────────▶ running ───────────────────▶ completed
                                   ▲   │ raised
             Lambda tries again,   │   ▼
             or the lock expired   └─ failed

A scheduled time has one run (in each time zone, where a job runs by zone), however often it is delivered. The run is
locked until its invocation must have ended; Lambda's own retry (which has the same request id, and comes after the
earlier try ended) need not wait for that. A run that died is marked as timed_out by the watchdog, and may go on.
"""

import json
import traceback
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID, uuid4

from sqlalchemy import Connection, bindparam, text
from sqlalchemy.dialects.postgresql import JSONB

from schoolbell.jobs.outcomes import Result, in_one_line

type Cursor = Any
"""Where a chunked run is: JSON of the job's own choice, e.g. the last key it has done."""


@dataclass(frozen=True, slots=True)
class Run:
    """A run that this invocation may work on."""

    id: UUID
    attempt: int = 1
    cursor: Cursor = None
    scheduled_for: datetime | None = None
    dry_run: bool = False
    data: dict[str, Any] | None = None
    time_zone: str = ""
    """The IANA time zone whose turn it is, where the job runs by time zone."""


_RETURNING = "RETURNING run.id, run.attempt, run.cursor, run.scheduled_for, run.dry_run, run.data, run.time_zone"

_AGAIN = """
    SET status = 'running', attempt = run.attempt + 1, request_id = excluded.request_id,
        locked_until = excluded.locked_until, error = NULL, traceback = NULL, finished_at = NULL
    WHERE run.status <> 'completed'
      AND (run.request_id = excluded.request_id OR run.locked_until IS NULL OR run.locked_until <= :now)
"""

_INSERT = """
    INSERT INTO platform.job_runs AS run
        (id, job, trigger, scheduled_for, time_zone, request_id, started_at, locked_until, dry_run, data)
    VALUES (:id, :job, :trigger, :scheduled_for, :time_zone, :request_id, :now, :locked_until, :dry_run, :data)
"""

_CLAIM_SCHEDULED = text(
    f"{_INSERT} ON CONFLICT (job, scheduled_for, time_zone) DO UPDATE {_AGAIN} {_RETURNING}"
).bindparams(bindparam("data", type_=JSONB(none_as_null=True)))
_CLAIM_MANUAL = text(
    f"{_INSERT} ON CONFLICT (job, request_id) WHERE trigger = 'manual' DO UPDATE {_AGAIN} {_RETURNING}"
).bindparams(bindparam("data", type_=JSONB(none_as_null=True)))

# Whoever asked for the run has named it: asked for twice it is one run, and it can be looked for before it begins.
_CLAIM_NAMED = text(f"{_INSERT} ON CONFLICT (id) DO UPDATE {_AGAIN} {_RETURNING}").bindparams(
    bindparam("data", type_=JSONB(none_as_null=True))
)

_CLAIM_CONTINUED = text(
    f"""
    UPDATE platform.job_runs AS run
    SET status = 'running', locked_until = :locked_until, request_id = :request_id,
        attempt = CASE status WHEN 'running' THEN attempt ELSE attempt + 1 END, error = NULL, finished_at = NULL
    WHERE run.id = :id AND run.job = :job AND run.status IN ('running', 'timed_out')
      AND (run.request_id = :request_id OR run.locked_until IS NULL OR run.locked_until <= :now)
    {_RETURNING}
    """  # noqa: S608 - made of this module's constants
)


def claim(
    connection: Connection,
    job: str,
    *,
    trigger: str,
    scheduled_for: datetime | None,
    request_id: str,
    now: datetime,
    locked_until: datetime,
    dry_run: bool = False,
    data: dict[str, Any] | None = None,
    time_zone: str = "",
    named: UUID | None = None,
) -> Run | None:
    """Starts a run, or goes on with one that failed or died; `None` if it is done, or somebody is at it."""
    statement = _CLAIM_NAMED if named else _CLAIM_SCHEDULED if scheduled_for else _CLAIM_MANUAL
    row = connection.execute(
        statement,
        {
            "id": named or uuid4(),
            "job": job,
            "trigger": trigger,
            "scheduled_for": scheduled_for,
            "request_id": request_id,
            "now": now,
            "locked_until": locked_until,
            "dry_run": dry_run,
            "data": data,
            "time_zone": time_zone,
        },
    ).first()
    return Run(*row) if row else None


def claim_continued(
    connection: Connection, job: str, run: UUID, *, request_id: str, now: datetime, locked_until: datetime
) -> Run | None:
    """Goes on with a run that handed on to itself or was sent on when it died; `None` if another was faster."""
    row = connection.execute(
        _CLAIM_CONTINUED,
        {"id": run, "job": job, "request_id": request_id, "now": now, "locked_until": locked_until},
    ).first()
    return Run(*row) if row else None


_ADVANCE = text(
    """
    UPDATE platform.job_runs
    SET cursor = :cursor, items_done = items_done + :items, heartbeat_at = :now
    WHERE id = :id
    """
).bindparams(bindparam("cursor", type_=JSONB(none_as_null=True)))

_HAND_ON = text("UPDATE platform.job_runs SET locked_until = NULL WHERE id = :id")


def advance(connection: Connection, run: UUID, cursor: Cursor, items: int, now: datetime) -> None:
    """Stores how far a run is, in the transaction that did the work."""
    connection.execute(_ADVANCE, {"id": run, "cursor": cursor, "items": items, "now": now})


def hand_on(connection: Connection, run: UUID) -> None:
    """Unlocks a run, so that the next invocation may go on with it."""
    connection.execute(_HAND_ON, {"id": run})


_COUNT = text(
    """
    UPDATE platform.job_runs
    SET items_done = items_done + :done, items_failed = items_failed + :failed,
        items_total = coalesce(cast(:total AS integer), items_total), heartbeat_at = :now
    WHERE id = :id
    """
)


def count(connection: Connection, run: UUID, now: datetime, *, done: int, failed: int, total: int | None) -> None:
    """Adds to a run's counts."""
    connection.execute(_COUNT, {"id": run, "done": done, "failed": failed, "total": total, "now": now})


_COMPLETE = text(
    """
    UPDATE platform.job_runs
    SET status = 'completed', finished_at = :now, locked_until = NULL, result = :result, error = :skipped
    WHERE id = :id
    """
).bindparams(bindparam("result", type_=JSONB(none_as_null=True)))

_FAIL = text(
    """
    UPDATE platform.job_runs
    SET status = 'failed', finished_at = :now, locked_until = NULL, error = :error, traceback = :traceback
    WHERE id = :id
    """
)


def complete(
    connection: Connection, run: UUID, result: Result | None, now: datetime, *, skipped: str | None = None
) -> None:
    """Ends a run that did its work, or had none to do for the reason that `skipped` gives."""
    connection.execute(_COMPLETE, {"id": run, "result": as_json(result), "now": now, "skipped": skipped})


def fail(connection: Connection, run: UUID, error: Exception, now: datetime) -> None:
    """Ends a run that raised."""
    values = {"id": run, "error": in_one_line(error), "traceback": frames(error), "now": now}
    connection.execute(_FAIL, values)


_RECORD = text(
    """
    INSERT INTO platform.job_runs
        (id, job, trigger, request_id, started_at, finished_at, status, items_total, items_done, items_failed,
         result, error, traceback)
    VALUES
        (:id, :job, :trigger, :request_id, :started_at, :finished_at, :status, :total, :done, :failed,
         :result, :error, :traceback)
    """
).bindparams(bindparam("result", type_=JSONB(none_as_null=True)))


def record(
    connection: Connection,
    run: UUID,
    job: str,
    *,
    trigger: str,
    request_id: str,
    started_at: datetime,
    finished_at: datetime,
    total: int,
    failed: int,
    result: Result | None,
    error: Exception | None,
) -> None:
    """Writes the whole row of an invocation that is over: a batch of messages, or a state of a state machine."""
    connection.execute(
        _RECORD,
        {
            "id": run,
            "job": job,
            "trigger": trigger,
            "request_id": request_id,
            "started_at": started_at,
            "finished_at": finished_at,
            "status": "failed" if failed else "completed",
            "total": total,
            "done": total - failed,
            "failed": failed,
            "result": as_json(result),
            "error": in_one_line(error) if error else None,
            "traceback": frames(error) if error else None,
        },
    )


def as_json(result: Result | None) -> dict[str, Any] | None:
    """A result as it is stored and returned."""
    return None if result is None else json.loads(result.model_dump_json())


def frames(error: Exception) -> str:
    """Where an error came from: our own frames, without its message (which may repeat personal data)."""
    ours = [frame for frame in traceback.extract_tb(error.__traceback__) if not _is_library(frame.filename)]
    return "".join(traceback.format_list(ours))[-8_000:]


def _is_library(path: str) -> bool:
    return any(f"/{package}/" in path for package in ("sqlalchemy", "pg8000", "pydantic", "botocore", "urllib3"))
