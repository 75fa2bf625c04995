"""People are told once when something goes wrong and once when it is over, whatever is delivered how often."""

import json
from collections.abc import Callable
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any

import pytest
from sqlalchemy import select, update
from sqlalchemy.dialects.postgresql import insert

from functions.platform.alert_router.app import Notice, handler
from schoolbell import aws as clients
from schoolbell.alerts import Severity
from schoolbell.alerts.routing import Channel, owes
from schoolbell.database import Database
from schoolbell.domains.platform.schema import alerts, dead_letters, outbox
from schoolbell.settings import Settings
from tests.conftest import Queues
from tests.faults.crash import Crashing, assert_crash_safe
from tests.fixtures.database import Stored
from tests.fixtures.services import Services
from tests.performing import Invocation, Performed, Performer, sqs_event

JOB = "platform.alert-router"
KEY = "dead-letters/tutoring.auto-complete"

pytestmark = pytest.mark.usefixtures("keys_of_services")

Told = Callable[[], tuple[int, int]]


@pytest.fixture
def settings(settings: Settings, services: Services) -> Settings:
    """Settings that lead to the sandbox."""
    return services.settings_of(settings)


@pytest.fixture(autouse=True)
def router_queue(queues: Queues) -> None:
    queues.make(JOB)


@pytest.fixture
def told(services: Services) -> Told:
    """How many events PagerDuty took, and how many messages Slack."""
    return lambda: (len(services.sent("pagerduty")), len(services.sent("slack")))


@pytest.fixture
def alert(now: datetime) -> Callable[..., dict[str, Any]]:
    """A job's alert, some minutes from now: `alert("resolve", minutes=5)`."""

    def build(action: str = "trigger", minutes: float = 0, **more: Any) -> dict[str, Any]:
        return {
            "action": action,
            "key": KEY,
            "severity": "critical",
            "summary": "12 messages of tutoring.auto-complete are dead",
            "source": "platform.dead-letter-sweep",
            "details": {"messages": 12},
            "at": (now + timedelta(minutes=minutes)).isoformat(),
            **more,
        }

    return build


@pytest.fixture
def alarm(now: datetime) -> Callable[..., dict[str, Any]]:
    """What CloudWatch sends of an alarm: `alarm("OK", minutes=5)`."""

    def build(state: str = "ALARM", minutes: float = 0, **more: Any) -> dict[str, Any]:
        return {
            "AlarmName": "schoolbell-queue-backlog/tutoring.auto-complete",
            "AlarmDescription": "warning: more than 1000 messages wait for tutoring.auto-complete",
            "AWSAccountId": "123456789012",
            "NewStateValue": state,
            "NewStateReason": "Threshold Crossed: 1 datapoint [1200.0] was greater than the threshold (1000.0).",
            "StateChangeTime": (now + timedelta(minutes=minutes)).strftime("%Y-%m-%dT%H:%M:%S.000+0000"),
            "Region": "EU (Frankfurt)",
            "OldStateValue": "OK",
            "Trigger": {"MetricName": "ApproximateNumberOfMessagesVisible"},
            **more,
        }

    return build


def test_pagerduty_and_slack_are_told_when_it_begins_and_when_it_is_over(
    perform: Performer, services: Services, alert: Any
) -> None:
    assert perform(handler, alert()).failed == []
    assert [(each["status"], each["summary"]) for each in services.incidents()] == [
        ("triggered", "12 messages of tutoring.auto-complete are dead")
    ]
    perform(handler, alert("resolve", minutes=9))
    assert [each["status"] for each in services.incidents()] == ["resolved"]
    first, second = services.sent("slack")
    assert "Critical" in first["text"]
    assert "Resolved" in second["text"]


def test_fifty_alerts_of_one_trouble_are_one_message(
    perform: Performer, told: Told, alert: Any, stored: Stored
) -> None:
    for minutes in range(50):
        perform(handler, alert(minutes=minutes))
    assert told() == (1, 1)
    (row,) = stored(alerts)
    assert (row.status, row.occasions) == ("triggered", 50)


def test_a_second_delivery_tells_nobody(perform: Performer, told: Told, alert: Any, stored: Stored) -> None:
    for _ in range(3):
        perform(handler, alert())
    assert told() == (1, 1)
    assert [row.occasions for row in stored(alerts)] == [1]
    for _ in range(3):
        perform(handler, alert("resolve", minutes=1))
    assert told() == (2, 2)


def test_an_alarm_of_cloudwatch_says_its_kind_severity_and_job(
    perform: Performer, services: Services, told: Told, alarm: Any, stored: Stored
) -> None:
    perform(handler, alarm())
    (row,) = stored(alerts)
    assert (row.key, row.severity, row.source) == (
        "queue-backlog/tutoring.auto-complete",
        "warning",
        "tutoring.auto-complete",
    )
    assert row.summary == "more than 1000 messages wait for tutoring.auto-complete"
    assert told() == (0, 1), "a warning wakes nobody"
    perform(handler, alarm("OK", minutes=1))
    assert told() == (0, 2)
    assert "Resolved" in services.sent("slack")[1]["text"]


def test_an_alarm_that_is_not_ours_is_a_warning(perform: Performer, alarm: Any, stored: Stored) -> None:
    perform(handler, alarm(AlarmName="Disk of the wiki is full", AlarmDescription=None))
    (row,) = stored(alerts)
    assert (row.key, row.severity, row.summary) == ("Disk-of-the-wiki-is-full", "warning", "Disk of the wiki is full")


def test_an_alarm_without_data_says_nothing(perform: Performer, told: Told, alarm: Any, stored: Stored) -> None:
    perform(handler, alarm("INSUFFICIENT_DATA"), alarm("OK"))
    assert told() == (0, 0)
    assert [row.status for row in stored(alerts)] == ["resolved"]


def test_an_alarm_that_loses_its_data_stands(perform: Performer, told: Told, alarm: Any, stored: Stored) -> None:
    perform(handler, alarm("ALARM"), alarm("INSUFFICIENT_DATA"))
    assert told() == (0, 1)
    assert [row.status for row in stored(alerts)] == ["triggered"]


def test_what_is_only_for_information_is_kept_and_told_nobody(
    perform: Performer, told: Told, alert: Any, stored: Stored
) -> None:
    perform(handler, alert(severity="info"))
    assert told() == (0, 0)
    assert [row.severity for row in stored(alerts)] == ["info"]


def test_how_severe_it_must_be_is_a_parameter(perform: Performer, settings: Settings, told: Told, alert: Any) -> None:
    lower = settings.model_copy(update={"pagerduty_severity": "warning", "slack_severity": "critical"})
    Performer(replace(perform.runtime, settings=lower))(handler, alert(severity="warning"))
    assert told() == (1, 0)


def test_what_gets_worse_is_told_again(perform: Performer, services: Services, told: Told, alert: Any) -> None:
    perform(handler, alert(severity="warning"))
    perform(handler, alert(severity="critical", minutes=1))
    perform(handler, alert(severity="warning", minutes=2))
    assert told() == (1, 2)
    perform(handler, alert("resolve", minutes=3))
    assert [each["status"] for each in services.incidents()] == ["resolved"]


def test_a_trouble_that_comes_back_is_told_again(perform: Performer, told: Told, alert: Any, stored: Stored) -> None:
    for action, minutes in (("trigger", 0), ("resolve", 1), ("trigger", 2)):
        perform(handler, alert(action, minutes=minutes))
    assert told() == (3, 3)
    assert [(row.status, row.occasions) for row in stored(alerts)] == [("triggered", 1)]


def test_an_alert_that_its_end_has_overtaken_is_dropped(perform: Performer, told: Told, alert: Any) -> None:
    perform(handler, alert("resolve", minutes=5))
    perform(handler, alert("trigger", minutes=4))
    assert told() == (0, 0)


def test_an_end_that_a_newer_alert_has_overtaken_is_dropped(
    perform: Performer, told: Told, alert: Any, stored: Stored
) -> None:
    perform(handler, alert(minutes=0))
    perform(handler, alert(minutes=6))
    perform(handler, alert("resolve", minutes=5))
    assert told() == (1, 1)
    assert [row.status for row in stored(alerts)] == ["triggered"]


def test_one_that_is_down_is_tried_again_and_the_other_is_not_told_twice(
    perform: Performer, services: Services, told: Told, alert: Any
) -> None:
    services.fail("slack", status=503, times=1)
    assert perform(handler, alert()).failed == [0]
    assert told() == (1, 0)
    assert perform(handler, alert(), attempt=2).failed == []
    assert told() == (1, 1)


def test_one_that_asks_for_time_gets_it_and_no_attempt_is_lost(
    perform: Performer, services: Services, queues: Queues, alert: Any
) -> None:
    services.fail("slack", status=429, times=1, retry_after=30)
    assert perform(handler, alert()).failed == []
    assert delayed(queues) == 1


def delayed(queues: Queues) -> int:
    """How many messages of the router's queue wait for their time."""
    counted = "ApproximateNumberOfMessagesDelayed"
    url = clients.client("sqs").get_queue_url(QueueName="schoolbell-platform-alert-router")["QueueUrl"]
    answer = clients.client("sqs").get_queue_attributes(QueueUrl=url, AttributeNames=[counted])
    return int(answer["Attributes"][counted])


def test_what_could_not_be_told_is_a_dead_letter(
    perform: Performer, services: Services, alert: Any, stored: Stored
) -> None:
    services.fail("pagerduty", status=500, times=9)
    assert perform(handler, alert(), attempt=5).failed == [0]
    (letter,) = stored(dead_letters)
    assert (letter.job, letter.reason) == (JOB, "failed")


def test_slack_reads_no_message_three_times_when_nobody_knows_whether_it_arrived(
    perform: Performer, services: Services, told: Told, alert: Any
) -> None:
    services.fail("slack", garbage=True)
    answers = [perform(handler, alert(), attempt=attempt).failed for attempt in (1, 2, 3)]
    assert answers == [[0], [], []]
    assert services.requests() == {"pagerduty events.enqueue": 1, "slack webhook.post": 2}


@pytest.mark.parametrize(
    "body",
    [
        "not JSON",
        "[]",
        "null",
        '{"hello": "world"}',
        '{"AlarmName": "x"}',
        '{"AlarmName": "", "NewStateValue": "OK", "StateChangeTime": "2026-03-02T10:00:00Z"}',
        '{"action": "trigger", "key": "k", "severity": "critical", "summary": "s", "source": "j", "recipient": "x"}',
        '{"run_id": "0c1f8a52-3c1e-4f08-8f4b-6f0a5f6a4b10", "job": "tutoring.data-retention"}',
    ],
)
def test_what_is_no_alert_is_kept_with_the_reason(
    perform: Performer, queues: Queues, told: Told, stored: Stored, body: str
) -> None:
    assert perform(handler, body).failed == []
    assert told() == (0, 0)
    (letter,) = stored(dead_letters)
    assert (letter.reason, letter.payload) == ("discarded", body)
    assert len(queues.messages(JOB, dead=True)) == 1


def test_without_secrets_there_is_the_log_and_the_row(
    perform: Performer, services: Services, told: Told, alert: Any, stored: Stored, caplog: pytest.LogCaptureFixture
) -> None:
    for service in ("pagerduty", "slack"):
        name = f"{services.stack}/providers/{service}"
        clients.client("secretsmanager").delete_secret(SecretId=name, ForceDeleteWithoutRecovery=True)
    assert perform(handler, alert()).failed == []
    assert told() == (0, 0)
    assert [row.status for row in stored(alerts)] == ["triggered"]
    (said,) = (record for record in caplog.records if record.getMessage() == "alert")
    assert said.__dict__["key"] == KEY


def test_two_invocations_do_not_tell_at_once(
    database: Database, perform: Performer, told: Told, alert: Any, now: datetime
) -> None:
    perform(handler, alert(severity="info"))
    with database.transaction() as connection:
        connection.execute(update(alerts).values(claimed_until=now + timedelta(seconds=30)))
    assert perform(handler, alert(minutes=1)).failed == []
    assert told() == (0, 0)
    perform(handler, alert(minutes=1), now=now + timedelta(minutes=1))
    assert told() == (1, 1)


def test_a_crash_loses_no_alert_and_opens_no_second_incident(
    database: Database, perform: Performer, services: Services, alert: Any, now: datetime
) -> None:
    message = json.dumps(alert())
    perform(handler, alert(severity="warning", key="another"))  # from here on the keys are known
    services.ask("POST", "reset")
    later = now + timedelta(minutes=30)

    def again() -> Performed:
        return perform(handler, message, message_ids=["m"], attempt=2, now=later)

    def outside() -> Any:
        slack = services.sent("slack")
        assert len(slack) <= 2, "Slack knows no keys, so a crash after it answered may repeat one message"
        return [each["status"] for each in services.incidents()], {each["text"] for each in slack}

    assert_crash_safe(
        database,
        Crashing(
            run=lambda: perform(handler, message, message_ids=["m"]),
            recover=again,
            outside=outside,
            reset_outside=lambda: services.ask("POST", "reset"),
        ),
        volatile=frozenset({"alerts.notified_at"}),
    )


@pytest.mark.parametrize(
    ("status", "severity", "told", "least", "expected"),
    [
        ("triggered", "critical", None, "critical", "trigger"),
        ("triggered", "warning", None, "critical", ""),
        ("triggered", "warning", None, "warning", "trigger"),
        ("triggered", "warning", ("trigger", "warning", False), "warning", ""),
        ("triggered", "critical", ("trigger", "warning", False), "warning", "trigger"),
        ("triggered", "warning", ("trigger", "critical", False), "warning", ""),
        ("triggered", "warning", ("trigger", "warning", True), "warning", "trigger"),
        ("resolved", "critical", None, "warning", ""),
        ("resolved", "critical", ("trigger", "critical", False), "warning", "resolve"),
        ("resolved", "critical", ("trigger", "critical", True), "warning", "resolve"),
        ("resolved", "info", ("trigger", "critical", False), "warning", "resolve"),
        ("resolved", "critical", ("resolve", "critical", False), "warning", ""),
        ("resolved", "critical", ("resolve", "critical", True), "warning", "resolve"),
    ],
)
def test_what_a_channel_is_owed(status: str, severity: str, told: Any, least: str, expected: str) -> None:
    stored = dict(zip(("action", "severity", "uncertain"), told, strict=True)) if told else None

    class Standing:
        def __init__(self) -> None:
            self.status, self.severity, self.told = status, severity, {"slack": stored} if stored else {}

    channel = Channel("slack", sender=None, least=Severity(least), knows_keys=False)  # type: ignore[arg-type]
    assert owes(Standing(), channel) == expected  # type: ignore[arg-type]


# Runs


@pytest.fixture
def run(now: datetime) -> Callable[..., dict[str, Any]]:
    """How a run stands: `run(status="failed", error="...")`."""

    def build(**more: Any) -> dict[str, Any]:
        return {
            "run_id": "0c1f8a52-3c1e-4f08-8f4b-6f0a5f6a4b10",
            "job": "tutoring.data-retention",
            "status": "completed",
            "attempt": 1,
            "dry_run": False,
            "scheduled_for": now.isoformat(),
            "time_zone": "",
            "started_at": now.isoformat(),
            "finished_at": (now + timedelta(seconds=75)).isoformat(),
            "items_done": 3,
            "result": {"students_erased": 3},
            "error": None,
            **more,
        }

    return build


def test_a_run_is_told_slack_only_and_nothing_stands_for_it(
    perform: Performer, services: Services, told: Told, run: Any, stored: Stored
) -> None:
    assert perform(handler, run(status="running", finished_at=None), run(status="failed", error="no")).failed == []
    assert told() == (0, 2)
    assert [message["text"] for message in services.sent("slack")] == [
        "🔵 *Started:* tutoring.data-retention",
        "🔴 *Failed:* tutoring.data-retention: no",
    ]
    assert stored(alerts) == []


def test_how_severe_alerts_must_be_says_nothing_of_runs(
    perform: Performer, settings: Settings, told: Told, run: Any
) -> None:
    fewer = settings.model_copy(update={"slack_severity": "critical"})
    Performer(replace(perform.runtime, settings=fewer))(handler, run())
    assert told() == (0, 1)


def test_a_run_is_told_nobody_where_there_is_no_slack(
    perform: Performer, services: Services, told: Told, run: Any
) -> None:
    name = f"{services.stack}/providers/slack"
    clients.client("secretsmanager").delete_secret(SecretId=name, ForceDeleteWithoutRecovery=True)
    assert perform(handler, run()).failed == []
    assert told() == (0, 0)


def delivered(database: Database, run: dict[str, Any], attempt: int = 1) -> dict[str, Any]:
    """The event with which a row of the outbox comes to the router."""
    with database.transaction() as connection:
        values = {"destination": JOB, "payload": run, "dedup_key": "run"}
        connection.execute(insert(outbox).values(values).on_conflict_do_nothing())
        row = str(connection.execute(select(outbox.c.id)).scalar_one())
    return sqs_event([run], queue=JOB, attempt=attempt, message_ids=["m"], outbox_id=row)


def test_a_run_that_is_delivered_twice_is_told_once(
    perform: Performer, database: Database, told: Told, run: Any
) -> None:
    for attempt in (1, 2):
        assert perform(handler, event=delivered(database, run(), attempt)).failed == []
    assert told() == (0, 1)


def test_a_run_that_slack_did_not_take_is_told_later_or_dead(
    perform: Performer, services: Services, told: Told, run: Any, stored: Stored
) -> None:
    services.fail("slack", status=500, times=6)
    for attempt in range(1, 6):
        assert perform(handler, run(), attempt=attempt).failed == [0]
    (letter,) = stored(dead_letters)
    assert (letter.job, letter.reason, letter.error) == (JOB, "failed", "Unavailable: slack: 500 rollup_error")
    assert perform(handler, run()).failed == [0]
    assert perform(handler, run(), attempt=2).failed == []
    assert told() == (0, 1)


def test_a_run_waits_while_slack_asks_for_time(
    perform: Performer, services: Services, queues: Queues, told: Told, run: Any
) -> None:
    services.fail("slack", status=429, times=1, retry_after=30)
    assert perform(handler, run()).failed == []
    assert (delayed(queues), told()) == (1, (0, 0))


def test_a_run_that_slack_refuses_is_kept_with_the_reason(
    perform: Performer, services: Services, run: Any, stored: Stored
) -> None:
    services.fail("slack", status=400, times=1)
    assert perform(handler, run()).failed == []
    (letter,) = stored(dead_letters)
    assert letter.reason == "discarded"


def test_slack_reads_no_run_three_times_when_nobody_knows_whether_it_arrived(
    perform: Performer, services: Services, run: Any
) -> None:
    services.fail("slack", garbage=True)
    assert [perform(handler, run(), attempt=attempt).failed for attempt in (1, 2)] == [[0], []]


def test_a_crash_loses_no_run_and_tells_it_twice_at_most(
    perform: Performer, database: Database, services: Services, run: Any, now: datetime
) -> None:
    perform(handler, run(status="running"))  # from here on the webhook is known
    services.ask("POST", "reset")
    event = delivered(database, run())

    def recover() -> None:
        perform(handler, event=delivered(database, run(), attempt=2), now=now + timedelta(minutes=30))

    def outside() -> Any:
        slack = services.sent("slack")
        assert len(slack) in (1, 2), "Slack knows no keys, so a crash after it answered may repeat one message"
        return {each["text"] for each in slack}

    assert_crash_safe(
        database,
        Crashing(
            run=lambda: perform(handler, event=event, invocation=Invocation()),
            recover=recover,
            outside=outside,
            reset_outside=lambda: services.ask("POST", "reset"),
        ),
    )


def test_a_notice_is_cloudwatchs_or_a_jobs(alarm: Any, alert: Any, run: Any) -> None:
    assert Notice.model_validate_json(json.dumps(run())).run is not None
    assert Notice.model_validate_json(json.dumps(alarm())).alarm is not None
    assert Notice.model_validate_json(json.dumps(alert())).alert is not None
