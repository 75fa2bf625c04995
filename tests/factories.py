"""Factories: each method writes one row, with defaults around a fixed `now`, commits it, and returns it."""

from datetime import date, datetime, timedelta
from typing import Any
from uuid import UUID, uuid4

from sqlalchemy import Row, Table, insert, select

from schoolbell.database import Database
from schoolbell.domains.platform import schema as platform
from schoolbell.domains.tutoring import schema as tutoring

Ref = Row[Any] | UUID
"""A row, or its id."""


class Make:
    """Writes rows. Columns that aren't named get defaults, and rows that a row needs are made with it.

    `make.session()` makes a lesson that is due, with its student and teacher, `make.session(student)` one of that
    student. Any column can be given by name: `make.session(status="cancelled")`.
    """

    def __init__(self, database: Database, now: datetime) -> None:
        self.database = database
        self.now = now
        self._number = 0

    def row(self, table: Table, **columns: object) -> Row[Any]:
        """Writes one row of any table, and nothing but the named columns."""
        with self.database.transaction() as connection:
            return connection.execute(insert(table).values(columns).returning(table)).one()

    # People

    def teacher(self, **columns: object) -> Row[Any]:
        number = self._next()
        defaults = {
            "name": f"Teacher {number}",
            "email": f"teacher{number}@example.org",
            "timezone": "Europe/London",
            "created_at": self.now - timedelta(days=400),
        }
        return self.row(tutoring.teachers, **defaults | columns)

    def settings(self, teacher: Ref, **days: object) -> Row[Any]:
        """The teacher's `retention_settings`: `make.settings(teacher, gap_days=10)`."""
        return self.row(tutoring.retention_settings, teacher_id=_id(teacher), **days)

    def student(self, teacher: Ref | None = None, **columns: object) -> Row[Any]:
        number = self._next()
        defaults = {
            "teacher_id": _id(teacher or self.teacher()),
            "name": f"Student {number}",
            "email": f"student{number}@example.org",
            "phone": f"+44 7700 {900000 + number}",
            "last_activity_at": self.now - timedelta(days=1),
            "created_at": self.now - timedelta(days=300),
        }
        return self.row(tutoring.students, **defaults | columns)

    def enrollment(self, student: Ref | None = None, **columns: object) -> Row[Any]:
        """An enrolment that began 60 days ago and ends in 120."""
        today: date = self.now.date()
        defaults = {
            "student_id": _id(student or self.student()),
            "starts_on": today - timedelta(days=60),
            "ends_on": today + timedelta(days=120),
        }
        return self.row(tutoring.enrollments, **defaults | columns)

    # Lessons and credits

    def session(self, student: Ref | None = None, **columns: object) -> Row[Any]:
        """A scheduled lesson that ended an hour ago, and so is due. Of an hour, where one end is given or none."""
        student = student or self.student()
        defaults = {
            "student_id": _id(student),
            **_an_hour(columns.get("starts_at"), columns.get("ends_at"), self.now - timedelta(hours=1)),
            "grace_period_minutes": 15,
            "created_at": self.now - timedelta(days=30),
        }
        if "teacher_id" not in columns:
            defaults["teacher_id"] = self._teacher_of(student)
        return self.row(tutoring.sessions, **defaults | columns)

    def ledger(self, student: Ref, amount: int = 10, kind: str = "PURCHASE", **columns: object) -> Row[Any]:
        """An entry of the credit ledger; a purchase of 10 credits unless told otherwise."""
        defaults = {"student_id": _id(student), "kind": kind, "amount": amount}
        return self.row(tutoring.credit_ledger, **defaults | columns)

    def notification(self, teacher: Ref | None = None, **columns: object) -> Row[Any]:
        defaults = {
            "teacher_id": _id(teacher or self.teacher()),
            "kind": "note",
            "title": "A title",
            "body": "A body",
        }
        return self.row(tutoring.teacher_notifications, **defaults | columns)

    def signal(self, student: Ref, kind: str = "gap", period: str = "2026-03", **columns: object) -> Row[Any]:
        """A lifecycle signal that already stands."""
        defaults = {"teacher_id": self._teacher_of(student), "student_id": _id(student), "kind": kind, "period": period}
        return self.row(tutoring.lifecycle_signals, **defaults | columns)

    # Google

    def calendar_connection(self, teacher: Ref | None = None, **columns: object) -> Row[Any]:
        defaults = {
            "teacher_id": _id(teacher or self.teacher()),
            "calendar_id": f"calendar-{self._next()}@example.org",
            "secret_id": f"google/{uuid4()}",
            "status": "active",
        }
        return self.row(tutoring.calendar_connections, **defaults | columns)

    def calendar_sync(self, session: Row[Any] | None = None, **columns: object) -> Row[Any]:
        """A pending change of a lesson that its calendar event is to follow, recorded a minute ago."""
        session = session if session is not None else self.session()
        defaults = {
            "session_id": session.id,
            "teacher_id": session.teacher_id,
            "action": "upsert",
            "created_at": self.now - timedelta(minutes=1),
        }
        return self.row(tutoring.session_calendar_sync, **defaults | columns)

    def drive_resource(self, teacher: Ref | None = None, **columns: object) -> Row[Any]:
        number = self._next()
        defaults = {
            "teacher_id": _id(teacher or self.teacher()),
            "drive_file_id": f"file-{number}",
            "name": f"Worksheet {number}",
        }
        return self.row(tutoring.drive_resources, **defaults | columns)

    def drive_copy(self, resource: Row[Any] | None = None, student: Ref | None = None, **columns: object) -> Row[Any]:
        """A copy that was made, with status "copied"; give status="pending" for one that is still to be made."""
        resource = resource if resource is not None else self.drive_resource()
        defaults = {
            "resource_id": resource.id,
            "student_id": _id(student or self.student(resource.teacher_id)),
            "status": "copied",
        }
        if columns.get("status") != "pending":
            defaults["copied_file_id"] = f"copy-{self._next()}"
        return self.row(tutoring.drive_file_copies, **defaults | columns)

    # Material

    def content_item(self, teacher: Ref | None = None, **columns: object) -> Row[Any]:
        defaults = {"teacher_id": _id(teacher or self.teacher()), "title": f"Chapter {self._next()}"}
        return self.row(tutoring.content_items, **defaults | columns)

    def content_event(self, item: Row[Any] | None = None, student: Ref | None = None, **columns: object) -> Row[Any]:
        """A view of five minutes that happened an hour ago."""
        item = item if item is not None else self.content_item()
        defaults = {
            "item_id": item.id,
            "student_id": _id(student or self.student(item.teacher_id)),
            "kind": "view",
            "occurred_at": self.now - timedelta(hours=1),
            "seconds": 300,
        }
        columns.setdefault("created_at", columns.get("occurred_at", defaults["occurred_at"]))
        return self.row(tutoring.content_events, **defaults | columns)

    # Waiting lists

    def waitlist(self, session: Row[Any] | None = None, **columns: object) -> Row[Any]:
        """A waiting list for a lesson of next week."""
        session = session if session is not None else self.session(starts_at=self.now + timedelta(days=7))
        defaults = {"session_id": session.id, "teacher_id": session.teacher_id, "capacity": 1}
        return self.row(tutoring.waitlists, **defaults | columns)

    def entry(self, waitlist: Row[Any] | None = None, student: Ref | None = None, **columns: object) -> Row[Any]:
        """The next student on a waiting list, with status "waiting"; a notified one has an offer that still stands."""
        waitlist = waitlist if waitlist is not None else self.waitlist()
        defaults = {
            "waitlist_id": waitlist.id,
            "student_id": _id(student or self.student(waitlist.teacher_id)),
            "position": self._next(),
            "created_at": self.now - timedelta(days=3),
        }
        if columns.get("status") == "notified":
            defaults["notified_at"] = self.now - timedelta(hours=1)
            defaults["expires_at"] = self.now + timedelta(hours=47)
        return self.row(tutoring.waitlist_entries, **defaults | columns)

    # Messages

    def contact(self, student: Ref | None = None, **columns: object) -> Row[Any]:
        """An entry of the contact log, of yesterday."""
        student = student or self.student()
        defaults = {
            "student_id": _id(student),
            "teacher_id": self._teacher_of(student),
            "channel": "whatsapp",
            "direction": "outbound",
            "body": "See you on Tuesday!",
            "occurred_at": self.now - timedelta(days=1),
        }
        return self.row(tutoring.contact_log, **defaults | columns)

    def message(self, student: Ref | None = None, **columns: object) -> Row[Any]:
        """A pending message that was to go a minute ago."""
        student = student or self.student()
        defaults = {
            "student_id": _id(student),
            "teacher_id": self._teacher_of(student),
            "channel": "whatsapp",
            "body": "Don't forget your homework.",
            "send_at": self.now - timedelta(minutes=1),
            "created_at": self.now - timedelta(days=2),
        }
        return self.row(tutoring.scheduled_messages, **defaults | columns)

    # Notifications of the platform

    def to_deliver(self, student: Ref | None = None, **columns: object) -> Row[Any]:
        """A notification that waits to be sent to a student by email."""
        recipient = columns.get("recipient") or f"student/{_id(student or self.student())}"
        defaults = {
            "channel": "email",
            "recipient": recipient,
            "template": "waitlist_offer",
            "data": {"expires_at": (self.now + timedelta(days=2)).isoformat()},
            "created_at": self.now - timedelta(minutes=1),
        }
        return self.row(platform.notifications, **defaults | columns)

    def preference(self, student: Ref, **columns: object) -> Row[Any]:
        """What a student wants, by its columns."""
        return self.row(platform.notification_preferences, **{"person": f"student/{_id(student)}"} | columns)

    def push_token(self, student: Ref, token: str = "", **columns: object) -> Row[Any]:
        """A student's device."""
        defaults = {"person": f"student/{_id(student)}", "token": token or str(uuid4()), "last_seen_at": self.now}
        return self.row(platform.push_tokens, **defaults | columns)

    # Alerts and compliance

    def alert_rule(self, teacher: Ref | None = None, **columns: object) -> Row[Any]:
        """A rule that fires when less than four of five lessons of the last 30 days were completed."""
        defaults = {
            "teacher_id": _id(teacher or self.teacher()),
            "metric": "completion_rate",
            "comparator": "below",
            "threshold": 0.8,
            "window_days": 30,
        }
        return self.row(tutoring.metric_alert_rules, **defaults | columns)

    def erasure_request(self, student: Ref | None = None, **columns: object) -> Row[Any]:
        """A request of 31 days ago, and so a day overdue."""
        requested_at = self.now - timedelta(days=31)
        defaults = {
            "student_id": _id(student or self.student()),
            "requested_at": requested_at,
            "due_at": requested_at + timedelta(days=30),
        }
        return self.row(tutoring.erasure_requests, **defaults | columns)

    def audit_log(self, **columns: object) -> Row[Any]:
        defaults = {
            "tier": "general",
            "action": "student.updated",
            "actor": f"user-{self._next()}",
            "subject": str(uuid4()),
            "occurred_at": self.now - timedelta(days=10),
            "details": {"changed": ["status"]},
        }
        return self.row(platform.audit_logs, **defaults | columns)

    # The runtime's own

    def run(self, job: str = "tutoring.auto-complete", **columns: object) -> Row[Any]:
        """A run that is going on, started a minute ago."""
        defaults = {"job": job, "trigger": "schedule", "started_at": self.now - timedelta(minutes=1)}
        return self.row(platform.job_runs, **defaults | columns)

    def outbox(self, destination: str = "tutoring.drive-verify", **columns: object) -> Row[Any]:
        """A message that a crash left unsent a minute ago."""
        defaults = {"destination": destination, "payload": {}, "available_at": self.now - timedelta(minutes=1)}
        return self.row(platform.outbox, **defaults | columns)

    def dead_letter(self, job: str = "tutoring.drive-copy", **columns: object) -> Row[Any]:
        defaults = {
            "job": job,
            "queue": f"schoolbell-{job.replace('.', '-')}",
            "message_id": str(uuid4()),
            "payload": "{}",
            "attempts": 5,
            "reason": "failed",
            "error": "ValueError: no",
            "dead_at": self.now - timedelta(hours=1),
        }
        return self.row(platform.dead_letters, **defaults | columns)

    def lease(self, name: str, **columns: object) -> Row[Any]:
        """A lease that somebody holds for another minute."""
        defaults = {"name": name, "holder": str(uuid4()), "expires_at": self.now + timedelta(minutes=1)}
        return self.row(platform.leases, **defaults | columns)

    def _next(self) -> int:
        self._number += 1
        return self._number

    def _teacher_of(self, student: Ref) -> UUID:
        if isinstance(student, Row):
            return UUID(str(student.teacher_id))
        with self.database.transaction() as connection:
            found = connection.scalar(select(tutoring.students.c.teacher_id).where(tutoring.students.c.id == student))
        return UUID(str(found))


def _an_hour(starts_at: object, ends_at: object, otherwise: datetime) -> dict[str, datetime]:
    """The two ends of a lesson of an hour, from the one that is given, or else from when it ended."""
    hour = timedelta(hours=1)
    if isinstance(starts_at, datetime):
        return {"starts_at": starts_at, "ends_at": starts_at + hour}
    end = ends_at if isinstance(ends_at, datetime) else otherwise
    return {"starts_at": end - hour, "ends_at": end}


def _id(of: Ref) -> UUID:
    return of.id if isinstance(of, Row) else of
