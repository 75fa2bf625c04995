"""Carry changes of lessons over to their teachers' Google calendars, oldest first, twenty at a time.

              claimed, and Google took it
    pending ─────────────────────────────▶ synced
     │  ▲ │
     │  └─┘ a failure: again after a backoff; circuit open, no budget, token revoked: again later, no attempt counted
     │
     └──▶ failed: after 8 attempts, or at once for an error that never passes; the teacher is told once

What Google is told is always what the lesson's newest record says, with the times the lesson has now. So an older
record cannot undo a newer one: it never goes out by itself, and shares the fate of the one that replaced it. Two runs
never work on the same lesson at a time, since their requests could overtake each other.
"""

from uuid import UUID

from schoolbell.domains.tutoring import calendar_changes
from schoolbell.gateways.errors import Revoked
from schoolbell.gateways.google.calendar import calendar_circuit
from schoolbell.jobs import JobContext, Result, scheduled_job
from schoolbell.resilience.errors import CircuitOpen


class CalendarSynced(Result):
    """What became of the records that were claimed."""

    synced: int = 0
    postponed: int = 0
    """Failed, and will be tried again."""
    failed: int = 0
    """Given up."""
    waiting: int = 0
    """Not tried: circuit open, no budget, token revoked, or out of time."""
    circuit_open: bool = False


@scheduled_job("tutoring.calendar-sync")
def handler(job: JobContext) -> CalendarSynced:
    if calendar_circuit(job.settings).is_open():
        return CalendarSynced(circuit_open=True)
    changes = calendar_changes.claim(job)
    result = CalendarSynced()
    revoked: set[UUID] = set()
    trouble: Exception | None = None
    for change in changes:
        if job.remaining() < calendar_changes.ENOUGH_TIME:
            break
        if change.account.id in revoked:
            continue
        try:
            done = calendar_changes.carry_over(job, change)
        except CircuitOpen:
            result = result.plus(CalendarSynced(circuit_open=True))
            break
        except Revoked as error:
            revoked.add(change.account.id)
            calendar_changes.set_aside(job, change, error)
            continue
        except calendar_changes.OurTrouble as error:
            trouble = error
            continue
        result = result.plus(CalendarSynced(**{done: 1}))
    calendar_changes.let_go(job)
    if trouble:
        raise trouble
    left = len(changes) - result.synced - result.postponed - result.failed
    result = result.model_copy(update={"waiting": left})
    if len(changes) == calendar_changes.BATCH and not left:
        calendar_changes.go_on(job)
    return result
