"""When jobs run, how many at a time, and which matter most: what the sources ask for, in words."""

import re

import pytest

from schoolbell.operations.expressions import parse
from tests.template.bundle import Job, bundle

WHEN = {
    "tutoring.session_sweep": "Every 15 minutes",
    "tutoring.calendar_sync": "Every 5 minutes",
    "tutoring.drive_sync": "At 03:00",
    "tutoring.lifecycle_detection": "At 06:00",
    "tutoring.content_analytics": "Every hour",
    "platform.audit_cleanup": "At 02:00, on day 1 of the month",
    "tutoring.data_retention": "At 03:00, only on Sunday",
    "tutoring.waitlist_expiry": "Every hour",
    "tutoring.metric_alerts": "Every hour",
    "tutoring.message_sweep": "Every 15 minutes",
    "platform.email_queue": "Every minute",
    "platform.notification_cleanup": "Every hour",
}
COPIES_AT_ONCE = 3  # source 000: "Concurrency: 3"
DELIVERIES_AT_ONCE = 10
RETRIES = 2
CRITICAL_WORK = re.compile(r"\b(audit|archive|retention|compliance|complete)\b", re.IGNORECASE)  # source 001


@pytest.mark.parametrize("name", WHEN)
def test_a_job_runs_when_its_source_says(name: str) -> None:
    job = Job(*name.split("."))
    clocks = bundle().templates[job.domain].of_type("AWS::Scheduler::Schedule", "AWS::Events::Rule")
    (expression,) = (
        clock["ScheduleExpression"]
        for _, clock in clocks
        if clock["Name"] == job.resource_name and "ScheduleExpression" in clock
    )
    assert parse(expression).in_words().removesuffix(", UTC") == WHEN[name]


def test_three_copies_are_made_at_a_time() -> None:
    mappings = bundle().templates["tutoring"].of_type("AWS::Lambda::EventSourceMapping")
    (mapping,) = (mapping for _, mapping in mappings if mapping["EventSourceArn"].endswith("-tutoring-drive-copy"))
    assert mapping["ScalingConfig"]["MaximumConcurrency"] == COPIES_AT_ONCE
    assert mapping["BatchSize"] == 1


def test_ten_messages_of_urgent_notifications_are_delivered_at_a_time() -> None:
    mappings = bundle().templates["platform"].of_type("AWS::Lambda::EventSourceMapping")
    (mapping,) = (mapping for _, mapping in mappings if mapping["EventSourceArn"].endswith("-notifications-high"))
    assert mapping["ScalingConfig"]["MaximumConcurrency"] == DELIVERIES_AT_ONCE


def test_a_failed_run_is_tried_twice_more() -> None:
    for job in bundle().jobs:
        configs = bundle().templates[job.domain].of_type("AWS::Lambda::EventInvokeConfig")
        (config,) = (config for _, config in configs if config["FunctionName"] == job.resource_name)
        assert config["MaximumRetryAttempts"] == RETRIES, job


def test_planned_messages_are_swept_after_each_deployment_that_ends_well() -> None:
    rules = bundle().templates["tutoring"].of_type("AWS::Events::Rule")
    (pattern,) = (rule["EventPattern"] for _, rule in rules if rule["Name"].endswith("-message-sweep-deployed"))
    statuses = pattern["detail"]["status-details"]["status"]
    assert statuses == ["CREATE_COMPLETE", "UPDATE_COMPLETE", "UPDATE_ROLLBACK_COMPLETE"]


def test_audit_retention_compliance_archival_and_completion_are_critical() -> None:
    for job in bundle().jobs:
        function = bundle().function(job)
        if CRITICAL_WORK.search(f"{job} {function['Description']}"):
            assert function["Environment"]["Variables"].get("JOB_CRITICAL") == "true", job
