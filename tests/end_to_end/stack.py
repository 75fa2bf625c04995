"""The deployed stack as its users have it: queues, schedules, functions and the database, by the names of the jobs."""

import json
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import cached_property
from itertools import batched
from typing import Any, Final
from uuid import UUID

from sqlalchemy import Row, Table, func, insert, literal, select, update

from local.emulator.process import client
from local.home import CHECKOUT, Home
from local.invocation import of_stack
from local.stack import postgres_of
from schoolbell.database import Database
from schoolbell.domains.platform.schema import dead_letters, job_runs
from schoolbell.domains.tutoring.schema import sessions
from tests.end_to_end.waiting import eventually

SWEEP: Final = "platform.dead-letter-sweep"
MESSAGES_A_CALL: Final = 10
SENDERS: Final = 4


class FunctionFailed(Exception):
    """An invocation ended with an error; the text is what it said."""


@dataclass
class Stack:
    """An instance of the embedded stack."""

    name: str
    home: Home
    database: Database
    sandbox_url: str

    # AWS

    def client(self, service: str) -> Any:
        """A client of an emulated service, for the root user."""
        return client(service, self.home.state().ports["emulator"])

    @cached_property
    def sqs(self) -> Any:
        return self.client("sqs")

    @cached_property
    def scheduler(self) -> Any:
        return self.client("scheduler")

    @cached_property
    def functions(self) -> Any:
        return self.client("lambda")

    def resource(self, job: str) -> str:
        """What a job's function, queue, rule and schedule are called."""
        return f"{self.name}-{job.replace('.', '-')}"

    def job(self, resource: str) -> str:
        """The job whose function, queue, rule or schedule is called so."""
        return resource.removeprefix(f"{self.name}-").replace("-", ".", 1)

    def queue_url(self, job: str, *, dead: bool = False) -> str:
        """The address of a job's queue, or of its dead-letter queue."""
        name = self.resource(job) + ("-dlq" if dead else "")
        return str(self.sqs.get_queue_url(QueueName=name)["QueueUrl"])

    # What people do

    def drop(self, job: str, *bodies: Any) -> list[str]:
        """Puts messages on a job's queue, and returns their ids. What is not text goes as JSON."""
        url = self.queue_url(job)
        entries = [
            {"Id": str(position), "MessageBody": body if isinstance(body, str) else json.dumps(body)}
            for position, body in enumerate(bodies)
        ]

        def send(some: Sequence[dict[str, str]]) -> list[str]:
            answer = self.sqs.send_message_batch(QueueUrl=url, Entries=list(some))
            assert not answer.get("Failed"), answer["Failed"]
            return [sent["MessageId"] for sent in answer["Successful"]]

        with ThreadPoolExecutor(SENDERS) as senders:
            return [
                each for sent in senders.map(send, batched(entries, MESSAGES_A_CALL, strict=False)) for each in sent
            ]

    @contextmanager
    def held(self, job: str) -> Iterator[None]:
        """Keeps a job from taking messages off its queue, so that what is dropped meanwhile comes in one batch."""
        mappings = self.functions.list_event_source_mappings(FunctionName=self.resource(job))["EventSourceMappings"]
        mapping = mappings[0]["UUID"]
        self.functions.update_event_source_mapping(UUID=mapping, Enabled=False)
        try:
            yield
        finally:
            self.functions.update_event_source_mapping(UUID=mapping, Enabled=True)

    @contextmanager
    def paused(self, job: str) -> Iterator[None]:
        """Keeps a job's rule from triggering it; a run that it has triggered before is waited for.

        For tests of dead letters: the sweep hides messages from others while it looks at them, so that a redrive or a
        drop at that moment would leave them where they are.
        """
        events, name = self.client("events"), self.resource(job)
        events.disable_rule(Name=name)
        try:
            self.run(job)  # which ends after an earlier one: there is one at a time
            yield
        finally:
            events.enable_rule(Name=name)

    def redrive(self, job: str, body: str) -> None:
        """Sends what is on a job's dead-letter queue to its queue again, as the SQS console does.

        Waits until the message with this body is there: SQS moves a message a moment after its death has been recorded.
        """
        dead, alive = (
            self.sqs.get_queue_attributes(QueueUrl=self.queue_url(job, dead=is_dead), AttributeNames=["QueueArn"])
            for is_dead in (True, False)
        )
        url = self.queue_url(job, dead=True)
        with self.paused(SWEEP):
            handle = self._find(url, body, 60.0)["ReceiptHandle"]
            self.sqs.change_message_visibility(QueueUrl=url, ReceiptHandle=handle, VisibilityTimeout=0)
            self.sqs.start_message_move_task(
                SourceArn=dead["Attributes"]["QueueArn"], DestinationArn=alive["Attributes"]["QueueArn"]
            )

    def run(self, job: str, **data: Any) -> dict[str, Any]:
        """Runs a scheduled job by hand, and returns its result.

        A job of which only one run may be in progress skips this one while its own schedule has triggered another.
        """

        def invoke() -> dict[str, Any] | None:
            answer: dict[str, Any] = self.invoke(job, data)
            return answer if answer["status"] == "completed" else None

        answer = eventually(invoke, f"run of {job} that is not skipped")
        assert answer is not None
        return dict(answer["result"])

    def invoke(self, job: str, event: Any) -> Any:
        """Calls a job's function and returns its answer.

        Raises:
            FunctionFailed: it raised.
        """
        answer = self.functions.invoke(FunctionName=self.resource(job), Payload=json.dumps(event).encode())
        payload = json.loads(answer["Payload"].read() or b"null")
        if "FunctionError" in answer:
            raise FunctionFailed(payload["errorMessage"])
        return payload

    def event_of(self, job: str) -> Any:
        """The event file of a job."""
        domain, name = job.split(".")
        event = (CHECKOUT / "events" / domain / f"{name.replace('-', '_')}.json").read_text()
        return json.loads(of_stack(event, self.name))

    def change(self, table: Table, id: object, **values: object) -> None:
        """Changes a row, as the application does."""
        with self.database.transaction() as connection:
            connection.execute(update(table).where(table.c.id == id).values(values))

    def many_lessons(self, student: Row[Any], count: int) -> list[UUID]:
        """Writes so many lessons of a student, all of them over."""
        over = datetime.now(UTC) - timedelta(hours=2)
        lesson = {
            "student_id": student.id,
            "teacher_id": student.teacher_id,
            "starts_at": over - timedelta(hours=1),
            "ends_at": over,
        }
        given = select(
            *(literal(value).label(name) for name, value in lesson.items()),
        ).select_from(func.generate_series(1, count))
        with self.database.transaction() as connection:
            made = insert(sessions).from_select(list(lesson), given).returning(sessions.c.id)
            return list(connection.execute(made).scalars())

    # What came of it

    def rows(self, table: Table, **equal: object) -> Sequence[Row[Any]]:
        """What a table holds, the oldest first."""
        query = select(table).where(*(table.c[name] == value for name, value in equal.items()))
        with self.database.transaction() as connection:
            return connection.execute(query.order_by(table.c.created_at, *table.primary_key)).all()

    def row(self, table: Table, **equal: object) -> Row[Any]:
        """The only row of a table that has these values."""
        (found,) = self.rows(table, **equal)
        return found

    def runs(self, job: str, **equal: object) -> Sequence[Row[Any]]:
        """The runs of a job."""
        return self.rows(job_runs, job=job, **equal)

    def count(self, table: Table, **equal: object) -> int:
        """How many rows of a table have these values."""
        query = select(func.count()).select_from(table).where(*(table.c[name] == each for name, each in equal.items()))
        with self.database.transaction() as connection:
            return int(connection.execute(query).scalar_one())

    def becomes(self, table: Table, id: object, patience: float = 60.0, **wanted: object) -> Row[Any]:
        """Waits until a row has these values, and returns it."""

        def look() -> Row[Any] | None:
            seen.append(self.row(table, id=id))
            return seen[-1] if all(seen[-1]._mapping[name] == value for name, value in wanted.items()) else None

        seen: list[Row[Any]] = []
        try:
            found = eventually(look, f"{table.name} {id} with {wanted}", patience=patience)
        except AssertionError as error:
            raise AssertionError(f"{error}; the row is {dict(seen[-1]._mapping)}") from None
        assert found is not None
        return found

    def dead_letter(self, job: str, body: str, patience: float = 60.0) -> Row[Any]:
        """Waits until a message with this body is recorded as dead, and returns the record."""
        return eventually(
            lambda: self.rows(dead_letters, job=job, payload=body), f"dead letter of {job}", patience=patience
        )[-1]

    def buried(self, job: str, body: str, patience: float = 60.0) -> dict[str, Any]:
        """Waits until a message with this body is on a job's dead-letter queue, and takes it from there."""
        url = self.queue_url(job, dead=True)
        found = self._find(url, body, patience)
        self.sqs.delete_message(QueueUrl=url, ReceiptHandle=found["ReceiptHandle"])
        return found

    def _find(self, url: str, body: str, patience: float) -> dict[str, Any]:
        """Waits until a message with this body is on a queue, and receives it; all others stay visible.

        JSON may be spaced and ordered in another way: it may have been through the outbox.
        """

        def look() -> dict[str, Any] | None:
            found = None
            for message in list(self._receive_all(url)):
                if found is None and _meaning(message["Body"]) == _meaning(body):
                    found = message
                else:
                    handle = message["ReceiptHandle"]
                    self.sqs.change_message_visibility(QueueUrl=url, ReceiptHandle=handle, VisibilityTimeout=0)
            return found

        found = eventually(look, f"message on {url.rpartition('/')[2]}", patience=patience)
        assert found is not None
        return found

    def _receive_all(self, url: str) -> Iterator[dict[str, Any]]:
        while messages := self.sqs.receive_message(
            QueueUrl=url, MaxNumberOfMessages=MESSAGES_A_CALL, MessageAttributeNames=["All"]
        ).get("Messages"):
            yield from messages

    def waiting(self, job: str) -> int:
        """How many messages are on a job's queue, those included that are hidden or delayed."""
        attributes = self.sqs.get_queue_attributes(QueueUrl=self.queue_url(job), AttributeNames=["All"])["Attributes"]
        return sum(int(attributes[f"ApproximateNumberOfMessages{kind}"]) for kind in ("", "NotVisible", "Delayed"))

    def log(self, job: str, since: datetime) -> str:
        """What a job's function has logged."""
        logs = self.client("logs")
        pages = logs.get_paginator("filter_log_events").paginate(
            logGroupName=f"/aws/lambda/{self.resource(job)}", startTime=int(since.timestamp() * 1000)
        )
        return "\n".join(event["message"] for page in pages for event in page["events"])

    def one_shot(self, name: str) -> dict[str, Any] | None:
        """A schedule that a job made, or nothing if there is none of that name."""
        with suppress(self.scheduler.exceptions.ResourceNotFoundException):
            found: dict[str, Any] = self.scheduler.get_schedule(GroupName=self.name, Name=name)
            return found
        return None

    # Its database

    def stop_database(self) -> None:
        postgres_of(self.home).stop()

    def start_database(self) -> None:
        """Starts the database where it was before."""
        postgres = postgres_of(self.home)
        postgres.port = self.home.state().ports["postgres"]
        postgres.start()
        self.database.check()


def _meaning(body: str) -> Any:
    try:
        return json.loads(body)
    except ValueError:
        return body
