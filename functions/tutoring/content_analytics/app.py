"""Keep the usage of a teacher's material over 7, 30 and 90 days up to date, hourly, without counting it all again.

An item is counted anew when its numbers can have changed since the last run: an event of it was stored since, or one
slid out of a window, or one that was dated ahead has come into its windows. `platform.watermarks` says up to when that
is so. What is counted, and how, stands in docs/content-analytics.md.
"""

from datetime import timedelta
from typing import Final
from uuid import UUID

from pydantic import AwareDatetime, BaseModel
from sqlalchemy import Connection, DateTime, Integer, bindparam, text
from sqlalchemy.dialects.postgresql import ARRAY

from schoolbell.jobs import Chunk, Cursor, JobContext, Result, scheduled_job

JOB: Final = "tutoring.content-analytics"
WINDOWS: Final = (7, 30, 90)
"""The windows, in days of 24 hours; each ends with the run."""
OVERLAP: Final = timedelta(minutes=15)
"""Events this much older than the last run are looked at again: one is stamped when its transaction begins, and seen
only when that commits."""
ITEMS_A_CHUNK: Final = 5_000


class Counted(Result):
    """Items whose numbers were counted anew, and rows of the cache that changed by it."""

    items: int = 0
    changed: int = 0


class _Span(BaseModel):
    """What is left of a run: the items after one id, for what changed between two moments."""

    since: AwareDatetime | None
    until: AwareDatetime
    after: UUID = UUID(int=0)


@scheduled_job(JOB, singleton=True)
def handler(job: JobContext) -> Counted:
    """Counts the items that may have changed anew, and moves the watermark when all are done."""

    def next_items(connection: Connection, cursor: Cursor) -> Chunk | None:
        reached = connection.scalar(_LAST_RUN, {"job": JOB})
        span = _Span.model_validate(cursor) if cursor else _Span(since=reached, until=job.now)
        if reached and reached > span.until:
            return None  # a later run has counted everything, and this one was killed before
        items, changed, last = connection.execute(
            _COUNT_CHANGED if span.since else _COUNT_ALL,
            {
                **({"since": span.since, "stored_since": span.since - OVERLAP} if span.since else {}),
                "until": span.until,
                "after": span.after,
                "size": ITEMS_A_CHUNK,
                "windows": WINDOWS,
            },
        ).one()
        if last is None:
            connection.execute(_REMEMBER, {"job": JOB, "until": span.until})
            return None
        rest = span.model_copy(update={"after": last})
        return Chunk(rest.model_dump(mode="json"), items, {"items": items, "changed": changed})

    return Counted(**job.in_chunks(next_items).counts)


_LAST_RUN = text("SELECT reached_at FROM platform.watermarks WHERE name = :job")

_REMEMBER = text(
    """
    INSERT INTO platform.watermarks (name, reached_at, created_at, updated_at)
    VALUES (:job, :until, :until, :until)
    ON CONFLICT (name) DO UPDATE SET reached_at = excluded.reached_at, updated_at = excluded.updated_at
    """
)

_ALL = """
WITH item AS MATERIALIZED (
    SELECT id
    FROM tutoring.content_items AS item
    WHERE id > :after AND EXISTS (SELECT FROM tutoring.content_events WHERE item_id = item.id)
    ORDER BY id
    LIMIT :size
)"""

_CHANGED = """
WITH item AS MATERIALIZED (
    SELECT item_id AS id
    FROM (
        SELECT item_id FROM tutoring.content_events WHERE created_at >= :stored_since
        UNION ALL
        SELECT item_id FROM tutoring.content_events WHERE occurred_at > :since AND occurred_at <= :until
        UNION ALL
        SELECT item_id
        FROM unnest(:windows) AS days
        JOIN tutoring.content_events
          ON occurred_at > :since - days * interval '24 hours' AND occurred_at <= :until - days * interval '24 hours'
    ) AS touched
    WHERE item_id > :after
    GROUP BY item_id
    ORDER BY item_id
    LIMIT :size
)"""

_COUNT = """,
counted AS (
    SELECT item.id AS item_id, days,
           count(*) FILTER (WHERE kind = 'view') AS views,
           count(*) FILTER (WHERE kind = 'download') AS downloads,
           count(*) FILTER (WHERE kind = 'assignment') AS assignments,
           count(DISTINCT student_id) AS unique_students,
           sum(seconds) FILTER (WHERE kind = 'view')::double precision
               / nullif(count(seconds) FILTER (WHERE kind = 'view'), 0) AS average_seconds,
           max(occurred_at) AS last_used_at
    FROM item
    CROSS JOIN unnest(:windows) AS days
    LEFT JOIN tutoring.content_events AS event
      ON event.item_id = item.id
     AND occurred_at > :until - days * interval '24 hours' AND occurred_at <= :until
    GROUP BY item.id, days
),
changed AS (
    INSERT INTO tutoring.content_analytics_cache AS cached
        (item_id, window_days, views, downloads, assignments, unique_students, average_seconds, last_used_at,
         computed_at, created_at, updated_at)
    SELECT item_id, days, views, downloads, assignments, unique_students, average_seconds, last_used_at,
           :until, :until, :until
    FROM counted
    ON CONFLICT (item_id, window_days) DO UPDATE
    SET views = excluded.views, downloads = excluded.downloads, assignments = excluded.assignments,
        unique_students = excluded.unique_students, average_seconds = excluded.average_seconds,
        last_used_at = excluded.last_used_at, computed_at = excluded.computed_at, updated_at = excluded.updated_at
    WHERE (cached.views, cached.downloads, cached.assignments, cached.unique_students, cached.average_seconds,
           cached.last_used_at)
        IS DISTINCT FROM
          (excluded.views, excluded.downloads, excluded.assignments, excluded.unique_students,
           excluded.average_seconds, excluded.last_used_at)
    RETURNING item_id
)
SELECT (SELECT count(*) FROM item), (SELECT count(*) FROM changed), (SELECT id FROM item ORDER BY id DESC LIMIT 1)
"""

_moment = DateTime(timezone=True)
_types = (bindparam("windows", type_=ARRAY(Integer)), bindparam("until", type_=_moment))
_COUNT_ALL = text(_ALL + _COUNT).bindparams(*_types)
_COUNT_CHANGED = text(_CHANGED + _COUNT).bindparams(*_types, bindparam("since", type_=_moment))
