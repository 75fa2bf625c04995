"""SQS with message move tasks, which moto lacks: a redrive from the console, as the sweep is told of it."""

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from botocore.exceptions import ClientError


@dataclass
class RedrivingSqs:
    """A boto3 client `sqs` that moves dead letters."""

    client: Any
    tasks: dict[str, list[dict[str, Any]]] = field(default_factory=dict)
    """What there is to tell of each dead-letter queue, by ARN, newest first."""

    def __getattr__(self, operation: str) -> Any:
        return getattr(self.client, operation)

    def list_message_move_tasks(self, *, SourceArn: str, MaxResults: int = 1) -> dict[str, Any]:  # noqa: N803
        if not self._is_known(SourceArn.rpartition(":")[2]):
            raise ClientError({"Error": {"Code": "ResourceNotFoundException"}}, "ListMessageMoveTasks")
        return {"Results": self.tasks.get(SourceArn, [])[:MaxResults]}

    def redrive(self, dlq: str, queue: str, at: datetime, *, status: str = "COMPLETED") -> Sequence[dict[str, Any]]:
        """Moves all that is visible on a dead-letter queue to a queue, as new messages; returns what was moved."""
        source, target = self.client.get_queue_url(QueueName=dlq), self.client.get_queue_url(QueueName=queue)
        moved: list[dict[str, Any]] = []
        while page := self.client.receive_message(
            QueueUrl=source["QueueUrl"], MaxNumberOfMessages=10, MessageAttributeNames=["All"]
        ).get("Messages"):
            for message in page:
                attributes = {
                    name: {key: value[key] for key in ("DataType", "StringValue")}
                    for name, value in message.get("MessageAttributes", {}).items()
                }
                self.client.send_message(
                    QueueUrl=target["QueueUrl"], MessageBody=message["Body"], MessageAttributes=attributes
                )
                self.client.delete_message(QueueUrl=source["QueueUrl"], ReceiptHandle=message["ReceiptHandle"])
            moved += page
        arn = self.client.get_queue_attributes(QueueUrl=source["QueueUrl"], AttributeNames=["QueueArn"])
        task = {
            "Status": status,
            "SourceArn": arn["Attributes"]["QueueArn"],
            "ApproximateNumberOfMessagesMoved": len(moved),
            "StartedTimestamp": int(at.timestamp() * 1000),
        }
        self.tasks.setdefault(task["SourceArn"], []).insert(0, task)
        return moved

    def _is_known(self, name: str) -> bool:
        try:
            return bool(self.client.get_queue_url(QueueName=name))
        except ClientError:
            return False


def dropped_by_lambda(payload: Any, **response: str) -> str:
    """What Lambda puts on a dead-letter queue about an invocation: `errorType=...`, `errorMessage=...`."""
    return json.dumps(
        {
            "version": "1.0",
            "timestamp": "2026-03-02T09:41:07.381Z",
            "requestContext": {
                "requestId": "6a7f1b1e-0000-4000-8000-000000000001",
                "functionArn": "arn:aws:lambda:us-east-1:123456789012:function:schoolbell-tutoring-chime:$LATEST",
                "condition": "RetriesExhausted",
                "approximateInvokeCount": 3,
            },
            "requestPayload": payload,
            "responseContext": {"statusCode": 200, "executedVersion": "$LATEST", "functionError": "Unhandled"},
            "responsePayload": response,
        }
    )
