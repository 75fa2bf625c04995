"""How many messages are on a queue, as SQS counts them: about."""

from typing import Any, NamedTuple


class QueueSize(NamedTuple):
    """Messages of a queue; their sum is all there are."""

    waiting: int
    delayed: int
    """Those whose time has not come."""
    in_flight: int
    """Received, and neither done nor given back."""


def size_of(client: Any, url: str) -> QueueSize:
    """Asks SQS, by a client that was made before threads are.

    Raises:
        botocore.exceptions.ClientError: SQS refused; there may be no such queue (`aws.is_no_such_queue`).
    """
    names = [f"ApproximateNumberOfMessages{kind}" for kind in ("", "Delayed", "NotVisible")]
    answer = client.get_queue_attributes(QueueUrl=url, AttributeNames=names)["Attributes"]
    return QueueSize(*(int(answer[name]) for name in names))
