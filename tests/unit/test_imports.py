"""What a cold start pays for: nothing heavy is imported before the first call."""

import subprocess
import sys

import pytest


@pytest.mark.parametrize(
    "module",
    [
        "schoolbell.gateways.google.calendar",
        "schoolbell.gateways.google.drive",
        "schoolbell.alerts.pagerduty",
        "schoolbell.alerts.slack",
        "schoolbell.notifications.providers.fcm",
        "schoolbell.notifications.providers.sendgrid",
        "schoolbell.notifications.providers.ses",
        "schoolbell.notifications.providers.sns",
        "schoolbell.notifications.providers.twilio",
        "schoolbell.resilience.guard",
        "functions.tutoring.calendar_sync.app",
        "functions.tutoring.drive_copy.app",
        "functions.tutoring.drive_sync.app",
        "functions.tutoring.drive_verify.app",
    ],
)
def test_imports_nothing_heavy(module: str) -> None:
    program = f"import sys, {module}; print(*sorted({{name.split('.')[0] for name in sys.modules}}))"
    paths = ":".join(path for path in sys.path if path)
    done = subprocess.run(
        [sys.executable, "-c", program], env={"PYTHONPATH": paths}, capture_output=True, text=True, check=True
    )
    heavy = {"boto3", "google", "urllib3", "requests", "cryptography"}
    assert heavy.intersection(done.stdout.split()) == set()
