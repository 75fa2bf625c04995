"""SQS: batches up to a mapping's BatchSize, and message move tasks, which ministack does not know."""

import time
from typing import Any
from uuid import uuid4

from ministack.services import sqs

INVOCATION_PAYLOAD = 6_000_000  # bytes: Lambda's limit, which ends a batch before its BatchSize does
RECORD_ENVELOPE = 700  # bytes of an SQS record beside its body

_move_tasks: dict[str, list[dict[str, Any]]] = {}


# Event source mappings


def receive_batch(queue_url: str, batch_size: int) -> list[dict[str, Any]]:
    """Take what is visible, up to the mapping's BatchSize and what one invocation can carry. ministack takes ten."""
    with sqs._queues_lock:
        queue = sqs._get_q(queue_url)
        sqs._expire_retained(queue)
        sqs._dlq_sweep(queue)
        now, size, count = time.time(), 0, 0
        for message in queue["messages"]:
            if count == batch_size:
                break
            if message.get("visible_at", 0) > now:
                continue
            size += len(message["body"]) + RECORD_ENVELOPE
            if count and size > INVOCATION_PAYLOAD:
                break
            count += 1
        if not count:
            return []
        taken: list[dict[str, Any]] = sqs._collect_msgs(
            queue, count, int(queue["attributes"].get("VisibilityTimeout", "30"))
        )
        return taken


# Dead letters go back by a message move task


def start_message_move_task(request: dict[str, Any], _queue_url: str) -> dict[str, Any]:
    """Move what is visible on a dead-letter queue, as new messages, to a queue or to those that the messages came from.

    https://docs.aws.amazon.com/AWSSimpleQueueService/latest/APIReference/API_StartMessageMoveTask.html
    """
    source = sqs._queue_by_arn(request["SourceArn"])
    if source is None:
        raise sqs._Err("ResourceNotFoundException", "The resource that you specified for the SourceArn doesn't exist.")
    with sqs._queues_lock:
        now = time.time()
        moved = 0
        for message in list(source["messages"]):
            destination = request.get("DestinationArn") or message["sys"].get("DeadLetterQueueSourceArn", "")
            target = sqs._queue_by_arn(destination)
            if target is None or message["visible_at"] > now:
                continue
            source["messages"].remove(message)
            system = {name: value for name, value in message["sys"].items() if name != "DeadLetterQueueSourceArn"}
            fresh = {"id": str(uuid4()), "sent_at": now, "visible_at": now, "receive_count": 0, "sys": system}
            target["messages"].append({**message, **fresh, "first_receive_at": None, "receipt_handle": None})
            moved += 1
    sqs.esm_wake.set()
    task = {
        "Status": "COMPLETED",
        "SourceArn": request["SourceArn"],
        "ApproximateNumberOfMessagesMoved": moved,
        "ApproximateNumberOfMessagesToMove": moved,
        "StartedTimestamp": int(now * 1000),
    }
    _move_tasks.setdefault(request["SourceArn"], []).insert(0, task)
    return {"TaskHandle": str(uuid4())}


def list_message_move_tasks(request: dict[str, Any], _queue_url: str) -> dict[str, Any]:
    """Tell of the latest message move tasks of a dead-letter queue, ten at most; here each is over at once.

    https://docs.aws.amazon.com/AWSSimpleQueueService/latest/APIReference/API_ListMessageMoveTasks.html
    """
    if sqs._queue_by_arn(request["SourceArn"]) is None:
        raise sqs._Err("ResourceNotFoundException", "The resource that you specified for the SourceArn doesn't exist.")
    asked = min(int(request.get("MaxResults") or 1), 10)
    return {"Results": _move_tasks.get(request["SourceArn"], [])[:asked]}


def install() -> None:
    """Have mappings take whole batches, and dead-letter queues be redriven."""
    sqs._receive_messages_for_esm = receive_batch
    sqs._HANDLERS["StartMessageMoveTask"] = start_message_move_task
    sqs._HANDLERS["ListMessageMoveTasks"] = list_message_move_tasks
