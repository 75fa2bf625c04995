"""The keys with which the sandbox's services are called: what is in the secrets `<stack>/providers/<service>`."""

import json
from typing import Any, Final
from urllib.request import Request, urlopen

SENDGRID: Final = "SG.sandbox-key.of-the-embedded-stack"
TWILIO_ACCOUNT: Final = f"AC{'5' * 32}"
TWILIO_SENDER: Final = "+15005550006"  # Twilio's own number for tests from which anything may be sent
ROUTING_KEY: Final = "0123456789abcdef0123456789abcdef"
WEBHOOK: Final = "T0SANDBOX/B0SANDBOX/sandboxsandboxsandbox"


def keys(url: str) -> dict[str, dict[str, Any]]:
    """A key for each service of the sandbox at an address; the one for Firebase is made there, as is its account."""
    made = Request(f"{url}/sandbox/service-accounts", b"{}", method="POST")  # noqa: S310 - on this machine
    with urlopen(made, timeout=10) as answer:  # noqa: S310
        service_account = json.loads(answer.read())
    return {
        "fcm": service_account,
        "pagerduty": {"routing_key": ROUTING_KEY},
        "sendgrid": {"api_key": SENDGRID},
        "slack": {"webhook_url": f"{url}/slack/services/{WEBHOOK}"},
        "twilio": {"account_sid": TWILIO_ACCOUNT, "auth_token": "sandbox", "sender": TWILIO_SENDER},
    }


def addresses(url: str) -> dict[str, str]:
    """Where the services are, by the setting that says so."""
    return {f"{service}_url": f"{url}/{service}" for service in ("fcm", "pagerduty", "sendgrid", "twilio")}
