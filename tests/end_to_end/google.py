"""Google as the sandbox has it, over HTTP, and teachers who have connected it."""

import json
import time
from dataclasses import dataclass
from typing import Any
from urllib.request import Request, urlopen
from uuid import uuid4

from sqlalchemy import Row

from schoolbell.domains.tutoring.schema import calendar_connections, drive_file_copies
from schoolbell.resilience.circuit import RECOVERY
from tests.end_to_end.stack import Stack
from tests.end_to_end.waiting import eventually
from tests.factories import Make

TABLE = "resilience"
LET_THROUGH_IN = 15.0
"""Seconds after which an open circuit lets a call through: more than a function's view of it may be old."""


@dataclass(frozen=True)
class Google:
    """What can be done to Google behind the stack's back."""

    stack: Stack
    make: Make

    def connected_teacher(self) -> tuple[Row[Any], str]:
        """A teacher who has connected Google, and the name of the account, which is also that of the token's secret."""
        account = f"{self.stack.name}/google/{uuid4()}"
        token = {"client_id": "client", "client_secret": "secret", "refresh_token": account}
        self.stack.client("secretsmanager").create_secret(Name=account, SecretString=json.dumps(token))
        teacher = self.make.teacher()
        self.make.calendar_connection(teacher, calendar_id="primary", secret_id=account)
        return teacher, account

    def encrypt(self, account: str) -> None:
        """Keeps an account's token encrypted beside its connection, as applications do, and no longer as a secret."""
        connection = self.stack.row(calendar_connections, secret_id=account)
        token = self.stack.client("secretsmanager").get_secret_value(SecretId=account)["SecretString"]
        encrypted = self.stack.client("kms").encrypt(
            KeyId=f"alias/{self.stack.name}",
            Plaintext=token.encode(),
            EncryptionContext={"connection_id": str(connection.id)},
        )
        ciphertext = encrypted["CiphertextBlob"]
        self.stack.change(calendar_connections, connection.id, token_ciphertext=ciphertext, secret_id=None)
        self.stack.client("secretsmanager").delete_secret(SecretId=account, ForceDeleteWithoutRecovery=True)

    def file(self, account: str, **fields: Any) -> str:
        """Adds a file or a folder to an account, and returns its id."""
        return str(self.ask("POST", "files", {"account": account, **fields})["id"])

    def trash(self, file: str) -> None:
        self.ask("PATCH", f"files/{file}", {"trashed": True})

    def copies(self, account: str) -> list[dict[str, Any]]:
        """The files of an account that are copies."""
        return [each for each in self.ask("GET", f"files?account={account}") if each["copied_from"]]

    def events(self, account: str) -> list[dict[str, Any]]:
        """The events of an account's calendars that are not deleted."""
        listed = self.ask("GET", f"events?account={account}")
        return [each["resource"] for each in listed if each["resource"]["status"] != "cancelled"]

    def requests(self, account: str) -> int:
        """How many calls there were for an account."""
        counts: dict[str, int] = self.ask("GET", "requests")["by_account"].get(account, {})
        return sum(counts.values())

    def fail(self, account: str, **fault: Any) -> None:
        """Makes calls for an account fail; see `local.sandbox.world.Fault`."""
        self.ask("POST", "faults", {"account": account, **fault})

    def ask(self, method: str, target: str, body: dict[str, Any] | None = None) -> Any:
        """Tells the sandbox something, or asks it."""
        content = json.dumps(body).encode() if body is not None else None
        request = Request(f"{self.stack.sandbox_url}/sandbox/{target}", content, method=method)
        with urlopen(request, timeout=60) as answer:
            return json.loads(answer.read())

    # Circuits

    def open_circuit(self, name: str) -> None:
        """Opens a circuit as functions do after failures; some seconds later it lets one call through."""
        opened_at = int(time.time() - RECOVERY.total_seconds() + LET_THROUGH_IN)
        self.stack.client("dynamodb").put_item(
            TableName=f"{self.stack.name}-{TABLE}",
            Item={
                "id": {"S": name},
                "state": {"S": "OPEN"},
                "failure_count": {"N": "5"},
                "opened_at": {"N": str(opened_at)},
                "expiration": {"N": str(opened_at + 4_000)},
            },
        )

    def close_circuit(self, name: str) -> None:
        """Forgets a circuit's troubles."""
        self.stack.client("dynamodb").delete_item(TableName=f"{self.stack.name}-{TABLE}", Key={"id": {"S": name}})

    def circuit(self, name: str) -> str:
        """The state of a circuit."""
        key = {"id": {"S": name}}
        item = self.stack.client("dynamodb").get_item(TableName=f"{self.stack.name}-{TABLE}", Key=key).get("Item")
        return str(item["state"]["S"]) if item else "CLOSED"


@dataclass(frozen=True)
class Material:
    """A teacher's file, and a student who is to have it."""

    account: str
    resource: Row[Any]
    student: Row[Any]

    @property
    def message(self) -> dict[str, str]:
        return {"resource_id": str(self.resource.id), "student_id": str(self.student.id)}

    def copied(self, stack: Stack, patience: float = 60.0) -> Row[Any]:
        """Waits until the copy is made, and returns its row."""
        found = eventually(
            lambda: stack.rows(
                drive_file_copies, resource_id=self.resource.id, student_id=self.student.id, status="copied"
            ),
            "copy",
            patience=patience,
        )
        return found[0]


def material(google: Google) -> Material:
    """A file that nobody has copied, of a teacher who has connected Google."""
    teacher, account = google.connected_teacher()
    folder = google.file(account, name="Folder", mimeType="application/vnd.google-apps.folder")
    student = google.make.student(teacher, drive_folder_id=folder)
    resource = google.make.drive_resource(teacher, drive_file_id=google.file(account, name="Worksheet"))
    return Material(account, resource, student)
