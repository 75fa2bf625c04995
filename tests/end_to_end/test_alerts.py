"""What goes wrong on the deployed stack is told once, from the alarm to PagerDuty and Slack, and so is its end."""

import json
import shutil
import subprocess
from collections.abc import Callable
from datetime import UTC, datetime
from http.client import HTTPConnection
from typing import Any
from urllib.request import urlopen
from uuid import uuid4

import pytest
from prometheus_client.parser import text_string_to_metric_families
from sqlalchemy import select

from schoolbell.domains.platform.schema import alerts, outbox
from tests.end_to_end.stack import Stack
from tests.end_to_end.waiting import eventually

ROUTER = "platform.alert-router"
BEHIND = "tutoring.waitlist-openings"
"""The queue that is filled and purged: one on which no other test has a message under way."""

OVER_THE_THRESHOLD = 1_001
"""Messages: `QueueBacklogMessages` is a thousand."""
AN_ALARM = 240.0
"""Seconds that are enough for an alarm to begin or to end: it looks back over a minute."""


def of_sandbox(stack: Stack, what: str) -> Any:
    """What PagerDuty and Slack have been told."""
    with urlopen(f"{stack.sandbox_url}/sandbox/{what}", timeout=60) as answer:
        return json.load(answer)


def slack_says(stack: Stack, text: str) -> list[str]:
    """The messages of Slack with a text in them, oldest first."""
    said = (sent["content"]["text"] for sent in of_sandbox(stack, "messages?service=slack"))
    return [each for each in said if text in each]


def incidents(stack: Stack, key: str) -> list[str]:
    """The states of PagerDuty's incidents of a key."""
    return [each["status"] for each in of_sandbox(stack, "incidents") if each["dedup_key"] == f"{stack.name}/{key}"]


def alarm_state(stack: Stack, name: str) -> str:
    """The state of one of the stack's alarms."""
    (alarm,) = stack.client("cloudwatch").describe_alarms(AlarmNames=[f"{stack.name}-{name}"])["MetricAlarms"]
    return str(alarm["StateValue"])


def test_from_alarm_to_people_and_back(stack: Stack) -> None:
    """A backlog is a warning, for Slack; an alert that nobody can read is a dead letter, and critical."""
    backlog, unread = f"queue-backlog/{BEHIND}", f"alerts-not-told/{ROUTER}"
    waiting = f"more than 1000 messages wait for {BEHIND}"
    before = len(slack_says(stack, waiting))  # on a stack that was kept
    with stack.held(BEHIND):
        stack.drop(ROUTER, "this is no alert")
        stack.drop(BEHIND, *(["{}"] * OVER_THE_THRESHOLD))
        eventually(lambda: slack_says(stack, waiting)[before:], "message about the backlog", patience=AN_ALARM)
        eventually(
            lambda: incidents(stack, unread) == ["triggered"],
            "incident about the alert that nobody can read",
            patience=AN_ALARM,
        )
        assert alarm_state(stack, backlog) == "ALARM"
        stack.sqs.purge_queue(QueueUrl=stack.queue_url(BEHIND))
        stack.sqs.purge_queue(QueueUrl=stack.queue_url(ROUTER, dead=True))
        eventually(lambda: len(slack_says(stack, waiting)) == before + 2, "end of the backlog", patience=AN_ALARM)
        eventually(lambda: incidents(stack, unread) == ["resolved"], "end of the incident", patience=AN_ALARM)
    begun, ended = slack_says(stack, waiting)[before:]
    assert ("Warning" in begun, "Resolved" in ended) == (True, True)
    assert incidents(stack, backlog) == [], "a warning wakes nobody"


def test_one_alert_and_not_fifty(stack: Stack) -> None:
    sns = stack.client("sns")
    (topic,) = (each["TopicArn"] for each in sns.list_topics()["Topics"] if each["TopicArn"].endswith("-alerts"))
    key = f"fifty-times/{uuid4()}"
    alert = {"key": key, "severity": "critical", "summary": f"Again and again: {key}", "source": "a-test"}
    for _ in range(50):
        sns.publish(TopicArn=topic, Message=json.dumps(alert))

    def all_seen() -> bool:
        with stack.database.transaction() as connection:
            rows = connection.execute(select(alerts).where(alerts.c.key == key)).all()
        return bool(rows) and stack.waiting(ROUTER) == 0

    eventually(all_seen, "end of the fifty alerts")
    assert len(slack_says(stack, alert["summary"])) == 1
    assert incidents(stack, key) == ["triggered"]
    sns.publish(TopicArn=topic, Message=json.dumps(alert | {"action": "resolve"}))
    eventually(lambda: incidents(stack, key) == ["resolved"], "end of the incident")


def test_slack_is_told_of_the_runs_of_the_jobs_that_were_named(stack: Stack) -> None:
    named, unnamed = (
        stack.invoke(job, {"dry_run": True})["run_id"]
        for job in ("platform.notification-cleanup", "platform.run-history-cleanup")
    )

    def told(run: str) -> list[str]:
        sent = [each["content"] for each in of_sandbox(stack, "messages?service=slack")]
        return sorted(each["text"] for each in sent if f"run {run}" in str(each))

    eventually(lambda: len(told(named)) >= 2, "beginning and end of the run")
    job = "platform.notification-cleanup (dry run)"
    assert told(named) == sorted([f"🔵 *Started:* {job}", f"🟢 *Completed:* {job}"])
    assert told(unnamed) == []
    for state in ("running", "completed"):
        notice = stack.row(outbox, dedup_key=f"run/{named}/1/{state}")
        assert (notice.attempts, notice.last_error) == (0, None), "sent by the job and not by the relay"


def test_what_is_no_name_of_a_job_is_refused_by_the_deployment(stack: Stack) -> None:
    cloudformation = stack.client("cloudformation")
    (deployed,) = cloudformation.describe_stacks(StackName=stack.name)["Stacks"]
    kept = [{"ParameterKey": each["ParameterKey"], "UsePreviousValue": True} for each in deployed["Parameters"]]
    others = [each for each in kept if each["ParameterKey"] != "SlackRuns"]
    for name in ("platform.notification-cleanup,notification-cleanup", "platform.*"):
        with pytest.raises(cloudformation.exceptions.ClientError, match=r"SlackRuns.*names of scheduled jobs"):
            cloudformation.create_change_set(
                StackName=stack.name,
                ChangeSetName="other-runs",
                UsePreviousTemplate=True,
                Parameters=[*others, {"ParameterKey": "SlackRuns", "ParameterValue": name}],
                Capabilities=["CAPABILITY_IAM", "CAPABILITY_AUTO_EXPAND"],
            )


type Get = Callable[..., tuple[int, str]]


@pytest.fixture(scope="module")
def get(stack: Stack) -> Get:
    """Asks the deployed HTTP API: status and body."""
    (api,) = stack.client("apigatewayv2").get_apis()["Items"]
    port = stack.home.state().ports["emulator"]

    def ask(path: str, token: str | None = None) -> tuple[int, str]:
        headers = {"Host": f"{api['ApiId']}.execute-api.localhost:{port}"}
        if token is not None:
            headers["Authorization"] = f"Bearer {token}"
        connection = HTTPConnection("127.0.0.1", port, timeout=60)
        connection.request("GET", path, headers=headers)
        answer = connection.getresponse()
        return answer.status, answer.read().decode()

    return ask


@pytest.fixture(scope="module")
def token(stack: Stack) -> str:
    """The token that the template had made."""
    name = f"{stack.name}-platform-monitoring-token"
    return str(stack.client("secretsmanager").get_secret_value(SecretId=name)["SecretString"])


def test_health_is_told_to_anybody_and_the_rest_with_the_token(get: Get, token: str) -> None:
    status, body = get("/health")
    assert (status, json.loads(body)["status"]) == (200, "ok")
    for path in ("/health/queues", "/health/events", "/metrics"):
        assert get(path)[0] == 401, path
        assert get(path, "guessed")[0] == 401, path
    status, body = get("/health/events", token)
    told = json.loads(body)
    assert status == 200
    assert told["handlersRegistered"] >= 10
    assert {"pending", "consumerGroups", "lastEventTimestamp"} == told["streams"]["tutoring.auto-complete"].keys()
    assert "platform.notifications-high" in json.loads(get("/health/queues", token)[1])["queues"]


def test_prometheus_reads_the_metrics_of_the_stack(get: Get, token: str) -> None:
    status, page = get("/metrics", token)
    assert status == 200
    families = {family.name: family for family in text_string_to_metric_families(page)}
    next_runs = {
        sample.labels["job"]: sample.value
        for sample in families["schoolbell_repeat_job_next_execution_seconds"].samples
    }
    assert 0 <= next_runs["tutoring.lifecycle-detection"] <= 24 * 3600, datetime.now(UTC)
    waiting = {sample.labels["queue"] for sample in families["schoolbell_queue_waiting"].samples}
    assert {"tutoring.auto-complete", "platform.alert-router"} <= waiting
    if promtool := shutil.which("promtool"):
        said = subprocess.run([promtool, "check", "metrics"], input=page, text=True, capture_output=True, check=False)
        assert (said.returncode, said.stdout + said.stderr) == (0, "")
