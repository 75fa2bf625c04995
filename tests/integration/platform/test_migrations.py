"""The migrations make the tables that are declared, however often and by however many they are run."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from pathlib import Path

import pytest
from alembic.autogenerate import compare_metadata
from alembic.runtime.migration import MigrationContext
from sqlalchemy import Connection, insert, select, text, update
from sqlalchemy.exc import DBAPIError

from local.postgres import Postgres
from schoolbell.database import Database
from schoolbell.database.connection import sql_state
from schoolbell.database.migrations import SCHEMA, VERSIONS, Upgrade, generate, revision, upgrade
from schoolbell.database.tables import metadata, personal_columns, student_columns
from schoolbell.domains import DOMAINS
from schoolbell.domains.platform import schema as platform
from schoolbell.domains.tutoring import schema as tutoring
from tests.factories import Make
from tests.fixtures.database import open_database

HEAD = max(path.name for path in VERSIONS.glob("*.py"))[:4]
RESTRICT_VIOLATION = "23001"

# What the catalogue says about everything in our schemas, in PostgreSQL's own words: alembic compares neither CHECK
# constraints nor the conditions of partial indexes.
CATALOGUE = text("""
WITH ours AS (
    SELECT c.oid, n.nspname || '.' || c.relname AS name FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
    WHERE n.nspname = ANY(:domains) AND c.relname NOT LIKE 'alembic_version%' AND c.relkind <> 'v'
)
SELECT name, 'constraint', conname, pg_get_constraintdef(k.oid) FROM ours JOIN pg_constraint k ON k.conrelid = ours.oid
UNION ALL
SELECT name, 'index', '', pg_get_indexdef(i.indexrelid) FROM ours JOIN pg_index i ON i.indrelid = ours.oid
UNION ALL
SELECT name, 'column', attname, concat_ws(' ', format_type(atttypid, atttypmod), attnotnull, attidentity, attgenerated,
                                          pg_get_expr(d.adbin, d.adrelid), col_description(ours.oid, attnum))
FROM ours JOIN pg_attribute a ON a.attrelid = ours.oid AND a.attnum > 0 AND NOT a.attisdropped
LEFT JOIN pg_attrdef d ON d.adrelid = ours.oid AND d.adnum = a.attnum
UNION ALL
SELECT name, 'comment', '', obj_description(oid) FROM ours WHERE obj_description(oid) IS NOT NULL
""")


@pytest.fixture
def scratch(postgres: Postgres) -> Iterator[Database]:
    """A database with nothing in it."""
    yield from _made(postgres, "scratch")


@pytest.fixture
def declared(postgres: Postgres) -> Iterator[Database]:
    """A database whose tables are made straight from the declarations."""
    for database in _made(postgres, "declared"):
        with database.transaction() as connection:
            for domain in DOMAINS:
                connection.execute(text(f"CREATE SCHEMA {domain}"))
            metadata.create_all(connection)
        yield database


def _made(postgres: Postgres, name: str) -> Iterator[Database]:
    administrator = open_database(postgres.url("postgres"))
    engine = administrator.engine.execution_options(isolation_level="AUTOCOMMIT")
    with engine.connect() as connection:
        connection.execute(text(f"CREATE DATABASE {name}"))
    database = open_database(postgres.url(name))
    try:
        yield database
    finally:
        database.close()
        with engine.connect() as connection:
            connection.execute(text(f"DROP DATABASE {name} WITH (FORCE)"))
        administrator.close()


def _upgrade(database: Database) -> Upgrade:
    with database.engine.connect() as connection:
        return upgrade(connection)


def test_an_empty_database_gets_every_declared_table(scratch: Database) -> None:
    assert _upgrade(scratch) == Upgrade(None, HEAD)
    with scratch.transaction() as connection:
        found = connection.execute(
            text(
                "SELECT table_schema || '.' || table_name FROM information_schema.tables"
                " WHERE table_schema = ANY(:s) AND table_type = 'BASE TABLE'"
            ),
            {"s": list(DOMAINS)},
        ).scalars()
        assert set(found) == {*metadata.tables, f"{SCHEMA}.alembic_version"}


def test_database_that_is_ahead_stays_as_it_is(scratch: Database) -> None:
    """As when a deployment is rolled back after it has migrated: the older package is asked to migrate again."""
    _upgrade(scratch)
    with scratch.transaction() as connection:
        connection.execute(text(f"UPDATE {SCHEMA}.alembic_version SET version_num = '9999'"))
    assert _upgrade(scratch) == Upgrade("9999", "9999")


def test_migrations_make_what_is_declared_in_the_eyes_of_alembic(migrated: str) -> None:
    database = open_database(migrated)
    with database.transaction() as connection:
        context = MigrationContext.configure(
            connection,
            opts={
                "include_schemas": True,
                "include_name": lambda name, kind, _: kind != "schema" or name in DOMAINS,
                "version_table_schema": SCHEMA,
            },
        )
        assert compare_metadata(context, metadata) == []
    database.close()


def test_migrations_make_what_is_declared_in_the_eyes_of_postgresql(migrated: str, declared: Database) -> None:
    database = open_database(migrated)
    with database.transaction() as ours, declared.transaction() as theirs:
        by_migration, by_declaration = (
            {tuple(row) for row in c.execute(CATALOGUE, {"domains": list(DOMAINS)})} for c in (ours, theirs)
        )
    database.close()
    assert sorted(by_migration - by_declaration) == []
    assert sorted(by_declaration - by_migration) == []


def test_a_second_upgrade_changes_nothing(scratch: Database) -> None:
    _upgrade(scratch)
    with scratch.transaction() as connection:
        connection.execute(insert(tutoring.teachers).values(name="Ada"))
    assert _upgrade(scratch) == Upgrade(HEAD, HEAD)
    with scratch.transaction() as connection:
        assert connection.scalar(text("SELECT count(*) FROM tutoring.teachers")) == 1


def test_upgrades_at_once_wait_for_each_other(scratch: Database) -> None:
    with ThreadPoolExecutor(4) as pool:
        done = list(pool.map(_upgrade, [scratch] * 4))
    assert sorted(done, key=lambda upgrade: upgrade.before or "") == [Upgrade(None, HEAD), *[Upgrade(HEAD, HEAD)] * 3]


def test_a_failed_migration_leaves_nothing_half_done_and_lets_the_next_one_in(scratch: Database) -> None:
    with scratch.transaction() as connection:  # in the way of the last but one thing that the first migration makes
        connection.execute(text("CREATE SCHEMA tutoring"))
        connection.execute(text("CREATE FUNCTION tutoring.refuse_change() RETURNS int LANGUAGE sql AS 'SELECT 1'"))
    with pytest.raises(DBAPIError):
        _upgrade(scratch)
    with scratch.transaction() as connection:
        assert connection.scalar(text("SELECT to_regclass('tutoring.teachers')::text")) is None
        connection.execute(text("DROP FUNCTION tutoring.refuse_change()"))
    assert _upgrade(scratch) == Upgrade(None, HEAD)


def test_the_next_migration_is_written_from_what_is_declared(scratch: Database, tmp_path: Path) -> None:
    _upgrade(scratch)
    with scratch.transaction() as connection:
        connection.execute(text("DROP TABLE platform.leases"))
        connection.execute(text("CREATE SCHEMA elsewhere"))
        connection.execute(text("CREATE TABLE elsewhere.of_another_application (id int)"))
    with scratch.engine.connect() as connection:
        written = generate(connection, "give leases back", tmp_path)
    assert written.name == f"{int(HEAD) + 1:04}_give_leases_back.py"
    assert written.read_text().startswith('"""Give leases back."""')
    assert f'down_revision = "{HEAD}"' in written.read_text()
    assert written.read_text().count("op.create_table") == 1
    assert "op.drop" not in written.read_text()


def test_the_revision_of_an_empty_database_is_none(scratch: Database) -> None:
    with scratch.engine.connect() as connection:
        assert revision(connection) is None


def test_every_table_with_updated_at_keeps_it(migrated: str) -> None:
    database = open_database(migrated)
    with database.transaction() as connection:
        found = connection.execute(
            text("SELECT tgrelid::regclass::text FROM pg_trigger WHERE tgname = 'touch' AND tgenabled = 'O'")
        ).scalars()
        assert set(found) == {name for name, table in metadata.tables.items() if "updated_at" in table.c}
    database.close()


def test_an_update_by_hand_moves_updated_at(database: Database, make: Make) -> None:
    long_ago = datetime(2020, 1, 1, tzinfo=UTC)
    make.teacher(updated_at=long_ago)
    with database.transaction() as connection:
        connection.execute(text("UPDATE tutoring.teachers SET name = 'Grace'"))
        assert connection.scalar(text("SELECT updated_at FROM tutoring.teachers")) > long_ago


def test_an_update_that_says_when_is_believed(database: Database, make: Make, now: datetime) -> None:
    make.teacher()
    with database.transaction() as connection:
        connection.execute(update(tutoring.teachers).values(updated_at=now))
        assert connection.scalar(text("SELECT updated_at FROM tutoring.teachers")) == now


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE tutoring.credit_ledger SET amount = 0",
        "DELETE FROM tutoring.credit_ledger",
        "TRUNCATE tutoring.credit_ledger",
        "TRUNCATE tutoring.sessions CASCADE",
    ],
)
def test_an_entry_of_the_ledger_is_never_changed_or_removed(database: Database, make: Make, statement: str) -> None:
    make.ledger(make.student())
    with pytest.raises(DBAPIError, match="entries are only added") as refused, database.transaction() as connection:
        connection.execute(text(statement))
    assert sql_state(refused.value) == RESTRICT_VIOLATION


def test_a_session_is_consumed_once(database: Database, make: Make) -> None:
    session = make.session()
    make.ledger(session.student_id, -1, "CONSUME", session_id=session.id)
    make.ledger(session.student_id, 1, "REFUND", session_id=session.id)
    with pytest.raises(DBAPIError, match="uq_credit_ledger_consume"):
        make.ledger(session.student_id, -1, "CONSUME", session_id=session.id)


# An application's or operator's INSERT, with the documented columns and no others.
BY_HAND = {
    "tutoring.teachers": "(name, email, timezone) VALUES ('n', 'e', 'Europe/Paris')",
    "tutoring.retention_settings": (
        "(teacher_id, gap_days, churn_days, expiring_days, streak_weeks, inactive_student_days, session_content_days,"
        " contact_log_days, erasure_due_days) VALUES (:teacher, 1, 2, 3, 4, 5, 6, 7, 30)"
    ),
    "tutoring.students": (
        "(teacher_id, name, email, phone, status, last_activity_at) VALUES (:teacher, 'n', 'e', 'p', 'active', NULL)"
    ),
    "tutoring.enrollments": "(student_id, starts_on, ends_on, status) VALUES (:student, '2026-01-01', NULL, 'active')",
    "tutoring.sessions": (
        "(teacher_id, student_id, starts_at, ends_at, grace_period_minutes, completion_mode, status, credit_cost,"
        " content, completed_at)"
        " VALUES (:teacher, :student, now(), now(), 10, 'PENDING_REVIEW', 'scheduled', 1, NULL, NULL)"
    ),
    "tutoring.credit_ledger": "(student_id, session_id, kind, amount) VALUES (:student, NULL, 'PURCHASE', 10)",
    "tutoring.teacher_notifications": (
        "(teacher_id, kind, subject_id, dedup_key, title, body, read_at)"
        " VALUES (:teacher, 'k', NULL, 'd', 't', 'b', NULL)"
    ),
    "tutoring.calendar_connections": (
        "(teacher_id, calendar_id, secret_id, status) VALUES (:teacher, 'c', 's', 'connected')"
    ),
    "tutoring.session_calendar_sync": (
        "(session_id, teacher_id, action, status, attempts, next_attempt_at, last_error, external_event_id)"
        " VALUES (:session, :teacher, 'upsert', 'pending', 0, NULL, NULL, NULL)"
    ),
    "tutoring.drive_resources": "(teacher_id, drive_file_id) VALUES (:teacher, 'f')",
    "tutoring.drive_file_copies": (
        "(resource_id, student_id, copied_file_id, status, verified_at)"
        " VALUES (:resource, :student, NULL, 'pending', NULL)"
    ),
    "tutoring.lifecycle_signals": (
        "(teacher_id, student_id, kind, period, details) VALUES (:teacher, :student, 'gap', 'p', '{}')"
    ),
    "tutoring.content_items": "(teacher_id) VALUES (:teacher)",
    "tutoring.content_events": "(item_id, occurred_at, student_id, seconds) VALUES (:item, now(), :student, 1)",
    "tutoring.waitlists": "(session_id, capacity, offer_window_seconds) VALUES (:session, 2, 60)",
    "tutoring.waitlist_entries": (
        "(waitlist_id, student_id, position, status, notified_at, expires_at, task_token)"
        " VALUES (:waitlist, :student, 1, 'waiting', NULL, NULL, NULL)"
    ),
    "tutoring.contact_log": (
        "(student_id, teacher_id, channel, direction, body, occurred_at)"
        " VALUES (:student, :teacher, 'email', 'inbound', 'b', now())"
    ),
    "tutoring.scheduled_messages": (
        "(teacher_id, student_id, channel, body, send_at, status)"
        " VALUES (:teacher, :student, 'whatsapp', 'b', now(), 'pending')"
    ),
    "tutoring.metric_alert_rules": (
        "(teacher_id, metric, comparator, threshold, window_days, enabled)"
        " VALUES (:teacher, 'completion_rate', 'below', 0.8, 30, true)"
    ),
    "tutoring.erasure_requests": (
        "(student_id, requested_at, due_at, status, completed_at) VALUES (:student, now(), now(), 'open', NULL)"
    ),
    "platform.audit_logs": (
        "(tier, action, actor, subject, occurred_at, details) VALUES ('tax', 'a', 'b', 'c', now(), '{}')"
    ),
    "platform.outbox": (
        "(destination, payload, dedup_key, available_at, sent_at)"
        " VALUES ('tutoring.drive-copy', '{}', 'd', now(), NULL)"
    ),
    "platform.dead_letters": (
        "(job, queue, message_id, payload, attributes, attempts, reason, error, traceback, dead_at, resolved_at,"
        " resolution, resolved_by)"
        " VALUES ('j', 'q', 'm', 'no JSON', '{}', 1, 'failed', 'e', 't', now(), NULL, NULL, NULL)"
    ),
    "platform.notifications": (
        "(channel, recipient, template, data, priority, dedup_key, status, attempts, provider, provider_message_id,"
        " error, scheduled_for, sent_at, expires_at)"
        " VALUES ('email', 'student/' || :student, 't', '{}', 'high', 'd', 'queued', 0, NULL, NULL, NULL, NULL, NULL,"
        " now())"
    ),
    "platform.notification_preferences": (
        "(person, kind, channel, wanted, quiet_from, quiet_until, timezone)"
        " VALUES ('student/' || :student, 'waitlist_offer', 'sms', false, '22:00', '07:00', 'Europe/Paris')"
    ),
    "platform.push_tokens": "(person, token) VALUES ('student/' || :student, 'device')",
    "platform.leases": "(name, holder, expires_at) VALUES ('n', 'h', now())",
    "platform.job_runs": (
        "(job, trigger, scheduled_for, started_at, finished_at, status, attempt, items_total, items_done, items_failed,"
        " cursor, result, error, request_id, dry_run)"
        " VALUES ('j', 'catch-up', now(), now(), NULL, 'running', 1, NULL, 0, 0, NULL, NULL, NULL, NULL, false)"
    ),
}


@pytest.mark.parametrize("table", BY_HAND)
def test_a_row_with_the_documented_columns_alone_is_taken(database: Database, make: Make, table: str) -> None:
    teacher = make.teacher()
    student = make.student(teacher)
    session = make.session(student)
    ids = {
        "teacher": teacher.id,
        "student": student.id,
        "session": session.id,
        "resource": make.drive_resource(teacher).id,
        "item": make.content_item(teacher).id,
        "waitlist": make.waitlist(session).id,
    }
    with database.transaction() as connection:
        connection.execute(text(f"INSERT INTO {table} {BY_HAND[table]}"), ids)


def test_every_personal_column_can_be_erased_and_its_student_found() -> None:
    columns = list(personal_columns())
    assert {tutoring.students.c.name, tutoring.sessions.c.content, platform.dead_letters.c.payload} <= set(columns)
    for column in columns:
        assert column.nullable or column.info["personal"] is not None, f"{column} cannot be null"
        assert all(name in column.table.c for name in student_columns(column.table))


def test_a_notification_of_a_student_is_known_as_theirs(database: Database, make: Make) -> None:
    student, other = make.student(), make.student()
    insert_one = "INSERT INTO platform.notifications (channel, recipient, template, student_id) VALUES"
    with database.transaction() as connection:
        for values in (
            "'student/' || :own, 't', NULL",
            "'someone@example.org', 't', :own",
            "'teacher/' || :t, 't', NULL",
        ):
            connection.execute(
                text(f"{insert_one} ('email', {values})"), {"own": str(student.id), "t": str(student.teacher_id)}
            )
        connection.execute(text(f"{insert_one} ('email', 'student/' || :other, 't', NULL)"), {"other": str(other.id)})
        found = connection.scalars(text("SELECT student_id FROM platform.notifications")).all()
    assert sorted(found, key=str) == sorted([student.id, student.id, None, other.id], key=str)


def test_a_notification_of_nobody_is_refused(database: Database) -> None:
    with pytest.raises(DBAPIError, match="uuid"), database.transaction() as connection:
        connection.execute(
            text("INSERT INTO platform.notifications (channel, recipient, template) VALUES ('sms', 'student/7', 't')")
        )


def test_people_are_everybody_whom_a_notification_can_reach(database: Database, make: Make) -> None:
    teacher = make.teacher(name="Ada", email="ada@example.org", timezone="Europe/Paris")
    student = make.student(teacher, name="Ben", email="ben@example.org", phone="+33612345678")
    gone = make.student(teacher, name="Erased student", email=None, phone=None, status="erased")
    with database.transaction() as connection:
        found = {tuple(row) for row in connection.execute(select(platform.people))}
    assert found == {
        ("teacher", teacher.id, "Ada", "ada@example.org", None, "Europe/Paris", False),
        ("student", student.id, "Ben", "ben@example.org", "+33612345678", "Europe/Paris", False),
        ("student", gone.id, "Erased student", None, None, "Europe/Paris", True),
    }


def test_a_session_is_due_when_its_grace_period_is_over(make: Make, database: Database) -> None:
    # The clocks of Paris go forward between the end of this lesson and the end of its grace period.
    ends_at = datetime(2026, 3, 29, 0, 50, tzinfo=UTC)
    session = make.session(ends_at=ends_at, grace_period_minutes=30)
    assert session.due_at == datetime(2026, 3, 29, 1, 20, tzinfo=UTC)
    with database.transaction() as connection:
        _at_home_in_paris(connection)
        connection.execute(update(tutoring.sessions).values(grace_period_minutes=20))
        due_at = connection.scalar(text("SELECT due_at FROM tutoring.sessions"))
    assert due_at == datetime(2026, 3, 29, 1, 10, tzinfo=UTC)


def _at_home_in_paris(connection: Connection) -> None:
    connection.execute(text("SET LOCAL TimeZone = 'Europe/Paris'"))
