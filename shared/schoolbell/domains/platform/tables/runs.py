"""Schema ``platform``: the runs of jobs, what they came to, and what keeps them in order."""

from typing import Any

from sqlalchemy import (
    BigInteger,
    Boolean,
    Column,
    Computed,
    DateTime,
    Double,
    Index,
    Integer,
    Table,
    Text,
    UniqueConstraint,
    text,
)
from sqlalchemy.dialects.postgresql import ARRAY, JSONB

from schoolbell.database.tables import (
    count,
    created_at,
    metadata,
    moment,
    moment_of_writing,
    one_of,
    updated_at,
    uuid_key,
)

job_runs = Table(
    "job_runs",
    metadata,
    uuid_key(),
    Column("job", Text, nullable=False),
    Column("trigger", Text, nullable=False, server_default="manual"),
    moment("scheduled_for"),
    moment_of_writing("started_at"),
    moment("finished_at"),
    Column("status", Text, nullable=False, server_default="running"),
    Column("attempt", Integer, nullable=False, server_default=text("1")),
    Column("items_total", Integer),
    count("items_done"),
    count("items_failed"),
    Column("cursor", JSONB(none_as_null=True)),
    Column("result", JSONB(none_as_null=True)),
    Column("error", Text),
    Column("traceback", Text),
    Column("request_id", Text),
    Column("dry_run", Boolean, nullable=False, server_default=text("false")),
    Column("data", JSONB(none_as_null=True)),  # what a manual run was given
    moment("heartbeat_at"),
    moment("locked_until"),
    Column("time_zone", Text, nullable=False, server_default=""),  # whose morning it is, where a job runs by zone
    moment("resumed_at"),  # when the watchdog last sent a run on whose invocation had died
    count("counted"),  # how many of its attempts are in the statistics
    Column("is_counted", Boolean, Computed("counted >= attempt", persisted=True)),
    created_at(),
    updated_at(),
    one_of("trigger", "schedule", "queue", "delayed", "manual", "catch-up", "continuation", "task"),
    one_of("status", "running", "completed", "failed", "timed_out"),
    UniqueConstraint("job", "scheduled_for", "time_zone"),
    Index("uq_job_runs_manual", "job", "request_id", unique=True, postgresql_where=text("trigger = 'manual'")),
    Index("ix_job_runs_job_started_at", "job", "started_at"),
    Index("ix_job_runs_running", "locked_until", postgresql_where=text("status = 'running'")),
    Index("ix_job_runs_finished_at", "finished_at", postgresql_where=text("status <> 'running'")),
    Index("ix_job_runs_uncounted", "id", postgresql_where=text("NOT is_counted")),
    schema="platform",
    comment="One run for a job and a scheduled time, by zone where it runs by zone; for a queue job, one an invocation",
)


def _statistics() -> list[Column[Any]]:
    """What is known of a job's runs in a period; see schoolbell.operations.statistics."""
    return [
        *(_total(name) for name in ("runs", "failures", "timed_out", "items_done", "items_failed")),
        Column("seconds", Double, nullable=False, server_default=text("0")),
        Column("durations", ARRAY(BigInteger), nullable=False, server_default=text("'{}'")),
    ]


def _total(name: str) -> Column[Any]:
    return Column(name, BigInteger, nullable=False, server_default=text("0"))


job_statistics = Table(
    "job_statistics",
    metadata,
    Column("job", Text, primary_key=True),
    Column("hour", DateTime(timezone=True), primary_key=True),
    *_statistics(),
    created_at(),
    updated_at(),
    Index("ix_job_statistics_hour", "hour"),
    schema="platform",
    comment="What the runs that ended in an hour came to, by job",
)

job_totals = Table(
    "job_totals",
    metadata,
    Column("job", Text, primary_key=True),
    *_statistics(),
    created_at(),
    updated_at(),
    schema="platform",
    comment="What all runs came to since the first, by job; it never goes down",
)

triggers = Table(
    "triggers",
    metadata,
    uuid_key(),  # the run's, where the job is a scheduled one
    Column("key", Text, nullable=False),
    Column("job", Text, nullable=False),
    Column("queue", Text),  # which queue, as a job's name is written; none for a scheduled job
    Column("requested_by", Text, nullable=False),
    moment("due_at"),
    Column("schedule", Text),  # the one-shot that rings it
    moment("arranged_at"),
    moment("cancelled_at"),
    created_at(),
    updated_at(),
    UniqueConstraint("key"),
    Index("ix_triggers_created_at", "created_at"),
    schema="platform",
    comment="What applications and operators asked for, by key: asked for twice it is done once",
)

leases = Table(
    "leases",
    metadata,
    Column("name", Text, primary_key=True),
    Column("holder", Text, nullable=False),
    moment("expires_at", required=True),
    created_at(),
    updated_at(),
    schema="platform",
    comment="Who holds a job that must not overlap itself, and until when",
)

watermarks = Table(
    "watermarks",
    metadata,
    Column("name", Text, primary_key=True),
    moment("reached_at", required=True),
    created_at(),
    updated_at(),
    schema="platform",
    comment="Up to when a job that works on what has changed since its last run has seen the changes",
)

seen_schedules = Table(
    "seen_schedules",
    metadata,
    Column("name", Text, primary_key=True),
    Column("shape", Text, nullable=False),
    moment("checked_to", required=True),
    created_at(),
    updated_at(),
    schema="platform",
    comment="Up to when each schedule, in its present shape, was compared with what has run",
)

zone_schedules = Table(
    "zone_schedules",
    metadata,
    Column("job", Text, primary_key=True),
    Column("time_zone", Text, primary_key=True),
    moment("in_use_at", required=True),
    created_at(),
    updated_at(),
    schema="platform",
    comment="When a time zone was last in use, for the jobs that have a schedule in each",
)
