"""PagerDuty and Slack are told, over real HTTP, and what they answer is told apart."""

from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import pytest
from botocore.exceptions import ClientError

from local.sandbox import keys
from schoolbell import aws
from schoolbell.alerts import Alert
from schoolbell.alerts.pagerduty import pagerduty_of
from schoolbell.alerts.run_notices import RunNotice
from schoolbell.alerts.senders import Sender
from schoolbell.alerts.slack import slack_of
from schoolbell.gateways.errors import GatewayError, Misconfigured, NeverWorks, Throttled, Unavailable, Uncertain
from schoolbell.settings import Settings
from tests.fixtures.services import Services

pytestmark = pytest.mark.usefixtures("keys_of_services")
SENDERS = ("pagerduty", "slack")


def alert(**fields: Any) -> Alert:
    return Alert.model_validate(
        {
            "key": "dead-letters/tutoring.auto-complete",
            "severity": "critical",
            "summary": "12 messages of tutoring.auto-complete are dead",
            "source": "platform.dead-letter-sweep",
            "details": {"messages": 12, "oldest": "3 h"},
            "at": datetime(2026, 3, 2, 10, 0, tzinfo=UTC),
            **fields,
        }
    )


@pytest.fixture
def settings(settings: Settings, services: Services) -> Settings:
    """Settings that lead to the sandbox."""
    return services.settings_of(settings)


def sender(name: str, settings: Settings) -> Sender:
    return pagerduty_of(settings) if name == "pagerduty" else slack_of(settings)


def test_an_alert_opens_an_incident(services: Services, settings: Settings) -> None:
    pagerduty_of(settings).send(alert(), {"Runbook": "https://example.com/runbook"})
    (incident,) = services.incidents()
    assert incident["status"] == "triggered"
    assert incident["summary"] == "12 messages of tutoring.auto-complete are dead"
    assert incident["severity"] == "critical"
    assert incident["timestamp"] == "2026-03-02T10:00:00+00:00"
    assert incident["custom_details"] == {"messages": 12, "oldest": "3 h"}
    (event,) = services.sent("pagerduty")
    assert event["links"] == [{"href": "https://example.com/runbook", "text": "Runbook"}]


def test_an_alert_told_again_opens_no_second_incident(services: Services, settings: Settings) -> None:
    for _ in range(3):
        pagerduty_of(settings).send(alert())
    assert [(incident["status"], incident["events"]) for incident in services.incidents()] == [("triggered", 3)]


def test_an_alert_that_is_over_closes_its_incident_and_no_other(services: Services, settings: Settings) -> None:
    pagerduty_of(settings).send(alert())
    pagerduty_of(settings).send(alert(key="another"))
    pagerduty_of(settings).send(alert(action="resolve"))
    states = {incident["dedup_key"]: incident["status"] for incident in services.incidents()}
    assert states == {
        "schoolbell/dead-letters/tutoring.auto-complete": "resolved",
        "schoolbell/another": "triggered",
    }


def test_stacks_that_share_an_integration_do_not_close_each_others_incidents(
    services: Services, settings: Settings
) -> None:
    services.set_key("pagerduty", routing_key=keys.ROUTING_KEY)
    pagerduty_of(settings).send(alert())
    other = settings.model_copy(update={"schoolbell_stack": "other"})
    Services(services.sandbox, services.url, "other").set_key("pagerduty", routing_key=keys.ROUTING_KEY)
    pagerduty_of(other).send(alert(action="resolve"))
    assert [incident["status"] for incident in services.incidents()] == ["triggered"]


@pytest.mark.parametrize("action", ["trigger", "resolve"])
def test_a_message_says_what_happened(services: Services, settings: Settings, action: str) -> None:
    slack_of(settings).send(alert(action=action), {"Runbook": "https://example.com/runbook"})
    (message,) = services.sent("slack")
    word = {"trigger": "🔴 *Critical:*", "resolve": "🟢 *Resolved:*"}[action]
    assert message["text"] == f"{word} 12 messages of tutoring.auto-complete are dead"
    shown = str(message["attachments"])
    for part in ("*messages*\\n12", "<https://example.com/runbook|Runbook>", "platform.dead-letter-sweep"):
        assert part in shown


def test_what_an_alert_says_mentions_nobody_and_makes_no_link(services: Services, settings: Settings) -> None:
    mention = "<!channel> & <https://example.com|a link>"
    slack_of(settings).send(alert(summary=mention, source="<@U1>", details={"<!here>": "<#C1>"}))
    (message,) = services.sent("slack")
    escaped = "&lt;!channel&gt; &amp; &lt;https://example.com|a link&gt;"
    assert message["text"] == f"🔴 *Critical:* {escaped}"
    assert "<" not in str(message)
    assert all(each["verbatim"] for block in message["attachments"][0]["blocks"] for each in _texts(block))


def _texts(block: dict[str, Any]) -> list[dict[str, Any]]:
    """The texts of a block."""
    return [*block.get("fields", []), *block.get("elements", []), *([block["text"]] if "text" in block else [])]


@pytest.mark.parametrize("name", SENDERS)
def test_the_longest_alert_is_within_the_services_limits(services: Services, settings: Settings, name: str) -> None:
    details = {f"{number:03}{'<&>' * 100}": "&<>" * 900 for number in range(70)}
    longest = alert(key="k" * 255, summary="<!channel> & " * 78, source="<" * 255, details=details)
    sender(name, settings).send(longest, {"<t>" * 300: "https://example.com/?a=1&b=|2"})
    assert len(services.sent(name)) == 1


def test_the_longest_notice_of_a_run_is_within_slacks_limits(services: Services, settings: Settings) -> None:
    at = datetime(2026, 3, 2, 10, 0, tzinfo=UTC)
    longest = RunNotice(
        run_id=UUID(int=1),
        job="tutoring." + "<" * 64,
        status="failed",
        attempt=3,
        dry_run=True,
        scheduled_for=at,
        time_zone="<" * 50,
        started_at=at,
        finished_at=at + timedelta(days=1),
        items_done=10**9,
        result={f"{number:03}{'<' * 90}": {"&<>" * 900: 7} for number in range(70)},
        error="<!channel> & " * 38,
    )
    slack_of(settings).send_run(longest)
    (message,) = services.sent("slack")
    assert "<" not in str(message)


def test_long_keys_stay_apart(services: Services, settings: Settings) -> None:
    pagerduty_of(settings).send(alert(key="k" * 254 + "1"))
    pagerduty_of(settings).send(alert(key="k" * 254 + "2"))
    assert len(services.incidents()) == 2


@pytest.mark.parametrize("name", SENDERS)
def test_without_a_secret_it_is_not_configured_until_there_is_one(
    services: Services, settings: Settings, name: str
) -> None:
    client, secret_id = aws.client("secretsmanager"), settings.provider_secret(name)
    kept = client.get_secret_value(SecretId=secret_id)["SecretString"]
    client.delete_secret(SecretId=secret_id, ForceDeleteWithoutRecovery=True)
    assert not sender(name, settings).is_configured()
    with pytest.raises(Misconfigured, match="does not exist"):
        sender(name, settings).send(alert())
    client.create_secret(Name=secret_id, SecretString=kept)
    assert sender(name, settings).is_configured()


@pytest.mark.parametrize("name", SENDERS)
@pytest.mark.parametrize(
    ("text", "is_configured"),
    [("... because no identity-based policy allows it", False), ("Access to KMS is not allowed", True)],
)
def test_without_a_secret_it_is_not_configured_by_aws_words_either(
    settings: Settings, monkeypatch: pytest.MonkeyPatch, name: str, text: str, is_configured: bool
) -> None:
    denied = ClientError({"Error": {"Code": "AccessDeniedException", "Message": text}}, "GetSecretValue")

    def call(*_: object) -> None:
        raise denied

    monkeypatch.setattr("botocore.client.BaseClient._make_api_call", call)
    if is_configured:
        with pytest.raises(Misconfigured, match="AccessDeniedException"):
            sender(name, settings).is_configured()
    else:
        assert not sender(name, settings).is_configured()


@pytest.mark.parametrize(
    ("name", "fields"),
    [
        ("pagerduty", {"key": "x"}),
        ("slack", {"url": "https://example.com"}),
        ("slack", {"webhook_url": "http://example.com/in-the-clear"}),
    ],
)
def test_a_secret_that_is_not_as_it_should_be_is_refused_without_repeating_it(
    services: Services, settings: Settings, name: str, fields: dict[str, str]
) -> None:
    services.set_key(name, **fields)
    with pytest.raises(Misconfigured, match=r"routing_key|webhook_url") as refused:
        sender(name, settings).send(alert())
    assert "example.com" not in str(refused.value)


@pytest.mark.parametrize("name", SENDERS)
@pytest.mark.parametrize(
    ("fault", "kind"),
    [
        ({"status": 429, "retry_after": 42}, Throttled),
        ({"status": 500}, Unavailable),
        ({"status": 503}, Unavailable),
        ({"status": 504}, Uncertain),
        ({"status": 400}, NeverWorks),
        ({"disconnect": True}, Uncertain),
        ({"disconnect": True, "effect": True}, Uncertain),
        ({"garbage": True}, Uncertain),
        ({"status": 403}, Misconfigured),
    ],
    ids=str,
)
def test_failures_are_told_apart(
    services: Services, settings: Settings, name: str, fault: dict[str, int], kind: type[GatewayError]
) -> None:
    services.fail(name, **fault)
    with pytest.raises(GatewayError) as raised:
        sender(name, settings).send(alert())
    assert type(raised.value) is kind
    if isinstance(raised.value, Throttled):
        assert raised.value.retry_after == timedelta(seconds=42)
    assert keys.ROUTING_KEY not in str(raised.value)
    assert keys.WEBHOOK not in str(raised.value)


@pytest.mark.parametrize("name", SENDERS)
def test_an_answer_that_takes_too_long_is_not_waited_for(services: Services, settings: Settings, name: str) -> None:
    services.fail(name, delay=3)
    hasty = settings.model_copy(update={"provider_timeout": timedelta(milliseconds=100)})
    with pytest.raises(Uncertain, match="ReadTimeoutError"):
        sender(name, hasty).send(alert())


@pytest.mark.parametrize("name", SENDERS)
def test_nobody_there_is_no_answer_that_could_have_been_lost(services: Services, settings: Settings, name: str) -> None:
    nowhere = settings.model_copy(update={"pagerduty_url": "http://127.0.0.1:9"})
    services.set_key("slack", webhook_url="http://127.0.0.1:9/services/T/B/x")
    with pytest.raises(Unavailable) as unwell:
        sender(name, nowhere).send(alert())
    assert not isinstance(unwell.value, Uncertain)


@pytest.mark.parametrize(
    ("name", "old", "new"),
    [
        ("pagerduty", keys.ROUTING_KEY, {"routing_key": "f" * 32}),
        ("slack", keys.WEBHOOK, {"webhook_url": "{url}/slack/services/T0/B1/new"}),
    ],
)
def test_a_key_that_was_replaced_is_read_again(
    services: Services, settings: Settings, name: str, old: str, new: dict[str, str]
) -> None:
    sender(name, settings).send(alert())
    services.revoke(old)
    services.set_key(name, **{field: value.format(url=services.url) for field, value in new.items()})
    sender(name, settings).send(alert())
    assert len(services.sent(name)) == 2


def test_a_webhook_that_is_gone_is_for_an_operator_to_mend(services: Services, settings: Settings) -> None:
    services.revoke(keys.WEBHOOK)
    with pytest.raises(Misconfigured, match="slack: 404 no_service"):
        slack_of(settings).send(alert())
