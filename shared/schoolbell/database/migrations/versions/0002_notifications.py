"""Notifications of the platform: what is to be said to whom, who wants what, and the view of everybody."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0002"
down_revision = "0001"

TOUCHED = ("platform.notifications", "platform.notification_preferences", "platform.push_tokens")
"""The tables with `updated_at`."""

STUDENT = "CASE WHEN person ~* '^student/[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$' THEN substr(person, 9)::uuid END"


def upgrade() -> None:
    op.add_column(
        "outbox", sa.Column("attributes", postgresql.JSONB(none_as_null=True), nullable=True), schema="platform"
    )
    create_tables()
    for table in TOUCHED:
        op.execute(
            f"""
            CREATE TRIGGER touch BEFORE UPDATE ON {table}
            FOR EACH ROW WHEN (NEW.updated_at = OLD.updated_at) EXECUTE FUNCTION platform.touch()
            """
        )
    name_the_student()
    show_people()


def name_the_student() -> None:
    """A notification that goes to a student is about that student, unless its writer says otherwise."""
    op.execute(
        """
        CREATE FUNCTION platform.name_student() RETURNS trigger LANGUAGE plpgsql AS $$
        BEGIN
            NEW.student_id := substr(NEW.recipient, 9)::uuid;
            RETURN NEW;
        END
        $$
        """
    )
    op.execute(
        """
        CREATE TRIGGER name_student BEFORE INSERT ON platform.notifications
        FOR EACH ROW WHEN (NEW.student_id IS NULL AND NEW.recipient LIKE 'student/%')
        EXECUTE FUNCTION platform.name_student()
        """
    )


def show_people() -> None:
    """Whom notifications reach, whichever domain they belong to. A student has no time zone but the teacher's."""
    op.execute(
        """
        CREATE VIEW platform.people AS
        SELECT 'teacher' AS kind, id, name, email, NULL::text AS phone, timezone, false AS erased
        FROM tutoring.teachers
        UNION ALL
        SELECT 'student', student.id, student.name, student.email, student.phone, teacher.timezone,
               student.status = 'erased'
        FROM tutoring.students AS student
        JOIN tutoring.teachers AS teacher ON teacher.id = student.teacher_id
        """
    )


def create_tables() -> None:
    op.create_table(
        "notification_preferences",
        sa.Column("id", sa.Uuid(), server_default=sa.text("gen_random_uuid()"), nullable=False),
        sa.Column("person", sa.Text(), nullable=False, comment="teacher/<id> or student/<id>"),
        sa.Column("kind", sa.Text(), server_default="*", nullable=False, comment="A template, or * for all"),
        sa.Column("channel", sa.Text(), server_default="*", nullable=False),
        sa.Column("wanted", sa.Boolean(), nullable=True, comment="Null: this row says nothing about that"),
        sa.Column("quiet_from", sa.Time(), nullable=True, comment="Null: this row says nothing about quiet hours"),
        sa.Column("quiet_until", sa.Time(), nullable=True),
        sa.Column("timezone", sa.Text(), nullable=True, comment="IANA name; null: the person's own"),
        sa.Column(
            "student_id",
            sa.Uuid(),
            sa.Computed(STUDENT, persisted=True),
            nullable=True,
        ),
        sa.Column("created_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.Column("updated_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.CheckConstraint(
            "\"channel\" IN ('*', 'email', 'sms', 'push')", name=op.f("ck_notification_preferences_channel")
        ),
        sa.CheckConstraint(
            "(quiet_from IS NULL) = (quiet_until IS NULL)", name=op.f("ck_notification_preferences_quiet_hours")
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_notification_preferences")),
        sa.UniqueConstraint("person", "kind", "channel", name=op.f("uq_notification_preferences_person_kind_channel")),
        schema="platform",
        comment="What a person wants to get, and when not; the row that says most exactly what it is about counts",
    )
    op.create_index(
        "ix_notification_preferences_student_id",
        "notification_preferences",
        ["student_id"],
        unique=False,
        schema="platform",
        postgresql_where=sa.text("student_id IS NOT NULL"),
    )
    op.create_table(
        "notifications",
        sa.Column("id", sa.Uuid(), server_default=sa.text("gen_random_uuid()"), nullable=False),
        sa.Column("channel", sa.Text(), nullable=False),
        sa.Column("recipient", sa.Text(), nullable=False, comment="teacher/<id>, student/<id>, an address"),
        sa.Column("template", sa.Text(), nullable=False),
        sa.Column(
            "data",
            postgresql.JSONB(none_as_null=True, astext_type=sa.Text()),
            server_default=sa.text("'{}'"),
            nullable=True,
        ),
        sa.Column("priority", sa.Text(), server_default="normal", nullable=False),
        sa.Column("dedup_key", sa.Text(), server_default=sa.text("gen_random_uuid()::text"), nullable=False),
        sa.Column("status", sa.Text(), server_default="queued", nullable=False),
        sa.Column("attempts", sa.Integer(), server_default=sa.text("0"), nullable=False),
        sa.Column("provider", sa.Text(), nullable=True),
        sa.Column("provider_message_id", sa.Text(), nullable=True),
        sa.Column("error", sa.Text(), nullable=True),
        sa.Column(
            "scheduled_for",
            sa.DateTime(timezone=True),
            nullable=True,
            comment="Not sent before: by plan, quiet hours or a failed attempt",
        ),
        sa.Column("sent_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("expires_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column(
            "student_id",
            sa.Uuid(),
            nullable=True,
            comment="Whom it is about; a trigger fills it in where the recipient is a student",
        ),
        sa.Column(
            "sent_by",
            sa.Text(),
            nullable=True,
            comment="The channel that took it: another than its own, if that one's circuit was open",
        ),
        sa.Column(
            "handed_over_at",
            sa.DateTime(timezone=True),
            nullable=True,
            comment="Since when a message with its id is under way; null: none",
        ),
        sa.Column("claimed_by", sa.Uuid(), nullable=True, comment="The run that is at it, until claimed_until"),
        sa.Column("claimed_until", sa.DateTime(timezone=True), nullable=True),
        sa.Column("uncertain", sa.Integer(), server_default=sa.text("0"), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.Column("updated_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.CheckConstraint("\"channel\" IN ('email', 'sms', 'push')", name=op.f("ck_notifications_channel")),
        sa.CheckConstraint("\"priority\" IN ('high', 'normal', 'low')", name=op.f("ck_notifications_priority")),
        sa.CheckConstraint(
            "\"status\" IN ('queued', 'sent', 'delivered', 'failed', 'suppressed')",
            name=op.f("ck_notifications_status"),
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_notifications")),
        sa.UniqueConstraint("dedup_key", name=op.f("uq_notifications_dedup_key")),
        schema="platform",
        comment="An email, text message or push message: what is to be said to whom, and what became of it",
    )
    op.create_index(
        "ix_notifications_over",
        "notifications",
        [sa.literal_column("GREATEST(created_at, scheduled_for, sent_at)")],
        unique=False,
        schema="platform",
        postgresql_where=sa.text("status <> 'queued'"),
    )
    op.create_index(
        "ix_notifications_queued",
        "notifications",
        ["handed_over_at", sa.literal_column("COALESCE(scheduled_for, created_at)")],
        unique=False,
        schema="platform",
        postgresql_where=sa.text("status = 'queued'"),
    )
    op.create_index(
        "ix_notifications_student_id",
        "notifications",
        ["student_id"],
        unique=False,
        schema="platform",
        postgresql_where=sa.text("student_id IS NOT NULL"),
    )
    op.create_table(
        "push_tokens",
        sa.Column("id", sa.Uuid(), server_default=sa.text("gen_random_uuid()"), nullable=False),
        sa.Column("person", sa.Text(), nullable=False, comment="teacher/<id> or student/<id>"),
        sa.Column("token", sa.Text(), nullable=True, comment="Null: erased"),
        sa.Column("last_seen_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.Column(
            "student_id",
            sa.Uuid(),
            sa.Computed(STUDENT, persisted=True),
            nullable=True,
        ),
        sa.Column("created_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.Column("updated_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_push_tokens")),
        sa.UniqueConstraint("token", name=op.f("uq_push_tokens_token")),
        schema="platform",
        comment="The devices of a person, by the token of the application on it",
    )
    op.create_index("ix_push_tokens_person", "push_tokens", ["person", "last_seen_at"], unique=False, schema="platform")
    op.create_index(
        "ix_push_tokens_student_id",
        "push_tokens",
        ["student_id"],
        unique=False,
        schema="platform",
        postgresql_where=sa.text("student_id IS NOT NULL"),
    )
