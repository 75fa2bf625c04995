"""Slack's incoming webhooks: a message for each alert, in the channel that the webhook belongs to.

https://docs.slack.dev/messaging/sending-messages-using-incoming-webhooks
"""

from collections.abc import Iterator, Mapping
from functools import cache
from itertools import batched
from typing import Any, Final

from pydantic import SecretStr, field_validator

from schoolbell.alerts import Alert, Detail, Severity
from schoolbell.https import Answer, Http, checked_url
from schoolbell.notifications.calls import Request, Service, as_json, hasty_http
from schoolbell.notifications.secrets import Key, Secret
from schoolbell.settings import Settings

# Slack takes 3,000 characters in a section and 2,000 in a field; escaping makes up to five of one.
# https://docs.slack.dev/reference/block-kit/blocks/section-block
SUMMARY = 500
VALUE = 300
NAME = 60
FIELDS_IN_A_BLOCK = 10
MOST_DETAILS = 30
MOST_LINKS = 5

LOOKS: Final = {
    Severity.CRITICAL: ("🔴", "Critical", "#b42318"),
    Severity.WARNING: ("🟠", "Warning", "#b54708"),
    Severity.INFO: ("🔵", "Info", "#175cd3"),
}
"""Sign, word and colour of the bar, by severity."""
OVER: Final = ("🟢", "Resolved", "#067647")


class SlackKey(Key):
    """The secret `<stack>/providers/slack`."""

    webhook_url: SecretStr
    """Who has it may post, so it is what is secret."""

    @field_validator("webhook_url")
    @classmethod
    def _is_safe(cls, value: SecretStr) -> SecretStr:
        return SecretStr(checked_url(value.get_secret_value()))


class Slack:
    """Posts messages.

    Args:
        stack: named in each message.
        secret: holds the webhook.
        http: sends the requests.
    """

    def __init__(self, stack: str, secret: Secret[SlackKey], http: Http) -> None:
        self._stack = stack
        self._service = Service("slack", secret, http)

    def is_configured(self) -> bool:
        return self._service.secret.exists()

    def send(self, alert: Alert, links: Mapping[str, str] | None = None) -> None:
        """Posts a message. Slack knows no keys: one that is sent twice is read twice."""
        body = as_json(message_of(alert, self._stack, links or {}))

        def request(key: SlackKey) -> Request:
            return Request(key.webhook_url.get_secret_value(), {"Content-Type": "application/json"}, body)

        answer = self._service.post(request, _is_gone)
        if answer.status >= 300:
            raise self._service.error_of(answer, answer.body.decode(errors="replace"))
        if answer.status != 200 or answer.body != b"ok":
            raise self._service.garbage(answer)


def _is_gone(answer: Answer) -> bool:
    return answer.status in (401, 403, 404, 410)


def message_of(alert: Alert, stack: str, links: Mapping[str, str]) -> dict[str, Any]:
    """The message of an alert: what happened, as phones show it too; beside a bar in its colour the details, links, and
    where it comes from.
    """
    sign, word, colour = OVER if alert.action == "resolve" else LOOKS[alert.severity]
    summary = _shown(alert.summary, SUMMARY)
    blocks = list(_details(alert.details))
    if links:
        shown = list(links.items())[:MOST_LINKS]
        blocks.append({"type": "section", "text": _text("  ·  ".join(_link(title, href) for title, href in shown))})
    about = "  ·  ".join(_shown(part, NAME) for part in (alert.source, stack, alert.key))
    blocks.append({"type": "context", "elements": [_text(about)]})
    return {
        "text": f"{sign} *{word}:* {summary}",
        "attachments": [{"color": colour, "fallback": f"{word}: {summary}", "blocks": blocks}],
    }


def _details(details: Mapping[str, Detail]) -> Iterator[dict[str, Any]]:
    shown = list(details.items())[:MOST_DETAILS]
    for some in batched(shown, FIELDS_IN_A_BLOCK, strict=False):
        fields = [_text(f"*{_shown(name, NAME)}*\n{_shown(str(value), VALUE) or '–'}") for name, value in some]
        yield {"type": "section", "fields": fields}
    if len(details) > len(shown):
        yield {"type": "context", "elements": [_text(f"… and {len(details) - len(shown)} more")]}


def _text(text: str) -> dict[str, Any]:
    # Verbatim: Slack makes no links of what looks like a channel, a person or an address.
    return {"type": "mrkdwn", "text": text, "verbatim": True}


def _link(title: str, href: str) -> str:
    return f"<{escaped(href).replace('|', '%7C')}|{_shown(title, NAME)}>"


def _shown(text: str, longest: int) -> str:
    """The text escaped, and cut to so many characters, the last of which then says that there was more."""
    return escaped(text if len(text) <= longest else f"{text[: longest - 1]}…")


def escaped(text: str) -> str:
    """Text in which Slack finds no link, mention or command.

    https://docs.slack.dev/messaging/formatting-message-text#escaping

    >>> escaped("<!channel> a & b")
    '&lt;!channel&gt; a &amp; b'
    """
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")


@cache
def slack_of(settings: Settings) -> Slack:
    """The sender of this execution environment."""
    secret = Secret(settings.provider_secret("slack"), SlackKey)
    return Slack(settings.schoolbell_stack, secret, hasty_http(settings.provider_timeout))
