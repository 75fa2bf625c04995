"""Deliver notifications: render them, honour what people want, and hand them to the channel's provider, each once.

A message carries up to a hundred ids, and comes back until each of its notifications is settled; what is settled is
passed over. A row is claimed before its provider is called, and marked right after: when the function dies in between,
the next one knows that the provider may have it already. The states are drawn in docs/notifications.md.
"""

import json
import random
from collections import defaultdict, deque
from collections.abc import Iterable, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, field
from datetime import datetime, time, timedelta
from functools import cache
from math import ceil
from typing import Any, Final
from uuid import UUID, uuid5

from pydantic import Field
from sqlalchemy import Connection, Row, TextClause, bindparam, text
from sqlalchemy.dialects.postgresql import JSONB

from schoolbell.jobs import Batch, JobContext, Payload, Result, batch_job, dead_letters
from schoolbell.jobs.dead_letters import DeadLetter
from schoolbell.jobs.messages import REASON, RECORDED_AS
from schoolbell.jobs.outbox import body
from schoolbell.jobs.outcomes import LONGEST_SNOOZE
from schoolbell.notifications import IDS_A_MESSAGE, QUEUE, Priority
from schoolbell.notifications.channels import Channel
from schoolbell.notifications.errors import DeliveryError, NotNow, Uncertain, Unregistered, Unrenderable, Unwell
from schoolbell.notifications.errors import Rejected as RejectedByProvider
from schoolbell.notifications.policy import (
    ATTEMPTS,
    RECOVERY,
    Again,
    Fail,
    Person,
    Preference,
    Queued,
    Send,
    Suppress,
    Wait,
    Way,
    after,
    is_doubtful,
    plan,
)
from schoolbell.notifications.providers import Outgoing, Provider, provider_of
from schoolbell.resilience.circuit import Circuit
from schoolbell.resilience.errors import CircuitOpen
from schoolbell.resilience.rate_limiter import Budget, Denied, Permit, RateLimiter
from schoolbell.settings import Settings

SENDERS: Final = 50
"""Calls in flight at a time: a provider's answer takes 50 ms and more, nearly all of it waiting."""

ENOUGH_TIME: Final = timedelta(seconds=12)
"""No call is begun with less than this left: one takes 5 seconds at most, and its outcome is to be recorded."""

WINDOW: Final = timedelta(seconds=10)
"""Over which a provider's rate is kept: they allow bursts. https://docs.aws.amazon.com/ses/latest/dg/quotas.html"""

AFTER_A_MEETING: Final = timedelta(seconds=5)
"""Another invocation has it: it will have been settled by then."""

type Rows = list[dict[str, Any]]


class Notifications(Payload):
    """The notifications to deliver."""

    notification_ids: tuple[UUID, ...] = Field(min_length=1, max_length=IDS_A_MESSAGE)
    also_failed: bool = False
    """Those that failed, too: as in a dead letter, which an operator sends again."""


class Delivered(Result):
    """What became of the notifications; those that wait come back, by this message or in their time."""

    sent: int = 0
    suppressed: int = 0
    failed: int = 0
    waiting: int = 0


@batch_job("platform.notification-delivery", Notifications)
def handler(job: JobContext, batch: Batch[Notifications]) -> Delivered:
    delivery = Delivery(job, queue=batch.messages[0].received.queue)
    delivery.start_anew(_ids(payload for payload in batch.payloads if payload.also_failed))
    delivery.take(_ids(batch.payloads))
    delivery.send_all()
    for message in batch.messages:
        ids = message.payload.notification_ids
        if delivery.known.isdisjoint(ids):
            batch.discard(message, "notification_ids: none of these exists")
        elif delays := [delivery.delays[each] for each in ids if each in delivery.delays]:
            batch.snooze(message, timedelta(seconds=max(1, ceil(min(delays).total_seconds()))))
    return delivery.delivered()


def _ids(payloads: Iterable[Notifications]) -> list[UUID]:
    return sorted({each for payload in payloads for each in payload.notification_ids})


# Providers


@dataclass(frozen=True, slots=True)
class Lane:
    """A channel's provider, and what protects it."""

    provider: Provider
    circuit: Circuit
    limiter: RateLimiter
    most: int
    """How many messages may be asked for at once."""


@cache
def lane_of(channel: Channel, settings: Settings) -> Lane:
    """The provider of a channel, kept between invocations with its connections.

    Each queue may spend nine tenths of what the provider takes, so that a flood on one leaves something for the others.
    """
    rate = {
        Channel.EMAIL: settings.emails_a_second,
        Channel.SMS: settings.sms_a_second,
        Channel.PUSH: settings.pushes_a_second,
    }[channel]
    provider = provider_of(channel, settings)
    overall = rate * round(WINDOW.total_seconds())
    of_a_queue = max(1, overall * 9 // 10)
    name = f"notifications-{provider.name}"
    return Lane(
        provider,
        Circuit(
            name,
            failures=(Unwell,),
            answers=(RejectedByProvider,),
            table=settings.resilience_table,
            recovery=RECOVERY,
        ),
        RateLimiter(
            name,
            per_tenant=Budget(of_a_queue, WINDOW),
            overall=Budget(overall, WINDOW),
            table=settings.resilience_table,
        ),
        most=of_a_queue,
    )


# The delivery


@dataclass(slots=True)
class Item:
    """A notification on its way, and the ways that are left to it."""

    queued: Queued
    ways: list[Way]


@dataclass(frozen=True, slots=True)
class Sending:
    """A message that has been claimed for its provider."""

    item: Item
    way: Way
    lane: Lane
    outgoing: Outgoing
    attempt: int
    uncertain: int

    @property
    def id(self) -> UUID:
        return self.item.queued.id

    def __call__(self) -> str:
        """Calls the provider and returns its id of the message."""
        return self.lane.circuit.call(lambda: self.lane.provider.send(self.outgoing))


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
    shut: dict[Channel, timedelta] = field(default_factory=dict)
    """The channels whose circuit is open, and how long for."""
    spent: dict[Channel, timedelta] = field(default_factory=dict)
    """The channels that take no more for a while."""
    permits: dict[Channel, int] = field(default_factory=lambda: defaultdict(int))
    """What the rate limit has granted and was not spent yet."""
    looked_at: set[Channel] = field(default_factory=set)

    def delivered(self) -> Delivered:
        """What became of all of them."""
        return Delivered(waiting=len(self.delays) + self.counts.pop("later", 0), **self.counts)

    # Reading and planning

    def start_anew(self, ids: Sequence[UUID]) -> None:
        """Queues those that have failed once more, with all their attempts."""
        if ids:
            with self.job.transaction() as connection:
                connection.execute(_START_ANEW, {"ids": _as_json(ids), "now": self.job.current})

    def take(self, ids: Sequence[UUID]) -> None:
        """Reads the notifications, and settles or postpones those that are not to be sent now."""
        now = self.job.current
        with self.job.database.transaction() as connection:
            rows = connection.execute(_READ, {"ids": _as_json(ids)}).all()
        self.known.update(row.id for row in rows)
        later: Rows = []
        suppressed: Rows = []
        failed: Rows = []
        for row in rows:
            if row.status != "queued" or self._comes_later(row, now):
                continue
            queued = _queued(row)
            match plan(queued, now):
                case Send(ways):
                    self.pending.append(Item(queued, list(ways)))
                case Wait(until):
                    later.append({"id": str(row.id), "until": until.isoformat()})
                case Suppress(reason):
                    suppressed.append({"id": str(row.id), "error": reason})
                case Fail(reason):
                    failed.append({"id": str(row.id), "error": reason, "reason": "discarded"})
        if later or suppressed or failed:
            with self.job.transaction() as connection:
                self.counts["later"] += self._execute(connection, _WAIT, later)
                self.counts["suppressed"] += self._execute(connection, _SUPPRESS, suppressed)
                self._fail(connection, failed)

    def _comes_later(self, row: Row[Any], now: datetime) -> bool:
        """Whether somebody else is at it, or its time has not come: this message waits for it, or it has none."""
        if row.claimed_until and row.claimed_until > now:
            self.delays[row.id] = min(row.claimed_until - now, AFTER_A_MEETING)
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
                    self._leave_the_rest()
                elif self.pending and len(in_flight) <= SENDERS // 2:
                    for sending in self._begin(SENDERS - len(in_flight)):
                        in_flight[senders.submit(sending)] = sending
                if in_flight:
                    done, _ = wait(in_flight, return_when=FIRST_COMPLETED)
                    self._record([(in_flight.pop(future), future) for future in done])
        if self.postponed:
            with self.job.transaction() as connection:
                connection.execute(_STILL_UNDER_WAY, {"ids": _as_json(self.postponed), "now": self.job.current})

    def _leave_the_rest(self) -> None:
        while self.pending:
            self._postpone(self.pending.popleft(), timedelta(0))

    def _postpone(self, item: Item, delay: timedelta) -> None:
        self.delays[item.queued.id] = delay
        self.postponed.append(item.queued.id)

    def _begin(self, room: int) -> list[Sending]:
        """Claims the next ones that may be sent, so many at most; the others of them wait."""
        by_channel: dict[Channel, list[tuple[Item, Way]]] = defaultdict(list)
        for _ in range(min(room, len(self.pending))):
            item = self.pending.popleft()
            way = next((way for way in item.ways if not self._is_shut(way.channel)), None)
            if way is None:
                self._postpone(item, min(self.shut[way.channel] for way in item.ways))
            elif way.channel in self.spent:
                self._postpone(item, self.spent[way.channel])
            else:
                by_channel[way.channel].append((item, way))
        begun: list[Sending] = []
        for channel, some in by_channel.items():
            lane = lane_of(channel, self.job.settings)
            some, too_many = some[: lane.most], some[lane.most :]
            self.pending.extendleft(item for item, _ in reversed(too_many))
            if wait_for := self._spend(lane, channel, len(some)):
                self.spent[channel] = wait_for
                for item, _ in some:
                    self._postpone(item, wait_for)
            else:
                begun += self._claim(lane, some)
        return begun

    def _spend(self, lane: Lane, channel: Channel, number: int) -> timedelta | None:
        """Takes so many permits, and asks for all that may be needed at once; how long to wait where there are none."""
        answer: Permit | Denied = Permit()
        if self.permits[channel] < number:
            for cost in (min(lane.most, number + len(self.pending)), number):
                answer = lane.limiter.try_acquire(self.queue, self.job.current, cost)
                if isinstance(answer, Permit):
                    self.permits[channel] += cost
                    break
        if isinstance(answer, Denied):
            return answer.retry_after
        self.permits[channel] -= number
        return None

    def _is_shut(self, channel: Channel) -> bool:
        if channel not in self.looked_at:
            self.looked_at.add(channel)
            try:
                if lane_of(channel, self.job.settings).circuit.is_open():
                    self.shut[channel] = RECOVERY
            except Exception as error:  # a circuit that can't be read counts as closed, here as in each call
                self.job.logger.warning("circuit not read", channel=channel, error=type(error).__name__)
        return channel in self.shut

    def _claim(self, lane: Lane, some: Sequence[tuple[Item, Way]]) -> list[Sending]:
        """Claims the rows of messages that can be rendered; what somebody else has claimed meanwhile is theirs."""
        failed: Rows = []
        ready: dict[UUID, tuple[Item, Way, Outgoing]] = {}
        for item, way in some:
            try:
                ready[item.queued.id] = item, way, _outgoing(item.queued, way)
            except Unrenderable as error:
                failed.append({"id": str(item.queued.id), "error": str(error), "reason": "discarded"})
        values = {
            "ids": _as_json(ready),
            "run": self.job.run_id,
            "now": self.job.current,
            "until": self.job.deadline,
        }
        with self.job.transaction() as connection:
            claimed = connection.execute(_CLAIM, values).all() if ready else []
            begun = []
            for row in claimed:
                item, way, outgoing = ready.pop(row.id)
                if reason := _spent(row, lane.provider):
                    failed.append({"id": str(row.id), "error": reason, "reason": "failed"})
                else:
                    begun.append(Sending(item, way, lane, outgoing, row.attempts, row.uncertain))
            self._fail(connection, failed)
        self.delays.update(dict.fromkeys(ready, AFTER_A_MEETING))
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
                self.shut[sending.way.channel] = error.retry_after
                self._try_another_way(sending, outcomes)
            elif isinstance(error, Unregistered):
                sending.item.ways.remove(sending.way)
                outcomes.stale_tokens.append(sending.way.address)
                self._try_another_way(sending, outcomes)
            else:
                self._weigh(sending, _as_delivery_error(self.job, sending, error), outcomes)
        with self.job.transaction() as connection:
            self.counts["sent"] += self._execute(connection, _SENT, outcomes.sent)
            self._execute(connection, _AGAIN, outcomes.again)
            self.counts["suppressed"] += self._execute(connection, _SUPPRESS, outcomes.suppressed)
            self._fail(connection, outcomes.failed)
            if outcomes.stale_tokens:
                connection.execute(_FORGET, {"tokens": json.dumps(outcomes.stale_tokens)})

    def _try_another_way(self, sending: Sending, outcomes: "Outcomes") -> None:
        """The provider was not asked, or would take the message for no one: the attempt does not count."""
        if sending.item.ways:
            outcomes.again.append(_again(sending, None, self.job.current, is_attempt=False))
            self.pending.append(sending.item)
        else:
            outcomes.suppressed.append({"id": str(sending.id), "error": "the device has the application no longer"})

    def _weigh(self, sending: Sending, error: DeliveryError, outcomes: "Outcomes") -> None:
        if isinstance(error, NotNow):
            self.spent[sending.way.channel] = error.retry_after
        jitter = random.random()  # noqa: S311 - spreads load, keeps no secret
        honours_key = sending.lane.provider.honours_key
        match after(error, sending.attempt, sending.uncertain, jitter, honours_key=honours_key):
            case Fail(reason):
                is_hopeless = isinstance(error, RejectedByProvider)
                why = "discarded" if is_hopeless else "failed"
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
        dead = connection.execute(_FAIL, values).all()
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


def _outgoing(queued: Queued, way: Way) -> Outgoing:
    from schoolbell.notifications.templates import render  # with Jinja2, when there is something to say

    name = queued.person.name if queued.person else ""
    said = render(queued.template, way.channel, queued.data or {}, name, queued.zone)
    return Outgoing(
        channel=way.channel,
        address=way.address,
        subject=said.subject,
        text=said.text,
        html=said.html,
        key=str(uuid5(queued.id, way.address)),
        data={"notification_id": str(queued.id), "template": queued.template},
        is_urgent=queued.priority is Priority.HIGH,
    )


def _spent(row: Row[Any], provider: Provider) -> str | None:
    """Why a notification that was just claimed is not tried any more: functions have died with it."""
    if is_doubtful(row.uncertain, honours_key=provider.honours_key):
        return f"may have been accepted {row.uncertain} times: nobody recorded what the provider said"
    if row.attempts > ATTEMPTS:
        return f"{ATTEMPTS} attempts: nobody recorded what the provider said"
    return None


def _as_delivery_error(job: JobContext, sending: Sending, error: BaseException) -> DeliveryError:
    if isinstance(error, DeliveryError):
        return error
    if not isinstance(error, Exception):
        raise error
    job.logger.error("provider raised", notification_id=str(sending.id), error=type(error).__name__)
    return Uncertain(type(error).__name__)


def _accepted(sending: Sending, message_id: str) -> dict[str, Any]:
    return {
        "id": str(sending.id),
        "provider": sending.lane.provider.name,
        "message_id": message_id,
        "sent_by": str(sending.way.channel),
    }


def _again(
    sending: Sending, error: str | None, at: datetime, *, is_attempt: bool, is_uncertain: bool = False
) -> dict[str, Any]:
    return {
        "id": str(sending.id),
        "provider": sending.lane.provider.name,
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


def _queued(row: Row[Any]) -> Queued:
    person = None
    if row.name is not None:
        person = Person(row.name, row.email, row.phone, row.timezone, row.erased, row.tokens or ())
    return Queued(
        id=row.id,
        channel=Channel(row.channel),
        recipient=row.recipient,
        template=row.template,
        data=row.data,
        priority=Priority(row.priority),
        expires_at=row.expires_at,
        person=person,
        preferences=[_preference(each) for each in row.preferences or ()],
    )


def _preference(columns: dict[str, Any]) -> Preference:
    times = {name: each and _time_of_day(each) for name in _TIMES for each in [columns[name]]}
    return Preference(**columns | times)


def _time_of_day(text: str) -> time:
    """A time as PostgreSQL writes it. It knows 24:00, when a day ends; Python does not, and the next begins at 0:00."""
    return time() if text == "24:00:00" else time.fromisoformat(text)


_TIMES: Final = ("quiet_from", "quiet_until")


def _as_json(ids: Iterable[UUID]) -> str:
    return json.dumps([str(each) for each in ids])


_GIVEN: Final = "SELECT value::uuid AS id FROM json_array_elements_text(cast(:ids AS json))"

_READ = text(
    f"""
    WITH given AS MATERIALIZED ({_GIVEN})
    SELECT told.id, told.status, told.channel, told.recipient, told.template, told.data, told.priority,
           told.expires_at, told.scheduled_for, told.handed_over_at, told.claimed_until,
           person.name, person.email, person.phone, person.timezone, person.erased,
           (
               SELECT json_agg(json_build_object(
                   'kind', kind, 'channel', channel, 'wanted', wanted,
                   'quiet_from', quiet_from, 'quiet_until', quiet_until, 'timezone', timezone
               ))
               FROM platform.notification_preferences WHERE person = told.recipient
           ) AS preferences,
           (
               SELECT json_agg(token ORDER BY last_seen_at DESC)
               FROM platform.push_tokens
               WHERE person = told.recipient AND told.channel = 'push' AND token IS NOT NULL
           ) AS tokens
    FROM given
    JOIN platform.notifications AS told USING (id)
    LEFT JOIN platform.people AS person
      ON person.kind = split_part(told.recipient, '/', 1)
     AND person.id = CASE
             WHEN told.recipient ~* '^(teacher|student)/[0-9a-f]{{8}}(-[0-9a-f]{{4}}){{3}}-[0-9a-f]{{12}}$'
             THEN substr(told.recipient, 9)::uuid
         END
    """  # noqa: S608 - made of this module's constants
)

_START_ANEW = text(
    f"""
    WITH given AS MATERIALIZED ({_GIVEN})
    UPDATE platform.notifications AS told
    SET status = 'queued', attempts = 0, uncertain = 0, error = NULL, scheduled_for = NULL,
        handed_over_at = :now, updated_at = :now
    FROM given
    WHERE told.id = given.id AND told.status = 'failed'
    """  # noqa: S608 - made of this module's constants
)

# A row that somebody has claimed and not let go is one whose provider may have been called: its claimer has died.
_CLAIM = text(
    f"""
    WITH given AS MATERIALIZED ({_GIVEN}),
    free AS (
        SELECT id FROM platform.notifications
        WHERE id IN (SELECT id FROM given) AND status = 'queued'
          AND (scheduled_for IS NULL OR scheduled_for <= :now) AND (claimed_until IS NULL OR claimed_until <= :now)
        FOR UPDATE SKIP LOCKED
    )
    UPDATE platform.notifications AS told
    SET attempts = attempts + 1, uncertain = uncertain + CASE WHEN claimed_by IS NULL THEN 0 ELSE 1 END,
        claimed_by = :run, claimed_until = :until, updated_at = :now
    FROM free
    WHERE told.id = free.id
    RETURNING told.id, attempts, uncertain
    """  # noqa: S608 - made of this module's constants
)

_STILL_UNDER_WAY = text(
    f"""
    WITH given AS MATERIALIZED ({_GIVEN})
    UPDATE platform.notifications AS told SET handed_over_at = :now, updated_at = :now
    FROM given
    WHERE told.id = given.id AND told.status = 'queued'
    """  # noqa: S608 - made of this module's constants
)

_FORGET = text(
    """
    DELETE FROM platform.push_tokens
    WHERE token IN (SELECT value FROM json_array_elements_text(cast(:tokens AS json)))
    """
)


def _update(columns: str, assigned: str, condition: str, returning: str = "") -> TextClause:
    """A statement that sets columns of many notifications, each by the row that has its id."""
    return text(
        f"""
        UPDATE platform.notifications AS told
        SET {assigned}, claimed_by = NULL, claimed_until = NULL, updated_at = :now
        FROM jsonb_to_recordset(:rows) AS given (id uuid, {columns})
        WHERE told.id = given.id AND {condition} {returning}
        """  # noqa: S608 - made of this module's constants
    ).bindparams(bindparam("rows", type_=JSONB))


_IS_OURS: Final = "told.status = 'queued' AND (told.claimed_by IS NULL OR told.claimed_by = :run)"

# What the provider has accepted is sent, whoever has the row by now.
_SENT = _update(
    "provider text, message_id text, sent_by text",
    "status = 'sent', sent_at = :now, provider = given.provider, provider_message_id = given.message_id,"
    " sent_by = given.sent_by, error = NULL",
    "told.status IN ('queued', 'failed') AND cast(:run AS uuid) IS NOT NULL",
)
_AGAIN = _update(
    "provider text, error text, at timestamptz, attempts integer, uncertain integer, is_under_way boolean",
    "attempts = told.attempts - 1 + given.attempts, uncertain = told.uncertain + given.uncertain,"
    " provider = given.provider, error = given.error, scheduled_for = given.at,"
    " handed_over_at = CASE WHEN given.is_under_way THEN cast(:now AS timestamptz) END",
    _IS_OURS,
)
_WAIT = _update("until timestamptz", "scheduled_for = given.until, handed_over_at = NULL", _IS_OURS)
_SUPPRESS = _update("error text", "status = 'suppressed', error = given.error", _IS_OURS)
_FAIL = _update(
    "error text",
    "status = 'failed', error = given.error",
    _IS_OURS,
    "RETURNING told.id, told.priority, told.attempts, told.error",
)
