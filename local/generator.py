"""A believable term of a tutoring business, made from a seed: the same seed and hour make the same rows.

Teachers on both sides of the Atlantic give weekly lessons to groups of one to eight students, a row in `sessions` for
each student, from the hour to the hour of the teacher's own clock. One lesson in twenty ended at the last full hour and
waits for its completion. Some students have stopped coming, or left years ago; some lessons have waiting lists.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, time, timedelta
from functools import cached_property
from itertools import chain, count
from random import Random
from typing import Any, Final
from uuid import UUID
from zoneinfo import ZoneInfo

from sqlalchemy import Table

from local.tables import insert_rows
from schoolbell.database import Database
from schoolbell.database.tables import all_tables
from schoolbell.domains.platform import schema as platform
from schoolbell.domains.tutoring import schema as tutoring

Row = dict[str, Any]

HOUR: Final = timedelta(hours=1)
WEEK: Final = timedelta(weeks=1)
PACKAGE: Final = 10  # credits are sold by the ten
WEEKS_AHEAD: Final = 2
OPENING_HOURS: Final = range(8, 21)  # when a lesson begins, on the teacher's clock
SHARE_ENDING_NOW: Final = 0.05

ZONES: Final = {
    "Europe/London": 18,
    "Europe/Berlin": 12,
    "Europe/Paris": 10,
    "Europe/Madrid": 6,
    "Europe/Rome": 6,
    "Europe/Warsaw": 4,
    "Europe/Athens": 4,
    "Europe/Lisbon": 4,
    "America/New_York": 16,
    "America/Los_Angeles": 10,
    "America/Chicago": 8,
    "America/Denver": 4,
    "America/Toronto": 4,
    "America/Sao_Paulo": 4,
    "America/Mexico_City": 4,
}
FIRST_NAMES: Final = """
    Ada Aisha Alba Amelie Anna Arthur Beatriz Ben Carla Chloe Clara Daniel Diego Elena Eli Emma Felix Freya
    Gabriel Grace Hana Hugo Ines Isaac Ivy Jakub Jana Joao Jonas Julia Kai Karim Lara Leo Lina Lucas Luisa
    Maja Malik Marta Mateo Maya Milo Mina Nadia Niko Noah Nora Olivia Omar Oscar Paula Pedro Priya Rafael Rosa
    Ruben Sam Sara Sofia Theo Tomas Vera Victor Yara Zoe
    """
LAST_NAMES: Final = """
    Abbott Almeida Andersen Baker Becker Bianchi Brandt Brooks Campbell Carter Castillo Chen Costa Dubois
    Ellis Fernandez Fischer Fletcher Garcia Georgiou Gomez Grant Hayes Hoffmann Hughes Ivanov Jensen Kaminski
    Keller Khan Kowalski Lambert Larsen Lefevre Lopez Marino Martin Mendes Meyer Moreau Morgan Murphy Nakamura
    Novak Okafor Oliveira Palmer Papadakis Patel Pereira Quinn Reyes Ricci Rossi Santos Schmidt Silva Singh
    Sousa Stewart Torres Turner Vasquez Wagner Walsh Weber Wilson Wright Young Zielinski
    """
TOPICS: Final = (
    "fractions",
    "quadratic equations",
    "the past tense",
    "photosynthesis",
    "listening",
    "essay structure",
    "vectors",
    "the circle of fifths",
    "reading aloud",
    "chemical bonds",
    "probability",
    "irregular verbs",
)
METRICS: Final = {  # metric: comparator, threshold
    "completion_rate": ("below", 0.8),
    "cancellation_rate": ("above", 0.2),
    "no_show_rate": ("above", 0.15),
    "active_students": ("below", 5.0),
    "credits_consumed": ("below", 20.0),
    "sessions_taught": ("below", 15.0),
}
OUTCOMES: Final = {"completed": 90, "cancelled": 5, "no_show": 3, "pending_review": 2}


@dataclass(frozen=True)
class Term:
    """Rows to load, by table, and some of what is in them."""

    now: datetime
    rows: Mapping[Table, Sequence[Row]]
    just_ended: Sequence[UUID]
    """The lessons that ended at the last full hour: due, and not yet completed."""

    def counts(self) -> dict[str, int]:
        """How many rows each table gets."""
        return {table.name: len(rows) for table, rows in self.rows.items()}


def term(
    seed: int,
    teachers: int,
    students: int,
    sessions: int,
    now: datetime,
    secret_prefix: str = "schoolbell/google/",  # noqa: S107 - where secrets are, not one of them
) -> Term:
    """Makes a term around `now`.

    Args:
        seed: decides everything that is left to chance, ids included.
        teachers: how many teachers, hundreds.
        students: how many students, at least as many as teachers.
        sessions: how many rows in `sessions`, at least as many as students; what this term doesn't hold goes before it.
        now: the present, aware.
        secret_prefix: how the names of the teachers' Google secrets begin.
    """
    if not 1 <= teachers <= students <= sessions:
        raise ValueError(f"need teachers <= students <= sessions, got {teachers}, {students}, {sessions}")
    return _Author(seed, now, secret_prefix).write(teachers, students, sessions)


def load(database: Database, term: Term) -> dict[str, int]:
    """Writes a term's rows in one transaction, and returns how many each table got; what is there already stays."""
    with database.transaction() as connection:
        return {
            table.name: insert_rows(connection, table, term.rows[table]) for table in all_tables() if table in term.rows
        }


@dataclass
class _Student:
    row: Row
    stopped_in_week: int | None = None
    """The week, counted from this one, from which on a student no longer comes."""
    consumed: int = 0
    last_seen: datetime | None = None

    @property
    def id(self) -> UUID:
        return UUID(str(self.row["id"]))

    @property
    def first_name(self) -> str:
        return str(self.row["name"]).split()[0]


@dataclass
class _Group:
    teacher: Row
    students: list[_Student]
    slot: datetime
    """When its lesson begins this week, on the teacher's clock."""
    mode: str
    grace: int

    def lesson(self, week: int) -> tuple[datetime, datetime]:
        """Start and end of the lesson of a week, counted from this one, in UTC."""
        starts_at = (self.slot + week * WEEK).astimezone(UTC)
        return starts_at, starts_at + HOUR


@dataclass
class _Author:
    seed: int
    now: datetime
    secret_prefix: str
    rows: dict[Table, list[Row]] = field(default_factory=dict)
    just_ended: list[UUID] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.last_hour = self.now.astimezone(UTC).replace(minute=0, second=0, microsecond=0)
        self.random = Random(f"{self.seed} {self.last_hour.isoformat()}")
        self.today: date = self.last_hour.date()
        self.first_names, self.last_names = FIRST_NAMES.split(), LAST_NAMES.split()

    def write(self, teachers: int, students: int, sessions: int) -> Term:
        self.teachers = [self.teacher(number) for number in range(1, teachers + 1)]
        enrolled, gone = self.students(students)
        groups = self.groups(enrolled)
        self.choose_who_ends_now(groups, round(sessions * SHARE_ENDING_NOW))
        left = sessions - self.lessons_of_the_gone(gone)
        self.lessons(groups, left)
        for student in enrolled:
            self.enrol(student)
            self.sell_credits(student)
        for student in enrolled + gone:
            self.talk_to(student)
        self.waiting_lists(groups)
        for teacher in self.teachers:
            self.material(teacher)
        self.calendar()
        self.erasures(enrolled, gone)
        self.audit()
        ordered = {table: self.rows[table] for table in all_tables() if table in self.rows}
        return Term(self.now, ordered, self.just_ended)

    # People

    def teacher(self, number: int) -> Row:
        name = self.name()
        teacher = self.add(
            tutoring.teachers,
            name=name,
            email=f"{name.lower().replace(' ', '.')}.{number}@teachers.example",
            timezone=self.pick(ZONES),
            created_at=self.days_ago(400, 1500),
        )
        if self.chance(0.3):
            self.add(
                tutoring.retention_settings,
                row_id=False,
                teacher_id=teacher["id"],
                gap_days=self.random.choice((10, 14, 21)),
                churn_days=self.random.choice((21, 30, 45)),
                expiring_days=self.random.choice((7, 14, 30)),
                streak_weeks=self.random.choice((3, 4, 6)),
                inactive_student_days=self.random.choice((365, 540, 730)),
                session_content_days=self.random.choice((180, 365)),
                contact_log_days=self.random.choice((180, 365)),
            )
        if self.chance(0.25):
            metric = self.random.choice(list(METRICS))
            comparator, threshold = METRICS[metric]
            self.add(
                tutoring.metric_alert_rules,
                teacher_id=teacher["id"],
                metric=metric,
                comparator=comparator,
                threshold=threshold,
                window_days=self.random.choice((7, 30)),
                enabled=self.chance(0.9),
            )
        if self.chance(0.6):
            self.add(
                tutoring.calendar_connections,
                teacher_id=teacher["id"],
                calendar_id="primary",
                secret_id=f"{self.secret_prefix}teacher-{number:04}",
                status="active",
            )
        return teacher

    def students(self, students: int) -> tuple[list[_Student], list[_Student]]:
        """Students who are enrolled, some of whom have stopped coming, and those who left long ago."""
        gone = max(1, students // 20)
        return (
            [self.student(number, "active") for number in range(students - gone)],
            [self.student(students - gone + number, "inactive") for number in range(gone)],
        )

    def student(self, number: int, status: str) -> _Student:
        name = self.name()
        row = self.add(
            tutoring.students,
            teacher_id=self.teachers[number % len(self.teachers)]["id"],
            name=name,
            email=f"{name.lower().replace(' ', '.')}.{number}@students.example",
            phone=f"+{self.random.choice((1, 33, 34, 44, 49))} 555 {number:06}",
            status=status,
            last_activity_at=None,
            drive_folder_id=None,
            created_at=self.days_ago(90, 900) if status == "active" else self.days_ago(1400, 2000),
        )
        student = _Student(row)
        if status == "active" and self.chance(0.07):
            student.stopped_in_week = -self.random.randint(2, 8)
        return student

    def groups(self, students: list[_Student]) -> list[_Group]:
        of_teacher: dict[UUID, list[_Student]] = {}
        for student in students:
            of_teacher.setdefault(student.row["teacher_id"], []).append(student)
        groups = []
        for teacher in self.teachers:
            waiting = of_teacher.get(teacher["id"], [])
            while waiting:
                size = self.pick({1: 40, 2: 15, 3: 10, 4: 10, 6: 15, 8: 10})
                members, waiting = waiting[:size], waiting[size:]
                groups.append(
                    _Group(
                        teacher,
                        members,
                        self.slot(teacher),
                        self.pick({"AUTO_COMPLETE": 85, "PENDING_REVIEW": 15}),
                        self.random.choice((0, 5, 10, 15, 30)),
                    )
                )
        return groups

    def slot(self, teacher: Row) -> datetime:
        """A weekly hour within the three days before and after now that isn't the one ending now."""
        zone = ZoneInfo(teacher["timezone"])
        here = self.last_hour.astimezone(zone)
        while True:
            day = here.date() + timedelta(days=self.random.randint(-3, 3))
            slot = datetime.combine(day, time(self.random.choice(OPENING_HOURS)), zone)
            if slot.astimezone(UTC) + HOUR != self.last_hour:
                return slot

    def choose_who_ends_now(self, groups: list[_Group], wanted: int) -> None:
        """Moves groups to the hour that has just ended, those first whose teachers are up and about in it."""

        def out_of_hours(group: _Group) -> int:
            begins = (self.last_hour - HOUR).astimezone(ZoneInfo(group.teacher["timezone"])).hour
            return max(OPENING_HOURS.start - begins, begins - OPENING_HOURS.stop + 1, 0)

        self.random.shuffle(groups)
        groups.sort(key=out_of_hours)
        found = 0
        for group in groups:
            if found >= wanted:
                return
            group.slot = (self.last_hour - HOUR).astimezone(ZoneInfo(group.teacher["timezone"]))
            group.grace = self.random.choice([grace for grace in (0, 5, 10, 15) if self._is_over(grace)])
            found += sum(1 for student in group.students if student.stopped_in_week is None)

    def _is_over(self, grace: int) -> bool:
        return self.last_hour + timedelta(minutes=grace) <= self.now

    # Lessons

    def lessons(self, groups: list[_Group], wanted: int) -> None:
        """This week's lessons, the coming weeks', and then as many weeks back as it takes."""
        for week in chain(range(WEEKS_AHEAD + 1), count(-1, -1)):
            for group in groups:
                for student in group.students:
                    if student.stopped_in_week is not None and week >= student.stopped_in_week:
                        continue
                    if wanted == 0:
                        return
                    self.lesson(group, student, week)
                    wanted -= 1
            if week < -1000:
                raise ValueError("no student is left to have lessons; ask for fewer")

    def lesson(self, group: _Group, student: _Student, week: int) -> None:
        starts_at, ends_at = group.lesson(week)
        if ends_at == self.last_hour:
            status = "scheduled"
        elif ends_at < self.last_hour:
            status = self.pick(OUTCOMES)
        else:
            status = "cancelled" if self.chance(0.03) else "scheduled"
        session = self.session(group.teacher, student, starts_at, status, group.mode, group.grace)
        session["credit_cost"] = 2 if len(group.students) == 1 else 1
        if ends_at == self.last_hour:
            self.just_ended.append(session["id"])
        if ends_at <= self.last_hour and status != "cancelled":
            student.last_seen = max(student.last_seen or starts_at, starts_at)
        self.consume(session, student)

    def lessons_of_the_gone(self, gone: list[_Student]) -> int:
        """Lessons of years ago, with their notes, of students who have left since; returns how many."""
        teachers = {teacher["id"]: teacher for teacher in self.teachers}
        made = 0
        for student in gone:
            student.last_seen = self.days_ago(300, 1200).replace(minute=0)
            for back in range(self.random.randint(1, 3)):
                teacher = teachers[student.row["teacher_id"]]
                session = self.session(
                    teacher, student, student.last_seen - back * WEEK, "completed", "AUTO_COMPLETE", 15
                )
                self.consume(session, student)
                made += 1
            self.sell_credits(student)
        return made

    def session(self, teacher: Row, student: _Student, starts_at: datetime, status: str, mode: str, grace: int) -> Row:
        ends_at = starts_at + HOUR
        is_done = status in ("completed", "pending_review", "no_show")
        return self.add(
            tutoring.sessions,
            teacher_id=teacher["id"],
            student_id=student.id,
            starts_at=starts_at,
            ends_at=ends_at,
            grace_period_minutes=grace,
            completion_mode="PENDING_REVIEW" if status == "pending_review" else mode,
            status=status,
            credit_cost=1,
            content=self.notes(student) if is_done and status != "no_show" and self.chance(0.6) else None,
            completed_at=ends_at + timedelta(minutes=grace) if status == "completed" else None,
            created_at=starts_at - 4 * WEEK,
        )

    def notes(self, student: _Student) -> str:
        done, next_time = self.random.sample(TOPICS, 2)
        return f"Worked on {done} with {student.first_name}. Next time: {next_time}."

    # Money

    def consume(self, session: Row, student: _Student) -> None:
        if session["status"] == "scheduled":
            student.consumed += session["credit_cost"]  # will be, and is paid for
        if session["status"] != "completed":
            return
        student.consumed += session["credit_cost"]
        self.add(
            tutoring.credit_ledger,
            student_id=student.id,
            session_id=session["id"],
            kind="CONSUME",
            amount=-session["credit_cost"],
            created_at=session["completed_at"],
        )

    def sell_credits(self, student: _Student) -> None:
        """As many packages as it takes for all lessons, those to come included."""
        for package in range(student.consumed // PACKAGE + 1):
            self.add(
                tutoring.credit_ledger,
                student_id=student.id,
                session_id=None,
                kind="PURCHASE",
                amount=PACKAGE,
                created_at=student.row["created_at"] + package * timedelta(days=20),
            )

    def enrol(self, student: _Student) -> None:
        ending_soon = self.chance(0.05)
        self.add(
            tutoring.enrollments,
            student_id=student.id,
            starts_on=self.today - timedelta(days=self.random.randint(60, 90)),
            ends_on=self.today
            + timedelta(days=self.random.randint(2, 12) if ending_soon else self.random.randint(60, 150)),
            status="active",
        )

    # Messages

    def talk_to(self, student: _Student) -> None:
        student.row["last_activity_at"] = student.last_seen or student.row["created_at"]
        for _ in range(self.pick({0: 40, 1: 35, 2: 25})):
            self.add(
                tutoring.contact_log,
                student_id=student.id,
                teacher_id=student.row["teacher_id"],
                channel=self.random.choice(("whatsapp", "email", "phone")),
                direction=self.random.choice(("inbound", "outbound")),
                body=f"{student.first_name}: how are you getting on with {self.random.choice(TOPICS)}?",
                occurred_at=self.days_ago(1, 500),
            )
        if student.row["status"] == "active" and self.chance(0.03):
            self.add(
                tutoring.scheduled_messages,
                teacher_id=student.row["teacher_id"],
                student_id=student.id,
                channel=self.random.choice(("whatsapp", "email", "phone")),
                body=f"Remind {student.first_name} to practise {self.random.choice(TOPICS)}.",
                send_at=self.now + timedelta(hours=self.random.randint(24, 240)),
                status="pending",
                created_at=self.days_ago(1, 5),
            )

    def waiting_lists(self, groups: list[_Group]) -> None:
        """Full groups of next week, and who would like to join them."""
        of_teacher: dict[UUID, list[_Student]] = {}
        for group in groups:
            of_teacher.setdefault(group.teacher["id"], []).extend(group.students)
        sessions = {(row["student_id"], row["starts_at"]): row["id"] for row in self.rows[tutoring.sessions]}
        for group in groups:
            others = [student for student in of_teacher[group.teacher["id"]] if student not in group.students]
            starts_at, _ = group.lesson(1)
            lesson = next((sessions[key] for s in group.students if (key := (s.id, starts_at)) in sessions), None)
            if len(group.students) < 4 or lesson is None or len(others) < 3 or not self.chance(0.2):
                continue
            waitlist = self.add(
                tutoring.waitlists,
                teacher_id=group.teacher["id"],
                session_id=lesson,
                capacity=len(group.students),
                offer_window_seconds=172_800,
            )
            waiting = self.random.sample(others, min(len(others), self.random.randint(3, 8)))
            for position, student in enumerate(waiting, start=1):
                self.add(
                    tutoring.waitlist_entries,
                    waitlist_id=waitlist["id"],
                    student_id=student.id,
                    position=position,
                    status="waiting",
                    created_at=self.days_ago(1, 20),
                )

    # Material and Google

    def material(self, teacher: Row) -> None:
        students = self.active_students.get(teacher["id"], [])
        for _ in range(self.random.randint(1, 4)):
            item = self.add(
                tutoring.content_items,
                teacher_id=teacher["id"],
                title=f"All about {self.random.choice(TOPICS)}",
                created_at=self.days_ago(100, 300),
            )
            for _ in range(self.random.randint(0, 15) if students else 0):
                occurred_at = self.days_ago(0, 95)
                self.add(
                    tutoring.content_events,
                    item_id=item["id"],
                    student_id=self.random.choice(students),
                    kind=self.pick({"view": 75, "download": 15, "assignment": 10}),
                    occurred_at=occurred_at,
                    seconds=self.random.randint(20, 1_800),
                    created_at=occurred_at,
                )
        if not self.chance(0.5):
            return
        resource = self.add(
            tutoring.drive_resources,
            teacher_id=teacher["id"],
            drive_file_id=self.file_id(),
            name=f"Worksheet: {self.random.choice(TOPICS)}",
        )
        for student_id in self.random.sample(students, min(len(students), 3)):
            self.add(
                tutoring.drive_file_copies,
                resource_id=resource["id"],
                student_id=student_id,
                copied_file_id=self.file_id(),
                status="copied",
                verified_at=self.now - timedelta(hours=self.random.randint(4, 28)),
            )

    def calendar(self) -> None:
        """Coming lessons of teachers with a calendar have their events; the last forty changes are still to be made."""
        connected = {row["teacher_id"] for row in self.rows.get(tutoring.calendar_connections, ())}
        coming = [
            row
            for row in self.rows[tutoring.sessions]
            if row["teacher_id"] in connected and row["starts_at"] > self.now and row["status"] == "scheduled"
        ]
        for number, session in enumerate(coming, start=1):
            is_synced = number <= len(coming) - 40
            self.add(
                tutoring.session_calendar_sync,
                session_id=session["id"],
                teacher_id=session["teacher_id"],
                action="upsert",
                status="synced" if is_synced else "pending",
                attempts=1 if is_synced else 0,
                external_event_id=UUID(str(session["id"])).hex if is_synced else None,
                created_at=self.now - timedelta(minutes=self.random.randint(1, 4))
                if not is_synced
                else session["created_at"],
            )

    # Compliance

    def erasures(self, enrolled: list[_Student], gone: list[_Student]) -> None:
        """A few requests to be forgotten: most of them in time, some overdue."""
        asking = self.random.sample(gone, min(len(gone), 6)) + self.random.sample(enrolled, min(len(enrolled), 2))
        for student in asking:
            requested_at = self.days_ago(3, 60)
            self.add(
                tutoring.erasure_requests,
                student_id=student.id,
                requested_at=requested_at,
                due_at=requested_at + timedelta(days=30),
                status="open",
            )

    def audit(self) -> None:
        years = {"financial": 8, "student": 4, "general": 2, "marketing": 1}
        for _ in range(5 * len(self.teachers)):
            tier = self.random.choice(list(years))
            student = self.random.choice(self.rows[tutoring.students])
            self.add(
                platform.audit_logs,
                tier=tier,
                action=self.random.choice(("student.updated", "credits.purchased", "session.moved", "login")),
                actor=str(self.random.choice(self.teachers)["id"]),
                subject=str(student["id"]),
                occurred_at=self.days_ago(0, 365 * years[tier]),
                details={"source": self.random.choice(("web", "app"))},
            )

    @cached_property
    def active_students(self) -> dict[UUID, list[UUID]]:
        """The students' ids by teacher, once the students are made."""
        found: dict[UUID, list[UUID]] = {}
        for row in self.rows[tutoring.students]:
            if row["status"] == "active":
                found.setdefault(row["teacher_id"], []).append(row["id"])
        return found

    # Chance

    def add(self, table: Table, *, row_id: bool = True, **columns: Any) -> Row:
        row = {"id": UUID(int=self.random.getrandbits(128), version=4), **columns} if row_id else columns
        self.rows.setdefault(table, []).append(row)
        return row

    def name(self) -> str:
        return f"{self.random.choice(self.first_names)} {self.random.choice(self.last_names)}"

    def file_id(self) -> str:
        return f"1{self.random.getrandbits(160):040x}"[:33]

    def days_ago(self, least: int, most: int) -> datetime:
        return self.last_hour - timedelta(minutes=self.random.randint(least * 1440, most * 1440))

    def chance(self, probability: float) -> bool:
        return self.random.random() < probability

    def pick[T](self, weights: Mapping[T, int]) -> T:
        return self.random.choices(list(weights), list(weights.values()))[0]
