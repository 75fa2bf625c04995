"""Running a job as Lambda would, without Lambda: the event its trigger sends, its context, and what came of it."""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from functools import cache
from typing import Any
from uuid import uuid4

from samtranslator.yaml_helper import yaml_parse

from local.bundle import logical_id
from local.home import CHECKOUT
from schoolbell.jobs.queues import QueueJob
from schoolbell.jobs.runtime import Runtime, install
from schoolbell.jobs.scheduled import ScheduledJob
from schoolbell.jobs.tasks import TaskJob

type Job = QueueJob[Any] | ScheduledJob | TaskJob[Any, Any]


@dataclass
class Invocation:
    """Lambda's context object, with the time that is left in the test's hand."""

    aws_request_id: str = field(default_factory=lambda: str(uuid4()))
    invoked_function_arn: str = "arn:aws:lambda:us-east-1:123456789012:function:schoolbell-test"
    remaining: Callable[[], timedelta] = lambda: timedelta(minutes=15)

    def get_remaining_time_in_millis(self) -> int:
        return int(self.remaining().total_seconds() * 1000)


@dataclass(frozen=True)
class Performed:
    """What an invocation answered."""

    answer: dict[str, Any]
    message_ids: Sequence[str] = ()

    @property
    def result(self) -> dict[str, Any]:
        """What a scheduled job or a task returned."""
        stored = self.answer.get("result", self.answer)
        assert isinstance(stored, dict)
        return stored

    @property
    def status(self) -> str:
        """How a scheduled run ended: completed, failed, skipped, continued."""
        return str(self.answer["status"])

    @property
    def failed(self) -> list[int]:
        """The positions of the messages that go back on the queue."""
        failures = {failure["itemIdentifier"] for failure in self.answer["batchItemFailures"]}
        return [position for position, message in enumerate(self.message_ids) if message in failures]


def sqs_event(
    payloads: Sequence[Any],
    *,
    queue: str,
    attempt: int = 1,
    message_ids: Sequence[str] | None = None,
    outbox_id: str | None = None,
) -> dict[str, Any]:
    """An SQS event in Lambda's shape, of a queue named like a job; a payload that is text is the body as it stands."""
    ids = message_ids or [str(uuid4()) for _ in payloads]
    attributes = {"outbox-id": {"stringValue": outbox_id, "dataType": "String"}} if outbox_id else {}
    return {
        "Records": [
            {
                "messageId": message_id,
                "receiptHandle": f"receipt-{message_id}",
                "body": payload if isinstance(payload, str) else json.dumps(payload, default=str),
                "attributes": {
                    "ApproximateReceiveCount": str(attempt),
                    "SentTimestamp": "1772445600000",
                    "SenderId": "AIDAEXAMPLE",
                    "ApproximateFirstReceiveTimestamp": "1772445600001",
                },
                "messageAttributes": attributes,
                "md5OfBody": "",
                "eventSource": "aws:sqs",
                "eventSourceARN": f"arn:aws:sqs:us-east-1:123456789012:schoolbell-{queue.replace('.', '-')}",
                "awsRegion": "us-east-1",
            }
            for message_id, payload in zip(ids, payloads, strict=True)
        ]
    }


def rule_event(at: datetime) -> dict[str, Any]:
    """The event of an EventBridge rule with a schedule."""
    return {
        "version": "0",
        "id": str(uuid4()),
        "detail-type": "Scheduled Event",
        "source": "aws.events",
        "account": "123456789012",
        "time": at.strftime("%Y-%m-%dT%H:%M:%SZ"),
        "region": "us-east-1",
        "resources": ["arn:aws:events:us-east-1:123456789012:rule/schoolbell-test"],
        "detail": {},
    }


@dataclass
class Performer:
    """Runs jobs on a runtime: `perform(handler, {...}, {...})` for messages, `perform(handler)` for a clock."""

    runtime: Runtime

    def __call__(
        self,
        job: Job,
        *payloads: Any,
        event: Any = None,
        now: datetime | None = None,
        attempt: int = 1,
        message_ids: Sequence[str] | None = None,
        queue: str | None = None,
        invocation: Invocation | None = None,
        data: Mapping[str, Any] | None = None,
    ) -> Performed:
        """Invokes a job.

        Args:
            job: the `handler` of an `app.py`.
            payloads: the bodies of a queue job's messages, or a task's one input.
            event: the event as a whole, instead of one made here.
            now: the time that the job is given.
            attempt: how often the messages have been received.
            message_ids: the messages' ids; new ones if not given.
            queue: where the messages come from, of a job that has several queues; the job's own if not given.
            invocation: Lambda's context.
            data: what a manual run brings, e.g. `{"dry_run": True}`; without it a rule rings the scheduled job.
        """
        at = now or self.runtime.clock()
        given = self.runtime.settings
        if has_dry_run(job.name):
            given = given.model_copy(update={"job_dry_run": True})
        install(replace(self.runtime, clock=lambda: at, settings=given))
        try:
            if event is None:
                event = self._event(job, payloads, at, attempt, message_ids, queue, data)
            answer = job(event, invocation or Invocation())
        finally:
            install(self.runtime)
        ids = [record["messageId"] for record in event.get("Records", ())] if isinstance(event, dict) else []
        return Performed(answer, ids)

    def given(self, **settings: Any) -> "Performer":
        """The same with other settings, e.g. `job_dry_run=True` for a job that is in no template."""
        return Performer(replace(self.runtime, settings=self.runtime.settings.model_copy(update=settings)))

    @staticmethod
    def _event(
        job: Job,
        payloads: Sequence[Any],
        at: datetime,
        attempt: int,
        message_ids: Sequence[str] | None,
        queue: str | None,
        data: Mapping[str, Any] | None,
    ) -> Any:
        if isinstance(job, QueueJob):
            return sqs_event(payloads, queue=queue or job.name, attempt=attempt, message_ids=message_ids)
        if isinstance(job, TaskJob):
            (payload,) = payloads
            return json.loads(json.dumps(payload, default=str))
        return dict(data) if data is not None else rule_event(at)


def has_dry_run(job: str) -> bool:
    """Whether the template says that a job has a dry run; a job that is in no template has none."""
    domain, _, name = job.partition(".")
    resource = _resources(domain).get(logical_id(name.replace("-", "_")), {})
    variables = resource.get("Properties", {}).get("Environment", {}).get("Variables", {})
    return bool(variables.get("JOB_DRY_RUN") == "true")


@cache
def _resources(domain: str) -> dict[str, Any]:
    template = CHECKOUT / "functions" / domain / "template.yaml"
    return dict(yaml_parse(template.read_text())["Resources"]) if template.exists() else {}
