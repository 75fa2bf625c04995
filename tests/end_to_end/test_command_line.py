"""An operator's day with the command line, on the deployed stack."""

import json
from collections.abc import Iterator
from datetime import datetime
from typing import Any
from uuid import uuid4

import pytest

from local.home import CHECKOUT
from schoolbell.domains.platform.schema import audit_logs, dead_letters, job_runs
from schoolbell.domains.tutoring.schema import sessions
from tests.end_to_end.begun import PATIENCE
from tests.end_to_end.command_line import CommandLine
from tests.end_to_end.stack import SWEEP, Stack
from tests.end_to_end.waiting import eventually
from tests.factories import Make

COMPLETE = "tutoring.auto-complete"
RULED = "tutoring.metric-alerts"
SCHEDULED = "tutoring.lifecycle-detection"
DRY = "tutoring.data-retention"
MESSAGES = "tutoring.message-sweep"


@pytest.fixture
def schoolbell(stack: Stack) -> CommandLine:
    return CommandLine(stack)


def live(stack: Stack, job: str) -> dict[str, Any]:
    """All that AWS says about a job's schedule, but for when it was changed."""
    name = stack.resource(job)
    if job == RULED:
        events = stack.client("events")
        found = events.describe_rule(Name=name) | {"Targets": events.list_targets_by_rule(Rule=name)["Targets"]}
    else:
        found = stack.scheduler.get_schedule(GroupName=stack.name, Name=name)
    changing = {"ResponseMetadata", "LastModificationDate", "CreationDate", "CreatedBy"}
    return {key: value for key, value in found.items() if key not in changing}


def test_every_job_is_in_the_catalogue_with_what_rings_it(schoolbell: CommandLine) -> None:
    jobs = {job["name"]: job for job in schoolbell.json("jobs")}
    folders = CHECKOUT.glob("functions/*/*/app.py")
    assert jobs.keys() == {f"{path.parts[-3]}.{path.parts[-2].replace('_', '-')}" for path in folders}
    assert jobs[SCHEDULED]["schedule"]["kind"] == "scheduler"
    assert jobs[RULED]["schedule"] | {"next_run": None} == {
        "kind": "rule",
        "name": f"{schoolbell.stack.name}-tutoring-metric-alerts",
        "expression": "rate(1 hour)",
        "timezone": "UTC",
        "enabled": True,
        "next_run": None,
        "changed_at": None,
    }
    assert all(job["description"] for job in jobs.values())
    assert jobs[DRY]["has_dry_run"]
    assert jobs["tutoring.waitlist-offer"]["trigger"] == "called"
    assert "At 06:00" in schoolbell.run("jobs")


def test_a_scheduled_job_is_run_waited_for_and_looked_into(schoolbell: CommandLine, stack: Stack) -> None:
    answer = schoolbell.json("trigger", DRY, "--dry-run", "--wait")
    run = answer["outcome"]["run"]
    assert (run["status"], run["trigger"], run["dry_run"]) == ("completed", "manual", True)
    assert schoolbell.json("run", run["id"])["result"] == run["result"]
    assert run["id"] in [each["id"] for each in schoolbell.json("runs", DRY)]
    eventually(
        lambda: {"run started", "run ended"} <= {each["message"] for each in schoolbell.json("logs", run["id"])},
        "log of the whole run",
    )
    assert "✓ completed" in schoolbell.run("trigger", MESSAGES, "--wait")


def test_the_same_key_runs_a_job_once(schoolbell: CommandLine, stack: Stack) -> None:
    key = str(uuid4())
    first = schoolbell.json("trigger", MESSAGES, "--key", key, "--wait")
    second = schoolbell.json("trigger", MESSAGES, "--key", key, "--wait")
    assert first["handle"]["id"] == second["handle"]["id"]
    assert second["outcome"]["run"]["attempt"] == 1
    assert stack.count(job_runs, id=first["handle"]["id"]) == 1


def test_a_queue_job_is_run_and_waited_for(schoolbell: CommandLine, stack: Stack, make: Make) -> None:
    lesson = make.session()
    answer = schoolbell.json("trigger", COMPLETE, "--data", json.dumps({"session_id": str(lesson.id)}), "--wait")
    assert answer["outcome"]["state"] == "completed"
    assert stack.becomes(sessions, lesson.id, status="completed").completed_at is not None


def test_a_failing_message_is_seen_understood_put_right_and_sent_again(
    schoolbell: CommandLine, stack: Stack, make: Make
) -> None:
    missing = uuid4()
    body = json.dumps({"session_id": str(missing)})
    failed = schoolbell.json("trigger", COMPLETE, "--data", body, "--wait", code=1)
    assert f"no session {missing}" in failed["outcome"]["error"]
    letters = schoolbell.json("dead-letters", COMPLETE)
    (letter,) = [each for each in letters if str(missing) in each["payload"]]
    assert f"no session {missing}" in schoolbell.run("dead-letters", letter["id"])
    assert schoolbell.json("health", code=1)["dead_letters"] > 0
    stack.buried(COMPLETE, letter["payload"])

    make.session(id=missing)  # what was missing is entered
    assert schoolbell.json("redrive", letter["id"])["is_changed"]
    assert stack.becomes(sessions, missing, status="completed").completed_at is not None
    assert not schoolbell.json("redrive", letter["id"])["is_changed"]
    assert letter["id"] not in [each["id"] for each in schoolbell.json("dead-letters", COMPLETE)]


@pytest.fixture
def unswept(stack: Stack) -> Iterator[None]:
    """No sweep hides dead letters from others while it looks at them."""
    with stack.paused(SWEEP):
        yield


def test_all_of_a_queue_are_sent_again_and_what_stays_dead_is_dropped(
    schoolbell: CommandLine, stack: Stack, unswept: None
) -> None:
    job = "tutoring.session-events"
    colour = f"colour-{uuid4()}"
    missing = [uuid4() for _ in range(3)]
    bodies = [json.dumps({"type": "session.cancelled", "session_id": str(each), colour: "red"}) for each in missing]
    stack.drop(job, *bodies)
    for body in bodies:
        stack.dead_letter(job, body)
    eventually(lambda: sum(queue["dead"] for queue in schoolbell.json("queue", job)) >= 3, "dead letters on the queue")
    assert schoolbell.json("redrive", job)["count"] >= 3

    def are_dead_again() -> bool:
        open_letters = [each for each in schoolbell.json("dead-letters", job) if colour in each["payload"]]
        return len(open_letters) == 3 and schoolbell.json("queue", job)[0]["dead"] >= 3

    eventually(are_dead_again, "death of the same messages", patience=120)
    assert schoolbell.json("drop", job, "--yes")["count"] >= 3
    eventually(lambda: schoolbell.json("queue", job)[0]["dead"] == 0, "empty dead-letter queue")
    assert stack.rows(dead_letters, job=job, resolution="dropped")


@pytest.mark.parametrize("job", [RULED, SCHEDULED])
def test_a_schedule_is_paused_resumed_and_changed_where_it_is(schoolbell: CommandLine, stack: Stack, job: str) -> None:
    before = live(stack, job)
    try:
        assert schoolbell.run("pause", job) == f"✓ {job} is paused\n"
        assert live(stack, job) == before | {"State": "DISABLED"}
        assert schoolbell.run("pause", job) == f"- {job} was paused already\n"
        assert schoolbell.run("resume", job) == f"✓ {job} is resumed\n"
        assert live(stack, job) == before
        changed = schoolbell.json("reschedule", job, "cron(30 4 * * ? *)")
        assert len(changed["next"]) == 5
        assert live(stack, job) == before | {"ScheduleExpression": "cron(30 4 * * ? *)"}
        refused = schoolbell.json("reschedule", job, "cron(30 4 * * * *)", code=4)
        assert "needs ?" in refused["message"]
    finally:
        schoolbell.run("reschedule", job, before["ScheduleExpression"])
        schoolbell.run("resume", job)
    assert live(stack, job) == before
    acts = [row.action for row in stack.rows(audit_logs, subject=job)]
    assert acts[:3] == ["job.paused", "job.resumed", "job.rescheduled"]


def test_a_schedule_follows_its_zone_across_the_change_of_clocks(schoolbell: CommandLine) -> None:
    given = ("reschedule", SCHEDULED, "cron(30 2 27-29 3 ? 2050)", "--timezone", "Europe/Berlin", "--dry-run")
    # On 27 March 2050, a Sunday, 02:00 is 03:00.
    assert schoolbell.json(*given)["next"] == ["2050-03-28T00:30:00Z", "2050-03-29T00:30:00Z"]
    assert "Mon 28 Mar 2050 02:30 Europe/Berlin" in schoolbell.run(*given)


def test_a_delayed_trigger_is_a_one_shot_and_can_be_cancelled(schoolbell: CommandLine, stack: Stack) -> None:
    key = str(uuid4())
    handle = schoolbell.json("trigger", MESSAGES, "--delay", "1h", "--key", key)
    one_shot = stack.one_shot(handle["schedule"])
    assert one_shot
    assert one_shot["ActionAfterCompletion"] == "DELETE"
    assert schoolbell.json("cancel", key)["is_cancelled"]
    assert stack.one_shot(handle["schedule"]) is None
    assert schoolbell.json("cancel", key)["is_cancelled"]
    assert schoolbell.json("trigger", MESSAGES, "--delay", "1h", "--key", key)["is_new"]
    assert schoolbell.json("cancel", key)["is_cancelled"]


def test_delayed_triggers_run_when_they_are_due(
    schoolbell: CommandLine, stack: Stack, begun_triggers: dict[str, Any]
) -> None:
    scheduled, lesson = begun_triggers["scheduled"], begun_triggers["lesson"]
    (run,) = eventually(
        lambda: stack.rows(job_runs, id=scheduled["id"], status="completed"), "run of the one-shot", patience=PATIENCE
    )
    assert (run.trigger, run.job) == ("delayed", MESSAGES)
    assert run.started_at >= datetime.fromisoformat(scheduled["due_at"])
    stack.becomes(sessions, lesson.id, patience=PATIENCE, status="completed")
    for handle in (scheduled, begun_triggers["queued"]):
        name = handle["schedule"]
        eventually(lambda name=name: not stack.one_shot(name), "end of the one-shot")  # type: ignore[misc]
        assert not schoolbell.json("cancel", handle["key"], code=4)["is_cancelled"]
