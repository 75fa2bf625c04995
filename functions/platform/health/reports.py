"""The state of the stack as `/health/queues` and `/health/events` tell it."""

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from schoolbell.jobs.runtime import Runtime

if TYPE_CHECKING:
    from schoolbell.monitoring.state import State
    from schoolbell.operations.catalogue import JobInfo
    from schoolbell.operations.queues import QueueDepth


def queue_as_json(queue: "QueueDepth") -> dict[str, int]:
    return {
        "waiting": queue.unreceived,
        "active": queue.in_flight,
        "pending": queue.pending,
        "deadLetters": queue.dead,
    }


def stream_as_json(job: "JobInfo", name: str, state: "State") -> dict[str, Any]:
    queue = state.queues[name]
    group = {"name": job.name, "pending": queue.in_flight, "lag": queue.unreceived}
    last = state.last_events.get(job.name)
    return {"pending": queue.pending, "consumerGroups": [group], "lastEventTimestamp": as_text(last)}


def dead_as_json(state: "State") -> dict[str, Any]:
    return {"messageCount": sum(state.dead.values()), "oldestMessage": as_text(state.oldest_dead)}


def as_text(moment: datetime | None) -> str | None:
    """A time as source 001 writes it: `2025-11-16T10:30:00Z`."""
    return f"{moment.astimezone(UTC):%Y-%m-%dT%H:%M:%SZ}" if moment else None


def status_of(state: "State", on: Runtime) -> str:
    """`degraded` when something is dead, or a queue is behind by the thresholds of its alarms."""
    from schoolbell.operations.queues import Thresholds, oldest_messages

    thresholds = Thresholds.of(on.settings)
    ages = oldest_messages(state.queues.values(), on.settings, on.clock())
    is_behind = any(thresholds.are_exceeded(depth, ages.get(name)) for name, depth in state.queues.items())
    return "degraded" if is_behind or any(state.dead.values()) else "healthy"
