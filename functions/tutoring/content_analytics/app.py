"""Keep the usage of a teacher's material over 7, 30 and 90 days up to date, hourly, without counting it all again.

An item is counted anew when its numbers can have changed since the last run: an event of it was stored since, or one
slid out of a window, or one that was dated ahead has come into its windows. `platform.watermarks` says up to when that
is so. What is counted, and how, stands in docs/content-analytics.md.
"""

from datetime import timedelta
from typing import Final
from uuid import UUID

from pydantic import AwareDatetime, BaseModel
from sqlalchemy import Connection, DateTime, Integer, bindparam
from sqlalchemy.dialects.postgresql import ARRAY

from schoolbell.database.sql import statement
from schoolbell.jobs import Chunk, Cursor, JobContext, Result, scheduled_job, watermarks

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
        reached = watermarks.read(connection, JOB)
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
            watermarks.move(connection, JOB, span.until)
            return None
        rest = span.model_copy(update={"after": last})
        return Chunk(rest.model_dump(mode="json"), items, {"items": items, "changed": changed})

    return Counted(**job.in_chunks(next_items).counts)


_moment = DateTime(timezone=True)
_types = (bindparam("windows", type_=ARRAY(Integer)), bindparam("until", type_=_moment))
_COUNT_ALL = statement(__file__, "count_all.sql").bindparams(*_types)
_COUNT_CHANGED = statement(__file__, "count_changed.sql").bindparams(*_types, bindparam("since", type_=_moment))
