"""Redriving and dropping dead letters, one by its record or all of a job.

One: the record is resolved and a copy of the message is in the outbox, in one transaction; then the message itself is
taken off its dead-letter queue. A process that ends in between leaves it there, and whoever comes next takes it away:
the copy in the outbox tells that it has been sent again, so it is never sent a second time.

All of a queue: SQS moves the messages (a message move task), and then the records are resolved. A process that ends in
between leaves open records whose messages have gone; the next redrive or the sweep resolves them.
"""

from collections.abc import Sequence
from typing import Literal
from uuid import UUID

from schoolbell.operations import dead_letter_moves, redrive_records
from schoolbell.operations.models import Change, NotFound, Refused
from schoolbell.operations.queues import depth_of
from schoolbell.operations.redrive_records import Letter
from schoolbell.operations.stack import Stack


def redrive(stack: Stack, what: str | UUID) -> Change:
    """Sends dead letters again: all of a job by its name, or one by its id.

    Raises:
        NotFound: there is no such job or dead letter.
        Refused: the message itself is not known, so only all of its queue can be redriven; or its job is gone.
    """
    if isinstance(what, UUID):
        return _redrive_one(stack, what)
    info = stack.function(what)
    if info.queues:
        changes = [_redrive_queue(stack, info.name, queue) for queue in info.queues]
    else:
        changes = [_redrive_invocations(stack, info.name)]
    done = [change for change in changes if change.is_changed]
    return Change(
        is_changed=bool(done),
        message="; ".join(change.message for change in done or changes),
        count=sum(change.count for change in done),
    )


def _redrive_one(stack: Stack, letter_id: UUID) -> Change:
    letter = _letter(stack, letter_id)
    queue = _queue_of(stack, letter)
    if queue is None and all(job.name != letter.job for job in stack.functions()):
        raise Refused(f"there is no job {letter.job} any more: its dead letters can only be dropped")
    outbox = stack.outbox()
    now = stack.clock()
    sent = 0
    with stack.database.transaction() as connection:
        if redrive_records.open_letters(connection, now, letter_id=letter_id):
            if not letter.has_payload:
                raise Refused(f"nobody recorded the message of this dead letter; redrive all of {letter.job}")
            sent = redrive_records.send_copies(connection, outbox, [letter_id], queue or f"function/{letter.job}")
            redrive_records.resolve(connection, [letter_id], "redriven", stack.actor, now)
            stack.audit(connection, "dead-letter.redriven", letter.job, {"dead_letter": str(letter_id)})
    stack.flush(outbox)
    dead_letter_moves.take_away(stack.database, stack.settings, queue or letter.job, letter.message_id)
    if sent:
        return Change(is_changed=True, message=f"a message of {letter.job} is sent again", count=1)
    how = letter.resolution or "redriven"
    return Change(is_changed=False, message=f"this dead letter of {letter.job} was {how} already")


def _redrive_queue(stack: Stack, job: str, queue: str) -> Change:
    # What was dropped or sent again by itself must not go with the others, should it still lie there.
    dead_letter_moves.take_away(stack.database, stack.settings, queue)
    is_moving = Change(is_changed=False, message=f"the dead letters of {queue} are being redriven already")
    if dead_letter_moves.is_moving(stack.settings, queue):
        return is_moving
    started = stack.clock()
    name = stack.settings.resource_name(queue)
    dead = depth_of(queue, stack.settings).dead
    if not dead and not _has_open(stack, name):
        return Change(is_changed=False, message=f"{queue} has no dead letters")
    try:
        with stack.audited("dead-letters.redriven", job, {"queue": queue, "messages": dead}):
            dead_letter_moves.move_all(stack.settings, queue)
            with stack.database.transaction() as connection:
                records = redrive_records.resolve_moved(connection, name, started, stack.actor, stack.clock())
    except dead_letter_moves.Overtaken:
        return is_moving
    count = max(dead, records)
    return Change(is_changed=True, message=f"{_messages(count)} of {queue} {_are(count)} sent again", count=count)


def _redrive_invocations(stack: Stack, job: str) -> Change:
    """Invokes a scheduled job again with what it was invoked with: the same occurrence goes on with the same run."""
    outbox = stack.outbox()
    now = stack.clock()
    with stack.database.transaction() as connection:
        letters = redrive_records.open_letters(connection, now, job=job)
        count = redrive_records.send_copies(connection, outbox, letters, f"function/{job}")
        redrive_records.resolve(connection, letters, "redriven", stack.actor, now)
        if letters:
            stack.audit(connection, "dead-letters.redriven", job, {"messages": count})
    stack.flush(outbox)
    dead_letter_moves.take_away(stack.database, stack.settings, job)
    if not count:
        return Change(is_changed=False, message=f"{job} has no dead letters")
    return Change(is_changed=True, message=f"{_messages(count)} of {job} {_are(count)} sent again", count=count)


def drop(stack: Stack, what: str | UUID) -> Change:
    """Gives dead letters up: all of a job by its name, or one by its id. The record stays, the message goes.

    Raises:
        NotFound: there is no such job or dead letter.
    """
    if isinstance(what, UUID):
        letter = _letter(stack, what)
        queue = _queue_of(stack, letter) or letter.job
        if _drop(stack, letter.job, [queue], letter):
            return Change(is_changed=True, message=f"1 message of {letter.job} is dropped", count=1)
        return Change(is_changed=False, message=f"this dead letter of {letter.job} was {letter.resolution} already")
    queues = stack.function(what).queues or (what,)
    count = _drop(stack, what, queues, None)
    if not count:
        return Change(is_changed=False, message=f"{what} has no dead letters")
    return Change(is_changed=True, message=f"{_messages(count)} of {what} {_are(count)} dropped", count=count)


def _drop(stack: Stack, job: str, queues: Sequence[str], letter: Letter | None) -> int:
    """Drops one dead letter of a job or all of them, and returns how many were open."""
    now = stack.clock()
    with stack.database.transaction() as connection:
        letters = (
            redrive_records.open_letters(connection, now, letter_id=letter.id)
            if letter
            else redrive_records.open_letters(connection, now, job=job)
        )
        redrive_records.resolve(connection, letters, "dropped", stack.actor, now)
        if letters:
            details = {"dead_letters": [str(each) for each in letters[:100]], "count": len(letters)}
            stack.audit(connection, "dead-letters.dropped", job, details)
    for queue in queues:
        dead_letter_moves.take_away(stack.database, stack.settings, queue, letter.message_id if letter else None)
    return len(letters)


def _letter(stack: Stack, letter_id: UUID) -> Letter:
    with stack.database.transaction(read_only=True) as connection:
        found = redrive_records.letter(connection, letter_id)
    if found is None:
        raise NotFound(f"there is no dead letter {letter_id}")
    return found


def _has_open(stack: Stack, queue: str) -> bool:
    with stack.database.transaction(read_only=True) as connection:
        return redrive_records.has_open(connection, queue)


def _queue_of(stack: Stack, letter: Letter) -> str | None:
    """The queue of a dead letter as jobs are named; `None` for a scheduled job's, which came from none."""
    queues = {stack.settings.resource_name(queue): queue for job in stack.functions() for queue in job.queues}
    return queues.get(letter.queue)


def _messages(count: int) -> str:
    return "1 message" if count == 1 else f"{count:,} messages"


def _are(count: int) -> Literal["is", "are"]:
    return "is" if count == 1 else "are"
