"""A class's worksheet is copied in Google Drive, through a rate limit and an outage, once for each student."""

from datetime import UTC, datetime, timedelta
from typing import Any, Final

from local.demo.display import Act
from local.demo.running import Running, array
from local.generator import Term
from schoolbell.resilience.circuit import RECOVERY

TITLE: Final = "Copies in Drive, through a rate limit and an outage"
JOB: Final = "tutoring.drive-copy"
CIRCUIT: Final = "google-drive"
CLASS: Final = 10
FOLDER: Final = "application/vnd.google-apps.folder"
RETRY_AFTER: Final = 30  # seconds

_WORKSHEET = """
SELECT resource.id, resource.drive_file_id, resource.name, teacher.name AS teacher, teacher.id AS teacher_id,
       account.secret_id
FROM tutoring.drive_resources AS resource
JOIN tutoring.teachers AS teacher ON teacher.id = resource.teacher_id
JOIN tutoring.calendar_connections AS account ON account.teacher_id = teacher.id AND account.status = 'active'
ORDER BY (SELECT count(*) FROM tutoring.students WHERE teacher_id = teacher.id AND status = 'active') DESC, resource.id
LIMIT 1
"""
_CLASS = """
SELECT id, name FROM tutoring.students
WHERE teacher_id = :teacher_id AND status = 'active'
  AND id NOT IN (SELECT student_id FROM tutoring.drive_file_copies WHERE resource_id = :resource_id)
ORDER BY id LIMIT :number
"""
_FOLDERS = "UPDATE tutoring.students SET drive_folder_id = 'folder-' || id WHERE id = ANY (cast(:ids AS uuid[]))"
_COPIED = """
SELECT count(*) FROM tutoring.drive_file_copies
WHERE resource_id = :resource_id AND student_id = ANY (cast(:ids AS uuid[])) AND status = 'copied'
"""
_ERROR = (
    "SELECT max(last_error) FROM tutoring.drive_file_copies WHERE resource_id = :resource_id AND status = 'pending'"
)
_HANDLED = "SELECT coalesce(sum(items_total), 0) FROM platform.job_runs WHERE job = 'tutoring.drive-copy'"


def perform(act: Act, running: Running, term: Term) -> None:  # noqa: ARG001 - all acts are called alike
    """Have the worksheet copied while Google misbehaves."""
    sheet = running.row(_WORKSHEET)
    students = running.rows(_CLASS, teacher_id=sheet.teacher_id, resource_id=sheet.id, number=CLASS)
    ids = array(student.id for student in students)
    running.change(_FOLDERS, ids=ids)
    folders = [{"id": f"folder-{student.id}", "account": sheet.secret_id, "name": student.name} for student in students]
    running.google("POST", "files", {"files": [{**folder, "mimeType": FOLDER} for folder in folders]})
    wanted = [{"resource_id": str(sheet.id), "student_id": str(student.id)} for student in students]

    limit = {"method": "POST", "path": "/copy$", "account": sheet.secret_id, "times": 1}
    running.google(
        "POST", "faults", {**limit, "status": 429, "reason": "rateLimitExceeded", "retry_after": RETRY_AFTER}
    )
    act.say(f"{sheet.teacher}'s “{sheet.name}” is to be copied for {students[0].name}")
    running.send(JOB, wanted[:1])
    error = running.until(
        lambda: running.row(_ERROR, resource_id=sheet.id)[0], "Google's refusal to be recorded", seconds=90
    )
    act.say(f"{error}, Retry-After {RETRY_AFTER}: the message sleeps, no attempt counts")

    outage = running.google("POST", "faults", {"path": "^/drive/", "status": 500, "reason": "backendError"})
    running.send(JOB, wanted[1:])
    act.say(f"Drive answers 500 from now on, and {len(wanted) - 1} more students need the worksheet")
    opened = running.until(lambda: is_open(running), "the circuit to open", seconds=120)
    act.say(f"{failures(running)} requests failed: the circuit {CIRCUIT} opens, Google is left in peace")
    running.google("DELETE", f"faults/{outage['id']}")
    act.say("Google is well again; the messages sleep until a request may be tried")
    wait_for_probe(act, running, opened)
    running.until(lambda: running.circuit(CIRCUIT)[0] == "CLOSED", "the circuit to close", seconds=90)
    act.say("one request is let through and answered: the circuit closes")

    def look() -> bool:
        copied = running.number(_COPIED, resource_id=sheet.id, ids=ids)
        act.at(copied, len(students), "copies")
        return copied == len(students)

    running.until(look, "all copies to be made", seconds=120)
    act.progress = None
    act.say(f"all {len(students)} students have their copy")
    before = running.number(_HANDLED)
    running.send(JOB, wanted)
    running.until(lambda: running.number(_HANDLED) >= before + len(wanted), "the second deliveries", seconds=60)
    keys = copies_in_google(running, str(sheet.id))
    act.say(f"every message a second time: {len(keys)} copies in Google, as before")

    act.check("copies, says the database", len(students), running.number(_COPIED, resource_id=sheet.id, ids=ids))
    act.check("copies in Google", len(students), len(keys))
    act.check("students with a copy in Google", len(students), len(set(keys)))
    act.check("circuit google-drive", "CLOSED", running.circuit(CIRCUIT)[0])
    act.check("messages on the DLQ", 0, running.depth(JOB, dead=True))


def is_open(running: Running) -> datetime | None:
    """Since when the circuit is open, if it is."""
    state, since = running.circuit(CIRCUIT)
    return since if state == "OPEN" else None


def wait_for_probe(act: Act, running: Running, opened: datetime) -> None:
    """Wait until a circuit that has opened may be tried, and show it."""
    whole = RECOVERY.total_seconds()
    while (left := (opened + RECOVERY - datetime.now(UTC)) / timedelta(seconds=1)) > 0:
        act.at(whole - left, whole, "s until a request is tried")
        running.pause(0.5)
    act.progress = None


def failures(running: Running) -> int:
    """How many requests to Drive have failed on purpose, but for the one over the rate limit."""
    faulted: dict[str, int] = running.google("GET", "requests")["faulted"]
    return sum(number for operation, number in faulted.items() if operation.startswith("files.")) - 1


def copies_in_google(running: Running, resource: str) -> list[str]:
    """The keys of the copies of a resource that are in Google."""
    files: list[dict[str, Any]] = running.google("GET", "files")
    keys = [file["appProperties"].get("schoolbellCopy", "") for file in files]
    return [key for key in keys if key.startswith(resource)]
