"""The delivery of one invocation's notifications: planned, claimed, handed to their providers, and settled."""

import json
import random
from collections import defaultdict, deque
from collections.abc import Iterable, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any, Final
from uuid import UUID, uuid5

from sqlalchemy import Connection, Row, TextClause

from schoolbell.gateways.errors import GatewayError, Gone, NeverWorks, Throttled, Uncertain
from schoolbell.jobs import JobContext, dead_letters
from schoolbell.jobs.dead_letters import DeadLetter
from schoolbell.jobs.messages import REASON, RECORDED_AS
from schoolbell.jobs.outbox import body
from schoolbell.jobs.outcomes import LONGEST_SNOOZE
from schoolbell.notifications import QUEUE, Priority, statements
from schoolbell.notifications.channels import Channel
from schoolbell.notifications.policy import (
    ATTEMPTS,
    RECOVERY,
    Again,
    Fail,
    Queued,
    Route,
    Send,
    Suppress,
    Wait,
    after,
    is_doubtful,
    plan,
)
from schoolbell.notifications.provider_channels import ProviderChannel, provider_channel_of
from schoolbell.notifications.providers import Outgoing, Provider
from schoolbell.notifications.templates import Unrenderable
from schoolbell.resilience.errors import CircuitOpen
from schoolbell.resilience.rate_limiter import Denied, Permit

SENDERS: Final = 50
"""Calls in flight at a time: a provider's answer takes 50 ms and more, nearly all of it waiting."""

ENOUGH_TIME: Final = timedelta(seconds=12)
"""No call is begun with less than this left: one takes 5 seconds at most, and its outcome is to be recorded."""

CLAIMED_BY_ANOTHER: Final = timedelta(seconds=5)
"""How long to wait for what another invocation has claimed: it will have been settled by then."""

type Rows = list[dict[str, Any]]


@dataclass(slots=True)
class Item:
    """A notification on its way, and the routes that are left to it."""

    queued: Queued
    routes: list[Route]


@dataclass(frozen=True, slots=True)
class Sending:
    """A message that has been claimed for its provider."""

    item: Item
    route: Route
    provider_channel: ProviderChannel
    outgoing: Outgoing
    attempt: int
    uncertain: int

    @property
    def id(self) -> UUID:
        return self.item.queued.id

    def __call__(self) -> str:
        """Calls the provider and returns its id of the message."""
        return self.provider_channel.circuit.call(lambda: self.provider_channel.provider.send(self.outgoing))


@dataclass(slots=True)
class Delivery:
    """The notifications of one invocation."""

    job: JobContext
    queue: str
    known: set[UUID] = field(default_factory=set)
    delays: dict[UUID, timedelta] = field(default_factory=dict)
    """How long the message has to wait for those that are not settled."""
    counts: dict[str, int] = field(default_factory=lambda: defaultdict(int))
    pending: deque[Item] = field(default_factory=deque)
    postponed: list[UUID] = field(default_factory=list)
    """Those that wait for their provider, in `delays` too."""
    circuit_open: dict[Channel, timedelta] = field(default_factory=dict)
    """The channels whose circuit is open, and how long for."""
    rate_limited: dict[Channel, timedelta] = field(default_factory=dict)
    """The channels that take no more for a while."""
    permits: dict[Channel, int] = field(default_factory=lambda: defaultdict(int))
    """What the rate limit has granted and was not spent yet."""
    looked_at: set[Channel] = field(default_factory=set)

    def totals(self) -> dict[str, int]:
        """How many were sent, suppressed, failed, and wait."""
        done = {outcome: self.counts[outcome] for outcome in ("sent", "suppressed", "failed")}
        return done | {"waiting": len(self.delays) + self.counts["later"]}

    # Reading and planning

    def requeue_failed(self, ids: Sequence[UUID]) -> None:
        """Queues those that have failed once more, with all their attempts."""
        if ids:
            with self.job.transaction() as connection:
                connection.execute(statements.REQUEUE_FAILED, {"ids": statements.as_json(ids), "now": self.job.current})

    def take(self, ids: Sequence[UUID]) -> None:
        """Reads the notifications, and settles or postpones those that are not to be sent now."""
        now = self.job.current
        with self.job.database.transaction() as connection:
            rows = connection.execute(statements.READ, {"ids": statements.as_json(ids)}).all()
        self.known.update(row.id for row in rows)
        later: Rows = []
        suppressed: Rows = []
        failed: Rows = []
        for row in rows:
            if row.status != "queued" or self._comes_later(row, now):
                continue
            queued = statements.queued(row)
            match plan(queued, now):
                case Send(routes):
                    self.pending.append(Item(queued, list(routes)))
                case Wait(until):
                    later.append({"id": str(row.id), "until": until.isoformat()})
                case Suppress(reason):
                    suppressed.append({"id": str(row.id), "error": reason})
                case Fail(reason):
                    failed.append({"id": str(row.id), "error": reason, "reason": "discarded"})
        if later or suppressed or failed:
            with self.job.transaction() as connection:
                self.counts["later"] += self._execute(connection, statements.WAIT, later)
                self.counts["suppressed"] += self._execute(connection, statements.SUPPRESS, suppressed)
                self._fail(connection, failed)

    def _comes_later(self, row: Row[Any], now: datetime) -> bool:
        """Whether somebody else is at it, or its time has not come: this message waits for it, or it has none."""
        if row.claimed_until and row.claimed_until > now:
            self.delays[row.id] = min(row.claimed_until - now, CLAIMED_BY_ANOTHER)
            return True
        if row.scheduled_for and row.scheduled_for > now:
            if row.handed_over_at:
                self.delays[row.id] = row.scheduled_for - now
            else:
                self.counts["later"] += 1
            return True
        return False

    # Sending

    def send_all(self) -> None:
        """Sends what is pending, several at a time, and records each outcome as soon as it is known."""
        if not self.pending:
            return
        in_flight: dict[Future[str], Sending] = {}
        with ThreadPoolExecutor(SENDERS) as senders:
            while self.pending or in_flight:
                if self.job.remaining() < ENOUGH_TIME:
                    self._postpone_the_rest()
                elif self.pending and len(in_flight) <= SENDERS // 2:
                    for sending in self._begin(SENDERS - len(in_flight)):
                        in_flight[senders.submit(sending)] = sending
                if in_flight:
                    done, _ = wait(in_flight, return_when=FIRST_COMPLETED)
                    self._record([(in_flight.pop(future), future) for future in done])
        if self.postponed:
            with self.job.transaction() as connection:
                connection.execute(
                    statements.STILL_HANDED_OVER, {"ids": statements.as_json(self.postponed), "now": self.job.current}
                )

    def _postpone_the_rest(self) -> None:
        while self.pending:
            self._postpone(self.pending.popleft(), timedelta(0))

    def _postpone(self, item: Item, delay: timedelta) -> None:
        self.delays[item.queued.id] = delay
        self.postponed.append(item.queued.id)

    def _begin(self, room: int) -> list[Sending]:
        """Claims the next ones that may be sent, so many at most; the others of them wait."""
        by_channel: dict[Channel, list[tuple[Item, Route]]] = defaultdict(list)
        for _ in range(min(room, len(self.pending))):
            item = self.pending.popleft()
            route = next((route for route in item.routes if not self._is_circuit_open(route.channel)), None)
            if route is None:
                self._postpone(item, min(self.circuit_open[route.channel] for route in item.routes))
            elif route.channel in self.rate_limited:
                self._postpone(item, self.rate_limited[route.channel])
            else:
                by_channel[route.channel].append((item, route))
        begun: list[Sending] = []
        for channel, some in by_channel.items():
            provider_channel = provider_channel_of(channel, self.job.settings)
            some, too_many = some[: provider_channel.most], some[provider_channel.most :]
            self.pending.extendleft(item for item, _ in reversed(too_many))
            if wait_for := self._take_permits(provider_channel, channel, len(some)):
                self.rate_limited[channel] = wait_for
                for item, _ in some:
                    self._postpone(item, wait_for)
            else:
                begun += self._claim(provider_channel, some)
        return begun

    def _take_permits(self, provider_channel: ProviderChannel, channel: Channel, number: int) -> timedelta | None:
        """Takes so many permits, and asks for all that may be needed at once; how long to wait where there are none."""
        answer: Permit | Denied = Permit()
        if self.permits[channel] < number:
            for cost in (min(provider_channel.most, number + len(self.pending)), number):
                answer = provider_channel.limiter.try_acquire(self.queue, self.job.current, cost)
                if isinstance(answer, Permit):
                    self.permits[channel] += cost
                    break
        if isinstance(answer, Denied):
            return answer.retry_after
        self.permits[channel] -= number
        return None

    def _is_circuit_open(self, channel: Channel) -> bool:
        if channel not in self.looked_at:
            self.looked_at.add(channel)
            try:
                if provider_channel_of(channel, self.job.settings).circuit.is_open():
                    self.circuit_open[channel] = RECOVERY
            except Exception as error:  # a circuit that can't be read counts as closed, here as in each call
                self.job.logger.warning("circuit not read", channel=channel, error=type(error).__name__)
        return channel in self.circuit_open

    def _claim(self, provider_channel: ProviderChannel, some: Sequence[tuple[Item, Route]]) -> list[Sending]:
        """Claims the rows of messages that can be rendered; what somebody else has claimed meanwhile is theirs."""
        failed: Rows = []
        ready: dict[UUID, tuple[Item, Route, Outgoing]] = {}
        for item, route in some:
            try:
                ready[item.queued.id] = item, route, _outgoing(item.queued, route)
            except Unrenderable as error:
                failed.append({"id": str(item.queued.id), "error": str(error), "reason": "discarded"})
        values = {
            "ids": statements.as_json(ready),
            "run": self.job.run_id,
            "now": self.job.current,
            "until": self.job.deadline,
        }
        with self.job.transaction() as connection:
            claimed = connection.execute(statements.CLAIM, values).all() if ready else []
            begun = []
            for row in claimed:
                item, route, outgoing = ready.pop(row.id)
                if reason := _why_over(row, provider_channel.provider):
                    failed.append({"id": str(row.id), "error": reason, "reason": "failed"})
                else:
                    begun.append(Sending(item, route, provider_channel, outgoing, row.attempts, row.uncertain))
            self._fail(connection, failed)
        self.delays.update(dict.fromkeys(ready, CLAIMED_BY_ANOTHER))
        return begun

    # Recording

    def _record(self, done: Iterable[tuple[Sending, Future[str]]]) -> None:
        """Writes down what providers said, in one transaction."""
        outcomes = Outcomes()
        for sending, future in done:
            error = future.exception()
            if error is None:
                outcomes.sent.append(_accepted(sending, future.result()))
            elif isinstance(error, CircuitOpen):
                self.circuit_open[sending.route.channel] = error.retry_after
                self._try_another_route(sending, outcomes)
            elif isinstance(error, Gone):
                sending.item.routes.remove(sending.route)
                outcomes.stale_tokens.append(sending.route.address)
                self._try_another_route(sending, outcomes)
            else:
                self._handle_error(sending, _as_gateway_error(self.job, sending, error), outcomes)
        with self.job.transaction() as connection:
            self.counts["sent"] += self._execute(connection, statements.SENT, outcomes.sent)
            self._execute(connection, statements.TRY_AGAIN, outcomes.again)
            self.counts["suppressed"] += self._execute(connection, statements.SUPPRESS, outcomes.suppressed)
            self._fail(connection, outcomes.failed)
            if outcomes.stale_tokens:
                connection.execute(statements.FORGET_TOKENS, {"tokens": json.dumps(outcomes.stale_tokens)})

    def _try_another_route(self, sending: Sending, outcomes: "Outcomes") -> None:
        """The provider was not asked, or would take the message for no one: the attempt does not count."""
        if sending.item.routes:
            outcomes.again.append(_again(sending, None, self.job.current, is_attempt=False))
            self.pending.append(sending.item)
        else:
            outcomes.suppressed.append({"id": str(sending.id), "error": "the device has the application no longer"})

    def _handle_error(self, sending: Sending, error: GatewayError, outcomes: "Outcomes") -> None:
        if isinstance(error, Throttled):
            self.rate_limited[sending.route.channel] = error.retry_after
        jitter = random.random()  # noqa: S311 - spreads load, keeps no secret
        honours_key = sending.provider_channel.provider.honours_key
        match after(error, sending.attempt, sending.uncertain, jitter, honours_key=honours_key):
            case Fail(reason):
                is_rejected = isinstance(error, NeverWorks)
                why = "discarded" if is_rejected else "failed"
                outcomes.failed.append({"id": str(sending.id), "error": reason, "reason": why})
            case Again(delay, is_attempt, is_uncertain):
                row = _again(
                    sending, str(error), self.job.current + delay, is_attempt=is_attempt, is_uncertain=is_uncertain
                )
                if delay > LONGEST_SNOOZE:
                    row["is_under_way"] = False
                    self.counts["later"] += 1
                else:
                    self.delays[sending.id] = delay
                outcomes.again.append(row)

    def _execute(self, connection: Connection, statement: TextClause, rows: Rows) -> int:
        if not rows:
            return 0
        values = {"rows": rows, "run": self.job.run_id, "now": self.job.current}
        return connection.execute(statement, values).rowcount

    def _fail(self, connection: Connection, rows: Rows) -> None:
        """Marks notifications that won't be tried again, each with a dead letter of its own."""
        if not rows:
            return
        reasons = {row["id"]: row["reason"] for row in rows}
        values = {"rows": rows, "run": self.job.run_id, "now": self.job.current}
        dead = connection.execute(statements.FAIL, values).all()
        self.counts["failed"] += len(dead)
        for row in dead:
            letter = _letter(row, reasons[str(row.id)])
            queue = f"{QUEUE}{row.priority}"
            self.job.logger.error("notification failed", notification_id=str(row.id), reason=row.error)
            dead_letters.record(
                connection, self.job.name, self.job.settings.resource_name(queue), [letter], self.job.now
            )
            self.job.outbox.send(
                connection,
                f"{queue}-dlq",
                json.loads(letter.payload),
                dedup_key=f"dead-notification/{row.id}/{self.job.run_id}",
                attributes={RECORDED_AS: letter.message_id, REASON: letter.error},
            )


@dataclass(slots=True)
class Outcomes:
    """What providers said, as rows for the statements that record it."""

    sent: Rows = field(default_factory=list)
    again: Rows = field(default_factory=list)
    suppressed: Rows = field(default_factory=list)
    failed: Rows = field(default_factory=list)
    stale_tokens: list[str] = field(default_factory=list)


def _outgoing(queued: Queued, route: Route) -> Outgoing:
    from schoolbell.notifications.templates import render  # with Jinja2, when there is something to say

    name = queued.person.name if queued.person else ""
    said = render(queued.template, route.channel, queued.data or {}, name, queued.zone)
    return Outgoing(
        channel=route.channel,
        address=route.address,
        subject=said.subject,
        text=said.text,
        html=said.html,
        key=str(uuid5(queued.id, route.address)),
        data={"notification_id": str(queued.id), "template": queued.template},
        is_urgent=queued.priority is Priority.HIGH,
    )


def _why_over(row: Row[Any], provider: Provider) -> str | None:
    """Why a notification that was just claimed is not tried any more: functions have died with it."""
    if is_doubtful(row.uncertain, honours_key=provider.honours_key):
        return f"may have been accepted {row.uncertain} times: nobody recorded what the provider said"
    if row.attempts > ATTEMPTS:
        return f"{ATTEMPTS} attempts: nobody recorded what the provider said"
    return None


def _as_gateway_error(job: JobContext, sending: Sending, error: BaseException) -> GatewayError:
    if isinstance(error, GatewayError):
        return error
    if not isinstance(error, Exception):
        raise error
    job.logger.error("provider raised", notification_id=str(sending.id), error=type(error).__name__)
    return Uncertain(type(error).__name__)


def _accepted(sending: Sending, message_id: str) -> dict[str, Any]:
    return {
        "id": str(sending.id),
        "provider": sending.provider_channel.provider.name,
        "message_id": message_id,
        "sent_by": str(sending.route.channel),
    }


def _again(
    sending: Sending, error: str | None, at: datetime, *, is_attempt: bool, is_uncertain: bool = False
) -> dict[str, Any]:
    return {
        "id": str(sending.id),
        "provider": sending.provider_channel.provider.name,
        "error": error,
        "at": at.isoformat(),
        "attempts": int(is_attempt),
        "uncertain": int(is_uncertain),
        "is_under_way": True,
    }


def _letter(row: Row[Any], reason: dead_letters.Reason) -> DeadLetter:
    return DeadLetter(
        message_id=str(row.id),
        payload=body({"notification_ids": [str(row.id)], "also_failed": True}),
        attributes={},
        attempts=row.attempts,
        reason=reason,
        error=row.error,
        traceback=None,
    )
