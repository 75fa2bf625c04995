"""A small stack as moto keeps it: functions, their queues, rules and schedules; and SQS with message move tasks."""

import io
import json
import zipfile
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any, Final
from uuid import uuid4

from botocore.exceptions import ClientError

from schoolbell import aws
from schoolbell.settings import Settings

SCHEDULED = "tutoring.drive-sync"
"""At 03:00 in Berlin, by EventBridge Scheduler."""

RULED = "tutoring.session-sweep"
"""Every 15 minutes, by a rule; critical."""

DRY = "tutoring.data-retention"
"""Sundays at 03:00 in Berlin, with a dry run; critical."""

QUEUED = "tutoring.auto-complete"
SEVERAL = "platform.notification-delivery"
PRIORITIES = ("platform.notifications-high", "platform.notifications-low", "platform.notifications-normal")
CALLED = "tutoring.waitlist-offer"
JOBS: Final = {
    SEVERAL: {},
    QUEUED: {"JOB_CRITICAL": "true"},
    DRY: {"JOB_DRY_RUN": "true", "JOB_CRITICAL": "true"},
    SCHEDULED: {},
    RULED: {"JOB_CRITICAL": "true"},
    CALLED: {"JOB_TRIGGER": "called"},
}


def deploy(settings: Settings) -> None:
    """Makes the stack, and a function of another one whose name begins alike."""
    role = aws.client("iam").create_role(RoleName="job", AssumeRolePolicyDocument=json.dumps({}))["Role"]["Arn"]
    archive = io.BytesIO()
    with zipfile.ZipFile(archive, "w") as file:
        file.writestr("app.py", "def handler(event, context): pass")
    for stack, jobs in ((settings.schoolbell_stack, JOBS), (f"{settings.schoolbell_stack}-eu", {SCHEDULED: {}})):
        for job, variables in jobs.items():
            aws.client("lambda").create_function(
                FunctionName=f"{stack}-{job.replace('.', '-')}",
                Runtime="python3.13",
                Role=role,
                Handler="schoolbell.entrypoint.handler",
                Code={"ZipFile": archive.getvalue()},
                Timeout=900,
                Description=f"Does what {job} does",
                Environment={
                    "Variables": {"SCHOOLBELL_STACK": stack, "SCHOOLBELL_DOMAIN": job.partition(".")[0], **variables}
                },
            )
    for job, queues in ((QUEUED, (QUEUED,)), (SEVERAL, PRIORITIES)):
        for queue in queues:
            make_queue(settings.resource_name(queue))
            aws.client("lambda").create_event_source_mapping(
                EventSourceArn=settings.queue_arn(queue),
                FunctionName=settings.resource_name(job),
                Enabled=False,  # or moto would call the function
            )
    for job in (SCHEDULED, RULED, DRY):
        make_queue(f"{settings.resource_name(job)}-dlq")
    _make_schedules(settings, role)


def tell_health_function(settings: Settings, **variables: str) -> None:
    """Deploys `platform.health` with variables in its environment."""
    archive = io.BytesIO()
    with zipfile.ZipFile(archive, "w") as file:
        file.writestr("app.py", "")
    aws.client("lambda").create_function(
        FunctionName=settings.resource_name("platform.health"),
        Runtime="python3.13",
        Role=aws.client("iam").get_role(RoleName="job")["Role"]["Arn"],
        Handler="schoolbell.entrypoint.handler",
        Code={"ZipFile": archive.getvalue()},
        Environment={
            "Variables": {
                "SCHOOLBELL_STACK": settings.schoolbell_stack,
                "SCHOOLBELL_DOMAIN": "platform",
                "JOB_TRIGGER": "called",
                **variables,
            }
        },
    )


def let_a_message_wait(queue: str, seconds: int, settings: Settings, now: datetime) -> None:
    """Puts a message on a queue, and has CloudWatch say how long it has waited."""
    aws.client("sqs").send_message(QueueUrl=settings.queue_url(queue), MessageBody="{}")
    aws.client("cloudwatch").put_metric_data(
        Namespace="AWS/SQS",
        MetricData=[
            {
                "MetricName": "ApproximateAgeOfOldestMessage",
                "Dimensions": [{"Name": "QueueName", "Value": settings.resource_name(queue)}],
                "Timestamp": now - timedelta(minutes=2),
                "Value": seconds,
            }
        ],
    )


def by_time_zone(job: str, settings: Settings) -> None:
    """Has a job run by time zone, so that its schedule is a pattern."""
    name = settings.resource_name(job)
    found = aws.client("lambda").get_function_configuration(FunctionName=name)["Environment"]["Variables"]
    aws.client("lambda").update_function_configuration(
        FunctionName=name, Environment={"Variables": {**found, "JOB_BY_TIME_ZONE": "true"}}
    )


def make_queue(name: str) -> None:
    """Makes a queue and, unless it is one, its dead-letter queue."""
    for each in (name,) if name.endswith("-dlq") else (name, f"{name}-dlq"):
        aws.client("sqs").create_queue(QueueName=each)


def _make_schedules(settings: Settings, role: str) -> None:
    events = aws.client("events")
    rule = settings.resource_name(RULED)
    events.put_rule(Name=rule, ScheduleExpression="rate(15 minutes)", Description="As it was")
    events.put_targets(Rule=rule, Targets=[{"Id": "job", "Arn": settings.function_arn(RULED)}])
    events.put_rule(Name=f"{rule}-deployed", EventPattern=json.dumps({"source": ["aws.cloudformation"]}))
    for job, expression in ((SCHEDULED, "cron(0 3 * * ? *)"), (DRY, "cron(0 3 ? * SUN *)")):
        aws.client("scheduler").create_schedule(
            Name=settings.resource_name(job),
            GroupName=settings.schedule_group,
            ScheduleExpression=expression,
            ScheduleExpressionTimezone="Europe/Berlin",
            FlexibleTimeWindow={"Mode": "OFF"},
            Description="As it was",
            Target={
                "Arn": settings.function_arn(job),
                "RoleArn": role,
                "Input": '{"scheduled_for": "<aws.scheduler.scheduled-time>"}',
                "RetryPolicy": {"MaximumRetryAttempts": 5, "MaximumEventAgeInSeconds": 3600},
                "DeadLetterConfig": {"Arn": settings.dead_letter_queue_arn(job)},
            },
        )


@dataclass
class Aws:
    """The clients of AWS, with what moto lacks: message move tasks, and invocations that are only written down."""

    original: Any
    invoked: list[tuple[str, dict[str, Any]]] = field(default_factory=list)
    """Function and event of each invocation that nobody waits for."""
    moving: set[str] = field(default_factory=set)
    """ARNs of dead-letter queues that SQS is said to be moving."""
    is_overtaken: bool = False
    """Whether somebody else begins to move a queue just before this process does."""

    def client(self, service: str) -> Any:
        """As `schoolbell.aws.client`."""
        found = self.original(service)
        return _Sqs(found, self) if service == "sqs" else _Lambda(found, self) if service == "lambda" else found


@dataclass
class _Lambda:
    inner: Any
    aws: Aws

    def __getattr__(self, operation: str) -> Any:
        return getattr(self.inner, operation)

    def invoke(self, *, FunctionName: str, InvocationType: str, Payload: bytes) -> Any:  # noqa: N803
        assert InvocationType == "Event"
        self.aws.invoked.append((FunctionName, json.loads(Payload)))
        return {"StatusCode": 202}


@dataclass
class _Sqs:
    inner: Any
    aws: Aws

    def __getattr__(self, operation: str) -> Any:
        return getattr(self.inner, operation)

    def receive_message(self, **request: Any) -> Any:
        return self.inner.receive_message(**request | {"WaitTimeSeconds": 0})  # nobody is going to send meanwhile

    def list_message_move_tasks(self, *, SourceArn: str, MaxResults: int = 1) -> Any:  # noqa: N803
        status = "RUNNING" if SourceArn in self.aws.moving else "COMPLETED"
        return {"Results": [{"Status": status}][:MaxResults]}

    def start_message_move_task(self, *, SourceArn: str, DestinationArn: str) -> Any:  # noqa: N803
        if self.aws.is_overtaken:
            self.aws.moving.add(SourceArn)
        if SourceArn in self.aws.moving:
            error = {
                "Code": "InvalidParameterValue",
                "Message": "There is already a task running.",
            }
            raise ClientError({"Error": error}, "StartMessageMoveTask")
        source, target = (
            self.inner.get_queue_url(QueueName=arn.rpartition(":")[2])["QueueUrl"]
            for arn in (SourceArn, DestinationArn)
        )
        while page := self.inner.receive_message(
            QueueUrl=source, MaxNumberOfMessages=10, MessageAttributeNames=["All"]
        ).get("Messages"):
            for message in page:
                self.inner.send_message(
                    QueueUrl=target,
                    MessageBody=message["Body"],
                    MessageAttributes=message.get("MessageAttributes", {}),
                )
                self.inner.delete_message(QueueUrl=source, ReceiptHandle=message["ReceiptHandle"])
        return {"TaskHandle": str(uuid4())}
