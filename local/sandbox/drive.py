"""Google Drive v3: files, their copies, and the batch endpoint.

https://developers.google.com/workspace/drive/api/reference/rest/v3/files
"""

import re
from collections.abc import Callable
from email import message_from_bytes
from typing import Any

from local.sandbox.messages import Call, Refusal, Reply, google_error
from local.sandbox.world import File, World

LARGEST_BATCH = 100
_TERM = re.compile(
    r"appProperties has \{ *key='(?P<key>(?:[^'\\]|\\.)*)' and value='(?P<value>(?:[^'\\]|\\.)*)' *\}"
    r"|trashed *= *(?P<trashed>true|false)"
)


def operation(method: str, segments: list[str]) -> str | None:
    """The name of the method in Google's reference; `segments` follow `/drive/v3`."""
    match segments:
        case ["files"]:
            return {"GET": "files.list", "POST": "files.create"}.get(method)
        case ["files", _]:
            return {"GET": "files.get", "PATCH": "files.update", "DELETE": "files.delete"}.get(method)
        case ["files", _, "copy"]:
            return "files.copy" if method == "POST" else None
        case _:
            return None


def answer(call: Call, segments: list[str], account: str, world: World) -> Reply:
    """Answers a call of an account."""
    if segments == ["files"]:
        return _list(call, account, world) if call.method == "GET" else _create(call, account, world)
    file = world.files.get(segments[1])
    if file is None or file.account != account:
        return _not_found(segments[1])
    if len(segments) == 3:
        return _copy(call, file, account, world)
    if call.method == "DELETE":
        del world.files[file.id]
        return Reply(204)
    if call.method == "PATCH":
        wanted = call.json()
        file.name = wanted.get("name", file.name)
        file.trashed = wanted.get("trashed", file.trashed)
        file.appProperties.update(wanted.get("appProperties", {}))
    return Reply(200, _selected(file.shown(), call.query.get("fields")))


def answer_batch(call: Call, answer_one: Callable[[Call], Reply]) -> Reply:
    """Takes a batch apart, and puts the answers together, each under the id of its request."""
    head = f"Content-Type: {call.headers.get('content-type', '')}\r\n\r\n".encode()
    parts = [part for part in message_from_bytes(head + call.body).walk() if not part.is_multipart()]
    if not call.headers.get("content-type", "").startswith("multipart/mixed") or not parts:
        return google_error(400, "badRequest", "Failed to parse batch request.")
    if len(parts) > LARGEST_BATCH:
        return google_error(400, "badRequest", f"The batch request exceeds {LARGEST_BATCH} calls.")
    boundary = "batch_sandbox"
    written: list[bytes] = []
    for part in parts:
        content = part.get_payload(decode=True)
        lines = content.splitlines() if isinstance(content, bytes) else []
        method, target, *_ = (lines[0].decode() if lines else "GET /").split(" ")
        reply = answer_one(Call.to(method, target, call.headers))
        content_id = part.get("Content-ID", "").strip("<> ")
        written.append(
            f"--{boundary}\r\nContent-Type: application/http\r\nContent-ID: <response-{content_id}>\r\n\r\n"
            f"HTTP/1.1 {reply.status} Status\r\nContent-Type: application/json; charset=UTF-8\r\n\r\n".encode()
            + reply.content()
            + b"\r\n"
        )
    # Google answers in whatever order the calls finished.
    body = b"".join(reversed(written)) + f"--{boundary}--\r\n".encode()
    return Reply(200, body, {"Content-Type": f"multipart/mixed; boundary={boundary}"})


def _list(call: Call, account: str, world: World) -> Reply:
    terms = _terms(call.query.get("q", ""))
    mine = (file for file in world.files.values() if file.account == account)
    found = [file for file in mine if all(_matches(file, term) for term in terms)]
    size = int(call.query.get("pageSize", "100"))
    return Reply(200, {"kind": "drive#fileList", "files": [file.shown() for file in found[:size]]})


def _terms(query: str) -> list[re.Match[str]]:
    """The terms of a query, on appProperties and the trash, which `and` joins.

    Raises:
        Refusal: there is something else in it.
    """
    terms = []
    while query:
        term = _TERM.match(query)
        rest = query[term.end() :] if term else query
        if term is None or not (rest == "" or rest.startswith(" and ")):
            raise Refusal(google_error(400, "invalid", "Invalid Value", location=("parameter", "q")))
        terms.append(term)
        query = rest.removeprefix(" and ")
    return terms


def _matches(file: File, term: re.Match[str]) -> bool:
    if term["trashed"]:
        return file.trashed == (term["trashed"] == "true")
    return file.appProperties.get(_unquoted(term["key"])) == _unquoted(term["value"])


def _create(call: Call, account: str, world: World) -> Reply:
    file = File(account=account, **_wanted(call))
    world.files[file.id] = file
    return Reply(200, _selected(file.shown(), call.query.get("fields")))


def _copy(call: Call, source: File, account: str, world: World) -> Reply:
    wanted = _wanted(call)
    for folder in wanted.get("parents", []):
        parent = world.files.get(folder)
        if folder != "root" and (parent is None or parent.account != account):
            return _not_found(folder)
    if any(len((key + value).encode()) > 124 for key, value in wanted.get("appProperties", {}).items()):
        return google_error(403, "propertyTooLarge", "The property is too large.")
    merged = {"name": f"Copy of {source.name}", "mimeType": source.mimeType, "parents": source.parents, **wanted}
    copy = File(account=account, copied_from=source.id, **merged)
    world.files[copy.id] = copy
    return Reply(200, _selected(copy.shown(), call.query.get("fields")))


def _wanted(call: Call) -> dict[str, Any]:
    body = call.json()
    return {name: body[name] for name in ("name", "mimeType", "parents", "appProperties") if name in body}


def _selected(resource: dict[str, Any], fields: str | None) -> dict[str, Any]:
    if fields is None:
        return {name: resource[name] for name in ("kind", "id", "name", "mimeType")}
    names = fields.split(",")
    return {name: value for name, value in resource.items() if name in names}


def _unquoted(value: str) -> str:
    return re.sub(r"\\(.)", r"\1", value)


def _not_found(file_id: str) -> Reply:
    return google_error(404, "notFound", f"File not found: {file_id}.", location=("parameter", "fileId"))
