"""What a message on a dead-letter queue tells of its own death."""

import json
from datetime import UTC, datetime
from typing import Any

import pytest

from schoolbell.operations.dead_letters import SILENT, UNEXPLAINED, letter_of, record_id
from tests.fakes.redrives import dropped_by_lambda

NOW = datetime(2026, 3, 2, 10, 0, tzinfo=UTC)
SENT = datetime(2026, 3, 2, 9, 30, tzinfo=UTC)
MOVED = {"DeadLetterQueueSourceArn": "arn:aws:sqs:us-east-1:123456789012:schoolbell-tutoring-bell"}


def message(body: str = "{}", system: dict[str, str] | None = None, **attributes: str) -> dict[str, Any]:
    return {
        "MessageId": "own",
        "Body": body,
        "Attributes": {"SentTimestamp": str(int(SENT.timestamp() * 1000)), **(system or {})},
        "MessageAttributes": {
            name.replace("__", "-"): {"DataType": "String", "StringValue": value} for name, value in attributes.items()
        },
    }


def test_a_message_that_sqs_moved_is_recorded_under_the_id_it_had_on_its_queue() -> None:
    assert record_id(message(system=MOVED)) == "own"


def test_a_discarded_copy_is_recorded_under_the_id_of_what_it_copies() -> None:
    assert record_id(message(reason="no such lesson", recorded__as="first")) == "first"


def test_a_copy_that_was_redriven_and_died_anew_has_a_record_of_its_own() -> None:
    assert record_id(message(system=MOVED, reason="no such lesson", recorded__as="first")) == "own"


@pytest.mark.parametrize(
    ("found", "reason", "error", "attempts", "dead_at"),
    [
        (message(system=MOVED), "unknown", SILENT, 5, NOW),
        (message(reason="no such lesson", recorded__as="first"), "discarded", "no such lesson", 1, SENT),
        (message("dropped here"), "unknown", UNEXPLAINED, 1, SENT),
        (
            message(ERROR_CODE="SDK_CLIENT_ERROR", ERROR_MESSAGE="x", RETRY_ATTEMPTS="5", RULE_ARN="a"),
            "failed",
            "not delivered: SDK_CLIENT_ERROR",
            6,
            SENT,
        ),
        (
            message(ERROR_CODE="AWS.Lambda.Throttled", RETRY_ATTEMPTS="many"),
            "failed",
            "not delivered: AWS.Lambda.Throttled",
            1,
            SENT,
        ),
    ],
)
def test_a_message_says_why_it_is_dead(
    found: dict[str, Any], reason: str, error: str, attempts: int, dead_at: datetime
) -> None:
    letter = letter_of(found, NOW, tries=5)
    assert (letter.reason, letter.error, letter.attempts, letter.dead_at) == (reason, error, attempts, dead_at)
    assert letter.payload == found["Body"]


@pytest.mark.parametrize(
    ("kind", "said", "reason"),
    [
        ("JobFailed", "IntegrityError: duplicate key", "failed"),
        ("Sandbox.Timedout", "RequestId: 6a7f Error: Task timed out after 300.00 seconds", "timed_out"),
        ("", "2026-03-02T09:41:07.381Z 6a7f Task timed out after 300.00 seconds", "timed_out"),
        ("Runtime.ExitError", "RequestId: 6a7f Error: Runtime exited with error: signal: killed", "unknown"),
        ("Runtime.ImportModuleError", "Unable to import module 'app': No module named 'x'", "failed"),
        ("Runtime.OutOfMemory", "RequestId: 6a7f Error: out of memory", "unknown"),
    ],
)
def test_lambdas_record_of_an_invocation_is_unwrapped(kind: str, said: str, reason: str) -> None:
    event = {"scheduled_for": "2026-03-02T09:00:00Z"}
    found = message(dropped_by_lambda(event, errorType=kind, errorMessage=said))
    letter = letter_of(found, NOW, tries=5)
    assert json.loads(letter.payload) == event
    assert (letter.reason, letter.error, letter.attempts) == (reason, said, 3)
    assert letter.dead_at == datetime(2026, 3, 2, 9, 41, 7, 381000, tzinfo=UTC)
    assert letter.attributes == {
        "request_id": "6a7f1b1e-0000-4000-8000-000000000001",
        "condition": "RetriesExhausted",
        "error_type": kind,
    }


def test_an_invocation_that_left_no_answer_is_told_by_its_condition() -> None:
    letter = letter_of(message(dropped_by_lambda({})), NOW, tries=5)
    assert (letter.reason, letter.error) == ("unknown", "RetriesExhausted")


@pytest.mark.parametrize("body", ["not json", "[]", '{"requestPayload": {}}', '{"requestContext": 7, "timestamp": 1}'])
def test_what_is_no_record_of_lambdas_stays_as_it_came(body: str) -> None:
    letter = letter_of(message(body), NOW, tries=5)
    assert (letter.payload, letter.error) == (body, UNEXPLAINED)


def test_a_message_that_only_looks_like_lambdas_record_is_not_unwrapped() -> None:
    """Somebody may drop one on a job's queue: it dies there as any other message."""
    body = dropped_by_lambda({"times": 1}, errorType="Sandbox.Timedout")
    assert letter_of(message(body, system=MOVED), NOW, tries=5).payload == body
