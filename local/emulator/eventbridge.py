"""EventBridge: rules trigger within a second of their time, and one that was changed counts from the change."""

import time
from collections.abc import Callable

from ministack.services import eventbridge

TICK = 1.0  # seconds between two looks at the schedules and rules; ministack's own is 10


def count_from_changes(original: Callable[[], None]) -> Callable[[], None]:
    """A rule whose schedule was changed or resumed triggers at its next time; what passed before is not made up for.

    Ministack counts from when the rule last triggered, whatever its schedule was then, and so triggers at once when the
    new schedule has a time since.
    """
    seen: dict[tuple[str, str, str], tuple[str, str]] = {}

    def tick() -> None:
        for key, rule in list(eventbridge._rules._data.items()):
            schedule = (rule.get("ScheduleExpression", ""), rule.get("State", ""))
            if seen.setdefault(key, schedule) != schedule:
                seen[key] = schedule
                eventbridge._rule_last_fired[key] = time.time()
        original()

    return tick


def install() -> None:
    """Have rules trigger when they would on AWS."""
    eventbridge._SCHEDULER_TICK_INTERVAL = TICK
    eventbridge._tick_scheduled_rules = count_from_changes(eventbridge._tick_scheduled_rules)
