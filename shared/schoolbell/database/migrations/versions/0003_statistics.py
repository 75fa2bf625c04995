"""Statistics of the runs, and the state of the alerts."""

from typing import Any

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0003"
down_revision = "0002"

TOUCHED = ("platform.alerts", "platform.job_statistics", "platform.job_totals")


def upgrade() -> None:
    op.create_table(
        "alerts",
        sa.Column("key", sa.Text(), nullable=False),
        sa.Column("status", sa.Text(), server_default="triggered", nullable=False),
        sa.Column("severity", sa.Text(), nullable=False),
        sa.Column("summary", sa.Text(), nullable=False),
        sa.Column("source", sa.Text(), nullable=False),
        sa.Column("details", postgresql.JSONB()),
        sa.Column("first_seen_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.Column("last_seen_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.Column("occasions", sa.Integer(), server_default=sa.text("1"), nullable=False),
        sa.Column("changed_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.Column("notified_at", sa.DateTime(timezone=True)),
        sa.Column("resolved_at", sa.DateTime(timezone=True)),
        sa.Column("told", postgresql.JSONB(), server_default=sa.text("'{}'"), nullable=False),
        sa.Column("claimed_by", sa.Uuid()),
        sa.Column("claimed_until", sa.DateTime(timezone=True)),
        sa.Column("created_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.Column("updated_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.CheckConstraint("\"severity\" IN ('critical', 'warning', 'info')", name=op.f("ck_alerts_severity")),
        sa.CheckConstraint("\"status\" IN ('triggered', 'resolved')", name=op.f("ck_alerts_status")),
        sa.PrimaryKeyConstraint("key", name="pk_alerts"),
        schema="platform",
        comment="What is wrong, or was, and whom it was told",
    )
    op.create_index(
        "ix_alerts_standing",
        "alerts",
        ["last_seen_at"],
        schema="platform",
        postgresql_where=sa.text("status = 'triggered'"),
    )
    op.create_table(
        "job_statistics",
        sa.Column("job", sa.Text(), nullable=False),
        sa.Column("hour", sa.DateTime(timezone=True), nullable=False),
        *statistics(),
        sa.PrimaryKeyConstraint("job", "hour", name="pk_job_statistics"),
        schema="platform",
        comment="What the runs that ended in an hour came to, by job",
    )
    op.create_index("ix_job_statistics_hour", "job_statistics", ["hour"], schema="platform")
    op.create_table(
        "job_totals",
        sa.Column("job", sa.Text(), nullable=False),
        *statistics(),
        sa.PrimaryKeyConstraint("job", name="pk_job_totals"),
        schema="platform",
        comment="What all runs came to since the first, by job; it never goes down",
    )
    op.add_column(
        "job_runs",
        sa.Column("counted", sa.Integer(), server_default=sa.text("0"), nullable=False),
        schema="platform",
    )
    op.add_column(
        "job_runs",
        sa.Column("is_counted", sa.Boolean(), sa.Computed("counted >= attempt", persisted=True)),
        schema="platform",
    )
    op.create_index(
        "ix_job_runs_uncounted", "job_runs", ["id"], schema="platform", postgresql_where=sa.text("NOT is_counted")
    )
    # Each run's row is changed once it is counted: vacuumed after a fiftieth of them, not after a fifth.
    op.execute("ALTER TABLE platform.job_runs SET (autovacuum_vacuum_scale_factor = 0.02)")
    for table in TOUCHED:
        op.execute(
            f"""
            CREATE TRIGGER touch BEFORE UPDATE ON {table}
            FOR EACH ROW WHEN (NEW.updated_at = OLD.updated_at) EXECUTE FUNCTION platform.touch()
            """
        )


def statistics() -> list[sa.Column[Any]]:
    """What is known of a job's runs in a period."""
    counts = ("runs", "failures", "timed_out", "items_done", "items_failed")
    return [
        *(sa.Column(name, sa.BigInteger(), server_default=sa.text("0"), nullable=False) for name in counts),
        sa.Column("seconds", sa.Double(), server_default=sa.text("0"), nullable=False),
        sa.Column("durations", postgresql.ARRAY(sa.BigInteger()), server_default=sa.text("'{}'"), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.Column("updated_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
    ]
