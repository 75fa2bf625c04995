"""Messages that can never pass: on the dead-letter queue at once, each with the reason why; the others pass."""

import json
from typing import Any, Final
from uuid import UUID

from local.demo.display import Act
from local.demo.running import Running, array
from local.generator import Term

TITLE: Final = "Poisoned messages among good ones"
JOB: Final = "tutoring.auto-complete"
COMPANIONS: Final = 7
"""Lessons that are kept for this act, to share a batch with the poison."""

NOBODY: Final = UUID(int=0xDEAD)
POISON: Final = {
    "no JSON": "lesson 4711 is over",
    "no id": json.dumps({"session_id": "the one on Tuesday"}),
    "no such lesson": json.dumps({"session_id": str(NOBODY)}),
}

_OVER = """
SELECT count(*) FROM tutoring.sessions
WHERE id = ANY (cast(:ids AS uuid[])) AND status IN ('completed', 'pending_review')
"""
_LETTERS = "SELECT payload, reason, error, attempts FROM platform.dead_letters WHERE queue = :queue"


def perform(act: Act, running: Running, term: Term) -> None:
    """Drop both, and look at what became of them."""
    good = term.just_ended[:COMPANIONS]
    act.say(f"{len(POISON)} messages that make no sense, and {len(good)} lessons that ended, in one batch of ten")
    running.send(JOB, [*POISON.values(), *(json.dumps({"session_id": str(session)}) for session in good)])
    over = running.until(
        lambda: (found := running.number(_OVER, ids=array(good))) == len(good) and found,
        "the good messages of the batch",
        seconds=90,
    )
    act.say(f"the {over} lessons were completed, whatever stood beside them")
    running.until(lambda: running.depth(JOB, dead=True) >= len(POISON), "the dead-letter queue", seconds=60)
    on_queue = {message["Body"]: message for message in look_into(running)}
    recorded = {row.payload: row for row in running.rows(_LETTERS, queue=running.names.resource_name(JOB))}
    for name, body in POISON.items():
        if body in recorded:
            act.say(f"{name}: {recorded[body].error}")
    act.say(f"the same reason is on each message of {running.names.resource_name(JOB)}-dlq")

    act.check("good messages beside it", len(good), over)
    act.check("poisoned messages on the DLQ", len(POISON), sum(body in on_queue for body in POISON.values()))
    act.check("rows of platform.dead_letters", len(POISON), len(recorded))
    agreed = sum(
        reason_on(on_queue[body]) == recorded[body].error
        for body in POISON.values()
        if body in on_queue and body in recorded
    )
    act.check("which agree on the reason", len(POISON), agreed)


def look_into(running: Running) -> list[dict[str, Any]]:
    """The messages on the dead-letter queue, which stay there."""
    answer = running.client("sqs").receive_message(
        QueueUrl=running.names.dead_letter_queue_url(JOB),
        MaxNumberOfMessages=10,
        VisibilityTimeout=0,
        MessageAttributeNames=["All"],
    )
    found: list[dict[str, Any]] = answer.get("Messages", [])
    return found


def reason_on(message: dict[str, Any]) -> str:
    """Why a message is dead, as it says itself."""
    return str(message.get("MessageAttributes", {}).get("reason", {}).get("StringValue", ""))
