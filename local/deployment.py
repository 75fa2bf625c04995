"""Deploying the bundle to the emulator, and what must be there before and after."""

import json
from collections.abc import Mapping
from contextlib import suppress
from hashlib import sha256
from typing import Any
from urllib.parse import urlsplit
from urllib.request import Request, urlopen

from local.bundle import EXPANDED, LOCAL, CommandError, architecture, sam
from local.emulator.process import client, endpoint
from local.sandbox import keys, oidc

ARTIFACTS = "schoolbell-artifacts"  # as samconfig.toml has it


def deploy(stack: str, port: int, parameters: Mapping[str, str]) -> None:
    """Create or update the stack with the real SAM CLI. The template has the database migrated on the way.

    Raises:
        CommandError: with what the SAM CLI and CloudFormation said.
    """
    s3 = client("s3", port)
    with suppress(s3.exceptions.BucketAlreadyOwnedByYou):
        s3.create_bucket(Bucket=ARTIFACTS)
    template = EXPANDED / "template.json"
    declared = json.loads(template.read_text())["Parameters"]
    given = {name: value for name, value in parameters.items() if name in declared}
    verify_sender(port, given.get("EmailFrom", declared["EmailFrom"]["Default"]))
    try:
        sam(
            "deploy",
            *("--template-file", str(template), *LOCAL, "--stack-name", stack),
            *("--parameter-overrides", *(f"{name}={value}" for name, value in given.items())),
            AWS_ENDPOINT_URL=endpoint(port),
        )
    except CommandError as failure:
        raise CommandError("\n".join([str(failure), *failures(stack, port)])) from None


def verify_sender(port: int, address: str) -> None:
    """Have SES know the address that emails come from, which takes nothing from others."""
    ses = client("sesv2", port)
    with suppress(ses.exceptions.AlreadyExistsException):
        ses.create_email_identity(EmailIdentity=address)


def failures(stack: str, port: int) -> list[str]:
    """What CloudFormation says went wrong, the nested stacks included, which the SAM CLI does not ask."""
    cloudformation = client("cloudformation", port)
    said = []
    for found in cloudformation.describe_stacks()["Stacks"]:
        if found["StackName"] == stack or found["StackName"].startswith(f"{stack}-"):
            for event in cloudformation.describe_stack_events(StackName=found["StackId"])["StackEvents"]:
                if event["ResourceStatus"].endswith("FAILED"):
                    reason = event.get("ResourceStatusReason", "")
                    said.append(f"{found['StackName']} {event['LogicalResourceId']}: {reason}")
    return said


def is_stuck(stack: str, port: int) -> bool:
    """Whether a deployment left the stack in a state from which CloudFormation takes no other."""
    cloudformation = client("cloudformation", port)
    statuses = [
        found["StackStatus"] for found in cloudformation.describe_stacks()["Stacks"] if found["StackName"] == stack
    ]
    return any(status.endswith(("FAILED", "IN_PROGRESS")) or status == "ROLLBACK_COMPLETE" for status in statuses)


def admin_url(stack: str, port: int) -> str:
    """Where the admin page of a stack will be: the emulator makes an API's id of its name."""
    api = sha256(f"{stack}-platform".encode()).hexdigest()[:8]
    return f"http://{api}.execute-api.localhost:{port}"


def admin_token(sandbox: str) -> str:
    """A token with which the demo operator is let in, from the sandbox's issuer."""
    asked = Request(f"{sandbox}/oidc/demo-token", b"{}", method="POST")  # noqa: S310 - on this machine
    with urlopen(asked, timeout=10) as answer:  # noqa: S310
        return str(json.loads(answer.read())["token"])


def parameters(database_secret: str, sandbox: str, admin: str) -> dict[str, str]:
    """The parameters of the stack on this machine. Emails and text messages stay with the emulator's SES and SNS."""
    return {
        "AdminAudience": oidc.CLIENT,
        "AdminIssuer": f"{sandbox}/oidc",
        "AdminUrl": admin,
        "Architecture": architecture(),
        "DatabaseSecretArn": database_secret,
        "GoogleCalendarUrl": f"{sandbox}/calendar/v3",
        "GoogleDriveUrl": f"{sandbox}/drive/v3",
        "GoogleTokenUrl": f"{sandbox}/token",
        "SendGridUrl": f"{sandbox}/sendgrid",
        "TwilioUrl": f"{sandbox}/twilio",
        "FcmUrl": f"{sandbox}/fcm",
        "PagerDutyUrl": f"{sandbox}/pagerduty",
    }


def put_provider_secrets(stack: str, port: int, sandbox: str) -> None:
    """Keep a key to each of the sandbox's services where the functions look for it."""
    for service, key in keys.keys(sandbox).items():
        put_secret(f"{stack}/providers/{service}", port, key)


def put_database_secret(stack: str, port: int, url: str, *, host: str = "") -> str:
    """Keep the database's address where the functions look for it. Returns the secret's ARN.

    With a host, by which containers reach the database, the secret is another one: the functions of the stack are on
    this machine.
    """
    parts = urlsplit(url)
    return put_secret(
        f"{stack}/database-for-containers" if host else f"{stack}/database",
        port,
        {
            "engine": "postgres",
            "host": host or parts.hostname,
            "port": parts.port,
            "username": parts.username,
            "password": parts.password,
            "dbname": parts.path.lstrip("/"),
            "sslmode": "disable",  # the server listens on the loopback only
        },
    )


def put_secret(name: str, port: int, value: Mapping[str, Any]) -> str:
    """Make a secret, or give it another value. Returns its ARN."""
    secrets, text = client("secretsmanager", port), json.dumps(value)
    try:
        return str(secrets.create_secret(Name=name, SecretString=text)["ARN"])
    except secrets.exceptions.ResourceExistsException:
        return str(secrets.put_secret_value(SecretId=name, SecretString=text)["ARN"])
