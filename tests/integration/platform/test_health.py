"""What is told on HTTP is true, is told to whoever has the token, and is what Prometheus reads."""

import json
import shutil
import subprocess
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families

import schoolbell
from functions.platform.health import app, bearer
from functions.platform.health.app import handler
from functions.platform.health.bearer import Token
from schoolbell import aws as clients
from schoolbell.database import Database
from schoolbell.domains.platform.schema import alerts
from schoolbell.jobs.runtime import Runtime, install
from schoolbell.operations import statistics
from schoolbell.settings import Settings
from tests.factories import Make
from tests.fakes.deployed import QUEUED, RULED, SCHEDULED, deploy, let_a_message_wait
from tests.performing import Invocation

TOKEN = "a-token-of-the-tests"
SECRET = "schoolbell/monitoring-token"
DETAILS = ("/health/queues", "/health/events", "/metrics")


@dataclass
class Answer:
    """What the API answers."""

    status: int
    headers: dict[str, str]
    text: str

    @property
    def json(self) -> Any:
        return json.loads(self.text)

    def samples(self) -> dict[tuple[str, str], float]:
        """The metrics' values, by name and the label's value."""
        families = text_string_to_metric_families(self.text)
        return {
            (sample.name, next(iter(sample.labels.values()), "")): sample.value
            for family in families
            for sample in family.samples
            if "le" not in sample.labels
        }


def get(path: str, token: str | None = TOKEN, **headers: str) -> Answer:
    """Asks the API as API Gateway does."""
    given = {**({"authorization": f"Bearer {token}"} if token is not None else {}), **headers}
    event = json.loads(Path("events/platform/health.json").read_text())
    event |= {"rawPath": path, "routeKey": f"GET {path}", "headers": given}
    event["requestContext"]["http"]["path"] = path
    answer = handler(event, Invocation())
    headers = {**answer.get("headers", {}), **{name: v[0] for name, v in answer.get("multiValueHeaders", {}).items()}}
    return Answer(answer["statusCode"], headers, answer["body"])


@pytest.fixture(autouse=True)
def stack(
    aws: None, database: Database, settings: Settings, now: datetime, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Settings]:
    """A stack with a job of each kind, and a token."""
    deploy(settings)
    clients.client("secretsmanager").create_secret(Name=SECRET, SecretString=TOKEN)
    given = settings.model_copy(update={"monitoring_secret_id": SECRET})
    monkeypatch.setattr(bearer, "settings", lambda: given)
    monkeypatch.setattr(app, "token", Token())
    app._catalogues.clear()
    install(Runtime(database, given, clock=lambda: now))
    yield given
    install(None)


def test_anybody_is_told_that_it_lives_and_no_more() -> None:
    answer = get("/health", token=None)
    assert answer.status == 200
    assert answer.json == {"status": "ok", "version": schoolbell.__version__}


def test_the_version_is_the_projects() -> None:
    project = tomllib.loads(Path("pyproject.toml").read_text())["project"]
    assert schoolbell.__version__ == project["version"]


def test_it_lives_without_a_database_and_without_aws(settings: Settings, database: Database) -> None:
    install(None)
    assert get("/health", token=None).status == 200


@pytest.mark.parametrize("path", DETAILS)
@pytest.mark.parametrize(
    "authorization",
    [
        None,
        "",
        "Bearer",
        "Bearer ",
        "Bearer wrong",
        f"Bearer {TOKEN}x",
        f"Basic {TOKEN}",
        TOKEN,
        f"Bearer {TOKEN[:-1]}",
    ],
)
def test_without_the_token_nothing_is_told(path: str, authorization: str | None) -> None:
    answer = get(path, token=None, **({"authorization": authorization} if authorization is not None else {}))
    assert (answer.status, answer.json) == (401, {"message": "Unauthorized"})
    assert answer.headers["WWW-Authenticate"] == "Bearer"


def test_a_token_that_was_changed_is_read_again(monkeypatch: pytest.MonkeyPatch) -> None:
    assert get("/health/queues").status == 200
    clients.client("secretsmanager").put_secret_value(SecretId=SECRET, SecretString="another")
    assert get("/health/queues", token="another").status == 401, "it is not read again for everybody who guesses"
    monkeypatch.setattr(app.token, "_read_at", app.token._read_at - 61)
    assert get("/health/queues", token="another").status == 200
    assert get("/health/queues").status == 401


def test_an_empty_secret_lets_nobody_in(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(app.token, "_is_read_again", lambda: True)
    assert get("/metrics", token="").status == 401


def test_queues_are_told_with_what_waits_and_what_is_dead(stack: Settings) -> None:
    for _ in range(3):
        clients.client("sqs").send_message(QueueUrl=stack.queue_url(QUEUED), MessageBody="{}")
    clients.client("sqs").receive_message(QueueUrl=stack.queue_url(QUEUED))
    clients.client("sqs").send_message(QueueUrl=stack.dead_letter_queue_url(QUEUED), MessageBody="{}")
    told = get("/health/queues").json
    assert told["queues"][QUEUED] == {"waiting": 2, "active": 1, "pending": 3, "deadLetters": 1}
    assert told["status"] == "degraded"
    assert set(told["queues"]) == {
        QUEUED,
        "platform.notifications-high",
        "platform.notifications-low",
        "platform.notifications-normal",
    }


def test_events_are_told_with_the_fields_of_the_source(stack: Settings, make: Make, now: datetime) -> None:
    clients.client("sqs").send_message(QueueUrl=stack.queue_url(QUEUED), MessageBody="{}")
    make.run(QUEUED, trigger="queue", status="completed", started_at=now - timedelta(minutes=2), finished_at=now)
    make.dead_letter(SCHEDULED, dead_at=now - timedelta(hours=26))
    make.dead_letter(SCHEDULED, dead_at=now - timedelta(hours=50), resolved_at=now, resolution="dropped")
    clients.client("sqs").send_message(QueueUrl=stack.dead_letter_queue_url(SCHEDULED), MessageBody="{}")
    told = get("/health/events").json
    assert told["streams"][QUEUED] == {
        "pending": 1,
        "consumerGroups": [{"name": QUEUED, "pending": 0, "lag": 1}],
        "lastEventTimestamp": "2026-03-02T09:58:00Z",
    }
    assert told["dlq"] == {"messageCount": 1, "oldestMessage": "2026-03-01T08:00:00Z"}
    assert (told["status"], told["handlersRegistered"]) == ("degraded", 2)


def test_a_stack_at_rest_is_healthy() -> None:
    told = get("/health/events").json
    assert (told["status"], told["dlq"]) == ("healthy", {"messageCount": 0, "oldestMessage": None})


def test_a_queue_that_falls_behind_is_degraded(stack: Settings, database: Database, now: datetime) -> None:
    install(Runtime(database, stack.model_copy(update={"queue_backlog_messages": 1}), clock=lambda: now))
    for _ in range(2):
        clients.client("sqs").send_message(QueueUrl=stack.queue_url(QUEUED), MessageBody="{}")
    assert get("/health/queues").json["status"] == "degraded"


@pytest.mark.parametrize(("allowed", "status"), [(500, "healthy"), (400, "degraded")])
@pytest.mark.parametrize("path", ["/health/queues", "/health/events"])
def test_a_queue_whose_oldest_message_waits_too_long_is_degraded(
    stack: Settings, database: Database, now: datetime, path: str, allowed: int, status: str
) -> None:
    given = stack.model_copy(update={"oldest_message_seconds": allowed})
    install(Runtime(database, given, clock=lambda: now))
    let_a_message_wait(QUEUED, 420, stack, now)
    assert get(path).json["status"] == status


def test_metrics_tell_of_queues_runs_and_schedules(stack: Settings, make: Make, now: datetime) -> None:
    clients.client("sqs").send_message(QueueUrl=stack.queue_url(QUEUED), MessageBody="{}")
    ended = {"started_at": now - timedelta(seconds=3), "finished_at": now}
    make.run(QUEUED, trigger="queue", status="failed", items_done=7, items_failed=1, **ended)
    make.run(RULED, trigger="schedule", scheduled_for=now - timedelta(minutes=5), status="completed", **ended)
    make.run(RULED, trigger="schedule", scheduled_for=now - timedelta(minutes=20), status="failed", **ended)
    make.run(RULED, status="running", request_id="r")
    make.row(alerts, key="k", severity="critical", summary="s", source="j")
    answer = get("/metrics")
    assert answer.status == 200
    assert answer.headers["Content-Type"].startswith("text/plain")
    found = answer.samples()
    expected = {
        ("schoolbell_queue_waiting", QUEUED): 1,
        ("schoolbell_queue_active", QUEUED): 0,
        ("schoolbell_queue_completed_total", QUEUED): 7,
        ("schoolbell_queue_failed_total", QUEUED): 1,
        ("schoolbell_event_handler_errors_total", QUEUED): 1,
        ("schoolbell_dlq_messages", SCHEDULED): 0,
        ("schoolbell_processing_duration_seconds_count", QUEUED): 1,
        ("schoolbell_processing_duration_seconds_sum", QUEUED): 3,
        ("schoolbell_event_processing_duration_seconds_count", QUEUED): 1,
        ("schoolbell_scheduled_job_executions_total", RULED): 2,
        ("schoolbell_scheduled_job_failures_total", RULED): 1,
        ("schoolbell_scheduled_job_duration_seconds_count", RULED): 1,
        ("schoolbell_repeat_job_executions_total", RULED): 2,
        ("schoolbell_repeat_job_next_execution_seconds", RULED): 600,
        ("schoolbell_repeat_job_next_execution_seconds", SCHEDULED): 16 * 3600,
        ("schoolbell_scheduled_job_running", RULED): 1,
        ("schoolbell_scheduled_job_paused", RULED): 0,
        ("schoolbell_alerts_standing", "critical"): 1,
        ("schoolbell_alerts_standing", "warning"): 0,
    }
    assert {name: found.get(name) for name in expected} == expected


def test_a_job_that_is_paused_has_no_next_run(stack: Settings) -> None:
    clients.client("events").disable_rule(Name=stack.resource_name(RULED))
    found = get("/metrics").samples()
    assert ("schoolbell_repeat_job_next_execution_seconds", RULED) not in found
    assert found["schoolbell_scheduled_job_paused", RULED] == 1


def test_counters_do_not_go_down_when_the_history_is_cleaned(make: Make, database: Database, now: datetime) -> None:
    make.run(RULED, status="failed", started_at=now, finished_at=now)
    with database.transaction() as connection:
        statistics.roll_up(connection, now)
        connection.exec_driver_sql("DELETE FROM platform.job_runs")
    assert get("/metrics").samples()["schoolbell_scheduled_job_failures_total", RULED] == 1


def test_prometheus_has_no_complaint(make: Make, now: datetime) -> None:
    make.run(RULED, status="completed", started_at=now - timedelta(seconds=3), finished_at=now)
    page = get("/metrics").text
    for family in text_string_to_metric_families(page):
        assert family.name.startswith("schoolbell_"), family
        assert family.documentation, family
        for sample in family.samples:
            assert len(set(sample.labels) - {"le"}) <= 1
    promtool = shutil.which("promtool")
    if promtool:
        checked = subprocess.run(
            [promtool, "check", "metrics"], input=page, text=True, capture_output=True, check=False
        )
        assert (checked.returncode, checked.stdout + checked.stderr) == (0, "")


def test_histograms_are_cumulative(make: Make, now: datetime) -> None:
    for seconds in (0.5, 0.5, 70, 9_000):
        make.run(
            QUEUED, trigger="queue", status="completed", started_at=now - timedelta(seconds=seconds), finished_at=now
        )
    (family,) = (
        family
        for family in text_string_to_metric_families(get("/metrics").text)
        if family.name == "schoolbell_processing_duration_seconds"
    )
    buckets = {
        sample.labels["le"]: sample.value
        for sample in family.samples
        if sample.labels.get("queue") == QUEUED and "le" in sample.labels
    }
    assert (buckets["0.4"], buckets["0.63"], buckets["63"], buckets["100"], buckets["+Inf"]) == (0, 2, 2, 3, 4)


def test_a_stack_whose_database_is_away_is_unhealthy_and_says_no_more(
    stack: Settings, database: Database, now: datetime
) -> None:
    get("/health/queues")

    class Away(Database):
        def check(self) -> None:
            raise ConnectionError("password of postgres at 10.0.0.1")

    away = Away(database._find, timedelta(seconds=1))
    install(Runtime(away, stack, clock=lambda: now))
    answer = get("/health/events")
    assert (answer.status, answer.json) == (503, {"status": "unhealthy"})


def test_what_is_not_there_is_not_found() -> None:
    assert get("/metrics/more").status == 404


def test_a_queue_that_was_deleted_meanwhile_is_empty(stack: Settings) -> None:
    get("/metrics")
    clients.client("sqs").delete_queue(QueueUrl=stack.queue_url(QUEUED))
    assert get("/health/queues").json["queues"][QUEUED]["pending"] == 0
