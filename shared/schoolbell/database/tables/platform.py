"""Schema ``platform``: runs, outbox, notifications, dead letters and the audit log, which every domain stands on."""

from typing import Any

from sqlalchemy import (
    BigInteger,
    Boolean,
    CheckConstraint,
    Column,
    Computed,
    DateTime,
    Double,
    Identity,
    Index,
    Integer,
    Table,
    Text,
    Time,
    UniqueConstraint,
    Uuid,
    column,
    table,
    text,
)
from sqlalchemy.dialects.postgresql import ARRAY, JSONB

from schoolbell.database.tables import (
    ERASED_RECIPIENT,
    MENTION,
    created_at,
    metadata,
    moment,
    moment_of_writing,
    one_of,
    personal,
    updated_at,
    uuid_key,
)

AUDIT_TIERS = ("financial", "student", "general")


def _count(name: str) -> Column[Any]:
    return Column(name, Integer, nullable=False, server_default=text("0"))


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
    _count("items_done"),
    _count("items_failed"),
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
    _count("counted"),  # how many of its attempts are in the statistics
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
    """What is known of a job's runs in a period; see schoolbell.jobs.statistics."""
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

alerts = Table(
    "alerts",
    metadata,
    Column("key", Text, primary_key=True),
    Column("status", Text, nullable=False, server_default="triggered"),
    Column("severity", Text, nullable=False),
    Column("summary", Text, nullable=False),
    Column("source", Text, nullable=False),
    Column("details", JSONB(none_as_null=True)),
    moment_of_writing("first_seen_at"),
    moment_of_writing("last_seen_at"),
    Column("occasions", Integer, nullable=False, server_default=text("1")),  # how often it was triggered since
    moment_of_writing("changed_at"),  # when it last began or ended, by the sender's clock: what is older is late
    moment("notified_at"),
    moment("resolved_at"),
    Column("told", JSONB, nullable=False, server_default=text("'{}'")),  # by channel, what it was told last
    Column("claimed_by", Uuid),
    moment("claimed_until"),
    created_at(),
    updated_at(),
    one_of("status", "triggered", "resolved"),
    one_of("severity", "critical", "warning", "info"),
    Index("ix_alerts_standing", "last_seen_at", postgresql_where=text("status = 'triggered'")),
    schema="platform",
    comment="What is wrong, or was, and whom it was told",
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

outbox = Table(
    "outbox",
    metadata,
    Column("id", BigInteger, Identity(), primary_key=True),
    Column("destination", Text, nullable=False),
    Column("payload", JSONB, nullable=False),
    Column("dedup_key", Text, nullable=False, server_default=text("gen_random_uuid()::text")),
    Column("tenant", Text),
    moment_of_writing("available_at"),
    Column("claimed_by", Uuid),
    moment("claimed_until"),
    moment("sent_at"),
    moment("handled_at"),
    _count("attempts"),
    Column("last_error", Text),
    Column("attributes", JSONB(none_as_null=True)),  # message attributes: text by name
    created_at(),
    UniqueConstraint("dedup_key"),
    Index("ix_outbox_unsent", "available_at", "id", postgresql_where=text("sent_at IS NULL")),
    Index("ix_outbox_claimed", "claimed_by", "id", postgresql_where=text("sent_at IS NULL")),
    Index("ix_outbox_sent_at", "sent_at", postgresql_where=text("sent_at IS NOT NULL")),
    schema="platform",
    comment="Messages written with the state change that caused them, and sent after its commit",
)

dead_letters = Table(
    "dead_letters",
    metadata,
    uuid_key(),
    Column("job", Text, nullable=False),
    Column("queue", Text, nullable=False),
    Column("message_id", Text, nullable=False, server_default=text("gen_random_uuid()::text")),
    # The message's body as it came, which need not be JSON, and must be the same to the letter when it is redriven.
    Column("payload", Text, info=personal()),
    Column("attributes", JSONB(none_as_null=True), info=personal()),
    _count("attempts"),
    Column("reason", Text, nullable=False, server_default="unknown"),
    Column("error", Text, info=personal()),
    Column("traceback", Text, info=personal()),
    moment_of_writing("dead_at"),
    moment("resolved_at"),
    Column("resolution", Text),
    Column("resolved_by", Text),
    moment("last_seen_at"),  # when the sweep last found the message on its dead-letter queue
    created_at(),
    updated_at(),
    one_of("reason", "failed", "discarded", "timed_out", "unknown"),
    one_of("resolution", "redriven", "dropped"),
    UniqueConstraint("queue", "message_id"),
    Index("ix_dead_letters_unresolved", "job", "dead_at", postgresql_where=text("resolved_at IS NULL")),
    Index("ix_dead_letters_resolved_at", "resolved_at", postgresql_where=text("resolved_at IS NOT NULL")),
    schema="platform",
    info={"student": MENTION},
    comment="Why a message is on its dead-letter queue",
)

audit_logs = Table(
    "audit_logs",
    metadata,
    uuid_key(),
    Column("tier", Text, nullable=False, server_default="general"),  # any text: what is no known tier falls back
    Column("action", Text, nullable=False),
    Column("actor", Text),
    Column("subject", Text),
    moment_of_writing("occurred_at"),
    Column("details", JSONB(none_as_null=True), info=personal()),
    Column("archived_to", Text),
    created_at(),
    updated_at(),
    # Two halves of one index: what is still to be archived is found without passing years of what has been.
    Index("ix_audit_logs_unarchived", "tier", "occurred_at", "id", postgresql_where=text("archived_to IS NULL")),
    Index("ix_audit_logs_archived", "tier", "occurred_at", "id", postgresql_where=text("archived_to IS NOT NULL")),
    Index(
        "ix_audit_logs_fallback",
        "occurred_at",
        "id",
        postgresql_where=text("tier NOT IN ('financial', 'student', 'general')"),
    ),
    Index("ix_audit_logs_subject", "subject"),
    schema="platform",
    info={"student": ("subject",)},
    comment="Who did what, kept by tier",
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

standing_alerts = Table(
    "standing_alerts",
    metadata,
    Column("key", Text, primary_key=True),
    Column("source", Text, nullable=False),
    Column("severity", Text, nullable=False),
    Column("summary", Text, nullable=False),
    Column("details", JSONB, nullable=False, server_default=text("'{}'")),
    moment_of_writing("since"),
    _count("changes"),
    created_at(),
    updated_at(),
    schema="platform",
    comment="Alerts that were raised and not resolved, so that each is told once, and again when it changes",
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

notifications = Table(
    "notifications",
    metadata,
    uuid_key(),
    Column("channel", Text, nullable=False),
    Column(
        "recipient",
        Text,
        nullable=False,
        info=personal(ERASED_RECIPIENT),
        comment="teacher/<id>, student/<id>, an address",
    ),
    Column("template", Text, nullable=False),
    Column("data", JSONB(none_as_null=True), server_default=text("'{}'"), info=personal()),  # null: erased
    Column("priority", Text, nullable=False, server_default="normal"),
    Column("dedup_key", Text, nullable=False, server_default=text("gen_random_uuid()::text")),
    Column("status", Text, nullable=False, server_default="queued"),
    _count("attempts"),
    Column("provider", Text),
    Column("provider_message_id", Text),
    Column("error", Text),
    Column(
        "scheduled_for", DateTime(timezone=True), comment="Not sent before: by plan, quiet hours or a failed attempt"
    ),
    moment("sent_at"),
    moment("expires_at"),
    Column("student_id", Uuid, comment="Whom it is about; a trigger fills it in where the recipient is a student"),
    Column("sent_by", Text, comment="The channel that took it: another than its own, if that one's circuit was open"),
    Column(
        "handed_over_at", DateTime(timezone=True), comment="Since when a message with its id is under way; null: none"
    ),
    Column("claimed_by", Uuid, comment="The run that is at it, until claimed_until"),
    moment("claimed_until"),
    _count("uncertain"),  # how often nobody knew whether the provider had accepted it
    created_at(),
    updated_at(),
    one_of("channel", "email", "sms", "push"),
    one_of("priority", "high", "normal", "low"),
    one_of("status", "queued", "sent", "delivered", "failed", "suppressed"),
    UniqueConstraint("dedup_key"),
    Index(
        "ix_notifications_queued",
        "handed_over_at",
        text("COALESCE(scheduled_for, created_at)"),
        postgresql_where=text("status = 'queued'"),
    ),
    Index(
        "ix_notifications_over",
        text("GREATEST(created_at, scheduled_for, sent_at)"),
        postgresql_where=text("status <> 'queued'"),
    ),
    Index("ix_notifications_student_id", "student_id", postgresql_where=text("student_id IS NOT NULL")),
    schema="platform",
    comment="An email, text message or push message: what is to be said to whom, and what became of it",
)


def _of_student() -> Column[Any]:
    """The student that a row with a `person` is about, from its name."""
    is_student = "person ~* '^student/[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$'"
    return Column(
        "student_id", Uuid, Computed(f"CASE WHEN {is_student} THEN substr(person, 9)::uuid END", persisted=True)
    )


notification_preferences = Table(
    "notification_preferences",
    metadata,
    uuid_key(),
    Column("person", Text, nullable=False, comment="teacher/<id> or student/<id>"),
    Column("kind", Text, nullable=False, server_default="*", comment="A template, or * for all"),
    Column("channel", Text, nullable=False, server_default="*"),
    Column("wanted", Boolean, comment="Null: this row says nothing about that"),
    Column("quiet_from", Time, comment="Null: this row says nothing about quiet hours"),
    Column("quiet_until", Time),
    Column("timezone", Text, info=personal(), comment="IANA name; null: the person's own"),
    _of_student(),
    created_at(),
    updated_at(),
    one_of("channel", "*", "email", "sms", "push"),
    CheckConstraint("(quiet_from IS NULL) = (quiet_until IS NULL)", name="quiet_hours"),
    UniqueConstraint("person", "kind", "channel"),
    Index("ix_notification_preferences_student_id", "student_id", postgresql_where=text("student_id IS NOT NULL")),
    schema="platform",
    comment="What a person wants to get, and when not; the row that says most exactly what it is about counts",
)

push_tokens = Table(
    "push_tokens",
    metadata,
    uuid_key(),
    Column("person", Text, nullable=False, comment="teacher/<id> or student/<id>"),
    Column("token", Text, info=personal(), comment="Null: erased"),
    moment_of_writing("last_seen_at"),
    _of_student(),
    created_at(),
    updated_at(),
    UniqueConstraint("token"),
    Index("ix_push_tokens_person", "person", "last_seen_at"),
    Index("ix_push_tokens_student_id", "student_id", postgresql_where=text("student_id IS NOT NULL")),
    schema="platform",
    comment="The devices of a person, by the token of the application on it",
)

people = table(
    "people",
    column("kind", Text),
    column("id", Uuid),
    column("name", Text),
    column("email", Text),
    column("phone", Text),
    column("timezone", Text),
    column("erased", Boolean),
    schema="platform",
)
"""A view of everybody whom a notification can be sent to: the platform imports no domain. `kind`: teacher, student."""
