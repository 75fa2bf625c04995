"""What Slack shows of a run, and which jobs' runs it is told of."""

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from schoolbell.alerts.run_notices import RunNotice
from schoolbell.alerts.slack import message_of_run
from schoolbell.settings import Settings

AT = datetime(2026, 3, 1, 3, 0, tzinfo=UTC)
RUN = "0c1f8a52-3c1e-4f08-8f4b-6f0a5f6a4b10"


def shown(**fields: Any) -> tuple[str, str, list[str], str]:
    """Text, colour, details and the line below them."""
    notice = RunNotice.model_validate(
        {
            "run_id": RUN,
            "job": "tutoring.data-retention",
            "status": "completed",
            "attempt": 1,
            "dry_run": False,
            "scheduled_for": AT,
            "time_zone": "",
            "started_at": AT,
            "finished_at": AT + timedelta(seconds=75),
            "items_done": 0,
            "result": None,
            "error": None,
            **fields,
        }
    )
    message = message_of_run(notice, "prod")
    (attachment,) = message["attachments"]
    details, below = attachment["blocks"]
    return (
        message["text"],
        attachment["color"],
        [each["text"] for each in details["fields"]],
        below["elements"][0]["text"],
    )


def test_a_run_that_begins() -> None:
    text, colour, details, below = shown(status="running", finished_at=None)
    assert (text, colour) == ("🔵 *Started:* tutoring.data-retention", "#175cd3")
    assert details == ["*scheduled for*\n1 Mar 2026, 03:00:00 UTC"]
    assert below == f"tutoring.data-retention  ·  prod  ·  run {RUN}"


def test_a_run_that_is_done_says_what_came_of_it() -> None:
    text, _, details, _ = shown(items_done=7, result={"students": 7, "rows_erased": {"notes": 3, "files": 4}})
    assert text == "🟢 *Completed:* tutoring.data-retention"
    assert details[1:] == ["*took*\n1 min 15 s", "*items done*\n7", "*students*\n7", "*rows erased*\nnotes 3, files 4"]


@pytest.mark.parametrize(
    ("fields", "text"),
    [
        ({"error": "an earlier run is not over"}, "⚪ *Skipped:* tutoring.data-retention: an earlier run is not over"),
        ({"status": "failed", "error": "x < y"}, "🔴 *Failed:* tutoring.data-retention: x &lt; y"),
        ({"status": "timed_out", "error": "out of time"}, "🔴 *Timed out:* tutoring.data-retention: out of time"),
        ({"dry_run": True}, "🟢 *Completed:* tutoring.data-retention (dry run)"),
    ],
)
def test_a_run_says_how_it_ended_and_why(fields: dict[str, Any], text: str) -> None:
    assert shown(**fields)[0] == text


@pytest.mark.parametrize(
    ("fields", "detail"),
    [
        ({"scheduled_for": None}, "*scheduled for*\nby hand"),
        ({"time_zone": "Europe/Madrid"}, "*scheduled for*\n1 Mar 2026, 03:00:00 UTC for Europe/Madrid"),
        ({"attempt": 2}, "*attempt*\n2"),
    ],
)
def test_a_run_says_what_is_particular_about_it(fields: dict[str, Any], detail: str) -> None:
    assert detail in shown(**fields)[2]


@pytest.mark.parametrize(
    ("given", "jobs"),
    [
        ("", set()),
        ("tutoring.data-retention", {"tutoring.data-retention"}),
        (" tutoring.data-retention, platform.audit-cleanup", {"tutoring.data-retention", "platform.audit-cleanup"}),
    ],
)
def test_jobs_are_named_with_commas_between(given: str, jobs: set[str]) -> None:
    assert Settings.model_validate({"slack_runs": given}).slack_runs == jobs
