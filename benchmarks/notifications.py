"""How fast notifications are delivered, and how fast a fan-out of 100,000 is written and queued.

Delivered: invocations of `platform.notification-delivery`, each with five messages of a hundred notifications, through
the job runtime and the SendGrid gateway, with its circuit and rate limit, to a server on this machine that answers each
request after 50 ms. From the event to the last row marked as sent. DynamoDB is moto's, in the job's own process.

Fan-out: one statement that writes the notifications and their messages, the commit, and the messages' way to a stand-in
for SQS in a process of its own.
"""

import asyncio
import contextlib
import json
import logging
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from itertools import batched
from pathlib import Path
from typing import Any, Final
from unittest.mock import patch

from aws_lambda_powertools import Logger
from moto import mock_aws
from sqlalchemy import column, func, literal, select, text

from benchmarks.outbox import queue
from functions.platform.notification_delivery.app import handler
from local.postgres import Postgres
from schoolbell import aws
from schoolbell.database import Database, DatabaseAddress
from schoolbell.database.migrations import upgrade
from schoolbell.jobs.outbox import Outbox
from schoolbell.jobs.runtime import Runtime, install
from schoolbell.notifications import notify_from
from schoolbell.notifications.provider_channels import provider_channel_of
from schoolbell.resilience.circuit import forget_circuits
from schoolbell.settings import Settings
from tests.performing import Invocation, sqs_event

TITLE: Final = "Notifications: delivered with a provider that answers in 50 ms, and a fan-out written and queued"
COLUMNS: Final = ("what", "notifications", "runs", "median", "notifications a second")
ANSWERS_AFTER: Final = 0.05
A_MESSAGE: Final = 100
AN_EVENT: Final = 500
DELIVERED: Final = 2_000
FAN_OUT: Final = 100_000
RUNS: Final = 5


def run() -> list[tuple[str, ...]]:
    """Measures, and returns the lines of the table under `COLUMNS`."""
    logging.disable(logging.CRITICAL)
    with tempfile.TemporaryDirectory(prefix="schoolbell-bench-") as directory:
        server = Postgres(Path(directory) / "data", lifetime="caller")
        server.start()
        address = DatabaseAddress.from_url(server.url())
        database = Database(lambda: address, timedelta(minutes=5))
        try:
            with database.engine.connect() as connection:
                upgrade(connection)
            with provider() as url, on_moto(url) as settings, contextlib.redirect_stdout(None):
                install(Runtime(database, settings, lambda: datetime.now(UTC)))
                one = [_delivered(database, A_MESSAGE) for _ in range(RUNS + 1)][1:]
                many = [_delivered(database, DELIVERED) for _ in range(RUNS + 1)][1:]
            with queue() as environment, patch.dict(os.environ, environment):
                aws.forget_clients()
                fanned_out = [_fanned_out(database) for _ in range(RUNS + 1)][1:]
        finally:
            install(None)
            aws.forget_clients()
            database.close()
            server.remove()
            logging.disable(logging.NOTSET)
    return [
        _line("delivered, one message", A_MESSAGE, one),
        _line("delivered, five messages an invocation", DELIVERED, many),
        _line("written and queued", FAN_OUT, fanned_out),
    ]


def _line(what: str, notifications: int, seconds: list[float]) -> tuple[str, ...]:
    median = statistics.median(seconds)
    return what, f"{notifications:,}", f"{len(seconds)}", f"{median:.2f} s", f"{notifications / median:,.0f}"


def _delivered(database: Database, number: int) -> float:
    _empty(database)
    outbox = Outbox(lambda: datetime.now(UTC))
    with database.transaction() as connection:
        notify_from(connection, outbox, _some(number))
        messages = list(connection.execute(text("SELECT payload FROM platform.outbox")).scalars())
    events = [
        sqs_event(list(payloads), queue="platform.notifications-low")
        for payloads in batched(messages, AN_EVENT // A_MESSAGE, strict=False)
    ]
    started = time.perf_counter()
    for event in events:
        if handler(event, Invocation()) != {"batchItemFailures": []}:
            raise RuntimeError("a message failed")
    taken = time.perf_counter() - started
    with database.transaction() as connection:
        statement = "SELECT count(*) FROM platform.notifications WHERE status = 'sent'"
        if (sent := connection.execute(text(statement)).scalar_one()) != number:
            raise RuntimeError(f"{sent} of {number} notifications were sent")
    return taken


def _fanned_out(database: Database) -> float:
    _empty(database)
    outbox = Outbox(lambda: datetime.now(UTC))
    started = time.perf_counter()
    with database.transaction() as connection:
        notify_from(connection, outbox, _some(FAN_OUT))
    sent = outbox.flush(database, Settings(), Logger(service="benchmark"))
    taken = time.perf_counter() - started
    if sent != FAN_OUT // A_MESSAGE:
        raise RuntimeError(f"{sent} messages were sent")
    return taken


def _some(number: int) -> Any:
    numbers = func.generate_series(1, number).table_valued(column("n")).render_derived(name="numbers")
    return select(
        literal("email").label("channel"),
        func.concat("someone-", numbers.c.n, "@example.org").label("recipient"),
        literal("waitlist_offer").label("template"),
        func.jsonb_build_object("name", "Someone", "expires_at", "2026-03-04T10:00:00Z").label("data"),
        literal("low").label("priority"),
        func.concat("benchmark/", numbers.c.n).label("dedup_key"),
    )


def _empty(database: Database) -> None:
    with database.transaction() as connection:
        connection.execute(text("TRUNCATE platform.outbox, platform.notifications, platform.job_runs"))


@contextlib.contextmanager
def on_moto(url: str) -> Iterator[Settings]:
    """DynamoDB and the provider's key in this process; gives the settings of the job."""
    settings = Settings(
        email_provider="sendgrid", sendgrid_url=url, resilience_table="benchmark", emails_a_second=1_000_000
    )
    credentials = {"AWS_ACCESS_KEY_ID": "b", "AWS_SECRET_ACCESS_KEY": "b", "AWS_DEFAULT_REGION": "us-east-1"}
    with patch.dict(os.environ, credentials), mock_aws():
        aws.forget_clients()
        aws.client("dynamodb").create_table(
            TableName=settings.resilience_table,
            KeySchema=[{"AttributeName": "id", "KeyType": "HASH"}],
            AttributeDefinitions=[{"AttributeName": "id", "AttributeType": "S"}],
            BillingMode="PAY_PER_REQUEST",
        )
        key = json.dumps({"api_key": "benchmark"})
        aws.client("secretsmanager").create_secret(Name=settings.provider_secret("sendgrid"), SecretString=key)
        forget_circuits()
        provider_channel_of.cache_clear()
        try:
            yield settings
        finally:
            provider_channel_of.cache_clear()


@contextlib.contextmanager
def provider() -> Iterator[str]:
    """SendGrid as a process that accepts every email, and takes 50 ms for it; gives its address."""
    command = [sys.executable, "-m", "benchmarks.notifications", "serve"]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as process:
        try:
            if process.stdout is None:
                raise RuntimeError("the stand-in for the provider has no output")
            yield f"http://127.0.0.1:{int(process.stdout.readline())}"
        finally:
            process.terminate()


async def _answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    accepted = b"HTTP/1.1 202 Accepted\r\nX-Message-Id: benchmark\r\nContent-Length: 0\r\n\r\n"
    with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError):
        while True:
            head = (await reader.readuntil(b"\r\n\r\n")).lower()
            length = int(head.partition(b"content-length:")[2].partition(b"\r\n")[0])
            await reader.readexactly(length)
            await asyncio.sleep(ANSWERS_AFTER)
            writer.write(accepted)
            await writer.drain()
    writer.close()


async def _serve() -> None:
    server = await asyncio.start_server(_answer, "127.0.0.1", 0)
    print(server.sockets[0].getsockname()[1], flush=True)
    await server.serve_forever()


if __name__ == "__main__":
    if sys.argv[1:] == ["serve"]:
        asyncio.run(_serve())
    else:
        for line in run():
            print(" | ".join(line))
