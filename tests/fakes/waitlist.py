"""A waiting list's world: the real jobs on a real database, the real state machine on a clock, queues in memory."""

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Any
from uuid import UUID

from botocore.exceptions import EndpointConnectionError
from sqlalchemy import Row, Table, func, select

from functions.tutoring.waitlist_answers.app import handler as take_answers
from functions.tutoring.waitlist_await.app import handler as await_answer
from functions.tutoring.waitlist_expiry.app import handler as expire_offers
from functions.tutoring.waitlist_offer.app import handler as offer_seat
from functions.tutoring.waitlist_openings.app import handler as open_seats
from schoolbell.database import Database
from schoolbell.domains.platform import schema as platform
from schoolbell.domains.tutoring import schema as tutoring
from schoolbell.jobs import outbox
from schoolbell.settings import Settings
from tests.factories import Make
from tests.fakes.step_functions import Clock, StepFunctions
from tests.performing import Invocation, sqs_event

DEFINITION = Path(__file__).parents[2] / "functions/tutoring/waitlist_cascade.asl.yaml"
OPENINGS = "waitlist-openings"
ANSWERS = "waitlist-answers"
WINDOW = timedelta(hours=48)


@dataclass(frozen=True)
class Sent:
    """A message that reached a queue or a topic."""

    to: str
    body: Any
    attributes: dict[str, Any]


class Network:
    """What `schoolbell.aws.client` gives the jobs: the machine, and queues and topics that remember."""

    def __init__(self, machine: StepFunctions) -> None:
        self._machine = machine
        self.sent: list[Sent] = []
        self.is_machine_away = False

    def client(self, service: str) -> Any:
        if service == "stepfunctions":
            if self.is_machine_away:
                raise EndpointConnectionError(endpoint_url="https://states.example.org")
            return self._machine
        if service in ("sqs", "sns"):
            return self
        raise NotImplementedError(service)

    def send_message_batch(self, *, QueueUrl: str, Entries: list[dict[str, Any]]) -> dict[str, Any]:  # noqa: N803
        name = QueueUrl.rpartition("/")[2].removeprefix("schoolbell-tutoring-")
        for entry in Entries:
            body = entry["MessageBody"] if name.endswith("-dlq") else json.loads(entry["MessageBody"])
            self.sent.append(Sent(name, body, entry.get("MessageAttributes", {})))
        return {"Successful": [{"Id": entry["Id"]} for entry in Entries]}

    def publish_batch(self, *, TopicArn: str, PublishBatchRequestEntries: list[dict[str, Any]]) -> dict[str, Any]:  # noqa: N803
        name = TopicArn.rpartition(":")[2].removeprefix("schoolbell-")
        self.sent.extend(
            Sent(name, json.loads(e["Message"]), e.get("MessageAttributes", {})) for e in PublishBatchRequestEntries
        )
        return {"Successful": [{"Id": entry["Id"]} for entry in PublishBatchRequestEntries]}

    def change_message_visibility_batch(self, **_: object) -> dict[str, Any]:
        return {}


@dataclass
class Waitlist:
    """The world of the waiting lists in one test."""

    database: Database
    make: Make
    clock: Clock
    settings: Settings
    machine: StepFunctions = field(init=False)
    network: Network = field(init=False)
    functions: dict[str, Callable[[Any], Any]] = field(init=False)
    """What the machine's steps call, by the placeholder in its definition."""

    def __post_init__(self) -> None:
        self.functions = {
            "${WaitlistOfferArn}": lambda payload: offer_seat(payload, Invocation()),
            "${WaitlistAwaitArn}": lambda payload: await_answer(payload, Invocation()),
        }
        self.machine = StepFunctions(DEFINITION, self.functions, self.clock)
        self.network = Network(self.machine)

    # What happens

    def of(self, students: int, **columns: Any) -> Row[Any]:
        """A waiting list with so many students, and room for them all unless told otherwise."""
        waitlist = self.make.waitlist(**{"capacity": 100} | columns)
        for _ in range(students):
            self.make.entry(waitlist)
        return waitlist

    def open(self, waitlist: Row[Any] | UUID, seats: int = 1, **delivery: Any) -> list[str]:
        """A message on `waitlist-openings`; returns the messages that failed."""
        waitlist_id = waitlist if isinstance(waitlist, UUID) else waitlist.id
        return self.deliver(OPENINGS, {"waitlist_id": str(waitlist_id), "seats": seats}, **delivery)

    def answer(self, entry: Row[Any] | UUID, answer: str, **delivery: Any) -> list[str]:
        """A message on `waitlist-answers`; returns the messages that failed."""
        entry_id = entry if isinstance(entry, UUID) else entry.id
        return self.deliver(ANSWERS, {"entry_id": str(entry_id), "answer": answer}, **delivery)

    def deliver(
        self,
        queue: str,
        *bodies: Any,
        message_id: str | None = None,
        message_ids: Sequence[str] | None = None,
        attempt: int = 1,
        attributes: dict[str, Any] | None = None,
    ) -> list[str]:
        """Hands messages to a queue's job, and returns the ids of those that failed."""
        jobs: dict[str, Callable[[Any, Invocation], dict[str, Any]]] = {OPENINGS: open_seats, ANSWERS: take_answers}
        outbox_id = (attributes or {}).get("outbox-id", {}).get("StringValue")
        ids = message_ids or ([message_id] if message_id else None)
        event = sqs_event(bodies, queue=queue, attempt=attempt, message_ids=ids, outbox_id=outbox_id)
        answer = jobs[queue](event, Invocation())
        return [failure["itemIdentifier"] for failure in answer["batchItemFailures"]]

    def expire(self, **event: object) -> dict[str, Any]:
        """The hourly run; returns its result."""
        return dict(expire_offers(event, Invocation())["result"])

    def relay(self) -> None:
        """Sends what a process that died left in the outbox; its claims end after a minute."""
        later = self.clock.now + outbox.CLAIM
        with self.database.transaction() as connection:
            claimed = outbox.claim_oldest(connection, later)
        outbox.deliver(self.database, self.settings, claimed, later)

    def settle(self) -> None:
        """Lets machines go on and delivers what jobs sent each other, until there is nothing to do at this moment."""
        while self.machine.ready() or self.queued():
            self.machine.run()
            for message in self.queued():
                self.network.sent.remove(message)
                self.deliver(OPENINGS, message.body, attributes=message.attributes)

    def pass_time(self, by: timedelta) -> None:
        self.clock.advance(by)
        self.settle()

    # What has become of it

    def queued(self) -> list[Sent]:
        """Openings that jobs sent, and that have not been delivered."""
        return [message for message in self.network.sent if message.to == OPENINGS]

    def told(self) -> list[str]:
        """Ids of the students who were told of an offer, in order."""
        handed_over = [
            UUID(each)
            for sent in self.network.sent
            if sent.to.endswith("notifications-high")
            for each in sent.body["notification_ids"]
        ]
        with self.database.transaction() as connection:
            recipients = dict(
                connection.execute(select(platform.notifications.c.id, platform.notifications.c.recipient)).all()
            )
        return [recipients[each].removeprefix("student/") for each in handed_over]

    def dead(self) -> list[str]:
        """Why messages were put on a dead-letter queue."""
        return [sent.attributes["reason"]["StringValue"] for sent in self.network.sent if sent.to.endswith("-dlq")]

    def entries(self, waitlist: Row[Any]) -> Sequence[Row[Any]]:
        """The list, in order."""
        return self._rows(tutoring.waitlist_entries, waitlist, "position")

    def statuses(self, waitlist: Row[Any]) -> list[str]:
        return [entry.status for entry in self.entries(waitlist)]

    def seats(self, waitlist: Row[Any]) -> list[str]:
        """The status of each seat, in the order in which they were opened."""
        return [seat.status for seat in self._rows(tutoring.waitlist_seats, waitlist, "created_at", "number")]

    def seat_ids(self, waitlist: Row[Any]) -> list[UUID]:
        return [seat.id for seat in self._rows(tutoring.waitlist_seats, waitlist, "created_at", "number")]

    def openings(self, waitlist: Row[Any]) -> Sequence[Row[Any]]:
        return self._rows(tutoring.waitlist_openings, waitlist, "created_at")

    def answers(self, waitlist: Row[Any]) -> list[tuple[str, str, str | None]]:
        """Answer, outcome and reason of each answer, in order."""
        entries = select(tutoring.waitlist_entries.c.id).where(tutoring.waitlist_entries.c.waitlist_id == waitlist.id)
        answers = tutoring.waitlist_answers
        query = select(answers).where(answers.c.entry_id.in_(entries)).order_by(answers.c.created_at)
        with self.database.transaction() as connection:
            return [(row.answer, row.outcome, row.reason) for row in connection.execute(query)]

    def rows(self, table: Table) -> Sequence[Row[Any]]:
        with self.database.transaction() as connection:
            return connection.execute(select(table)).all()

    def count(self, table: Table) -> int:
        with self.database.transaction() as connection:
            return connection.execute(select(func.count()).select_from(table)).scalar_one()

    def run_results(self, job: str) -> list[dict[str, Any]]:
        """What runs of a job reported, in order."""
        runs = platform.job_runs
        with self.database.transaction() as connection:
            query = select(runs.c.result).where(runs.c.job == f"tutoring.{job}").order_by(runs.c.created_at)
            return list(connection.execute(query).scalars())

    def _rows(self, table: Table, waitlist: Row[Any], *order: str) -> Sequence[Row[Any]]:
        query = select(table).where(table.c.waitlist_id == waitlist.id).order_by(*(table.c[name] for name in order))
        with self.database.transaction() as connection:
            return connection.execute(query).all()
