"""Tell a teacher, once, when a figure of theirs crosses the line that they drew, hourly.

A rule that was told of is silent until its figure has come back to the line or behind it: `metric_alert_states` says
which rules are breached. What each metric counts stands in docs/metric-alerts.md.
"""

from typing import Final
from uuid import UUID

from sqlalchemy import Connection, DateTime, bindparam
from sqlalchemy.dialects.postgresql import JSONB

from schoolbell.database.sql import statement
from schoolbell.domains.tutoring import notices
from schoolbell.domains.tutoring.teacher_notifications import email_teachers
from schoolbell.jobs import Chunk, Cursor, JobContext, Result, scheduled_job

RULES_A_CHUNK: Final = 2_000
FEWEST_LESSONS: Final = 5
"""A rate of fewer lessons than this says nothing: its rule neither fires nor is it armed again."""
NOTICES: Final = notices.patterns("metric_alert/", "comparator", "threshold", "days", "value")


class Checked(Result):
    """How many rules were looked at, and what came of it."""

    rules: int = 0
    fired: int = 0
    came_back: int = 0
    too_few_lessons: int = 0
    unknown_metrics: int = 0


@scheduled_job("tutoring.metric-alerts", singleton=True)
def handler(job: JobContext) -> Checked:
    """Computes the metric of each enabled rule, and tells of those that have crossed their line since the last run."""

    def next_rules(connection: Connection, after: Cursor) -> Chunk | None:
        values = {
            "after": after or UUID(int=0),
            "size": RULES_A_CHUNK,
            "now": job.now,
            "fewest_lessons": FEWEST_LESSONS,
            "notices": NOTICES,
        }
        last, unknown, told, *counts = connection.execute(_CHECK, values).one()
        if last is None:
            return None
        email_teachers(connection, told, job.now)
        checked = Checked(**dict(zip(Checked.model_fields, counts, strict=True)))
        if unknown:
            job.logger.warning("rules with an unknown metric", rules=unknown)
        return Chunk(cursor=str(last), items=checked.rules, counts=checked.model_dump())

    return Checked(**job.in_chunks(next_rules).counts)


_CHECK = statement(__file__, "check.sql").bindparams(
    bindparam("now", type_=DateTime(timezone=True)), bindparam("notices", type_=JSONB)
)
