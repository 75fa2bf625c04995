"""An alert says in one line what is wrong, and nothing that it should not."""

from typing import Any

import pytest
from pydantic import ValidationError

from schoolbell.alerts import Alert, Severity

GIVEN: dict[str, Any] = {
    "key": "dead-letters/tutoring.auto-complete",
    "severity": "warning",
    "summary": "2 messages of tutoring.auto-complete are dead",
    "source": "platform.dead-letter-sweep",
    "details": {"messages": 2},
}


def test_an_alert_is_a_trigger_unless_it_says_otherwise() -> None:
    alert = Alert.model_validate(GIVEN)
    assert (alert.action, alert.severity, alert.details) == ("trigger", Severity.WARNING, {"messages": 2})


@pytest.mark.parametrize(
    "wrong",
    [
        {"severity": "fatal"},
        {"action": "acknowledge"},
        {"key": ""},
        {"key": "with a space"},
        {"key": "k" * 256},
        {"summary": ""},
        {"summary": "two\nlines"},
        {"summary": "s" * 1025},
        {"details": {"nested": {}}},
        {"recipient": "ops"},
        {"at": "2026-03-02T10:00:00"},
    ],
)
def test_what_is_no_alert_is_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        Alert.model_validate(GIVEN | wrong)
