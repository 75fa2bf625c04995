"""Slack's incoming webhooks: a message for each alert and notice of a run, in the channel that the webhook belongs to.

https://docs.slack.dev/messaging/sending-messages-using-incoming-webhooks
"""

from collections.abc import Iterator, Mapping, Sequence
from functools import cache
from itertools import batched
from typing import Any, Final

from pydantic import SecretStr, field_validator

from schoolbell.alerts import Alert, Detail, Severity
from schoolbell.alerts.run_notices import RunNotice
from schoolbell.alerts.wording import clock, duration
from schoolbell.gateways.https import Answer, Http, checked_url
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
RUNS: Final = {
    "running": ("🔵", "Started", "#175cd3"),
    "completed": ("🟢", "Completed", "#067647"),
    "failed": ("🔴", "Failed", "#b42318"),
    "timed_out": ("🔴", "Timed out", "#b42318"),
}
SKIPPED: Final = ("⚪", "Skipped", "#475467")


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
        self._post(message_of(alert, self._stack, links or {}))

    def send_run(self, run: RunNotice) -> None:
        """Posts how a run stands, with the same errors."""
        self._post(message_of_run(run, self._stack))

    def _post(self, message: Mapping[str, Any]) -> None:
        body = as_json(message)

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
    look = OVER if alert.action == "resolve" else LOOKS[alert.severity]
    return _message(look, alert.summary, alert.details, (alert.source, stack, alert.key), links)


def message_of_run(run: RunNotice, stack: str) -> dict[str, Any]:
    """The message of how a run stands: the job, and why where there is a reason; the details and the counts."""
    is_skipped = run.status == "completed" and run.error
    look = SKIPPED if is_skipped else RUNS[run.status]
    name = f"{run.job} (dry run)" if run.dry_run else run.job
    summary = f"{name}: {run.error}" if run.error else name
    return _message(look, summary, dict(_details_of_run(run)), (run.job, stack, f"run {run.run_id}"))


def _details_of_run(run: RunNotice) -> Iterator[tuple[str, Detail]]:
    zone = f" for {run.time_zone}" if run.time_zone else ""
    yield "scheduled for", f"{clock(run.scheduled_for)} UTC{zone}" if run.scheduled_for else "by hand"
    if run.attempt > 1:
        yield "attempt", run.attempt
    if run.finished_at:
        yield "took", duration(run.finished_at - run.started_at)
    if run.items_done:
        yield "items done", run.items_done
    for name, value in (run.result or {}).items():
        counted = ", ".join(f"{key} {count}" for key, count in value.items()) if isinstance(value, dict) else value
        yield name.replace("_", " "), counted if isinstance(counted, int | float) else str(counted)


def _message(
    look: tuple[str, str, str],
    summary: str,
    details: Mapping[str, Detail],
    about: Sequence[str],
    links: Mapping[str, str] | None = None,
) -> dict[str, Any]:
    sign, word, colour = look
    summary = _shown(summary, SUMMARY)
    blocks = list(_details(details))
    if links:
        shown = list(links.items())[:MOST_LINKS]
        blocks.append({"type": "section", "text": _text("  ·  ".join(_link(title, href) for title, href in shown))})
    blocks.append({"type": "context", "elements": [_text("  ·  ".join(_shown(part, NAME) for part in about))]})
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
