"""The running stack, through what anybody may use: queues, schedules, functions, database, and Google's stand-in."""

import json
import time
import urllib.request
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from datetime import UTC, datetime, timedelta
from itertools import batched
from threading import Event, RLock
from typing import Any, Final
from uuid import UUID, uuid4

from sqlalchemy import text

from local.emulator.process import ACCESS_KEY, REGION, SECRET_KEY
from local.home import Home
from local.stack import environment, postgres_of
from schoolbell.database import Database
from schoolbell.database.connection import DatabaseAddress
from schoolbell.settings import Settings

CONNECTIONS: Final = 12  # transactions at once: one an act
STATEMENT_TIMEOUT: Final = timedelta(minutes=2)
ANSWER_TIMEOUT: Final = 120  # seconds
SENDERS: Final = 8
PAUSE: Final = 0.25  # seconds between two looks
RINGING_OFTEN: Final = ("tutoring.session-sweep", "tutoring.message-sweep", "tutoring.calendar-sync")
"""Rung every 5 or 15 minutes."""

BOUND: Final = timedelta(minutes=10)
"""The demo ends by itself after this long, whatever hangs."""

Json = Any


class DemoError(Exception):
    """Something did not happen that should have; the message says what."""


class Running:
    """A running stack."""

    def __init__(self, home: Home) -> None:
        variables = environment(home.state(), postgres_of(home).url())
        self.stack = variables["SCHOOLBELL_STACK"]
        self.endpoint = variables["AWS_ENDPOINT_URL"]
        self.google_url = variables["GOOGLE_SANDBOX_URL"]
        self.database_url = variables["DATABASE_URL"]
        address = DatabaseAddress.from_url(self.database_url)
        self.database = Database(lambda: address, STATEMENT_TIMEOUT, CONNECTIONS)
        self.stopping = Event()
        self._deadline = time.monotonic() + BOUND.total_seconds()
        self._clients: dict[str, Any] = {}
        self._guard = RLock()
        account = str(self.client("sts").get_caller_identity()["Account"])
        self.names = Settings(schoolbell_stack=self.stack, aws_region=REGION, aws_account_id=account)

    # Waiting

    def until[T](self, look: Callable[[], T | None], what: str, seconds: float = 60) -> T:
        """Look again and again until there is something (not None, not False).

        Args:
            look: looks.
            what: what is waited for, as it stands after "waited for".
            seconds: for how long.

        Raises:
            DemoError: it did not come.
        """
        deadline = min(time.monotonic() + seconds, self._deadline)
        while True:
            found = look()
            if found is not None and found is not False:
                return found
            if time.monotonic() > deadline:
                raise DemoError(f"waited {seconds:.0f} s in vain for {what}")
            self.pause(PAUSE)

    def time_left(self) -> float:
        """Seconds until the demo must be over."""
        return self._deadline - time.monotonic()

    def pause(self, seconds: float) -> None:
        """Stand still for a moment, unless the demo is being stopped.

        Raises:
            DemoError: it is.
        """
        if self.stopping.wait(seconds):
            raise DemoError("stopped")

    # AWS

    def client(self, service: str) -> Any:
        """A boto3 client of the emulated service."""
        import boto3
        from botocore.config import Config

        with self._guard:
            if service not in self._clients:
                self._clients[service] = boto3.client(
                    service,
                    endpoint_url=self.endpoint,
                    region_name=REGION,
                    aws_access_key_id=ACCESS_KEY,
                    aws_secret_access_key=SECRET_KEY,
                    config=Config(
                        read_timeout=ANSWER_TIMEOUT, retries={"total_max_attempts": 1}, max_pool_connections=20
                    ),
                )
            return self._clients[service]

    def send(self, job: str, messages: Iterable[Mapping[str, Json] | str]) -> int:
        """Drop messages on a job's queue, ten a call. Returns how many."""
        url = self.names.queue_url(job)
        bodies = [each if isinstance(each, str) else json.dumps(dict(each)) for each in messages]

        def drop(few: Sequence[str]) -> None:
            entries = [{"Id": str(number), "MessageBody": body} for number, body in enumerate(few)]
            answer = self.client("sqs").send_message_batch(QueueUrl=url, Entries=entries)
            if answer.get("Failed"):
                raise DemoError(f"{job}: SQS refused {len(answer['Failed'])} messages")

        self.client("sqs")
        with ThreadPoolExecutor(SENDERS) as senders:
            list(senders.map(drop, batched(bodies, 10, strict=False)))
        return len(bodies)

    def depth(self, job: str, *, dead: bool = False) -> int:
        """How many messages are on a job's queue, those under way and those that sleep included; or on its DLQ."""
        names = (
            "ApproximateNumberOfMessages",
            "ApproximateNumberOfMessagesNotVisible",
            "ApproximateNumberOfMessagesDelayed",
        )
        url = self.names.dead_letter_queue_url(job) if dead else self.names.queue_url(job)
        found = self.client("sqs").get_queue_attributes(QueueUrl=url, AttributeNames=list(names))["Attributes"]
        return sum(int(found.get(name, 0)) for name in names)

    def invoke(self, job: str, event: Mapping[str, Json]) -> dict[str, Json]:
        """Invoke a job's function with an event and return its answer.

        Raises:
            DemoError: the function failed.
        """
        answer = self.client("lambda").invoke(
            FunctionName=self.names.resource_name(job), Payload=json.dumps(dict(event)).encode()
        )
        said: dict[str, Json] = json.loads(answer["Payload"].read())
        if "FunctionError" in answer:
            raise DemoError(f"{job}: {said.get('errorType')}: {said.get('errorMessage')}")
        return said

    def ring(self, job: str) -> dict[str, Json]:
        """Invoke a job's function with the event that its EventBridge rule sends."""
        now = datetime.now(UTC)
        rule = f"arn:aws:events:{REGION}:{self.names.aws_account_id}:rule/{self.names.resource_name(job)}"
        return self.invoke(
            job,
            {
                "version": "0",
                "id": str(uuid4()),
                "detail-type": "Scheduled Event",
                "source": "aws.events",
                "account": self.names.aws_account_id,
                "time": f"{now:%Y-%m-%dT%H:%M:%SZ}",
                "region": REGION,
                "resources": [rule],
                "detail": {},
            },
        )

    def schedule(self, name: str) -> str | None:
        """When a one-shot schedule goes off, as EventBridge Scheduler has it; None: there is none."""
        scheduler = self.client("scheduler")
        try:
            found = scheduler.get_schedule(Name=name, GroupName=self.stack)
        except scheduler.exceptions.ResourceNotFoundException:
            return None
        return str(found["ScheduleExpression"])

    def circuit(self, name: str) -> tuple[str, datetime | None]:
        """The state of a circuit breaker, and since when it has been open."""
        item = self.client("dynamodb").get_item(
            TableName=f"{self.stack}-resilience", Key={"id": {"S": name}}, ConsistentRead=True
        )
        found = item.get("Item")
        if not found:
            return "CLOSED", None
        opened = found.get("opened_at", {}).get("N")
        state = found["state"]["S"].upper()
        return state, datetime.fromtimestamp(float(opened), UTC) if opened else None

    @contextmanager
    def without_rules(self) -> Iterator[None]:
        """Switch off, for as long as this lasts, the rules that would do what the acts are about to show."""
        rules = [self.names.resource_name(job) for job in RINGING_OFTEN]
        events = self.client("events")
        try:
            for rule in rules:
                events.disable_rule(Name=rule)
            yield
        finally:
            for rule in rules:
                events.enable_rule(Name=rule)

    # The database

    def rows(self, statement: str, **values: object) -> Sequence[Any]:
        """The rows that a query finds, with the columns that it selects."""
        with self.database.transaction(read_only=True) as connection:
            return connection.execute(text(statement), values).all()

    def row(self, statement: str, **values: object) -> Any:
        """The one row that a query finds."""
        with self.database.transaction(read_only=True) as connection:
            return connection.execute(text(statement), values).one()

    def number(self, statement: str, **values: object) -> int:
        """The one number that a query finds."""
        return int(self.row(statement, **values)[0] or 0)

    def change(self, statement: str, **values: object) -> None:
        """Write what the application would write."""
        with self.database.transaction() as connection:
            connection.execute(text(statement), values)

    # Google's stand-in

    def google(self, method: str, path: str, body: Json = None) -> Json:
        """Tell the sandbox how to behave, or ask it what it holds; see `local.sandbox.admin`."""
        request = urllib.request.Request(  # noqa: S310 - a loopback address of ours
            f"{self.google_url}/sandbox/{path}",
            method=method,
            data=json.dumps(body).encode() if body is not None else None,
            headers={"Content-Type": "application/json"},
        )
        with urllib.request.urlopen(request, timeout=30) as answer:  # noqa: S310
            return json.load(answer)

    def close(self) -> None:
        """Stop what waits, let Google be well, and close the connections."""
        self.stopping.set()
        with suppress(OSError):
            self.google("DELETE", "faults")
        self.database.close()


def array(ids: Iterable[UUID | str]) -> str:
    """Ids, or names of columns, as the text of a PostgreSQL array."""
    return f"{{{','.join(map(str, ids))}}}"


def count(number: int, one: str, many: str = "") -> str:
    """A number with its noun."""
    return f"{number:,} {one if number == 1 else many or one + 's'}"
