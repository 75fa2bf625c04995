"""Google Drive v3: a teacher's files, and their copies in students' folders.

https://developers.google.com/workspace/drive/api/reference/rest/v3/files
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from email import message_from_bytes
from enum import StrEnum
from typing import Protocol
from urllib.parse import urlsplit
from uuid import UUID

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from schoolbell.gateways.errors import Gone, Unavailable
from schoolbell.gateways.google.api import Api, Request, as_body, circuit
from schoolbell.gateways.google.credentials import Grant, tokens_of
from schoolbell.gateways.google.errors import error_of
from schoolbell.gateways.https import Answer, shared_http
from schoolbell.resilience.circuit import Circuit
from schoolbell.resilience.guard import Guard
from schoolbell.resilience.rate_limiter import Budget, RateLimiter
from schoolbell.settings import Settings

CIRCUIT = "google-drive"
MINUTE = timedelta(minutes=1)
COPY_PROPERTY = "schoolbellCopy"
LARGEST_BATCH = 100
"""Google takes no more in one batch. https://developers.google.com/workspace/drive/api/guides/performance"""

_FIELDS = "id,name,trashed,mimeType,appProperties"


class DriveFile(BaseModel):
    """A file, as far as Schoolbell looks."""

    model_config = ConfigDict(frozen=True, extra="ignore", populate_by_name=True)

    id: str
    name: str = ""
    trashed: bool = False
    mime_type: str = Field(default="", alias="mimeType")
    app_properties: Mapping[str, str] = Field(default_factory=dict, alias="appProperties")


class FileState(StrEnum):
    """What Google says about a file."""

    PRESENT = "present"
    TRASHED = "trashed"
    GONE = "gone"
    UNANSWERED = "unanswered"
    """Google could not say, this time."""


class Drive(Protocol):
    """A teacher's Google Drive.

    Every operation raises `schoolbell.gateways.errors.GatewayError`, in the kinds told apart there, and
    `schoolbell.resilience.errors.Withheld` if the call was not made.
    """

    largest_batch: int
    """How many files `check` takes."""

    def find_copy(self, key: str) -> DriveFile | None:
        """The file that carries the key of a copy, preferably one that is not in the trash."""

    def copy(self, file_id: str, folder_id: str, key: str, name: str | None = None) -> DriveFile:
        """Copies a file into a folder and marks the copy with a key, in one step.

        Args:
            file_id: the file to copy.
            folder_id: where the copy goes.
            key: by which `find_copy` finds it; at most 110 characters.
            name: of the copy; Google calls it "Copy of ..." if not given.
        """

    def check(self, file_ids: Sequence[str]) -> Mapping[str, FileState]:
        """What has become of some files, in one request; every one of them has an entry."""


class GoogleDrive:
    """A teacher's Drive over HTTPS.

    Many files are checked by Drive's batch endpoint, `/batch` before the API's path, which is one round trip for a
    hundred files and needs no threads; each file still counts as a call. (What Google turned off in 2020 is the batch
    endpoint common to all its APIs, not Drive's own.)
    """

    def __init__(self, api: Api, largest_batch: int = LARGEST_BATCH) -> None:
        self._api = api
        self.largest_batch = min(largest_batch, LARGEST_BATCH)

    def get(self, file_id: str) -> DriveFile:
        """One file. Raises `Gone` if it was deleted, or was never this teacher's to see: Google does not say which."""
        url = self._api.url("files", file_id, fields=_FIELDS, supportsAllDrives="true")
        return _file("files.get", self._api.json(Request("files.get", "GET", url)))

    def find_copy(self, key: str) -> DriveFile | None:
        url = self._api.url(
            "files",
            q=f"appProperties has {{ key='{COPY_PROPERTY}' and value='{_quoted(key)}' }}",
            fields=f"files({_FIELDS})",
            pageSize="10",
            supportsAllDrives="true",
            includeItemsFromAllDrives="true",
        )
        listed = self._api.json(Request("files.list", "GET", url))
        files = [_file("files.list", each) for each in (listed or {}).get("files", [])]
        return min(files, key=lambda file: (file.trashed, file.id), default=None)

    def copy(self, file_id: str, folder_id: str, key: str, name: str | None = None) -> DriveFile:
        body = {"parents": [folder_id], "appProperties": {COPY_PROPERTY: key}, **({"name": name} if name else {})}
        url = self._api.url("files", file_id, "copy", fields=_FIELDS, supportsAllDrives="true")
        return _file("files.copy", self._api.json(Request("files.copy", "POST", url, as_body(body))))

    def check(self, file_ids: Sequence[str]) -> Mapping[str, FileState]:
        if not file_ids:
            return {}
        if len(file_ids) > self.largest_batch:
            raise ValueError(f"at most {self.largest_batch} files at a time, got {len(file_ids)}")
        parts = urlsplit(self._api.base_url)
        paths = [
            self._api.url("files", file_id, fields="id,trashed", supportsAllDrives="true").removeprefix(
                f"{parts.scheme}://{parts.netloc}"
            )
            for file_id in file_ids
        ]
        boundary = "schoolbell_batch"
        answer = self._api.call(
            Request(
                "batch",
                "POST",
                f"{parts.scheme}://{parts.netloc}/batch{parts.path}",
                _batch(paths, boundary),
                content_type=f"multipart/mixed; boundary={boundary}",
                cost=len(file_ids),
            )
        )
        states = dict.fromkeys(file_ids, FileState.UNANSWERED)
        for index, part in _parts(answer):
            if index < len(file_ids):
                states[file_ids[index]] = _state(part)
        return states


def _batch(paths: Sequence[str], boundary: str) -> bytes:
    parts = [
        f"--{boundary}\r\nContent-Type: application/http\r\nContent-ID: <file-{index}>\r\n\r\nGET {path}\r\n\r\n"
        for index, path in enumerate(paths)
    ]
    return f"{''.join(parts)}--{boundary}--\r\n".encode()


def _parts(answer: Answer) -> Iterator[tuple[int, Answer]]:
    """The answers in a batch's answer, each with the number of the request it belongs to: they come in any order."""
    head = b"Content-Type: " + answer.headers.get("content-type", "").encode() + b"\r\n\r\n"
    message = message_from_bytes(head + answer.body)
    for part in message.walk():
        number = re.fullmatch(r"<response-file-(\d+)>", part.get("Content-ID", "").strip())
        content = part.get_payload(decode=True)
        if not number or not isinstance(content, bytes):
            continue
        inner = re.match(rb"HTTP/[\d.]+ (\d{3})[^\n]*\n(?:[^\r\n]+\r?\n)*\r?\n", content)
        if inner:
            yield int(number[1]), Answer(int(inner[1]), {}, content[inner.end() :])


def _state(answer: Answer) -> FileState:
    if answer.status >= 300:
        is_gone = isinstance(error_of("files.get", answer, datetime.now(UTC)), Gone)
        return FileState.GONE if is_gone else FileState.UNANSWERED
    try:
        file = DriveFile.model_validate_json(answer.body)
    except ValidationError:
        return FileState.UNANSWERED
    return FileState.TRASHED if file.trashed else FileState.PRESENT


def _file(operation: str, value: object) -> DriveFile:
    try:
        return DriveFile.model_validate(value)
    except ValidationError:
        raise Unavailable(f"{operation}: an answer that is no file") from None


def _quoted(value: str) -> str:
    return value.replace("\\", "\\\\").replace("'", "\\'")


def drive_circuit(settings: Settings) -> Circuit:
    """The circuit breaker that all calls to Google Drive share."""
    return circuit(CIRCUIT, settings.resilience_table)


def drive_of(teacher_id: UUID, grant: Grant, settings: Settings) -> GoogleDrive:
    """The Drive of a teacher, who granted it to us.

    Raises:
        ValueError: an address in the settings is not one to send tokens to.
    """
    limiter = RateLimiter(
        CIRCUIT,
        per_tenant=Budget(settings.google_drive_calls_per_teacher, MINUTE),
        overall=Budget(settings.google_drive_calls_overall, MINUTE),
        table=settings.resilience_table,
    )
    api = Api(
        settings.google_drive_url,
        str(teacher_id),
        tokens_of(grant, settings.google_token_url),
        Guard(drive_circuit(settings), limiter),
        shared_http(),
    )
    return GoogleDrive(api, min(settings.google_drive_calls_per_teacher, settings.google_drive_calls_overall))
