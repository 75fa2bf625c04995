"""The command line says the same to people and to programs, and its exit code says how it ended."""

import json
import tomllib
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from importlib import import_module
from io import StringIO
from typing import Any
from uuid import UUID, uuid4

import pytest
from sqlalchemy import insert, update

from local.home import CHECKOUT
from schoolbell import aws
from schoolbell.cli import showing
from schoolbell.cli.commands import app, main
from schoolbell.database import Database
from schoolbell.domains.platform.schema import audit_logs, dead_letters, job_runs, outbox
from schoolbell.settings import Settings
from tests.fakes.deployed import (
    DRY,
    QUEUED,
    RULED,
    SCHEDULED,
    SEVERAL,
    Aws,
    by_time_zone,
    let_a_message_wait,
    tell_health_function,
)
from tests.fixtures.database import Stored

NOW = datetime.now(UTC)


@dataclass
class Said:
    """What a command said, and its exit code."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        return json.loads(self.out)


type Schoolbell = Callable[..., Said]


@pytest.fixture
def schoolbell(
    deployed: Aws,
    migrated: str,
    database: Database,
    settings: Settings,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> Schoolbell:
    """Runs the command: `schoolbell("jobs", "--json")`."""
    monkeypatch.setenv("DATABASE_URL", migrated)
    monkeypatch.setenv("SCHOOLBELL_STACK", settings.schoolbell_stack)
    monkeypatch.setenv("SCHOOLBELL_ACTOR", "ada")
    monkeypatch.setenv("SCHEDULER_ROLE_ARN", settings.scheduler_role_arn)
    monkeypatch.setattr(showing.console, "_width", 200)

    def run(*arguments: object) -> Said:
        capsys.readouterr()
        with pytest.raises(SystemExit) as ended:
            main([str(each) for each in arguments])
        said = capsys.readouterr()
        code = ended.value.code
        return Said(code if isinstance(code, int) else 0, said.out, said.err)

    return run


def ran(database: Database, job: str, **values: Any) -> UUID:
    row = {"job": job, "status": "completed", "started_at": NOW, "finished_at": NOW, **values}
    with database.transaction() as connection:
        found: UUID = connection.execute(insert(job_runs).values(row).returning(job_runs.c.id)).scalar_one()
    return found


def died(database: Database, settings: Settings, **values: Any) -> UUID:
    row = {"job": QUEUED, "queue": settings.resource_name(QUEUED), "payload": '{"n": 1}', "error": "why", **values}
    with database.transaction() as connection:
        found: UUID = connection.execute(insert(dead_letters).values(row).returning(dead_letters.c.id)).scalar_one()
    return found


# Every command, for people and for programs


def test_jobs(schoolbell: Schoolbell) -> None:
    said = schoolbell("jobs")
    assert said.code == 0
    assert "At 03:00, Europe/Berlin" in said.out
    assert "Every 15 minutes" in said.out
    assert "3 queues" in said.out
    listed = {job["name"]: job for job in schoolbell("jobs", "--json").json}
    assert listed[SCHEDULED]["schedule"]["timezone"] == "Europe/Berlin"
    assert listed[SCHEDULED]["timeout"] == 900
    assert listed[SEVERAL]["queues"][0] == "platform.notifications-high"
    assert [job["name"] for job in schoolbell("jobs", "--trigger", "called", "--json").json] == [
        "tutoring.waitlist-offer"
    ]
    assert schoolbell("jobs", "--paused", "--json").json == []


def test_show(schoolbell: Schoolbell, database: Database) -> None:
    ran(database, SCHEDULED, result={"asked": 7})
    said = schoolbell("show", SCHEDULED)
    assert "cron(0 3 * * ? *), Europe/Berlin" in said.out
    assert "✓ completed" in said.out
    shown = schoolbell("show", QUEUED, "--json").json
    assert (shown["job"]["name"], shown["queues"][0]["waiting"], shown["runs"]) == (QUEUED, 0, [])


def test_trigger(schoolbell: Schoolbell, deployed: Aws, stored: Stored) -> None:
    said = schoolbell("trigger", DRY, "--dry-run", "--data", '{"only": "7"}', "--key", "seven")
    assert said.code == 0
    assert f"{DRY} is triggered" in said.out
    ((function, event),) = deployed.invoked
    assert (function, event["dry_run"], event["only"]) == ("schoolbell-tutoring-data-retention", True, "7")
    again = schoolbell("trigger", DRY, "--dry-run", "--key", "seven", "--json").json
    assert (again["is_new"], again["id"]) == (False, event["run"]["id"])
    assert "already" in schoolbell("trigger", DRY, "--dry-run", "--key", "seven").out
    assert stored(audit_logs)[0].actor == "ada"


def test_trigger_takes_data_that_is_piped_in(
    schoolbell: Schoolbell, deployed: Aws, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.stdin", StringIO('{"only": "7"}'))
    assert schoolbell("trigger", DRY, "--data-file", "-").code == 0
    assert deployed.invoked[0][1]["only"] == "7"


@pytest.mark.parametrize(("status", "code"), [("completed", 0), ("failed", 1), ("timed_out", 1), ("running", 124)])
def test_trigger_waits_and_says_how_it_ended(
    schoolbell: Schoolbell, database: Database, monkeypatch: pytest.MonkeyPatch, status: str, code: int
) -> None:
    handle = schoolbell("trigger", SCHEDULED, "--key", "seven", "--json").json
    ran(database, SCHEDULED, id=UUID(handle["id"]), status=status, error="why", items_total=9, items_done=4)
    said = schoolbell("trigger", SCHEDULED, "--key", "seven", "--wait", "--timeout", "0s")
    assert said.code == code
    assert "4 of 9" in said.out
    waited = schoolbell("trigger", SCHEDULED, "--key", "seven", "--wait", "--timeout", "0s", "--json")
    assert (waited.code, waited.json["outcome"]["state"]) == (code, status)


def test_trigger_waits_for_a_message(schoolbell: Schoolbell, database: Database) -> None:
    schoolbell("trigger", QUEUED, "--key", "seven")
    with database.transaction() as connection:
        connection.execute(update(outbox).values(handled_at=NOW))
    said = schoolbell("trigger", QUEUED, "--key", "seven", "--wait")
    assert (said.code, "✓ completed" in said.out) == (0, True)


def test_a_delayed_trigger_and_its_cancellation(schoolbell: Schoolbell) -> None:
    said = schoolbell("trigger", SCHEDULED, "--delay", "1h30m", "--key", "seven")
    assert "to cancel it: schoolbell cancel 'seven'" in said.out
    assert schoolbell("cancel", "seven").code == 0
    assert schoolbell("cancel", "seven", "--json").json["is_cancelled"] is True
    at = (NOW + timedelta(days=1)).isoformat()
    handle = schoolbell("trigger", QUEUED, "--at", at, "--json").json
    assert handle["schedule"].startswith("trigger-tutoring-auto-complete-")
    assert schoolbell("cancel", handle["key"], "--json").json["is_cancelled"] is True
    too_late = schoolbell("cancel", "eight")
    assert (too_late.code, "nothing was triggered with the key eight" in too_late.out) == (4, True)


@pytest.mark.parametrize("job", [SCHEDULED, RULED])
def test_pause_and_resume(schoolbell: Schoolbell, job: str) -> None:
    assert schoolbell("pause", job).out == f"✓ {job} is paused\n"
    assert schoolbell("pause", job).out == f"- {job} was paused already\n"
    assert [each["name"] for each in schoolbell("jobs", "--paused", "--json").json] == [job]
    assert schoolbell("resume", job, "--json").json["is_changed"] is True
    again = schoolbell("resume", job, "--json")
    assert (again.code, again.json["is_changed"]) == (0, False)


def test_reschedule_shows_the_next_times_by_the_clock_of_the_zone(schoolbell: Schoolbell) -> None:
    said = schoolbell("reschedule", SCHEDULED, "cron(30 4 * * ? *)", "--timezone", "America/New_York", "--dry-run")
    assert f"{SCHEDULED} would run: At 04:30, America/New_York" in said.out
    assert said.out.count("04:30 America/New_York") == 5
    assert schoolbell("show", SCHEDULED, "--json").json["job"]["schedule"]["timezone"] == "Europe/Berlin"
    changed = schoolbell("reschedule", SCHEDULED, "cron(30 4 * * ? *)", "--timezone", "America/New_York", "--json").json
    assert (changed["change"]["is_changed"], len(changed["next"])) == (True, 5)
    assert schoolbell("show", SCHEDULED, "--json").json["job"]["schedule"]["timezone"] == "America/New_York"


def test_a_job_that_runs_by_time_zone_is_shown_in_no_zone(schoolbell: Schoolbell, settings: Settings) -> None:
    by_time_zone(SCHEDULED, settings)
    assert "At 03:00, by time zone" in schoolbell("jobs").out
    shown = schoolbell("show", SCHEDULED).out
    assert "At 03:00, by time zone" in shown
    assert "cron(0 3 * * ? *), by time zone" in shown
    tried = schoolbell("reschedule", SCHEDULED, "cron(30 4 * * ? *)", "--dry-run")
    assert f"{SCHEDULED} would run: At 04:30, by time zone" in tried.out
    changed = schoolbell("reschedule", SCHEDULED, "cron(30 4 * * ? *)")
    assert f"{SCHEDULED} runs from the next platform.schedule-sync on: At 04:30, by time zone" in changed.out


def test_unschedule_asks_first(schoolbell: Schoolbell) -> None:
    refused = schoolbell("unschedule", SCHEDULED)
    assert (refused.code, refused.err) == (4, "✗ nobody is there to be asked; add --yes if that is meant\n")
    assert schoolbell("unschedule", SCHEDULED, "--yes").code == 0
    assert "nothing: its schedule was deleted" in schoolbell("show", SCHEDULED).out


def test_runs_run_and_logs(schoolbell: Schoolbell, database: Database, settings: Settings) -> None:
    good = ran(database, SCHEDULED, result={"asked": 7}, started_at=NOW - timedelta(hours=1))
    bad = ran(database, SCHEDULED, status="failed", error="[red] alert", traceback="line 7")
    ran(database, DRY)
    said = schoolbell("runs", SCHEDULED)
    assert said.out.index(str(bad)) < said.out.index(str(good))
    assert "[red] alert" in said.out
    assert [run["id"] for run in schoolbell("runs", SCHEDULED, "--status", "failed", "--json").json] == [str(bad)]
    assert len(schoolbell("runs", "--json").json) == 3
    assert len(schoolbell("runs", "-n", "1", "--json").json) == 1
    assert "line 7" in schoolbell("run", bad).out
    assert schoolbell("run", good, "--json").json["result"] == {"asked": 7}
    logs, group = aws.client("logs"), f"/aws/lambda/{settings.resource_name(SCHEDULED)}"
    assert "its log is gone" in schoolbell("logs", bad).out
    logs.create_log_group(logGroupName=group)
    logs.create_log_stream(logGroupName=group, logStreamName="one")
    at = int(NOW.timestamp() * 1000)
    events = [
        {"timestamp": at, "message": json.dumps({"level": "ERROR", "message": text, "run_id": str(run), "n": 7})}
        for text, run in (("it broke", bad), ("another's", good))
    ]
    logs.put_log_events(logGroupName=group, logStreamName="one", logEvents=events)
    (record,) = schoolbell("logs", bad, "--json").json
    assert (record["level"], record["message"], record["fields"]) == ("ERROR", "it broke", {"n": 7})
    assert "ERROR   it broke n=7" in schoolbell("logs", bad).out


def test_queue(schoolbell: Schoolbell, settings: Settings) -> None:
    aws.client("sqs").send_message(QueueUrl=settings.queue_url(QUEUED), MessageBody="{}")
    (queue,) = schoolbell("queue", QUEUED, "--json").json
    assert (queue["name"], queue["waiting"], queue["dead"]) == (QUEUED, 1, 0)
    assert len(schoolbell("queue", "--json").json) == 4
    assert "It has no queue" in schoolbell("queue", SCHEDULED).out


def test_dead_letters_redrive_and_drop(schoolbell: Schoolbell, database: Database, settings: Settings) -> None:
    first, second, third = (died(database, settings, message_id=str(uuid4())) for _ in range(3))
    assert str(first) in schoolbell("dead-letters").out
    assert len(schoolbell("dead-letters", QUEUED, "--json").json) == 3
    assert '{"n": 1}' in schoolbell("dead-letters", first).out
    assert schoolbell("redrive", first).out == f"✓ a message of {QUEUED} is sent again\n"
    again = schoolbell("redrive", first, "--json")
    assert (again.code, again.json["is_changed"]) == (0, False)
    assert schoolbell("drop", second).code == 4
    assert schoolbell("drop", second, "--yes").code == 0
    assert schoolbell("redrive", QUEUED, "--json").json["count"] == 1
    assert schoolbell("dead-letters").out == "There are no dead letters.\n"
    resolved = {each["id"]: each["resolution"] for each in schoolbell("dead-letters", "--resolved", "--json").json}
    assert resolved == {str(first): "redriven", str(second): "dropped", str(third): "redriven"}
    assert schoolbell("drop", QUEUED, "--yes").out == f"- {QUEUED} has no dead letters\n"


@pytest.mark.parametrize(("variable", "value"), [("QUEUE_BACKLOG_MESSAGES", "0"), ("OLDEST_MESSAGE_SECONDS", "100")])
def test_health_judges_as_the_stacks_alarms_do(
    schoolbell: Schoolbell, settings: Settings, monkeypatch: pytest.MonkeyPatch, variable: str, value: str
) -> None:
    tell_health_function(settings, **{variable: value})
    let_a_message_wait(QUEUED, 150, settings, datetime.now(UTC))
    assert schoolbell("health").code == 1
    monkeypatch.setenv(variable, "1000")
    assert schoolbell("health").code == 0


def test_health(schoolbell: Schoolbell, database: Database, settings: Settings) -> None:
    said = schoolbell("health")
    assert (said.code, said.out) == (0, "✓ healthy: 6 jobs, 0 messages, 0 dead letters\n")
    died(database, settings)
    said = schoolbell("health", "--json")
    assert (said.code, said.json["problems"]) == (1, [f"{QUEUED}: 1 dead letter"])


# What goes wrong


@pytest.mark.parametrize(
    ("arguments", "code", "error"),
    [
        (("show", "tutoring.drive"), 3, "there is no job tutoring.drive"),
        (("run", UUID(int=7)), 3, f"there is no run {UUID(int=7)}"),
        (("redrive", UUID(int=7)), 3, f"there is no dead letter {UUID(int=7)}"),
        (("pause", QUEUED), 4, f"{QUEUED} has no schedule: its queue rings it"),
        (("reschedule", SCHEDULED, "rate(1 minutes)"), 4, "rate(1 minutes) must be rate(1 minute)"),
        (("trigger", SCHEDULED, "--dry-run"), 4, f"{SCHEDULED} has no dry run"),
        (("trigger", SCHEDULED, "--data", "[]"), 4, "data: not a JSON object"),
        (("trigger", SCHEDULED, "--data", "{"), 4, "data: not JSON: Expecting property name"),
    ],
)
def test_an_error_is_one_line_and_an_exit_code(
    schoolbell: Schoolbell, arguments: tuple[object, ...], code: int, error: str
) -> None:
    said = schoolbell(*arguments)
    assert said.code == code
    assert said.err.startswith(f"✗ {error}")
    assert said.out == ""
    said = schoolbell(*arguments, "--json")
    assert said.code == code
    assert said.json["message"].startswith(error)
    assert said.err == ""


@pytest.mark.parametrize(
    "arguments",
    [
        ("no-such-command",),
        ("run", "7"),
        ("runs", "-n", "0"),
        ("trigger", SCHEDULED, "--delay", "soon"),
        ("trigger", SCHEDULED, "--at", "tomorrow"),
        ("trigger", SCHEDULED, "--data", "{}", "--data-file", "-"),
        ("jobs", "--trigger", "sun"),
    ],
)
def test_wrong_usage_is_told_apart(schoolbell: Schoolbell, arguments: tuple[str, ...]) -> None:
    assert schoolbell(*arguments).code == 2


def test_a_database_that_does_not_answer_is_told_apart(schoolbell: Schoolbell, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DATABASE_URL", "postgresql://nobody@127.0.0.1:9/none?sslmode=disable")
    said = schoolbell("runs")
    assert said.code == 5
    assert said.err.startswith("✗ the database: ")
    monkeypatch.delenv("DATABASE_URL")
    assert schoolbell("runs").err.startswith("✗ set DATABASE_URL or DATABASE_SECRET_ID")


def test_the_secret_of_the_database_is_read(
    schoolbell: Schoolbell, migrated: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    from urllib.parse import urlsplit

    parts = urlsplit(migrated)
    secret = {"host": parts.hostname, "port": parts.port, "username": parts.username, "sslmode": "disable"}
    secret |= {"password": parts.password or "", "dbname": parts.path.lstrip("/")}
    aws.client("secretsmanager").create_secret(Name="database", SecretString=json.dumps(secret))
    monkeypatch.delenv("DATABASE_URL")
    monkeypatch.setenv("DATABASE_SECRET_ID", "database")
    assert schoolbell("runs", "--json").json == []


def test_every_command_has_an_example_and_answers_programs() -> None:
    for command in app.registered_commands:
        assert command.callback
        assert command.callback.__doc__, command.callback
        assert "`schoolbell " in command.callback.__doc__, command.callback
        assert "as_json" in command.callback.__annotations__, command.callback


def test_the_script_is_the_command_line() -> None:
    project = tomllib.loads((CHECKOUT / "pyproject.toml").read_text())["project"]
    module, _, name = project["scripts"]["schoolbell"].partition(":")
    assert getattr(import_module(module), name) is main
