"""The schemas `platform` and `tutoring`: their tables, the triggers that keep `updated_at`, the ledger's guard."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0001"
down_revision = None

TOUCHED = (
    "platform.audit_logs",
    "platform.dead_letters",
    "platform.job_runs",
    "platform.leases",
    "platform.watermarks",
    "tutoring.calendar_connections",
    "tutoring.contact_log",
    "tutoring.content_analytics_cache",
    "tutoring.content_items",
    "tutoring.drive_file_copies",
    "tutoring.drive_resources",
    "tutoring.enrollments",
    "tutoring.erasure_requests",
    "tutoring.lifecycle_signals",
    "tutoring.metric_alert_rules",
    "tutoring.metric_alert_states",
    "tutoring.retention_settings",
    "tutoring.scheduled_messages",
    "tutoring.session_calendar_sync",
    "tutoring.sessions",
    "tutoring.students",
    "tutoring.teacher_notifications",
    "tutoring.teachers",
    "tutoring.waitlist_entries",
    "tutoring.waitlist_seats",
    "tutoring.waitlists",
)
"""The tables with `updated_at`."""


def upgrade() -> None:
    op.execute("CREATE SCHEMA IF NOT EXISTS tutoring")
    create_tables()
    keep_updated_at()
    guard_the_ledger()


def keep_updated_at() -> None:
    """Sets `updated_at` on each UPDATE that doesn't set it itself, whoever writes it."""
    op.execute(
        """
        CREATE FUNCTION platform.touch() RETURNS trigger LANGUAGE plpgsql AS $$
        BEGIN
            NEW.updated_at := now();
            RETURN NEW;
        END
        $$
        """
    )
    for table in TOUCHED:
        op.execute(
            f"""
            CREATE TRIGGER touch BEFORE UPDATE ON {table}
            FOR EACH ROW WHEN (NEW.updated_at = OLD.updated_at) EXECUTE FUNCTION platform.touch()
            """
        )


def guard_the_ledger() -> None:
    """Refuses every statement that would change or remove an entry of the credit ledger, whoever sends it."""
    op.execute(
        """
        CREATE FUNCTION tutoring.refuse_change() RETURNS trigger LANGUAGE plpgsql AS $$
        BEGIN
            RAISE EXCEPTION '% on %.% is refused: entries are only added', TG_OP, TG_TABLE_SCHEMA, TG_TABLE_NAME
                USING ERRCODE = 'restrict_violation', HINT = 'Put a mistake right with a REFUND or ADJUST entry.';
        END
        $$
        """
    )
    op.execute(
        """
        CREATE TRIGGER append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON tutoring.credit_ledger
        FOR EACH STATEMENT EXECUTE FUNCTION tutoring.refuse_change()
        """
    )


def create_tables() -> None:
    op.create_table(
        "audit_logs",
        sa.Column("id", sa.Uuid(), server_default=sa.text("gen_random_uuid()"), nullable=False),
        sa.Column("tier", sa.Text(), server_default="general", nullable=False),
        sa.Column("action", sa.Text(), nullable=False),
        sa.Column("actor", sa.Text()),
        sa.Column("subject", sa.Text()),
        sa.Column("occurred_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.Column("details", postgresql.JSONB()),
        sa.Column("archived_to", sa.Text()),
        sa.Column("created_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.Column("updated_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_audit_logs"),
        schema="platform",
        comment="Who did what, kept by tier",
    )
    op.create_index(
        "ix_audit_logs_archived",
        "audit_logs",
        ["tier", "occurred_at", "id"],
        schema="platform",
        postgresql_where=sa.text("archived_to IS NOT NULL"),
    )
    op.create_index(
        "ix_audit_logs_fallback",
        "audit_logs",
        ["occurred_at", "id"],
        schema="platform",
        postgresql_where=sa.text("tier NOT IN ('financial', 'student', 'general')"),
    )
    op.create_index("ix_audit_logs_subject", "audit_logs", ["subject"], schema="platform")
    op.create_index(
        "ix_audit_logs_unarchived",
        "audit_logs",
        ["tier", "occurred_at", "id"],
        schema="platform",
        postgresql_where=sa.text("archived_to IS NULL"),
    )
    op.create_table(
        "dead_letters",
        sa.Column("id", sa.Uuid(), server_default=sa.text("gen_random_uuid()"), nullable=False),
        sa.Column("job", sa.Text(), nullable=False),
        sa.Column("queue", sa.Text(), nullable=False),
        sa.Column("message_id", sa.Text(), server_default=sa.text("gen_random_uuid()::text"), nullable=False),
        sa.Column("payload", sa.Text()),
        sa.Column("attributes", postgresql.JSONB()),
        sa.Column("attempts", sa.Integer(), server_default=sa.text("0"), nullable=False),
        sa.Column("reason", sa.Text(), server_default="unknown", nullable=False),
        sa.Column("error", sa.Text()),
        sa.Column("traceback", sa.Text()),
        sa.Column("dead_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.Column("resolved_at", sa.DateTime(timezone=True)),
        sa.Column("resolution", sa.Text()),
        sa.Column("resolved_by", sa.Text()),
        sa.Column("created_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.Column("updated_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.CheckConstraint(
            "\"reason\" IN ('failed', 'discarded', 'timed_out', 'unknown')", name=op.f("ck_dead_letters_reason")
        ),
        sa.CheckConstraint("\"resolution\" IN ('redriven', 'dropped')", name=op.f("ck_dead_letters_resolution")),
        sa.PrimaryKeyConstraint("id", name="pk_dead_letters"),
        sa.UniqueConstraint("queue", "message_id", name="uq_dead_letters_queue_message_id"),
        schema="platform",
        comment="Why a message is on its dead-letter queue",
    )
    op.create_index(
        "ix_dead_letters_unresolved",
        "dead_letters",
        ["job", "dead_at"],
        schema="platform",
        postgresql_where=sa.text("resolved_at IS NULL"),
    )
    op.create_table(
        "job_runs",
        sa.Column("id", sa.Uuid(), server_default=sa.text("gen_random_uuid()"), nullable=False),
        sa.Column("job", sa.Text(), nullable=False),
        sa.Column("trigger", sa.Text(), server_default="manual", nullable=False),
        sa.Column("scheduled_for", sa.DateTime(timezone=True)),
        sa.Column("started_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.Column("finished_at", sa.DateTime(timezone=True)),
        sa.Column("status", sa.Text(), server_default="running", nullable=False),
        sa.Column("attempt", sa.Integer(), server_default=sa.text("1"), nullable=False),
        sa.Column("items_total", sa.Integer()),
        sa.Column("items_done", sa.Integer(), server_default=sa.text("0"), nullable=False),
        sa.Column("items_failed", sa.Integer(), server_default=sa.text("0"), nullable=False),
        sa.Column("cursor", postgresql.JSONB()),
        sa.Column("result", postgresql.JSONB()),
        sa.Column("error", sa.Text()),
        sa.Column("traceback", sa.Text()),
        sa.Column("request_id", sa.Text()),
        sa.Column("dry_run", sa.Boolean(), server_default=sa.text("false"), nullable=False),
        sa.Column("data", postgresql.JSONB()),
        sa.Column("heartbeat_at", sa.DateTime(timezone=True)),
        sa.Column("locked_until", sa.DateTime(timezone=True)),
        sa.Column("created_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.Column("updated_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.CheckConstraint(
            "\"status\" IN ('running', 'completed', 'failed', 'timed_out')", name=op.f("ck_job_runs_status")
        ),
        sa.CheckConstraint(
            "\"trigger\" IN ('schedule', 'queue', 'delayed', 'manual', 'catch-up', 'continuation', 'task')",
            name=op.f("ck_job_runs_trigger"),
        ),
        sa.PrimaryKeyConstraint("id", name="pk_job_runs"),
        sa.UniqueConstraint("job", "scheduled_for", name="uq_job_runs_job_scheduled_for"),
        schema="platform",
        comment="One run for a job and a scheduled time; for a queue job, one an invocation",
    )
    op.create_index(
        "ix_job_runs_finished_at",
        "job_runs",
        ["finished_at"],
        schema="platform",
        postgresql_where=sa.text("status <> 'running'"),
    )
    op.create_index("ix_job_runs_job_started_at", "job_runs", ["job", "started_at"], schema="platform")
    op.create_index(
        "ix_job_runs_running",
        "job_runs",
        ["locked_until"],
        schema="platform",
        postgresql_where=sa.text("status = 'running'"),
    )
    op.create_index(
        "uq_job_runs_manual",
        "job_runs",
        ["job", "request_id"],
        unique=True,
        schema="platform",
        postgresql_where=sa.text("trigger = 'manual'"),
    )
    op.create_table(
        "leases",
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("holder", sa.Text(), nullable=False),
        sa.Column("expires_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.Column("updated_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.PrimaryKeyConstraint("name", name="pk_leases"),
        schema="platform",
        comment="Who holds a job that must not overlap itself, and until when",
    )
    op.create_table(
        "outbox",
        sa.Column("id", sa.BigInteger(), sa.Identity(always=False), nullable=False),
        sa.Column("destination", sa.Text(), nullable=False),
        sa.Column("payload", postgresql.JSONB(), nullable=False),
        sa.Column("dedup_key", sa.Text(), server_default=sa.text("gen_random_uuid()::text"), nullable=False),
        sa.Column("tenant", sa.Text()),
        sa.Column("available_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.Column("claimed_by", sa.Uuid()),
        sa.Column("claimed_until", sa.DateTime(timezone=True)),
        sa.Column("sent_at", sa.DateTime(timezone=True)),
        sa.Column("handled_at", sa.DateTime(timezone=True)),
        sa.Column("attempts", sa.Integer(), server_default=sa.text("0"), nullable=False),
        sa.Column("last_error", sa.Text()),
        sa.Column("created_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_outbox"),
        sa.UniqueConstraint("dedup_key", name="uq_outbox_dedup_key"),
        schema="platform",
        comment="Messages written with the state change that caused them, and sent after its commit",
    )
    op.create_index(
        "ix_outbox_claimed",
        "outbox",
        ["claimed_by", "id"],
        schema="platform",
        postgresql_where=sa.text("sent_at IS NULL"),
    )
    op.create_index(
        "ix_outbox_sent_at", "outbox", ["sent_at"], schema="platform", postgresql_where=sa.text("sent_at IS NOT NULL")
    )
    op.create_index(
        "ix_outbox_unsent",
        "outbox",
        ["available_at", "id"],
        schema="platform",
        postgresql_where=sa.text("sent_at IS NULL"),
    )
    op.create_table(
        "watermarks",
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("reached_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.Column("updated_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.PrimaryKeyConstraint("name", name="pk_watermarks"),
        schema="platform",
        comment="Up to when a job that works on what has changed since its last run has seen the changes",
    )
    op.create_table(
        "teachers",
        sa.Column("id", sa.Uuid(), server_default=sa.text("gen_random_uuid()"), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("email", sa.Text()),
        sa.Column("timezone", sa.Text(), server_default="UTC", nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.Column("updated_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_teachers"),
        schema="tutoring",
    )
    op.create_table(
        "calendar_connections",
        sa.Column("id", sa.Uuid(), server_default=sa.text("gen_random_uuid()"), nullable=False),
        sa.Column("teacher_id", sa.Uuid(), nullable=False),
        sa.Column("calendar_id", sa.Text(), server_default="primary", nullable=False),
        sa.Column("secret_id", sa.Text()),
        sa.Column("status", sa.Text(), server_default="active", nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.Column("updated_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.ForeignKeyConstraint(["teacher_id"], ["tutoring.teachers.id"], name="fk_calendar_connections_teacher_id"),
        sa.PrimaryKeyConstraint("id", name="pk_calendar_connections"),
        schema="tutoring",
    )
    op.create_index("ix_calendar_connections_teacher_id", "calendar_connections", ["teacher_id"], schema="tutoring")
    op.create_table(
        "content_items",
        sa.Column("id", sa.Uuid(), server_default=sa.text("gen_random_uuid()"), nullable=False),
        sa.Column("teacher_id", sa.Uuid(), nullable=False),
        sa.Column("title", sa.Text(), server_default="", nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.Column("updated_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.ForeignKeyConstraint(["teacher_id"], ["tutoring.teachers.id"], name="fk_content_items_teacher_id"),
        sa.PrimaryKeyConstraint("id", name="pk_content_items"),
        schema="tutoring",
    )
    op.create_index("ix_content_items_teacher_id", "content_items", ["teacher_id"], schema="tutoring")
    op.create_table(
        "drive_resources",
        sa.Column("id", sa.Uuid(), server_default=sa.text("gen_random_uuid()"), nullable=False),
        sa.Column("teacher_id", sa.Uuid(), nullable=False),
        sa.Column("drive_file_id", sa.Text(), nullable=False),
        sa.Column("name", sa.Text()),
        sa.Column("created_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.Column("updated_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.ForeignKeyConstraint(["teacher_id"], ["tutoring.teachers.id"], name="fk_drive_resources_teacher_id"),
        sa.PrimaryKeyConstraint("id", name="pk_drive_resources"),
        schema="tutoring",
    )
    op.create_index("ix_drive_resources_teacher_id", "drive_resources", ["teacher_id"], schema="tutoring")
    op.create_table(
        "metric_alert_rules",
        sa.Column("id", sa.Uuid(), server_default=sa.text("gen_random_uuid()"), nullable=False),
        sa.Column("teacher_id", sa.Uuid(), nullable=False),
        sa.Column("metric", sa.Text(), nullable=False),
        sa.Column("comparator", sa.Text(), server_default="below", nullable=False),
        sa.Column("threshold", sa.Double(), nullable=False),
        sa.Column("window_days", sa.Integer(), server_default=sa.text("30"), nullable=False),
        sa.Column("enabled", sa.Boolean(), server_default=sa.text("true"), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.Column("updated_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.CheckConstraint("\"comparator\" IN ('below', 'above')", name=op.f("ck_metric_alert_rules_comparator")),
        sa.CheckConstraint("window_days > 0", name=op.f("ck_metric_alert_rules_window_days")),
        sa.ForeignKeyConstraint(["teacher_id"], ["tutoring.teachers.id"], name="fk_metric_alert_rules_teacher_id"),
        sa.PrimaryKeyConstraint("id", name="pk_metric_alert_rules"),
        schema="tutoring",
    )
    op.create_index("ix_metric_alert_rules_teacher_id", "metric_alert_rules", ["teacher_id"], schema="tutoring")
    op.create_table(
        "retention_settings",
        sa.Column("teacher_id", sa.Uuid(), nullable=False),
        sa.Column("gap_days", sa.Integer(), server_default=sa.text("14"), nullable=False),
        sa.Column("churn_days", sa.Integer(), server_default=sa.text("30"), nullable=False),
        sa.Column("expiring_days", sa.Integer(), server_default=sa.text("14"), nullable=False),
        sa.Column("streak_weeks", sa.Integer(), server_default=sa.text("4"), nullable=False),
        sa.Column("inactive_student_days", sa.Integer(), server_default=sa.text("730"), nullable=False),
        sa.Column("session_content_days", sa.Integer(), server_default=sa.text("365"), nullable=False),
        sa.Column("contact_log_days", sa.Integer(), server_default=sa.text("365"), nullable=False),
        sa.Column("erasure_due_days", sa.Integer(), server_default=sa.text("30"), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.Column("updated_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.CheckConstraint("churn_days > 0", name=op.f("ck_retention_settings_churn_days")),
        sa.CheckConstraint("contact_log_days > 0", name=op.f("ck_retention_settings_contact_log_days")),
        sa.CheckConstraint("erasure_due_days > 0", name=op.f("ck_retention_settings_erasure_due_days")),
        sa.CheckConstraint("expiring_days > 0", name=op.f("ck_retention_settings_expiring_days")),
        sa.CheckConstraint("gap_days > 0", name=op.f("ck_retention_settings_gap_days")),
        sa.CheckConstraint("inactive_student_days > 0", name=op.f("ck_retention_settings_inactive_student_days")),
        sa.CheckConstraint("session_content_days > 0", name=op.f("ck_retention_settings_session_content_days")),
        sa.CheckConstraint("streak_weeks > 0", name=op.f("ck_retention_settings_streak_weeks")),
        sa.ForeignKeyConstraint(
            ["teacher_id"], ["tutoring.teachers.id"], name="fk_retention_settings_teacher_id", ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("teacher_id", name="pk_retention_settings"),
        schema="tutoring",
        comment="A teacher's own thresholds; RETENTION_DEFAULTS where there is no row",
    )
    op.create_table(
        "session_calendar_sync",
        sa.Column("id", sa.Uuid(), server_default=sa.text("gen_random_uuid()"), nullable=False),
        sa.Column("session_id", sa.Uuid(), nullable=False),
        sa.Column("teacher_id", sa.Uuid(), nullable=False),
        sa.Column("action", sa.Text(), server_default="upsert", nullable=False),
        sa.Column("status", sa.Text(), server_default="pending", nullable=False),
        sa.Column("attempts", sa.Integer(), server_default=sa.text("0"), nullable=False),
        sa.Column("next_attempt_at", sa.DateTime(timezone=True)),
        sa.Column("last_error", sa.Text()),
        sa.Column("external_event_id", sa.Text()),
        sa.Column("claimed_by", sa.Uuid(), comment="The run that is at it, until claimed_until"),
        sa.Column("claimed_until", sa.DateTime(timezone=True)),
        sa.Column(
            "sequence",
            sa.BigInteger(),
            sa.Identity(always=False),
            nullable=False,
            comment="The order in which the changes were recorded",
        ),
        sa.Column("created_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.Column("updated_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.CheckConstraint("\"action\" IN ('upsert', 'delete')", name=op.f("ck_session_calendar_sync_action")),
        sa.CheckConstraint(
            "\"status\" IN ('pending', 'synced', 'failed')", name=op.f("ck_session_calendar_sync_status")
        ),
        sa.ForeignKeyConstraint(["teacher_id"], ["tutoring.teachers.id"], name="fk_session_calendar_sync_teacher_id"),
        sa.PrimaryKeyConstraint("id", name="pk_session_calendar_sync"),
        schema="tutoring",
        comment="A change of a lesson that its Google Calendar event must follow",
    )
    op.create_index(
        "ix_session_calendar_sync_pending",
        "session_calendar_sync",
        ["created_at", "sequence"],
        schema="tutoring",
        postgresql_where=sa.text("status = 'pending'"),
    )
    op.create_index(
        "ix_session_calendar_sync_session_id", "session_calendar_sync", ["session_id", "sequence"], schema="tutoring"
    )
    op.create_index("ix_session_calendar_sync_teacher_id", "session_calendar_sync", ["teacher_id"], schema="tutoring")
    op.create_table(
        "students",
        sa.Column("id", sa.Uuid(), server_default=sa.text("gen_random_uuid()"), nullable=False),
        sa.Column("teacher_id", sa.Uuid(), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("email", sa.Text()),
        sa.Column("phone", sa.Text()),
        sa.Column("status", sa.Text(), server_default="active", nullable=False),
        sa.Column("last_activity_at", sa.DateTime(timezone=True)),
        sa.Column("drive_folder_id", sa.Text()),
        sa.Column("erased_at", sa.DateTime(timezone=True)),
        sa.Column("created_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.Column("updated_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.CheckConstraint("\"status\" IN ('active', 'inactive', 'erased')", name=op.f("ck_students_status")),
        sa.ForeignKeyConstraint(["teacher_id"], ["tutoring.teachers.id"], name="fk_students_teacher_id"),
        sa.PrimaryKeyConstraint("id", name="pk_students"),
        schema="tutoring",
        comment="The row of an erased student stays: its id is the pseudonym of the ledger",
    )
    op.create_index(
        "ix_students_erased_at",
        "students",
        ["erased_at", "id"],
        schema="tutoring",
        postgresql_where=sa.text("erased_at IS NOT NULL"),
    )
    op.create_index("ix_students_teacher_id", "students", ["teacher_id"], schema="tutoring")
    op.create_index(
        "ix_students_unerased",
        "students",
        [sa.literal_column("COALESCE(last_activity_at, created_at)"), "id"],
        schema="tutoring",
        postgresql_where=sa.text("status <> 'erased'"),
    )
    op.create_table(
        "content_analytics_cache",
        sa.Column("item_id", sa.Uuid(), nullable=False),
        sa.Column("window_days", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("views", sa.Integer(), server_default=sa.text("0"), nullable=False),
        sa.Column("downloads", sa.Integer(), server_default=sa.text("0"), nullable=False),
        sa.Column("assignments", sa.Integer(), server_default=sa.text("0"), nullable=False),
        sa.Column("unique_students", sa.Integer(), server_default=sa.text("0"), nullable=False),
        sa.Column("average_seconds", sa.Double()),
        sa.Column("last_used_at", sa.DateTime(timezone=True)),
        sa.Column("computed_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.Column("updated_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.ForeignKeyConstraint(
            ["item_id"], ["tutoring.content_items.id"], name="fk_content_analytics_cache_item_id", ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("item_id", "window_days", name="pk_content_analytics_cache"),
        schema="tutoring",
    )
    op.create_table(
        "content_events",
        sa.Column("id", sa.Uuid(), server_default=sa.text("gen_random_uuid()"), nullable=False),
        sa.Column("item_id", sa.Uuid(), nullable=False),
        sa.Column("student_id", sa.Uuid()),
        sa.Column("kind", sa.Text(), server_default="view", nullable=False),
        sa.Column("occurred_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.Column("seconds", sa.Integer()),
        sa.Column("created_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.CheckConstraint("\"kind\" IN ('view', 'download', 'assignment')", name=op.f("ck_content_events_kind")),
        sa.ForeignKeyConstraint(["item_id"], ["tutoring.content_items.id"], name="fk_content_events_item_id"),
        sa.ForeignKeyConstraint(["student_id"], ["tutoring.students.id"], name="fk_content_events_student_id"),
        sa.PrimaryKeyConstraint("id", name="pk_content_events"),
        schema="tutoring",
    )
    op.create_index(
        "ix_content_events_created_at",
        "content_events",
        ["created_at"],
        schema="tutoring",
        postgresql_include=["item_id"],
    )
    op.create_index(
        "ix_content_events_item_id_occurred_at",
        "content_events",
        ["item_id", "occurred_at"],
        schema="tutoring",
        postgresql_include=["kind", "student_id", "seconds"],
    )
    op.create_index(
        "ix_content_events_occurred_at",
        "content_events",
        ["occurred_at"],
        schema="tutoring",
        postgresql_include=["item_id"],
    )
    op.create_table(
        "drive_file_copies",
        sa.Column("id", sa.Uuid(), server_default=sa.text("gen_random_uuid()"), nullable=False),
        sa.Column("resource_id", sa.Uuid(), nullable=False),
        sa.Column("student_id", sa.Uuid(), nullable=False),
        sa.Column("copied_file_id", sa.Text()),
        sa.Column("status", sa.Text(), server_default="pending", nullable=False),
        sa.Column("verified_at", sa.DateTime(timezone=True)),
        sa.Column("last_error", sa.Text()),
        sa.Column("claimed_by", sa.Uuid(), comment="The run that is at it, until claimed_until"),
        sa.Column("claimed_until", sa.DateTime(timezone=True)),
        sa.Column("created_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.Column("updated_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.CheckConstraint(
            "\"status\" IN ('pending', 'copied', 'failed', 'trashed', 'deleted')",
            name=op.f("ck_drive_file_copies_status"),
        ),
        sa.ForeignKeyConstraint(
            ["resource_id"], ["tutoring.drive_resources.id"], name="fk_drive_file_copies_resource_id"
        ),
        sa.ForeignKeyConstraint(["student_id"], ["tutoring.students.id"], name="fk_drive_file_copies_student_id"),
        sa.PrimaryKeyConstraint("id", name="pk_drive_file_copies"),
        sa.UniqueConstraint("resource_id", "student_id", name="uq_drive_file_copies_resource_id_student_id"),
        schema="tutoring",
    )
    op.create_index("ix_drive_file_copies_student_id", "drive_file_copies", ["student_id"], schema="tutoring")
    op.create_table(
        "enrollments",
        sa.Column("id", sa.Uuid(), server_default=sa.text("gen_random_uuid()"), nullable=False),
        sa.Column("student_id", sa.Uuid(), nullable=False),
        sa.Column("starts_on", sa.Date(), nullable=False),
        sa.Column("ends_on", sa.Date()),
        sa.Column("status", sa.Text(), server_default="active", nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.Column("updated_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.ForeignKeyConstraint(["student_id"], ["tutoring.students.id"], name="fk_enrollments_student_id"),
        sa.PrimaryKeyConstraint("id", name="pk_enrollments"),
        schema="tutoring",
    )
    op.create_index(
        "ix_enrollments_student_id_ends_on",
        "enrollments",
        ["student_id", "ends_on"],
        schema="tutoring",
        postgresql_include=["status", "id"],
    )
    op.create_table(
        "erasure_requests",
        sa.Column("id", sa.Uuid(), server_default=sa.text("gen_random_uuid()"), nullable=False),
        sa.Column("student_id", sa.Uuid(), nullable=False),
        sa.Column("requested_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.Column("due_at", sa.DateTime(timezone=True)),
        sa.Column("status", sa.Text(), server_default="open", nullable=False),
        sa.Column("completed_at", sa.DateTime(timezone=True)),
        sa.Column("alerted_at", sa.DateTime(timezone=True)),
        sa.Column("created_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.Column("updated_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.CheckConstraint("\"status\" IN ('open', 'done')", name=op.f("ck_erasure_requests_status")),
        sa.ForeignKeyConstraint(["student_id"], ["tutoring.students.id"], name="fk_erasure_requests_student_id"),
        sa.PrimaryKeyConstraint("id", name="pk_erasure_requests"),
        schema="tutoring",
    )
    op.create_index(
        "ix_erasure_requests_open",
        "erasure_requests",
        ["due_at"],
        schema="tutoring",
        postgresql_where=sa.text("status = 'open'"),
    )
    op.create_index("ix_erasure_requests_student_id", "erasure_requests", ["student_id"], schema="tutoring")
    op.create_table(
        "lifecycle_signals",
        sa.Column("id", sa.Uuid(), server_default=sa.text("gen_random_uuid()"), nullable=False),
        sa.Column("teacher_id", sa.Uuid(), nullable=False),
        sa.Column("student_id", sa.Uuid(), nullable=False),
        sa.Column("kind", sa.Text(), nullable=False),
        sa.Column("period", sa.Text(), nullable=False),
        sa.Column("details", postgresql.JSONB()),
        sa.Column("ended_at", sa.DateTime(timezone=True)),
        sa.Column("created_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.Column("updated_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.CheckConstraint(
            "\"kind\" IN ('gap', 'churn', 'enrollment_expiring', 'streak')", name=op.f("ck_lifecycle_signals_kind")
        ),
        sa.ForeignKeyConstraint(["student_id"], ["tutoring.students.id"], name="fk_lifecycle_signals_student_id"),
        sa.ForeignKeyConstraint(["teacher_id"], ["tutoring.teachers.id"], name="fk_lifecycle_signals_teacher_id"),
        sa.PrimaryKeyConstraint("id", name="pk_lifecycle_signals"),
        schema="tutoring",
        comment="A signal stands until ended_at; what period is for each kind stands in docs/lifecycle-signals.md",
    )
    op.create_index("ix_lifecycle_signals_student_id", "lifecycle_signals", ["student_id"], schema="tutoring")
    op.create_index(
        "uq_lifecycle_signals_standing",
        "lifecycle_signals",
        ["student_id", "teacher_id", "kind", "period"],
        unique=True,
        schema="tutoring",
        postgresql_where=sa.text("ended_at IS NULL"),
    )
    op.create_table(
        "metric_alert_states",
        sa.Column("rule_id", sa.Uuid(), nullable=False),
        sa.Column("breached", sa.Boolean(), server_default=sa.text("false"), nullable=False),
        sa.Column("value", sa.Double()),
        sa.Column("changed_at", sa.DateTime(timezone=True)),
        sa.Column("created_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.Column("updated_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.ForeignKeyConstraint(
            ["rule_id"], ["tutoring.metric_alert_rules.id"], name="fk_metric_alert_states_rule_id", ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("rule_id", name="pk_metric_alert_states"),
        schema="tutoring",
    )
    op.create_table(
        "scheduled_messages",
        sa.Column("id", sa.Uuid(), server_default=sa.text("gen_random_uuid()"), nullable=False),
        sa.Column("teacher_id", sa.Uuid(), nullable=False),
        sa.Column("student_id", sa.Uuid(), nullable=False),
        sa.Column("channel", sa.Text(), nullable=False),
        sa.Column("body", sa.Text()),
        sa.Column("send_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("status", sa.Text(), server_default="pending", nullable=False),
        sa.Column("fired_at", sa.DateTime(timezone=True)),
        sa.Column(
            "scheduled_for",
            sa.DateTime(timezone=True),
            comment="The one-shot schedule's time in AWS; null: there is none",
        ),
        sa.Column("created_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.Column("updated_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.CheckConstraint("\"channel\" IN ('whatsapp', 'email', 'phone')", name=op.f("ck_scheduled_messages_channel")),
        sa.CheckConstraint(
            "\"status\" IN ('pending', 'fired', 'cancelled')", name=op.f("ck_scheduled_messages_status")
        ),
        sa.ForeignKeyConstraint(["student_id"], ["tutoring.students.id"], name="fk_scheduled_messages_student_id"),
        sa.ForeignKeyConstraint(["teacher_id"], ["tutoring.teachers.id"], name="fk_scheduled_messages_teacher_id"),
        sa.PrimaryKeyConstraint("id", name="pk_scheduled_messages"),
        schema="tutoring",
    )
    op.create_index(
        "ix_scheduled_messages_pending",
        "scheduled_messages",
        ["send_at"],
        schema="tutoring",
        postgresql_where=sa.text("status = 'pending'"),
    )
    op.create_index("ix_scheduled_messages_student_id", "scheduled_messages", ["student_id"], schema="tutoring")
    op.create_index(
        "ix_scheduled_messages_unscheduled",
        "scheduled_messages",
        ["send_at"],
        schema="tutoring",
        postgresql_where=sa.text("status = 'pending' AND scheduled_for IS DISTINCT FROM send_at"),
    )
    op.create_index(
        "ix_scheduled_messages_with_body",
        "scheduled_messages",
        ["teacher_id", "send_at"],
        schema="tutoring",
        postgresql_where=sa.text("body IS NOT NULL"),
    )
    op.create_table(
        "sessions",
        sa.Column("id", sa.Uuid(), server_default=sa.text("gen_random_uuid()"), nullable=False),
        sa.Column("teacher_id", sa.Uuid(), nullable=False),
        sa.Column("student_id", sa.Uuid(), nullable=False),
        sa.Column("starts_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("ends_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("grace_period_minutes", sa.Integer(), server_default=sa.text("15"), nullable=False),
        sa.Column("completion_mode", sa.Text(), server_default="AUTO_COMPLETE", nullable=False),
        sa.Column("status", sa.Text(), server_default="scheduled", nullable=False),
        sa.Column("credit_cost", sa.Integer(), server_default=sa.text("1"), nullable=False),
        sa.Column("content", sa.Text()),
        sa.Column("completed_at", sa.DateTime(timezone=True)),
        sa.Column(
            "due_at",
            sa.DateTime(timezone=True),
            sa.Computed(
                "(ends_at AT TIME ZONE 'UTC' + grace_period_minutes * interval '1 minute') AT TIME ZONE 'UTC'",
                persisted=True,
            ),
            comment="When the lesson counts as over: ends_at + grace_period_minutes",
        ),
        sa.Column(
            "scheduled_for",
            sa.DateTime(timezone=True),
            comment="The one-shot schedule's time in AWS; null: there is none",
        ),
        sa.Column("created_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.Column("updated_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.CheckConstraint(
            "\"completion_mode\" IN ('AUTO_COMPLETE', 'PENDING_REVIEW')", name=op.f("ck_sessions_completion_mode")
        ),
        sa.CheckConstraint(
            "\"status\" IN ('scheduled', 'completed', 'pending_review', 'cancelled', 'no_show')",
            name=op.f("ck_sessions_status"),
        ),
        sa.CheckConstraint("credit_cost >= 0", name=op.f("ck_sessions_credit_cost")),
        sa.CheckConstraint("ends_at >= starts_at", name=op.f("ck_sessions_ends_at")),
        sa.CheckConstraint("grace_period_minutes >= 0", name=op.f("ck_sessions_grace_period_minutes")),
        sa.ForeignKeyConstraint(["student_id"], ["tutoring.students.id"], name="fk_sessions_student_id"),
        sa.ForeignKeyConstraint(["teacher_id"], ["tutoring.teachers.id"], name="fk_sessions_teacher_id"),
        sa.PrimaryKeyConstraint("id", name="pk_sessions"),
        schema="tutoring",
    )
    op.create_index(
        "ix_sessions_due", "sessions", ["due_at"], schema="tutoring", postgresql_where=sa.text("status = 'scheduled'")
    )
    op.create_index(
        "ix_sessions_student_id_starts_at",
        "sessions",
        ["student_id", "starts_at"],
        schema="tutoring",
        postgresql_include=["status"],
    )
    op.create_index(
        "ix_sessions_teacher_id_starts_at",
        "sessions",
        ["teacher_id", "starts_at"],
        schema="tutoring",
        postgresql_include=["status", "student_id"],
    )
    op.create_index(
        "ix_sessions_unscheduled",
        "sessions",
        ["due_at"],
        schema="tutoring",
        postgresql_where=sa.text("status = 'scheduled' AND scheduled_for IS DISTINCT FROM due_at"),
    )
    op.create_index(
        "ix_sessions_with_content",
        "sessions",
        ["teacher_id", "ends_at"],
        schema="tutoring",
        postgresql_where=sa.text("content IS NOT NULL"),
    )
    op.create_table(
        "teacher_notifications",
        sa.Column("id", sa.Uuid(), server_default=sa.text("gen_random_uuid()"), nullable=False),
        sa.Column("teacher_id", sa.Uuid(), nullable=False),
        sa.Column("student_id", sa.Uuid()),
        sa.Column("kind", sa.Text(), nullable=False),
        sa.Column("subject_id", sa.Uuid()),
        sa.Column("dedup_key", sa.Text(), server_default=sa.text("gen_random_uuid()::text"), nullable=False),
        sa.Column("title", sa.Text(), server_default="", nullable=False),
        sa.Column("body", sa.Text()),
        sa.Column("read_at", sa.DateTime(timezone=True)),
        sa.Column("created_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.Column("updated_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.ForeignKeyConstraint(["student_id"], ["tutoring.students.id"], name="fk_teacher_notifications_student_id"),
        sa.ForeignKeyConstraint(["teacher_id"], ["tutoring.teachers.id"], name="fk_teacher_notifications_teacher_id"),
        sa.PrimaryKeyConstraint("id", name="pk_teacher_notifications"),
        sa.UniqueConstraint("dedup_key", name="uq_teacher_notifications_dedup_key"),
        schema="tutoring",
    )
    op.create_index(
        "ix_teacher_notifications_student_id",
        "teacher_notifications",
        ["student_id"],
        schema="tutoring",
        postgresql_where=sa.text("student_id IS NOT NULL"),
    )
    op.create_index("ix_teacher_notifications_subject_id", "teacher_notifications", ["subject_id"], schema="tutoring")
    op.create_index(
        "ix_teacher_notifications_teacher_id_created_at",
        "teacher_notifications",
        ["teacher_id", "created_at"],
        schema="tutoring",
    )
    op.create_table(
        "contact_log",
        sa.Column("id", sa.Uuid(), server_default=sa.text("gen_random_uuid()"), nullable=False),
        sa.Column("student_id", sa.Uuid(), nullable=False),
        sa.Column("teacher_id", sa.Uuid(), nullable=False),
        sa.Column("scheduled_message_id", sa.Uuid()),
        sa.Column("channel", sa.Text(), nullable=False),
        sa.Column("direction", sa.Text(), server_default="outbound", nullable=False),
        sa.Column("body", sa.Text()),
        sa.Column("occurred_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.Column("updated_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.ForeignKeyConstraint(
            ["scheduled_message_id"], ["tutoring.scheduled_messages.id"], name="fk_contact_log_scheduled_message_id"
        ),
        sa.ForeignKeyConstraint(["student_id"], ["tutoring.students.id"], name="fk_contact_log_student_id"),
        sa.ForeignKeyConstraint(["teacher_id"], ["tutoring.teachers.id"], name="fk_contact_log_teacher_id"),
        sa.PrimaryKeyConstraint("id", name="pk_contact_log"),
        sa.UniqueConstraint("scheduled_message_id", name="uq_contact_log_scheduled_message_id"),
        schema="tutoring",
    )
    op.create_index(
        "ix_contact_log_student_id_occurred_at", "contact_log", ["student_id", "occurred_at"], schema="tutoring"
    )
    op.create_index(
        "ix_contact_log_teacher_id_occurred_at", "contact_log", ["teacher_id", "occurred_at"], schema="tutoring"
    )
    op.create_table(
        "credit_ledger",
        sa.Column("id", sa.Uuid(), server_default=sa.text("gen_random_uuid()"), nullable=False),
        sa.Column("student_id", sa.Uuid(), nullable=False),
        sa.Column("session_id", sa.Uuid()),
        sa.Column("kind", sa.Text(), nullable=False),
        sa.Column("amount", sa.Integer(), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.CheckConstraint(
            "\"kind\" IN ('PURCHASE', 'CONSUME', 'REFUND', 'ADJUST')", name=op.f("ck_credit_ledger_kind")
        ),
        sa.ForeignKeyConstraint(["session_id"], ["tutoring.sessions.id"], name="fk_credit_ledger_session_id"),
        sa.ForeignKeyConstraint(["student_id"], ["tutoring.students.id"], name="fk_credit_ledger_student_id"),
        sa.PrimaryKeyConstraint("id", name="pk_credit_ledger"),
        schema="tutoring",
        comment="Append-only, held by a trigger: a mistake is put right by a further entry",
    )
    op.create_index(
        "ix_credit_ledger_student_id_created_at", "credit_ledger", ["student_id", "created_at"], schema="tutoring"
    )
    op.create_index(
        "uq_credit_ledger_consume",
        "credit_ledger",
        ["session_id"],
        unique=True,
        schema="tutoring",
        postgresql_where=sa.text("kind = 'CONSUME'"),
    )
    op.create_table(
        "waitlists",
        sa.Column("id", sa.Uuid(), server_default=sa.text("gen_random_uuid()"), nullable=False),
        sa.Column("teacher_id", sa.Uuid()),
        sa.Column("session_id", sa.Uuid()),
        sa.Column("capacity", sa.Integer(), server_default=sa.text("1"), nullable=False),
        sa.Column("offer_window_seconds", sa.Integer(), server_default=sa.text("172800"), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.Column("updated_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.CheckConstraint("capacity >= 0", name=op.f("ck_waitlists_capacity")),
        sa.CheckConstraint("offer_window_seconds > 0", name=op.f("ck_waitlists_offer_window_seconds")),
        sa.ForeignKeyConstraint(["session_id"], ["tutoring.sessions.id"], name="fk_waitlists_session_id"),
        sa.ForeignKeyConstraint(["teacher_id"], ["tutoring.teachers.id"], name="fk_waitlists_teacher_id"),
        sa.PrimaryKeyConstraint("id", name="pk_waitlists"),
        schema="tutoring",
    )
    op.create_table(
        "waitlist_openings",
        sa.Column("id", sa.Uuid(), server_default=sa.text("gen_random_uuid()"), nullable=False),
        sa.Column("waitlist_id", sa.Uuid(), nullable=False),
        sa.Column("source", sa.Text(), server_default=sa.text("gen_random_uuid()::text"), nullable=False),
        sa.Column("seats", sa.Integer(), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.CheckConstraint("seats > 0", name=op.f("ck_waitlist_openings_seats")),
        sa.ForeignKeyConstraint(
            ["waitlist_id"], ["tutoring.waitlists.id"], name="fk_waitlist_openings_waitlist_id", ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("id", name="pk_waitlist_openings"),
        sa.UniqueConstraint("source", name="uq_waitlist_openings_source"),
        schema="tutoring",
        comment="Seats that were opened at a time; source is the message that said so, which counts once",
    )
    op.create_index("ix_waitlist_openings_waitlist_id", "waitlist_openings", ["waitlist_id"], schema="tutoring")
    op.create_table(
        "waitlist_seats",
        sa.Column("id", sa.Uuid(), server_default=sa.text("gen_random_uuid()"), nullable=False),
        sa.Column("opening_id", sa.Uuid(), nullable=False),
        sa.Column("number", sa.Integer(), nullable=False),
        sa.Column("waitlist_id", sa.Uuid(), nullable=False),
        sa.Column("status", sa.Text(), server_default="open", nullable=False),
        sa.Column("tended_until", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.Column("updated_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.CheckConstraint(
            "\"status\" IN ('open', 'taken', 'unfilled', 'over_capacity', 'passed_on')",
            name=op.f("ck_waitlist_seats_status"),
        ),
        sa.ForeignKeyConstraint(
            ["opening_id"], ["tutoring.waitlist_openings.id"], name="fk_waitlist_seats_opening_id", ondelete="CASCADE"
        ),
        sa.ForeignKeyConstraint(
            ["waitlist_id"], ["tutoring.waitlists.id"], name="fk_waitlist_seats_waitlist_id", ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("id", name="pk_waitlist_seats"),
        sa.UniqueConstraint("opening_id", "number", name="uq_waitlist_seats_opening_id_number"),
        schema="tutoring",
        comment="A seat on offer; an execution of the cascade looks after an open one until tended_until",
    )
    op.create_index(
        "ix_waitlist_seats_open",
        "waitlist_seats",
        ["tended_until"],
        schema="tutoring",
        postgresql_where=sa.text("status = 'open'"),
    )
    op.create_index("ix_waitlist_seats_waitlist_id", "waitlist_seats", ["waitlist_id"], schema="tutoring")
    op.create_table(
        "waitlist_entries",
        sa.Column("id", sa.Uuid(), server_default=sa.text("gen_random_uuid()"), nullable=False),
        sa.Column("waitlist_id", sa.Uuid(), nullable=False),
        sa.Column("student_id", sa.Uuid(), nullable=False),
        sa.Column("position", sa.Integer(), server_default=sa.text("0"), nullable=False),
        sa.Column("status", sa.Text(), server_default="waiting", nullable=False),
        sa.Column("notified_at", sa.DateTime(timezone=True)),
        sa.Column("expires_at", sa.DateTime(timezone=True)),
        sa.Column("task_token", sa.Text()),
        sa.Column(
            "seat_id", sa.Uuid(), comment="The seat that was offered; null: not offered yet, or notified by hand"
        ),
        sa.Column("answered_at", sa.DateTime(timezone=True)),
        sa.Column("created_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.Column("updated_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.CheckConstraint(
            "\"status\" IN ('waiting', 'notified', 'accepted', 'declined', 'expired', 'withdrawn')",
            name=op.f("ck_waitlist_entries_status"),
        ),
        sa.ForeignKeyConstraint(
            ["seat_id"], ["tutoring.waitlist_seats.id"], name="fk_waitlist_entries_seat_id", ondelete="SET NULL"
        ),
        sa.ForeignKeyConstraint(["student_id"], ["tutoring.students.id"], name="fk_waitlist_entries_student_id"),
        sa.ForeignKeyConstraint(["waitlist_id"], ["tutoring.waitlists.id"], name="fk_waitlist_entries_waitlist_id"),
        sa.PrimaryKeyConstraint("id", name="pk_waitlist_entries"),
        schema="tutoring",
        comment="A seat has one student at a time, held by uq_waitlist_entries_seat_id",
    )
    op.create_index(
        "ix_waitlist_entries_notified",
        "waitlist_entries",
        ["expires_at"],
        schema="tutoring",
        postgresql_where=sa.text("status = 'notified'"),
    )
    op.create_index(
        "ix_waitlist_entries_seat_id",
        "waitlist_entries",
        ["seat_id"],
        schema="tutoring",
        postgresql_where=sa.text("seat_id IS NOT NULL"),
    )
    op.create_index("ix_waitlist_entries_student_id", "waitlist_entries", ["student_id"], schema="tutoring")
    op.create_index(
        "ix_waitlist_entries_waiting",
        "waitlist_entries",
        ["waitlist_id", "position"],
        schema="tutoring",
        postgresql_where=sa.text("status = 'waiting'"),
    )
    op.create_index(
        "ix_waitlist_entries_waitlist_id_status", "waitlist_entries", ["waitlist_id", "status"], schema="tutoring"
    )
    op.create_index(
        "uq_waitlist_entries_seat_id",
        "waitlist_entries",
        ["seat_id"],
        unique=True,
        schema="tutoring",
        postgresql_where=sa.text("status IN ('notified', 'accepted')"),
    )
    op.create_table(
        "waitlist_answers",
        sa.Column("id", sa.Uuid(), server_default=sa.text("gen_random_uuid()"), nullable=False),
        sa.Column("entry_id", sa.Uuid(), nullable=False),
        sa.Column("source", sa.Text(), server_default=sa.text("gen_random_uuid()::text"), nullable=False),
        sa.Column("answer", sa.Text(), nullable=False),
        sa.Column("outcome", sa.Text(), nullable=False),
        sa.Column("reason", sa.Text()),
        sa.Column("answered_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.CheckConstraint("\"answer\" IN ('accept', 'decline')", name=op.f("ck_waitlist_answers_answer")),
        sa.CheckConstraint(
            "\"outcome\" IN ('accepted', 'declined', 'repeated', 'refused')", name=op.f("ck_waitlist_answers_outcome")
        ),
        sa.ForeignKeyConstraint(
            ["entry_id"], ["tutoring.waitlist_entries.id"], name="fk_waitlist_answers_entry_id", ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("id", name="pk_waitlist_answers"),
        sa.UniqueConstraint("source", name="uq_waitlist_answers_source"),
        schema="tutoring",
        comment="Every answer that arrived and what became of it, also those that came too late; source is its message",
    )
    op.create_index("ix_waitlist_answers_entry_id", "waitlist_answers", ["entry_id"], schema="tutoring")
