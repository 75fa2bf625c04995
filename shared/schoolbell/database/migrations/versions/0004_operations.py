"""What the platform's own operation stands on: sweeps, the watchdog, schedules by time zone, triggers by key."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0004"
down_revision = "0003"

TOUCHED = ("platform.triggers", "platform.standing_alerts", "platform.seen_schedules", "platform.zone_schedules")


def upgrade() -> None:
    """Adds what runs and dead letters lack, and the tables of the sweeps."""
    _extend_runs()
    _extend_dead_letters()
    _create_tables_of_the_sweeps()
    _create_triggers()
    # The zones that tenants are in, of whatever domain. A domain with tenants of its own adds them by a UNION.
    op.execute("CREATE VIEW platform.time_zones AS SELECT DISTINCT timezone AS time_zone FROM tutoring.teachers")
    for table in TOUCHED:
        op.execute(
            f"""
            CREATE TRIGGER touch BEFORE UPDATE ON {table}
            FOR EACH ROW WHEN (NEW.updated_at = OLD.updated_at) EXECUTE FUNCTION platform.touch()
            """
        )


def _extend_runs() -> None:
    op.add_column("job_runs", sa.Column("time_zone", sa.Text(), server_default="", nullable=False), schema="platform")
    op.add_column("job_runs", sa.Column("resumed_at", sa.DateTime(timezone=True), nullable=True), schema="platform")
    op.drop_constraint("uq_job_runs_job_scheduled_for", "job_runs", schema="platform")
    op.create_unique_constraint(
        "uq_job_runs_job_scheduled_for_time_zone",
        "job_runs",
        ["job", "scheduled_for", "time_zone"],
        schema="platform",
    )
    op.create_table_comment(
        "job_runs",
        "One run for a job and a scheduled time, by zone where it runs by zone; for a queue job, one an invocation",
        schema="platform",
    )


def _extend_dead_letters() -> None:
    op.add_column(
        "dead_letters", sa.Column("last_seen_at", sa.DateTime(timezone=True), nullable=True), schema="platform"
    )
    op.create_index(
        "ix_dead_letters_resolved_at",
        "dead_letters",
        ["resolved_at"],
        schema="platform",
        postgresql_where=sa.text("resolved_at IS NOT NULL"),
    )


def _create_tables_of_the_sweeps() -> None:
    op.create_table(
        "standing_alerts",
        sa.Column("key", sa.Text(), nullable=False),
        sa.Column("source", sa.Text(), nullable=False),
        sa.Column("severity", sa.Text(), nullable=False),
        sa.Column("summary", sa.Text(), nullable=False),
        sa.Column("details", postgresql.JSONB(), server_default=sa.text("'{}'"), nullable=False),
        _moment_of_writing("since"),
        sa.Column("changes", sa.Integer(), server_default=sa.text("0"), nullable=False),
        _moment_of_writing("created_at"),
        _moment_of_writing("updated_at"),
        sa.PrimaryKeyConstraint("key", name="pk_standing_alerts"),
        schema="platform",
        comment="Alerts that were raised and not resolved, so that each is told once, and again when it changes",
    )
    op.create_table(
        "seen_schedules",
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("shape", sa.Text(), nullable=False),
        sa.Column("checked_to", sa.DateTime(timezone=True), nullable=False),
        _moment_of_writing("created_at"),
        _moment_of_writing("updated_at"),
        sa.PrimaryKeyConstraint("name", name="pk_seen_schedules"),
        schema="platform",
        comment="Up to when each schedule, in its present shape, was compared with what has run",
    )
    op.create_table(
        "zone_schedules",
        sa.Column("job", sa.Text(), nullable=False),
        sa.Column("time_zone", sa.Text(), nullable=False),
        sa.Column("in_use_at", sa.DateTime(timezone=True), nullable=False),
        _moment_of_writing("created_at"),
        _moment_of_writing("updated_at"),
        sa.PrimaryKeyConstraint("job", "time_zone", name="pk_zone_schedules"),
        schema="platform",
        comment="When a time zone was last in use, for the jobs that have a schedule in each",
    )


def _create_triggers() -> None:
    op.create_table(
        "triggers",
        sa.Column("id", sa.Uuid(), server_default=sa.text("gen_random_uuid()"), nullable=False),
        sa.Column("key", sa.Text(), nullable=False),
        sa.Column("job", sa.Text(), nullable=False),
        sa.Column("queue", sa.Text(), nullable=True),
        sa.Column("requested_by", sa.Text(), nullable=False),
        sa.Column("due_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("schedule", sa.Text(), nullable=True),
        sa.Column("arranged_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("cancelled_at", sa.DateTime(timezone=True), nullable=True),
        _moment_of_writing("created_at"),
        _moment_of_writing("updated_at"),
        sa.PrimaryKeyConstraint("id", name="pk_triggers"),
        sa.UniqueConstraint("key", name="uq_triggers_key"),
        schema="platform",
        comment="What applications and operators asked for, by key: asked for twice it is done once",
    )
    op.create_index("ix_triggers_created_at", "triggers", ["created_at"], schema="platform")


def _moment_of_writing(name: str) -> sa.Column[object]:
    return sa.Column(name, sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False)
