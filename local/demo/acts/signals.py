"""The morning's signals to teachers, compared with a reckoning of their meaning, one student at a time."""

from collections import Counter, defaultdict
from datetime import UTC, date, datetime, timedelta
from typing import Any, Final
from uuid import UUID
from zoneinfo import ZoneInfo

from local.demo.display import Act
from local.demo.running import Running
from local.generator import Term
from schoolbell.domains.tutoring.schema import RETENTION_DEFAULTS

TITLE: Final = "The morning's signals"
JOB: Final = "tutoring.lifecycle-detection"
KINDS: Final = {
    "gap": "no lesson lately, and none booked",
    "churn": "no activity for weeks",
    "enrollment_expiring": "enrolment ends soon",
    "streak": "a lesson in each of many weeks",
}
WEEK: Final = timedelta(weeks=1)
LONGEST: Final = 53  # weeks a streak is followed back

_STANDING = "SELECT kind, count(*) FROM tutoring.lifecycle_signals WHERE ended_at IS NULL GROUP BY kind"
_TOLD = """
SELECT kind, count(*) FROM tutoring.teacher_notifications WHERE kind LIKE 'lifecycle~_%' ESCAPE '~' GROUP BY kind
"""
_STUDENTS = """
SELECT student.id, student.created_at, student.last_activity_at, teacher.timezone,
       setting.gap_days, setting.churn_days, setting.expiring_days, setting.streak_weeks
FROM tutoring.students AS student
JOIN tutoring.teachers AS teacher ON teacher.id = student.teacher_id
LEFT JOIN tutoring.retention_settings AS setting ON setting.teacher_id = student.teacher_id
WHERE student.status = 'active'
"""
_LESSONS = """
SELECT student_id, starts_at, status FROM tutoring.sessions
WHERE status IN ('completed', 'pending_review', 'scheduled')
"""
_ENROLMENTS = "SELECT student_id, ends_on FROM tutoring.enrollments WHERE status = 'active' AND ends_on IS NOT NULL"


def perform(act: Act, running: Running, term: Term) -> None:  # noqa: ARG001 - all acts are called alike
    """Ring the job as its schedule does at six, twice."""
    expected = reckon(running, datetime.now(UTC))
    now = datetime.now(UTC)
    six = now.replace(hour=6, minute=0, second=0, microsecond=0) - timedelta(days=now.hour < 6)
    event = {"scheduled_for": f"{six:%Y-%m-%dT%H:%M:%SZ}"}
    act.say(f"lifecycle-detection is rung as its schedule does: {event['scheduled_for']}")
    answer = running.invoke(JOB, event)
    result = answer.get("result") or {}
    act.say(f"{result.get('students', 0):,} active students looked at, in statements over all teachers")
    standing: dict[str, int] = dict(map(tuple, running.rows(_STANDING)))
    for kind, meaning in KINDS.items():
        act.say(f"{kind.replace('_', ' '):<20} {standing.get(kind, 0):>5,}  {meaning}")
    again = running.invoke(JOB, event)
    told: dict[str, int] = dict(map(tuple, running.rows(_TOLD)))
    act.say(f"delivered a second time: {again.get('status')}, nobody is told twice")

    for kind in KINDS:
        act.check(kind.replace("_", " "), expected[kind], standing.get(kind, 0))
    act.check("teachers' notifications", sum(standing.values()), sum(told.values()))


def reckon(running: Running, now: datetime) -> Counter[str]:
    """How many signals of each kind there should be, by the words of docs/lifecycle-signals.md."""
    lessons: dict[UUID, list[Any]] = defaultdict(list)
    for lesson in running.rows(_LESSONS):
        lessons[lesson.student_id].append(lesson)
    ends: dict[UUID, list[date]] = defaultdict(list)
    for enrolment in running.rows(_ENROLMENTS):
        ends[enrolment.student_id].append(enrolment.ends_on)
    found: Counter[str] = Counter()
    for student in running.rows(_STUDENTS):
        zone = ZoneInfo(student.timezone)
        today = now.astimezone(zone).date()
        own = lessons[student.id]
        begun = [lesson.starts_at for lesson in own if lesson.starts_at <= now]
        last = max(begun, default=student.last_activity_at or student.created_at)
        silence = (today - last.astimezone(zone).date()).days
        is_booked = any(lesson.starts_at > now and lesson.status == "scheduled" for lesson in own)
        found["gap"] += silence >= threshold(student, "gap_days") and not is_booked
        active = max(filter(None, [student.last_activity_at, *begun]), default=student.created_at)
        found["churn"] += (today - active.astimezone(zone).date()).days >= threshold(student, "churn_days")
        left = [(last_day - today).days for last_day in ends[student.id]]
        found["enrollment_expiring"] += sum(0 <= days <= threshold(student, "expiring_days") for days in left)
        weeks = {monday(lesson.starts_at, zone) for lesson in own if lesson.status == "completed"}
        found["streak"] += streak(weeks, today - timedelta(days=today.weekday())) >= threshold(student, "streak_weeks")
    return found


def threshold(student: Any, name: str) -> int:
    """The teacher's own threshold, or the one for all."""
    own = getattr(student, name)
    return int(RETENTION_DEFAULTS[name] if own is None else own)


def monday(moment: datetime, zone: ZoneInfo) -> date:
    """The Monday of a moment's week, where the teacher is."""
    day = moment.astimezone(zone).date()
    return day - timedelta(days=day.weekday())


def streak(weeks: set[date], this_week: date) -> int:
    """How many weeks in a row, up to this one or the one before."""
    week = this_week if this_week in weeks else this_week - WEEK
    length = 0
    while week in weeks and length < LONGEST:
        week, length = week - WEEK, length + 1
    return length
