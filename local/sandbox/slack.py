"""Slack's incoming webhooks: one message.

https://docs.slack.dev/messaging/sending-messages-using-incoming-webhooks
"""

import re

from local.sandbox.messages import Call, Json, Reply
from local.sandbox.world import Sent, World

_HOOK = re.compile(r"T\w+/B\w+/\w+")
_FIELDS = {"text", "blocks", "attachments", "unfurl_links", "unfurl_media", "mrkdwn", "thread_ts"}
_BLOCKS = {"section", "header", "context", "divider", "actions", "image", "rich_text"}


def operation(method: str, segments: list[str]) -> str | None:
    """The name of the call; `segments` follow `/slack`."""
    return "webhook.post" if method == "POST" and segments[:1] == ["services"] and len(segments) == 4 else None


def caller(_call: Call, segments: list[str], _world: World) -> str | None:
    """The webhook: the end of its path."""
    return "/".join(segments[1:]) or None


def answer(call: Call, segments: list[str], world: World) -> Reply:
    """Answers a call."""
    hook = "/".join(segments[1:])
    if operation(call.method, segments) is None or not _HOOK.fullmatch(hook) or hook in world.revoked:
        return said(404, "no_service")
    message = call.json_or_none()
    if message is None or message.keys() - _FIELDS:
        return said(400, "invalid_payload")
    attachments = message.get("attachments", [])
    if not message.get("text") and not message.get("blocks") and not attachments:
        return said(400, "no_text")
    blocks = [*message.get("blocks", []), *(block for each in attachments for block in each.get("blocks", []))]
    if len(blocks) > 50 or not all(_is_block(block) for block in blocks):
        return said(400, "invalid_blocks")
    world.messages.append(Sent(service="slack", account=hook, id="", to=hook, content=message))
    return said(200, "ok")


def _is_block(block: Json) -> bool:
    """Whether a block is within Slack's limits. https://docs.slack.dev/reference/block-kit/blocks"""
    if not isinstance(block, dict) or block.get("type") not in _BLOCKS:
        return False
    fields, elements = block.get("fields", []), block.get("elements", [])
    if block["type"] == "section" and not (block.get("text") or fields):
        return False
    if block["type"] == "context" and not elements:
        return False
    return (
        _is_text(block["text"], 3_000 if block["type"] == "section" else 150)
        if "text" in block
        else len(fields) <= 10
        and len(elements) <= 10
        and all(_is_text(field, 2_000) for field in fields)
        and all(_is_text(element, 3_000) for element in elements if element.get("type") != "image")
    )


def _is_text(text: Json, longest: int) -> bool:
    kinds = ("mrkdwn", "plain_text")
    return isinstance(text, dict) and text.get("type") in kinds and 0 < len(text.get("text", "")) <= longest


def said(status: int, text: str, headers: dict[str, str] | None = None) -> Reply:
    """An answer as Slack gives it: a word in plain text."""
    return Reply(status, text.encode(), {"Content-Type": "text/html", **(headers or {})})


_WORDS = {400: "invalid_payload", 403: "action_prohibited", 404: "no_service", 410: "channel_is_archived"}


def fault(status: int, reason: str | None, headers: dict[str, str]) -> Reply:
    """The error that a fault asks for."""
    return said(status, reason or _WORDS.get(status, "rate_limited" if status == 429 else "rollup_error"), headers)
