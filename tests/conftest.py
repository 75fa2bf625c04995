"""What every test may ask for: a database, AWS in this process, and a way to run a job."""

import json
import os
from collections.abc import Callable, Iterator
from datetime import datetime
from typing import Any

import hypothesis
import pytest
from botocore.exceptions import ClientError
from moto import mock_aws
from sqlalchemy import Row, select

os.environ |= {
    "AWS_ACCESS_KEY_ID": "testing",
    "AWS_SECRET_ACCESS_KEY": "testing",
    "AWS_SESSION_TOKEN": "testing",
    "AWS_REGION": "us-east-1",
    "AWS_DEFAULT_REGION": "us-east-1",
    "POWERTOOLS_DEV": "false",
    "POWERTOOLS_METRICS_DISABLED": "false",
}

from schoolbell import aws as clients
from schoolbell.database import Database
from schoolbell.domains.platform.schema import outbox
from schoolbell.jobs.message_attributes import BYTES_A_MESSAGE
from schoolbell.jobs.runtime import Runtime, install
from schoolbell.settings import Settings
from tests.performing import Performer

pytest_plugins = [
    "tests.fixtures.admin",
    "tests.fixtures.database",
    "tests.fixtures.deployed",
    "tests.fixtures.google",
    "tests.fixtures.notifications",
    "tests.fixtures.one_shots",
    "tests.fixtures.processes",
    "tests.fixtures.services",
    "tests.fixtures.waitlist",
]

# How long an example takes says how busy the machine is, and nothing else.
hypothesis.settings.register_profile("untimed", deadline=None, suppress_health_check=[hypothesis.HealthCheck.too_slow])
hypothesis.settings.load_profile("untimed")

ACCOUNT = "123456789012"


@pytest.fixture
def settings() -> Settings:
    """The environment of a function, as the template would set it."""
    return Settings(
        schoolbell_stack="schoolbell",
        aws_region="us-east-1",
        aws_account_id=ACCOUNT,
        resilience_table="schoolbell-resilience",
        schedule_group="schoolbell",
        scheduler_role_arn=f"arn:aws:iam::{ACCOUNT}:role/one-shots",
        archive_bucket="schoolbell-archive",
    )


class Queues:
    """The queues of a stack, made when they are first asked for, as moto keeps them."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._made: set[str] = set()

    def make(self, *jobs: str) -> None:
        """Makes the queue and the dead-letter queue of each job."""
        for job in jobs:
            if job not in self._made:
                name = self._settings.resource_name(job)
                clients.client("sqs").create_queue(QueueName=name)
                clients.client("sqs").create_queue(QueueName=f"{name}-dlq")
                self._made.add(job)

    def messages(self, job: str, *, dead: bool = False) -> list[dict[str, Any]]:
        """Takes all messages from a job's queue, or from its dead-letter queue, those with a delay too."""
        url = self._settings.dead_letter_queue_url(job) if dead else self._settings.queue_url(job)
        taken: list[dict[str, Any]] = []
        while (
            batch := clients.client("sqs")
            .receive_message(
                QueueUrl=url, MaxNumberOfMessages=10, MessageAttributeNames=["All"], AttributeNames=["All"]
            )
            .get("Messages")
        ):
            taken += batch
        return taken


@pytest.fixture
def aws(settings: Settings) -> Iterator[None]:
    """AWS as moto has it, in this process, with the stack's table, bucket and schedule group."""
    with mock_aws():  # clients are kept from test to test: moto sees the calls of those made since its import
        clients.client("dynamodb").create_table(
            TableName=settings.resilience_table,
            KeySchema=[{"AttributeName": "id", "KeyType": "HASH"}],
            AttributeDefinitions=[{"AttributeName": "id", "AttributeType": "S"}],
            BillingMode="PAY_PER_REQUEST",
        )
        clients.client("s3").create_bucket(Bucket=settings.archive_bucket)
        clients.client("scheduler").create_schedule_group(Name=settings.schedule_group)
        yield


@pytest.fixture
def queues(aws: None, settings: Settings) -> Queues:
    """The stack's queues: `queues.make("tutoring.drive-copy")`."""
    return Queues(settings)


@pytest.fixture
def perform(database: Database, settings: Settings, now: datetime, aws: None) -> Iterator[Performer]:
    """Runs a job as Lambda would: `perform(handler, {"session_id": ...})`, `perform(handler)`."""
    runtime = Runtime(database, settings, clock=lambda: now)
    install(runtime)
    yield Performer(runtime)
    install(None)


@pytest.fixture
def sent(queues: Queues) -> Callable[[str], list[Any]]:
    """The bodies of the messages that reached a job's queue. Make the queue before: `queues.make(job)`."""
    return lambda job: [json.loads(message["Body"]) for message in queues.messages(job)]


@pytest.fixture
def strict_sqs(queues: Queues) -> Iterator[None]:
    """Has a request that is too large refused as AWS does, where moto counts the characters of bodies."""

    def refuse(params: dict[str, Any], **_: Any) -> None:
        parts = [
            part
            for entry in params["Entries"]
            for name, value in entry.get("MessageAttributes", {}).items()
            for part in (name, *value.values())
        ] + [entry["MessageBody"] for entry in params["Entries"]]
        if sum(len(part.encode()) for part in parts) > BYTES_A_MESSAGE:
            raise ClientError({"Error": {"Code": "BatchRequestTooLong", "Message": ""}}, "SendMessageBatch")

    events = clients.client("sqs").meta.events
    events.register("provide-client-params.sqs.SendMessageBatch", refuse)
    yield
    events.unregister("provide-client-params.sqs.SendMessageBatch", refuse)


@pytest.fixture
def outbox_rows(database: Database) -> Callable[[], list[Row[Any]]]:
    """What was ever written to the outbox, oldest first."""

    def read() -> list[Row[Any]]:
        with database.transaction() as connection:
            return list(connection.execute(select(outbox).order_by(outbox.c.id)))

    return read
