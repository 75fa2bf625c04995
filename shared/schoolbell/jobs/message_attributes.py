"""The attributes of SQS messages, which count toward a message's size."""

from typing import Final

OUTBOX_ID: Final = "outbox-id"
"""The attribute that carries the id of a message's row in the outbox."""

FIRST_ID: Final = "first-message-id"
"""The attribute that keeps a message's first id when it is sent again, which gives it a new one."""

ATTRIBUTES_A_MESSAGE: Final = 10

BYTES_A_MESSAGE: Final = 1_048_576
"""SQS takes 1 MiB: the body, and each attribute's name, type and value. It takes as much in a request.

https://docs.aws.amazon.com/AWSSimpleQueueService/latest/APIReference/API_MessageAttributeValue.html
"""

type Attributes = dict[str, dict[str, str]]
"""Message attributes by name, as `SendMessage` takes them."""


def as_attribute(value: str) -> dict[str, str]:
    """A text as the value of an attribute."""
    return {"DataType": "String", "StringValue": value}


def that_fit(attributes: Attributes, body: str) -> Attributes:
    """The attributes that SQS takes with a body, where the first go first."""
    if _do_fit(attributes, body):
        return attributes
    fitting: Attributes = {}
    for name, value in attributes.items():
        longer = {**fitting, name: value}
        if _do_fit(longer, body):
            fitting = longer
    return fitting


def size_of(body: str, attributes: Attributes) -> int:
    """Bytes, as SQS counts them."""
    parts = [body, *attributes, *(part for value in attributes.values() for part in value.values())]
    return sum(len(part.encode()) for part in parts)


def _do_fit(attributes: Attributes, body: str) -> bool:
    return len(attributes) <= ATTRIBUTES_A_MESSAGE and size_of(body, attributes) <= BYTES_A_MESSAGE
