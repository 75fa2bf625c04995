"""What the sandbox holds: accounts with their tokens, files and calendars, and the messages that were sent."""

import json
import secrets
import string
import threading
from collections import Counter
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from pydantic import BaseModel, Field

_ID_CHARACTERS = string.ascii_letters + string.digits + "-_"
TOKEN_LIFE = timedelta(hours=1)
PROJECT = "schoolbell-sandbox"
"""The Firebase project."""


def file_id() -> str:
    """An id as Drive gives them: 33 characters, the first always a 1."""
    return "1" + "".join(secrets.choice(_ID_CHARACTERS) for _ in range(32))


class File(BaseModel):
    """A file or a folder."""

    id: str = Field(default_factory=file_id)
    account: str
    name: str = "Untitled"
    mimeType: str = "application/vnd.google-apps.document"  # noqa: N815 - Google's names
    parents: list[str] = Field(default_factory=list)
    appProperties: dict[str, str] = Field(default_factory=dict)  # noqa: N815
    trashed: bool = False
    copied_from: str | None = None
    createdTime: str = Field(default_factory=lambda: now_as_text())  # noqa: N815

    def shown(self) -> dict[str, Any]:
        """The file as Drive's API shows it."""
        fields = self.model_dump(exclude={"account", "copied_from"})
        return {"kind": "drive#file", **{name: value for name, value in fields.items() if value != {}}}


class Event(BaseModel):
    """An event of a calendar; deleting one cancels it, and its id stays taken."""

    account: str
    calendar: str
    id: str
    resource: dict[str, Any]

    @property
    def is_deleted(self) -> bool:
        """Whether it has been deleted."""
        return self.resource.get("status") == "cancelled"


class AccessToken(BaseModel):
    """A token that the token endpoint has issued."""

    account: str
    expires_at: datetime


class Sent(BaseModel):
    """A message that a service took."""

    service: str
    account: str
    """Whose: the API key, the Twilio account, the service account, the routing key, the webhook."""
    id: str
    """What the service called it."""
    to: str
    content: dict[str, Any]
    """As it was asked for."""
    at: str = Field(default_factory=lambda: now_as_text())


class Fault(BaseModel, extra="forbid"):
    """How to fail, and when. Everything that is given must match."""

    id: str = Field(default_factory=lambda: secrets.token_hex(4))
    method: str | None = None
    path: str | None = None
    """A regular expression, searched for in the path."""
    account: str | None = None
    body: str | None = None
    """A regular expression, searched for in the body: to fail for one address."""
    times: int | None = Field(default=None, ge=1)
    """How many requests fail; all until the fault is cleared, if not given."""
    status: int | None = Field(default=None, ge=400, le=599)
    reason: str | None = None
    retry_after: int | None = None
    delay: float = Field(default=0.0, ge=0.0)
    """Seconds before the answer, for clients that time out."""
    disconnect: bool = False
    """Close the connection without an answer."""
    effect: bool = False
    """Do what was asked for before failing: the answer is lost, the effect is not."""
    garbage: bool = False
    """Answer with success and a page that makes no sense."""


class World(BaseModel):
    """Everything the sandbox holds."""

    files: dict[str, File] = Field(default_factory=dict)
    events: dict[str, Event] = Field(default_factory=dict)
    """By `account/calendar/id`."""
    calendars: dict[str, set[str]] = Field(default_factory=dict)
    """Of each account, beside `primary`, which everybody has."""
    tokens: dict[str, AccessToken] = Field(default_factory=dict)
    revoked: set[str] = Field(default_factory=set)
    """Accounts, API keys and webhooks that no longer work."""
    service_accounts: dict[str, str] = Field(default_factory=dict)
    """The public key of each, in PEM."""
    messages: list[Sent] = Field(default_factory=list)
    unregistered: set[str] = Field(default_factory=set)
    """Push tokens of devices that no longer have the application."""
    codes: dict[str, dict[str, str]] = Field(default_factory=dict)
    """Authorization codes that nobody has exchanged yet, with what was asked for."""
    faults: list[Fault] = Field(default_factory=list)
    requests: Counter[str] = Field(default_factory=Counter)
    """How many, by `METHOD operation`."""
    requests_by_account: dict[str, Counter[str]] = Field(default_factory=dict)
    faulted: Counter[str] = Field(default_factory=Counter)
    """How many of them failed on purpose."""


class Store:
    """The world, a lock around it, and the file it is kept in."""

    def __init__(self, path: Path | None = None) -> None:
        self.lock = threading.RLock()
        self._path = path
        self._saved = ""
        self.world = World.model_validate_json(path.read_text()) if path and path.exists() else World()

    def reset(self) -> None:
        """Forgets everything."""
        with self.lock:
            self.world = World()

    def save(self) -> None:
        """Writes the world to its file, whole or not at all, if it has changed."""
        if self._path is None:
            return
        with self.lock:
            text = json.dumps(self.world.model_dump(mode="json"))
        if text == self._saved:
            return
        self._path.parent.mkdir(parents=True, exist_ok=True)
        partial = self._path.with_suffix(".partial")
        partial.write_text(text)
        partial.replace(self._path)
        self._saved = text


def now_as_text() -> str:
    """The time as Google's APIs write it."""
    return datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
