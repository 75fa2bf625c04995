"""What runs come to, by job: counts and durations, kept so that a million runs cost nothing to add up.

Each run that has ended is added, once, to the hour it ended in and to the job's totals (`roll_up`, every five minutes);
what was not added yet is added when it is read. A run's row says how many of its attempts have been counted, so no
clock is compared: a transaction that commits late is counted late, and a repeated or simultaneous roll-up finds nothing
to do. Deleting runs that are counted changes nothing, and a count never goes down: a failed attempt that is tried again
stays one, though its run may be completed in the end.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from itertools import accumulate
from typing import Any, Final

from sqlalchemy import Connection, Row, TextClause, text

BOUNDS: Final = tuple(round(step * 10.0**power, 10) for power in range(-2, 4) for step in (1.0, 1.6, 2.5, 4.0, 6.3))
"""Upper bounds of the histogram's buckets in seconds, from 0.01 to 6,300: five to a power of ten (Renard's R5), so a
percentile read from it is off by a quarter at most. One more bucket holds what took longer."""

KEPT: Final = timedelta(days=400)
"""How long the hours are kept; the totals stay."""

RUNS_A_CALL: Final = 20_000


@dataclass(frozen=True, slots=True)
class Statistics:
    """What the runs of a job in a period came to."""

    runs: int = 0
    """Attempts that ended; one more each time that a failed run was tried again."""
    failures: int = 0
    """Those of them that failed, died or ran out of time."""
    timed_out: int = 0
    """The failures that were found dead: they said nothing themselves."""
    items_done: int = 0
    """Of a queue job messages, of others what the job counts."""
    items_failed: int = 0
    seconds: float = 0.0
    """All durations together."""
    durations: tuple[int, ...] = (0,) * (len(BOUNDS) + 1)
    """How many took as long as each of `BOUNDS` and no less than the one before, and how many longer than the last."""

    @property
    def timed(self) -> int:
        """How many durations are known: of runs that did their work, and of every invocation of a queue job."""
        return sum(self.durations)

    @property
    def average(self) -> float | None:
        """The average duration in seconds."""
        return self.seconds / self.timed if self.timed else None

    def percentile(self, share: float) -> float | None:
        """The duration in seconds that a share of the runs (0.95) does not exceed, from the histogram."""
        wanted = share * self.timed
        for bucket, upto in enumerate(accumulate(self.durations)):
            if self.durations[bucket] and upto >= wanted:
                if bucket == len(BOUNDS):
                    return BOUNDS[-1]
                lower = BOUNDS[bucket - 1] if bucket else 0.0
                inside = 1 - (upto - wanted) / self.durations[bucket]
                return lower + (BOUNDS[bucket] - lower) * inside
        return None


@dataclass(frozen=True, slots=True)
class Day:
    """What the runs that ended on a day (in UTC) came to."""

    day: date
    runs: int
    failures: int


_BOUNDS = f"ARRAY[{', '.join(map(str, BOUNDS))}]::float8[]"
_BUCKETS = ", ".join(f"count(*) FILTER (WHERE bucket = {bucket})" for bucket in range(len(BOUNDS) + 1))
_ADDED = ", ".join(f"sum(durations[{bucket + 1}])" for bucket in range(len(BOUNDS) + 1))
_COLUMNS = "runs, failures, timed_out, items_done, items_failed, seconds, durations"

# What a row of job_runs adds. A run that is being tried again adds its failed attempts. One that had nothing to do (a
# completed run with an error: an earlier one was not over) has no duration worth knowing, nor has a failed one, whose
# next attempt is timed from the first; a queue's or a state machine's row is of one invocation, and final.
_ADDS = f"""
    SELECT id, job, attempt, coalesce(finished_at, started_at) AS ended_at,
           attempt - counted - (status = 'running')::integer AS runs,
           attempt - counted - (status IN ('running', 'completed'))::integer AS failures,
           (status = 'timed_out')::integer AS timed_out,
           is_final,
           CASE WHEN is_final THEN items_done ELSE 0 END AS items_done,
           CASE WHEN is_final THEN items_failed ELSE 0 END AS items_failed,
           CASE WHEN is_final THEN seconds END AS seconds,
           CASE WHEN is_final THEN width_bucket(seconds, {_BOUNDS}) END AS bucket
    FROM (
        SELECT *, greatest(extract(epoch FROM finished_at - started_at)::float8, 0) AS seconds,
               finished_at IS NOT NULL
               AND (status = 'completed' AND error IS NULL OR trigger IN ('queue', 'task')) AS is_final
        FROM platform.job_runs
        WHERE NOT is_counted
    ) AS uncounted
"""  # noqa: S608 - made of this module's constants

_SUMS = f"""
    sum(runs)::bigint AS runs, sum(failures)::bigint AS failures, sum(timed_out)::bigint AS timed_out,
    sum(items_done)::bigint AS items_done, sum(items_failed)::bigint AS items_failed,
    coalesce(sum(seconds), 0) AS seconds, ARRAY[{_BUCKETS}]::bigint[] AS durations
"""


_ADDED_TO = f"""
    DO UPDATE SET {", ".join(f"{name} = was.{name} + excluded.{name}" for name in _COLUMNS.split(", ")[:-1])},
        durations = (
            SELECT array_agg(coalesce(old, 0) + coalesce(new, 0) ORDER BY position)
            FROM unnest(was.durations, excluded.durations) WITH ORDINALITY AS both_of (old, new, position)
        )
"""  # noqa: S608 - made of this module's constants


# In the order of the index, which makes PostgreSQL read it entry by entry and mark those of runs that were counted
# since: the next reader passes over them. A bitmap of it would visit them all, every time, until there is a vacuum.
_ROLL_UP = text(
    f"""
    WITH taken AS MATERIALIZED (
        SELECT id FROM platform.job_runs
        WHERE NOT is_counted AND status <> 'running' AND finished_at IS NOT NULL
        ORDER BY id LIMIT :size FOR UPDATE SKIP LOCKED
    ), ended AS MATERIALIZED (
        SELECT added.* FROM ({_ADDS}) AS added JOIN taken USING (id)
    ), marked AS (
        UPDATE platform.job_runs AS run SET counted = ended.attempt FROM ended WHERE run.id = ended.id
    ), hours AS (
        INSERT INTO platform.job_statistics AS was (job, hour, {_COLUMNS})
        SELECT job, date_trunc('hour', ended_at, 'UTC') AS hour, {_SUMS} FROM ended GROUP BY 1, 2 ORDER BY 1, 2
        ON CONFLICT (job, hour) {_ADDED_TO}
    ), totals AS (
        INSERT INTO platform.job_totals AS was (job, {_COLUMNS})
        SELECT job, {_SUMS} FROM ended GROUP BY 1 ORDER BY 1
        ON CONFLICT (job) {_ADDED_TO}
    )
    SELECT count(*) FROM ended
    """  # noqa: S608 - made of this module's constants
)

_FORGET = text("DELETE FROM platform.job_statistics WHERE hour < :before")


def roll_up(connection: Connection, now: datetime, size: int = RUNS_A_CALL) -> int:
    """Adds runs that have ended to the statistics, and returns how many.

    Call it again, in another transaction, as long as it returns `size`. Runs that are to be deleted must have been
    counted: `job_runs.is_counted` says so.
    """
    connection.execute(_FORGET, {"before": now - KEPT})
    return int(connection.execute(_ROLL_UP, {"size": size}).scalar_one())


def _read(stored: str) -> TextClause:
    """The sums of stored statistics and of the runs that were not added to them yet, in one snapshot."""
    return text(
        f"""
        SELECT job, sum(runs)::bigint, sum(failures)::bigint, sum(timed_out)::bigint, sum(items_done)::bigint,
               sum(items_failed)::bigint, sum(seconds)::float8, ARRAY[{_ADDED}]::bigint[]
        FROM (
            SELECT job, {_COLUMNS} FROM {stored}
            UNION ALL
            SELECT job, {_SUMS} FROM ({_ADDS}) AS added
            WHERE ended_at >= coalesce(:since, '-infinity'::timestamptz) AND runs > 0 GROUP BY job
        ) AS parts
        GROUP BY job
        """  # noqa: S608 - made of this module's constants
    )


_READ_TOTALS = _read("platform.job_totals")
_READ_SINCE = _read("platform.job_statistics WHERE hour >= date_trunc('hour', cast(:since AS timestamptz), 'UTC')")


def read(connection: Connection, since: datetime | None = None) -> dict[str, Statistics]:
    """The statistics of each job that has any, by its name: of all runs, or of those that ended since a time.

    The time is rounded down to the hour for the runs that are counted already.
    """
    statement = _READ_TOTALS if since is None else _READ_SINCE
    rows = connection.execute(statement, {"since": since}).all()
    return {row[0]: _statistics(row) for row in rows}


def _statistics(row: Row[Any]) -> Statistics:
    _, runs, failures, timed_out, done, failed, seconds, durations = tuple(row)
    filled = tuple(count or 0 for count in durations)
    return Statistics(runs, failures, timed_out, done, failed, seconds, filled)


_DAILY = text(
    f"""
    SELECT job, (ended_at AT TIME ZONE 'UTC')::date AS day, sum(runs)::bigint, sum(failures)::bigint
    FROM (
        SELECT job, hour AS ended_at, runs, failures FROM platform.job_statistics WHERE hour >= :since
        UNION ALL
        SELECT job, ended_at, runs, failures FROM ({_ADDS}) AS added WHERE ended_at >= :since AND runs > 0
    ) AS parts
    WHERE job = coalesce(:job, job)
    GROUP BY 1, 2 ORDER BY 1, 2
    """  # noqa: S608 - made of this module's constants
)


def by_day(connection: Connection, since: datetime, job: str | None = None) -> dict[str, Sequence[Day]]:
    """The runs and failures of each day that had any, by job, oldest first; of one job, or of all."""
    days: dict[str, list[Day]] = {}
    for name, day, runs, failures in connection.execute(_DAILY, {"since": since, "job": job}):
        days.setdefault(name, []).append(Day(day, runs, failures))
    return dict(days)
