"""IAM: of which resource a request is, which permission it needs, and what counts as secure transport."""

import json
from collections.abc import Callable
from typing import Any

from ministack.core import iam_actions, iam_evaluator
from ministack.services import stepfunctions

from local.emulator.stepfunctions import machine_of_token

# A schedule's group is part of its ARN


def resource_arn(original: Callable[..., str]) -> Callable[..., str]:
    """The resource of a request: a task token is its machine's; a schedule's ARN names its group; an email is from
    somebody whom SES knows as an identity.

    Ministack takes tokens and emails to be nobody's, every group to be the default one, and the default bus to be part
    of a rule's ARN.
    """

    def resolve(
        service: str,
        method: str,
        path: str,
        headers: dict[str, str],
        body: bytes,
        query: dict[str, Any],
        region: str,
        account: str,
    ) -> str:
        arn = original(service, method, path, headers, body, query, region, account)
        if service == "states" and arn == "*" and b"taskToken" in body:
            machines = iter(stepfunctions._state_machines)
            return machine_of_token.get(json.loads(body)["taskToken"]) or next(machines, arn)
        if service == "ses" and path.endswith("/outbound-emails"):
            return f"arn:aws:ses:{region}:{account}:identity/{json.loads(body).get('FromEmailAddress', '')}"
        if service == "events":
            return arn.replace(":rule/default/", ":rule/")
        if service == "sqs" and arn == "*" and b"SourceArn" in body:  # of message move tasks
            return str(json.loads(body)["SourceArn"])
        if service != "scheduler" or ":schedule/default/" not in arn:
            return arn
        asked = query.get("groupName") or "default"
        group = asked[0] if isinstance(asked, list) else asked
        if method in ("POST", "PUT"):
            group = json.loads(body).get("GroupName", "default")
        return arn.replace(":schedule/default/", f":schedule/{group}/")

    return resolve


# IAM: there are no permissions for batches; AWS asks for that of the single call


SINGLE_CALLS = {
    "sqs:SendMessageBatch": "sqs:SendMessage",
    "sqs:DeleteMessageBatch": "sqs:DeleteMessage",
    "sqs:ChangeMessageVisibilityBatch": "sqs:ChangeMessageVisibility",
    "sns:PublishBatch": "sns:Publish",
}


def iam_action(original: Callable[..., str | None]) -> Callable[..., str | None]:
    """The permission that a request needs."""

    def resolve(*request: Any) -> str | None:
        action = original(*request)
        return SINGLE_CALLS.get(action, action) if action else action

    return resolve


# IAM: the loopback counts as secure transport, since the emulator speaks plain HTTP on it


def condition_value(original: Callable[..., Any]) -> Callable[..., Any]:
    """Answer aws:SecureTransport with true, so that TLS-only policies can be kept in the template."""

    def resolve(key: str, context: Any) -> Any:
        return "true" if key.lower() == "aws:securetransport" else original(key, context)

    return resolve


def install() -> None:
    """Have requests be allowed by the permissions that AWS asks for."""
    iam_evaluator._resolve_condition_key = condition_value(iam_evaluator._resolve_condition_key)
    iam_actions.extract_resource_arn = resource_arn(iam_actions.extract_resource_arn)
    iam_actions.extract_iam_action = iam_action(iam_actions.extract_iam_action)
