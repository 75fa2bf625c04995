"""A world in which lessons end and messages fall due: real jobs, a real database, schedules and queues on a clock."""

import json
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from threading import Lock
from typing import Any
from uuid import UUID, uuid4

from sqlalchemy import Row, Table, select, update

from functions.tutoring.auto_complete.app import handler as auto_complete
from functions.tutoring.message_events.app import handler as message_events
from functions.tutoring.message_sweep.app import handler as message_sweep
from functions.tutoring.scheduled_messages.app import handler as scheduled_messages
from functions.tutoring.session_events.app import handler as session_events
from functions.tutoring.session_sweep.app import handler as session_sweep
from schoolbell.database import Database
from schoolbell.domains.tutoring.schema import scheduled_messages as messages
from schoolbell.domains.tutoring.schema import sessions
from schoolbell.jobs import outbox
from schoolbell.settings import Settings
from tests.factories import Make
from tests.fakes.scheduler import Scheduler
from tests.performing import Invocation, Job, sqs_event

QUEUE_JOBS: dict[str, Job] = {
    "session-events": session_events,
    "auto-complete": auto_complete,
    "message-events": message_events,
    "scheduled-messages": scheduled_messages,
}
SWEEPS: dict[str, Job] = {"session-sweep": session_sweep, "message-sweep": message_sweep}


@dataclass
class Clock:
    """The time, for jobs and schedules alike."""

    now: datetime

    def __call__(self) -> datetime:
        return self.now


@dataclass(frozen=True)
class Queued:
    """A message on a queue."""

    queue: str
    body: str
    visible_at: datetime
    attributes: dict[str, Any] = field(default_factory=dict)
    id: str = field(default_factory=lambda: str(uuid4()))

    @property
    def payload(self) -> Any:
        return json.loads(self.body)


class Queues:
    """A boto3 client `sqs` whose queues are in memory."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._lock = Lock()
        self.messages: list[Queued] = []

    def send_message_batch(self, *, QueueUrl: str, Entries: list[dict[str, Any]]) -> dict[str, Any]:  # noqa: N803
        name = QueueUrl.rpartition("/")[2]
        for entry in Entries:
            delay = entry.get("DelaySeconds", 0)
            assert 0 <= delay <= 900, f"SQS refuses a delay of {delay} seconds"
            self.put(name, entry["MessageBody"], delay=delay, attributes=entry.get("MessageAttributes", {}))
        return {"Successful": [{"Id": entry["Id"]} for entry in Entries]}

    def change_message_visibility_batch(self, **_: object) -> dict[str, Any]:
        return {}

    def put(self, name: str, body: str, *, delay: float = 0, attributes: dict[str, Any] | None = None) -> None:
        queue = name.removeprefix("schoolbell-tutoring-")
        with self._lock:
            self.messages.append(Queued(queue, body, self._clock.now + timedelta(seconds=delay), attributes or {}))

    def take_visible(self) -> dict[str, list[Queued]]:
        """Takes what its consumers would get now, by queue."""
        taken = defaultdict(list)
        with self._lock:
            for message in list(self.messages):
                if message.visible_at <= self._clock.now and message.queue in QUEUE_JOBS:
                    self.messages.remove(message)
                    taken[message.queue].append(message)
        return taken


@dataclass
class OneShotWorld:
    """Lessons, planned messages, and everything that rings for them."""

    database: Database
    make: Make
    clock: Clock
    settings: Settings
    scheduler: Scheduler = field(init=False)
    queues: Queues = field(init=False)

    def __post_init__(self) -> None:
        self.scheduler = Scheduler(self.clock, self.settings.schedule_group)
        self.queues = Queues(self.clock)

    def client(self, service: str) -> Any:
        """What `schoolbell.aws.client` gives the jobs."""
        return {"scheduler": self.scheduler, "sqs": self.queues}[service]

    # What happens

    def session(self, due_in: timedelta, **columns: object) -> Row[Any]:
        """A lesson that is due, grace period and all, after so long."""
        grace = columns.setdefault("grace_period_minutes", 15)
        assert isinstance(grace, int)
        return self.make.session(None, ends_at=self.clock.now + due_in - timedelta(minutes=grace), **columns)

    def message(self, due_in: timedelta, **columns: object) -> Row[Any]:
        """A planned message that is to be sent after so long."""
        return self.make.message(None, **{"send_at": self.clock.now + due_in} | columns)

    def move(self, row: Row[Any], due_in: timedelta) -> None:
        """The application moves a lesson or a message, and has not told anybody yet."""
        due = self.clock.now + due_in
        if hasattr(row, "send_at"):
            self.write(messages, row.id, send_at=due)
        else:
            ends_at = due - timedelta(minutes=row.grace_period_minutes)
            self.write(sessions, row.id, starts_at=ends_at - timedelta(hours=1), ends_at=ends_at)

    def cancel(self, row: Row[Any]) -> None:
        """The application cancels a lesson or a message, and has not told anybody yet."""
        self.write(messages if hasattr(row, "send_at") else sessions, row.id, status="cancelled")

    def write(self, table: Table, row: UUID, **columns: object) -> None:
        with self.database.transaction() as connection:
            connection.execute(update(table).where(table.c.id == row).values(columns))

    def tell(self, row: Row[Any], *types: str) -> list[str]:
        """Events about a lesson or a message, in one batch; returns the ids of the messages that failed."""
        if hasattr(row, "send_at"):
            events = [{"type": f"message.{each}", "message_id": str(row.id)} for each in types]
            return self.deliver("message-events", *events)
        return self.deliver(
            "session-events", *({"type": f"session.{each}", "session_id": str(row.id)} for each in types)
        )

    def ring(self, *rows: Row[Any]) -> list[str]:
        """The schedules of lessons, or of messages, go off; returns the ids of the messages that failed."""
        if hasattr(rows[0], "send_at"):
            return self.deliver("scheduled-messages", *({"message_id": str(row.id)} for row in rows))
        return self.deliver("auto-complete", *({"session_id": str(row.id)} for row in rows))

    def deliver(self, queue: str, *bodies: Any, ids: Sequence[str] = (), attempt: int = 1) -> list[str]:
        """Hands messages to a queue's job in one batch, and returns the ids of those that failed."""
        bodies_as_sent = [body if isinstance(body, str) else json.dumps(body) for body in bodies]
        now = self.clock.now
        return self._invoke(
            queue,
            [
                Queued(queue, body, now, id=ids[position] if ids else str(uuid4()))
                for position, body in enumerate(bodies_as_sent)
            ],
            attempt,
        )

    def sweep(self, job: str = "session-sweep", **event: object) -> dict[str, Any]:
        """A run of a sweep, as an operator makes it unless an event is given; returns its result."""
        answer = SWEEPS[job](event, Invocation())
        assert answer["status"] == "completed", answer
        return dict(answer["result"])

    def settle(self) -> None:
        """Schedules go off, the relay sends, jobs get their messages, until there is nothing to do at this moment."""
        while True:
            for rung in self.scheduler.go_off():
                self.queues.put(rung.queue, rung.body)
            self.relay()
            visible = self.queues.take_visible()
            if not visible:
                return
            for queue, taken in visible.items():
                for failed in self._invoke(queue, taken):
                    raise AssertionError(f"{queue}: {failed} failed")

    def pass_time(self, by: timedelta) -> None:
        self.clock.now += by
        self.settle()

    # What has become of it

    def name(self, row: Row[Any]) -> str:
        return f"{'message' if hasattr(row, 'send_at') else 'session'}-{row.id}"

    def scheduled(self, row: Row[Any]) -> datetime | None:
        """When the row's schedule goes off; `None` if it has none."""
        return self.scheduler.at(self.name(row))

    def now_in_database(self, row: Row[Any]) -> Row[Any]:
        """The row as it is now."""
        table = messages if hasattr(row, "send_at") else sessions
        with self.database.transaction() as connection:
            return connection.execute(select(table).where(table.c.id == row.id)).one()

    def status(self, row: Row[Any]) -> str:
        return str(self.now_in_database(row).status)

    def on_queue(self, queue: str) -> list[Any]:
        """The payloads of the messages that wait on a queue."""
        return [message.payload for message in self.queues.messages if message.queue == queue]

    def dead(self, queue: str) -> list[str]:
        """Why messages are on a queue's dead-letter queue."""
        return [
            message.attributes["reason"]["StringValue"]
            for message in self.queues.messages
            if message.queue == f"{queue}-dlq"
        ]

    def calls(self, row: Row[Any]) -> list[str]:
        """What EventBridge Scheduler was asked to do about a row, in order."""
        return [operation for operation, name in self.scheduler.calls if name == self.name(row)]

    def relay(self) -> None:
        """Sends what is in the outbox and due, as the relay does every minute."""
        with self.database.transaction() as connection:
            claimed = outbox.claim_oldest(connection, self.clock.now)
        outbox.deliver(self.database, self.settings, claimed, self.clock.now)

    def _invoke(self, queue: str, taken: Iterable[Queued], attempt: int = 1) -> list[str]:
        messages = list(taken)
        event = sqs_event(
            [message.body for message in messages],
            queue=f"tutoring.{queue}",
            attempt=attempt,
            message_ids=[message.id for message in messages],
        )
        for record, message in zip(event["Records"], messages, strict=True):
            record["messageAttributes"] = {
                name: {"dataType": each["DataType"], "stringValue": each["StringValue"]}
                for name, each in message.attributes.items()
            }
        answer = QUEUE_JOBS[queue](event, Invocation())
        return [failure["itemIdentifier"] for failure in answer["batchItemFailures"]]
