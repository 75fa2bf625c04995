"""Changes of lessons go to Google Calendar; it fails, its circuit opens, and closes when it is well."""

from datetime import datetime
from typing import Any, Final

from local.demo.acts.drive import wait_for_probe
from local.demo.display import Act
from local.demo.running import Running, count
from local.generator import Term
from schoolbell.gateways.google.calendar import event_id

TITLE: Final = "A calendar sync whose circuit opens and closes"
JOB: Final = "tutoring.calendar-sync"
CIRCUIT: Final = "google-calendar"

_PENDING = "SELECT id, session_id FROM tutoring.session_calendar_sync WHERE status = 'pending'"
_STATES = """
SELECT count(*) FILTER (WHERE status = 'synced') AS synced,
       count(*) FILTER (WHERE status = 'pending' AND attempts = 0) AS untried,
       count(*) FILTER (WHERE status = 'pending' AND attempts > 0 AND next_attempt_at IS NOT NULL) AS postponed,
       count(*) FILTER (WHERE status = 'failed') AS failed,
       max(next_attempt_at) FILTER (WHERE status = 'pending') AS next_attempt_at
FROM tutoring.session_calendar_sync WHERE id = ANY (cast(:ids AS uuid[]))
"""


def perform(act: Act, running: Running, term: Term) -> None:  # noqa: ARG001 - all acts are called alike
    """Ring the job as its rule does every five minutes, while Google is away and when it is back."""
    changes = running.rows(_PENDING)
    ids = f"{{{','.join(str(change.id) for change in changes)}}}"
    outage = running.google("POST", "faults", {"path": "^/calendar/", "status": 503, "reason": "backendError"})
    act.say(f"{count(len(changes), 'change')} are to go to teachers' calendars, and Google answers 503")

    def open_it() -> datetime | None:
        ring(running)
        state, since = running.circuit(CIRCUIT)
        return since if state == "OPEN" else None

    opened = running.until(open_it, "the circuit to open", seconds=120)
    states = running.row(_STATES, ids=ids)
    act.say(f"{states.postponed} failed: the circuit {CIRCUIT} opens, {states.untried} are not even tried")
    asked = requests(running)
    result = ring(running)
    withheld = requests(running) - asked
    act.say(f"rung again: {'circuit open' if result.get('circuit_open') else result}, {withheld} requests to Google")
    running.google("DELETE", f"faults/{outage['id']}")
    wait_for_probe(act, running, opened)

    least = len(changes) - int(states.postponed)

    def carry_over() -> bool:
        ring(running)
        synced = int(running.row(_STATES, ids=ids).synced)
        act.at(synced, least, "changes")
        return synced >= least

    running.until(carry_over, "the changes to be carried over", seconds=120)
    act.progress = None
    state, _ = running.circuit(CIRCUIT)
    act.say("Google is well again: the first request closes the circuit, the others follow")
    states = running.row(_STATES, ids=ids)
    act.say(f"{states.synced} of {len(changes)} are in Google's calendars")
    if states.postponed:
        act.say(f"{states.postponed} wait for their backoff, the last until {states.next_attempt_at:%H:%M:%S}")
    wanted = {event_id(change.session_id) for change in changes}
    events = [event["id"] for event in running.google("GET", "events") if event["id"] in wanted]

    act.check("requests while it was open", 0, withheld)
    act.check("changes synced, or waiting", len(changes), states.synced + states.postponed)
    act.check("events in Google's calendars", states.synced, len(events))
    act.check("changes given up", 0, states.failed)
    act.check("circuit google-calendar", "CLOSED", state)


def ring(running: Running) -> dict[str, Any]:
    """Ring the job as its rule does, once a second at most: a second has one run. Returns what the run says."""
    running.pause(1)
    return dict(running.ring(JOB).get("result") or {})


def requests(running: Running) -> int:
    """How many requests Google Calendar has seen."""
    by_operation: dict[str, int] = running.google("GET", "requests")["by_operation"]
    return sum(number for operation, number in by_operation.items() if operation.startswith("events."))
