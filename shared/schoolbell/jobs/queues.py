"""Jobs that a queue rings: a message at a time, or the whole batch in one statement."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from functools import update_wrapper
from typing import Any

from aws_lambda_powertools import Logger
from pydantic import ValidationError

from schoolbell.database import is_unavailable
from schoolbell.jobs import dead_letters, outbox, runs
from schoolbell.jobs.context import JobContext
from schoolbell.jobs.dead_letters import DeadLetter
from schoolbell.jobs.invocation import LambdaContext, remaining_time
from schoolbell.jobs.messages import (
    Message,
    Received,
    backoff,
    can_be_copied,
    received_from,
    send_again,
    send_to_dead_letter_queue,
    wait_before_retry,
)
from schoolbell.jobs.observability import count_failures, logger_of
from schoolbell.jobs.outcomes import Discard, Payload, Result, Snooze, in_one_line
from schoolbell.jobs.runtime import Runtime, runtime

ENOUGH_TIME = timedelta(seconds=3)
"""A message is not begun with less than this left of the invocation."""


class OutOfTime(Exception):
    """The invocation is nearly over; the message is left for the next."""


@dataclass(slots=True)
class Batch[P: Payload]:
    """The valid messages of an invocation, and what a job says of single ones; it is done with all others."""

    messages: Sequence[Message[P]]
    exceptions: dict[str, Exception] = field(default_factory=dict)

    @property
    def payloads(self) -> list[P]:
        """The payloads, in the messages' order."""
        return [message.payload for message in self.messages]

    def discard(self, message: Message[P], reason: str) -> None:
        """This message can never pass."""
        self.exceptions[message.id] = Discard(reason)

    def snooze(self, message: Message[P], delay: timedelta) -> None:
        """Not now: this message comes back after a delay, without counting an attempt."""
        self.exceptions[message.id] = Snooze(delay)

    def fail(self, message: Message[P], error: Exception) -> None:
        """This message failed, and may pass later."""
        self.exceptions[message.id] = error


def queue_job[P: Payload](
    name: str, payload: type[P]
) -> Callable[[Callable[[JobContext, P], Result | None]], "QueueJob[P]"]:
    """Makes a function of a `JobContext` and one payload the Lambda handler of a queue job."""

    def decorate(function: Callable[[JobContext, P], Result | None]) -> QueueJob[P]:
        def one_by_one(job: JobContext, batch: Batch[P]) -> Result | None:
            result: Result | None = None
            for message in batch.messages:
                try:
                    if job.remaining() < ENOUGH_TIME:
                        raise OutOfTime("the invocation is nearly over")
                    done = function(replace(job, attempt=message.attempt), message.payload)
                    result = _sum(result, done)
                except Exception as error:
                    batch.exceptions[message.id] = error
            return result

        update_wrapper(one_by_one, function)
        return QueueJob(name, one_by_one, payload)

    return decorate


def batch_job[P: Payload](
    name: str, payload: type[P]
) -> Callable[[Callable[[JobContext, Batch[P]], Result | None]], "QueueJob[P]"]:
    """Makes a function of a `JobContext` and a `Batch` the Lambda handler of a queue job that works in sets.

    Where the function raises, the batch is halved and tried again, down to single messages, so that one that can't pass
    takes no other with it; not so when the database is away, for then no half would fare better.
    """
    return lambda function: QueueJob(name, function, payload)


class QueueJob[P: Payload]:
    """The Lambda handler of a queue job. It answers with the messages that failed (`ReportBatchItemFailures`)."""

    def __init__(self, name: str, function: Callable[[JobContext, Batch[P]], Result | None], payload: type[P]) -> None:
        update_wrapper(self, function)
        self.name = name
        self._function = function
        self._payload = payload
        self._logger = logger_of(name)

    def __call__(self, event: Any, context: LambdaContext) -> dict[str, Any]:
        """Handles the messages of an SQS event and names those that failed.

        Raises:
            InvalidEvent: the event comes from something other than SQS.
        """
        received = received_from(event, self.name)
        on = runtime(remaining_time(context))
        job = JobContext.of(self.name, self._logger, on, context)
        self._logger.append_keys(run_id=str(job.run_id))
        settlement = _Settlement(on, job, received)
        valid = self._validate(settlement)
        try:
            on.database.check()
            fresh = settlement.without_duplicates(valid)
        except Exception as error:
            self._logger.error("database is away", error=in_one_line(error))
            settlement.exceptions.update(dict.fromkeys((message.id for message in valid), error))
            result = None
        else:
            result = self._process(job, fresh, settlement) if fresh else None
            job.send_outbox()
        failed = settlement.settle()
        settlement.record(result, on.clock())
        count_failures(on.settings, self.name, len(failed))
        return {"batchItemFailures": [{"itemIdentifier": message} for message in failed]}

    def _validate(self, settlement: "_Settlement") -> list[Message[P]]:
        valid = []
        for received in settlement.received:
            try:
                valid.append(Message(received, self._payload.model_validate_json(received.body)))
            except ValidationError as error:
                settlement.exceptions[received.id] = Discard(in_one_line(error))
        return valid

    def _process(self, job: JobContext, messages: Sequence[Message[P]], settlement: "_Settlement") -> Result | None:
        batch = Batch(messages)
        try:
            result = self._function(job, batch)
        except Exception as error:
            if len(messages) == 1 or is_unavailable(error):
                settlement.exceptions.update(dict.fromkeys((message.id for message in messages), error))
                return None
            self._logger.warning("batch failed, trying its halves", size=len(messages), error=in_one_line(error))
            middle = len(messages) // 2
            first = self._process(job, messages[:middle], settlement)
            return _sum(first, self._process(job, messages[middle:], settlement))
        settlement.exceptions.update(batch.exceptions)
        return result


@dataclass(slots=True)
class _Settlement:
    """What becomes of each message of an invocation."""

    on: Runtime
    job: JobContext
    received: Sequence[Received]
    exceptions: dict[str, Exception] = field(default_factory=dict)
    """Why a message is not done, by message id: `Discard`, `Snooze`, or what it failed with."""
    duplicates: set[str] = field(default_factory=set)

    @property
    def queue(self) -> str:
        """The name of the queue that the messages came from: an event has those of one."""
        return self.received[0].queue

    @property
    def queue_url(self) -> str:
        return self.on.settings.queue_address(self.queue)

    @property
    def logger(self) -> Logger:
        return self.job.logger

    def without_duplicates[P: Payload](self, messages: list[Message[P]]) -> list[Message[P]]:
        """Drops the messages that were handled before, by outbox id, here or in an earlier invocation."""
        ids = [message.received.outbox_id for message in messages]
        wanted = [each for each in ids if each]
        if not wanted:
            return messages
        with self.on.database.transaction(read_only=True) as connection:
            handled = outbox.already_handled(connection, wanted)
        fresh = []
        for message in messages:
            outbox_id = message.received.outbox_id
            if outbox_id in handled:
                self.duplicates.add(message.id)
                continue
            if outbox_id:
                handled.add(outbox_id)
            fresh.append(message)
        return fresh

    def settle(self) -> list[str]:
        """Sends again, discards or delays what is not done, and returns the ids of the messages that failed."""
        if not self._mark_handled():
            self.logger.warning("handled messages not marked; a second delivery would be handled again")
        if not self.exceptions:
            return []
        failed = {id_ for id_, error in self.exceptions.items() if not isinstance(error, Snooze | Discard)}
        failed |= self._snooze()
        failed = self._bury(failed)
        waiting = [(message, self._is_to_die(message)) for message in self.received if message.id in failed]
        for message, _ in waiting:
            error = self.exceptions[message.id]
            self.logger.error(
                "message failed",
                message_id=message.id,
                attempt=message.attempt,
                error=in_one_line(error),
                frames=runs.frames(error),
            )
        try:
            if waiting:
                wait_before_retry(self.queue_url, waiting)
        except Exception as error:  # then the queue's own visibility timeout is the backoff
            self.logger.warning("visibility not changed", error=type(error).__name__)
        return [message.id for message in self.received if message.id in failed]

    def record(self, result: Result | None, finished_at: datetime) -> None:
        """Writes the run's row. It is history: where the database is away, the messages matter more."""
        problems = [error for error in self.exceptions.values() if not isinstance(error, Snooze)]
        try:
            with self.on.database.transaction() as connection:
                runs.record(
                    connection,
                    self.job.run_id,
                    self.job.name,
                    trigger="queue",
                    request_id=self.job.request_id,
                    started_at=self.job.now,
                    finished_at=finished_at,
                    total=len(self.received),
                    failed=len(problems),
                    result=result,
                    error=problems[0] if problems else None,
                )
        except Exception as error:
            self.logger.error("run not recorded", error=in_one_line(error))

    def _snooze(self) -> set[str]:
        """Sends snoozed messages again; one that could not be sent counts as failed, so that it is not lost."""
        snoozed = [
            (message, error.delay)
            for message in self.received
            if isinstance(error := self.exceptions.get(message.id), Snooze)
        ]
        if not snoozed:
            return set()
        self.logger.info("messages snoozed", count=len(snoozed))
        try:
            sent = send_again(self.queue_url, snoozed)
        except Exception as error:
            self.logger.error("snoozed messages not sent again", error=type(error).__name__)
            sent = set()
        return {message.id for message, _ in snoozed} - sent

    def _start_afresh(self, messages: Sequence[Received]) -> set[str]:
        """Sends again those on their last attempt, which gives them all attempts anew, and returns which those are."""
        last = [(message, backoff(message)) for message in messages if self._is_last_attempt(message)]
        if not last:
            return set()
        self.logger.warning("the database is away, messages start afresh", count=len(last))
        try:
            return send_again(self.queue_url, last)
        except Exception as error:
            self.logger.error("messages not sent again", error=type(error).__name__)
            return set()

    def _is_last_attempt(self, message: Received) -> bool:
        return message.attempt >= self.on.settings.max_receive_count

    def _is_to_die(self, message: Received) -> bool:
        """Whether SQS is to move a message that failed, and not to wait with it.

        So also a discarded one so large that no copy could be sent: its attempts are over in a moment, and SQS moves it
        under the id that its record has.
        """
        match self.exceptions[message.id]:
            case OutOfTime():
                return False
            case Discard():
                return self._is_last_attempt(message) or not can_be_copied(message)
        return self._is_last_attempt(message)

    def _bury(self, failed: set[str]) -> set[str]:
        """Records the messages that won't be tried again, and puts the discarded ones on the dead-letter queue.

        Returns those that failed, among them the discarded ones that could not be recorded or put there: they are tried
        again. While the database is away nothing dies: that says nothing about a message, and could not be recorded.
        """
        discarded = [
            (message, in_one_line(error))
            for message in self.received
            if isinstance(error := self.exceptions.get(message.id), Discard)
        ]
        exhausted = [message for message in self.received if message.id in failed and self._is_last_attempt(message)]
        if not discarded and not exhausted:
            return failed
        letters = [self._letter(message, "discarded") for message, _ in discarded]
        letters += [self._letter(message, "failed") for message in exhausted]
        unburied = {message.id for message, _ in discarded}
        try:
            with self.on.database.transaction() as connection:
                dead_letters.record(connection, self.job.name, self.queue, letters, self.job.now)
            for message, reason in discarded:
                self.logger.error("message discarded", message_id=message.id, reason=reason)
            unburied -= send_to_dead_letter_queue(f"{self.queue_url}-dlq", discarded)
        except Exception as error:
            self.logger.error("dead letters not recorded", error=in_one_line(error))
            if is_unavailable(error):
                afresh = self._start_afresh([*exhausted, *(message for message, _ in discarded)])
                return (failed | unburied) - afresh
        return failed | unburied

    def _letter(self, message: Received, reason: dead_letters.Reason) -> DeadLetter:
        error = self.exceptions[message.id]
        return DeadLetter(
            message_id=message.id,
            payload=message.body,
            attributes={name: value.get("StringValue") for name, value in message.attributes.items()},
            attempts=message.attempt,
            reason=reason,
            error=in_one_line(error),
            traceback=runs.frames(error) if reason == "failed" else None,
        )

    def _mark_handled(self) -> bool:
        handled = [
            message.outbox_id
            for message in self.received
            if message.outbox_id and message.id not in self.exceptions and message.id not in self.duplicates
        ]
        if not handled:
            return True
        try:
            with self.on.database.transaction() as connection:
                outbox.mark_handled(connection, handled, self.job.now)
        except Exception:
            return False
        return True


def _sum(first: Result | None, second: Result | None) -> Result | None:
    if first is None or second is None:
        return first or second
    return first.plus(second)
