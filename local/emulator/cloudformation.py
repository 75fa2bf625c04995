"""CloudFormation: nested stacks keep the attributes of what an update leaves alone; changes of stacks are events."""

import json
import time
from collections.abc import Callable
from typing import Any
from uuid import uuid4

from ministack.services import eventbridge
from ministack.services.cloudformation import provisioners, stacks


class Attributes:
    """What Fn::GetAtt answers for each resource of a nested stack, which ministack forgets when it has not changed."""

    def __init__(self) -> None:
        self._known: dict[tuple[str, str], dict[str, Any]] = {}

    def provision(self, original: Callable[..., Any]) -> Callable[..., Any]:
        """Remember the attributes of a new resource."""

        def provision(kind: str, logical_id: str, properties: dict[str, Any], stack: str) -> Any:
            physical_id, attributes = original(kind, logical_id, properties, stack)
            self._known[stack, physical_id] = attributes
            return physical_id, attributes

        return provision

    def update(self, original: Callable[..., Any]) -> Callable[..., Any]:
        """Give an unchanged resource the attributes that it had."""

        def update(
            kind: str,
            physical_id: str,
            old: dict[str, Any],
            new: dict[str, Any],
            stack: str,
            logical_id: str | None = None,
            attributes: dict[str, Any] | None = None,
        ) -> Any:
            had = attributes or self._known.get((stack, physical_id))
            now_id, now = original(kind, physical_id, old, new, stack, logical_id, had)
            self._known[stack, now_id] = now
            return now_id, now

        return update


def stack_event(original: Callable[..., None]) -> Callable[..., None]:
    """Send "CloudFormation Stack Status Change" to EventBridge, as AWS does at each change."""

    def add(stack_id: str, stack: str, logical_id: str, kind: str, status: str, *rest: Any, **named: Any) -> None:
        original(stack_id, stack, logical_id, kind, status, *rest, **named)
        if kind == "AWS::CloudFormation::Stack" and logical_id == stack:
            detail = {"stack-id": stack_id, "status-details": {"status": status, "status-reason": ""}}
            eventbridge._dispatch_event(
                {
                    "EventId": str(uuid4()),
                    "Source": "aws.cloudformation",
                    "DetailType": "CloudFormation Stack Status Change",
                    "Detail": json.dumps(detail),
                    "EventBusName": "default",
                    "Time": time.time(),
                    "Resources": [stack_id],
                    "Account": stack_id.split(":")[4],
                    "Region": stack_id.split(":")[3],
                }
            )

    return add


def install() -> None:
    """Have stacks be updated, and say so."""
    attributes = Attributes()
    provisioners._provision_resource = attributes.provision(provisioners._provision_resource)
    provisioners._update_resource = attributes.update(provisioners._update_resource)
    stacks._add_event = stack_event(stacks._add_event)
