"""What the sandbox can be told and asked, under `/sandbox/`; bodies and answers are JSON.

| call | does |
| --- | --- |
| `GET /health` | tells that the sandbox is up |
| `POST /sandbox/reset` | forgets everything |
| `POST /sandbox/files` `{"account", "name", "id", "parents", ...}` | adds a file; `{"files": [...]}` adds many |
| `GET /sandbox/files?account=` | all files; those with `copied_from` are copies |
| `PATCH /sandbox/files/<id>` `{"trashed": true}` | changes a file behind Schoolbell's back |
| `DELETE /sandbox/files/<id>` | deletes it |
| `POST /sandbox/calendars` `{"account", "calendar"}` | adds a calendar; everybody has `primary` |
| `GET /sandbox/events?account=` | all events, also deleted ones (`"status": "cancelled"`) |
| `POST /sandbox/faults` | makes requests fail; see `local.sandbox.world.Fault` |
| `GET /sandbox/faults`, `DELETE /sandbox/faults`, `DELETE /sandbox/faults/<id>` | lists, clears |
| `POST /sandbox/revoke`, `POST /sandbox/restore` `{"account"}` | takes back what a key may, gives it again |
| `GET /sandbox/messages?service=&to=` | what SendGrid, Twilio, FCM, PagerDuty and Slack were sent, oldest first |
| `GET /sandbox/incidents` | PagerDuty's incidents, which events have opened and closed |
| `POST /sandbox/service-accounts` | makes a service account of the Firebase project, and hands out its key |
| `POST /sandbox/unregister` `{"token"}` | the device with this push token no longer has the application |
| `GET /sandbox/requests` | how many requests there were, by operation and account, and how many failed on purpose |

Faults, for example:

* `{"path": "/calendar/", "status": 429, "retry_after": 30, "times": 3}`
* `{"method": "POST", "path": "/copy$", "status": 500, "effect": true, "times": 1}`: copied, but the answer is lost
* `{"account": "...", "delay": 30}`: the client times out
* `{"path": "^/token", "status": 503}`
* `{"path": "^/sendgrid/", "disconnect": true, "effect": true, "times": 1}`: sent, and nobody is told
* `{"path": "^/fcm/", "garbage": true}`: success, with a page that makes no sense
"""

from typing import Any

from pydantic import ValidationError

from local.sandbox import oauth, pagerduty
from local.sandbox.messages import Call, Reply
from local.sandbox.world import Fault, File, Store, World

OK = Reply(200, {"status": "ok"})
UNKNOWN = Reply(404, {"error": "no such thing in the sandbox"})


def answer(call: Call, segments: list[str], store: Store) -> Reply:
    """Answers a call; `segments` follow `/sandbox`."""
    try:
        return _answer(call, segments, store)
    except ValidationError as error:
        reasons = "; ".join(f"{'.'.join(map(str, each['loc']))}: {each['msg']}" for each in error.errors())
        return Reply(400, {"error": reasons})
    except KeyError as error:
        return Reply(400, {"error": f"{error.args[0]}: Field required"})


def _answer(call: Call, segments: list[str], store: Store) -> Reply:
    world = store.world
    match call.method, segments:
        case "POST", ["reset"]:
            store.reset()
            return OK
        case "POST", ["files"]:
            return _add_files(call.json(), world)
        case "GET", ["files"]:
            return Reply(200, [each.model_dump() for each in world.files.values() if _is_wanted(each.account, call)])
        case (("PATCH" | "DELETE"), ["files", file_id]) if file_id in world.files:
            return _change_file(call, file_id, world)
        case "POST", ["calendars"]:
            wanted = call.json()
            world.calendars.setdefault(wanted["account"], set()).add(wanted["calendar"])
            return OK
        case "GET", ["events"]:
            return Reply(200, [each.model_dump() for each in world.events.values() if _is_wanted(each.account, call)])
        case "POST", ["revoke"]:
            oauth.revoke(call.json()["account"], world)
            return OK
        case "POST", ["restore"]:
            world.revoked.discard(call.json()["account"])
            return OK
        case "GET", ["messages"]:
            return Reply(200, _messages(call, world))
        case "GET", ["incidents"]:
            return Reply(200, pagerduty.incidents(world))
        case "POST", ["service-accounts"]:
            return Reply(201, oauth.new_service_account(call, world))
        case "POST", ["unregister"]:
            world.unregistered.add(call.json()["token"])
            return OK
        case "GET", ["requests"]:
            return Reply(200, _requests(world))
        case _, ["faults", *rest]:
            return _faults(call, rest, world)
        case _:
            return UNKNOWN


def _add_files(wanted: dict[str, Any], world: World) -> Reply:
    files = [File.model_validate(each) for each in wanted.get("files", [wanted])]
    world.files.update((file.id, file) for file in files)
    shown = [file.model_dump() for file in files]
    return Reply(201, shown if "files" in wanted else shown[0])


def _change_file(call: Call, file_id: str, world: World) -> Reply:
    if call.method == "DELETE":
        del world.files[file_id]
        return OK
    changed = File.model_validate({**world.files[file_id].model_dump(), **call.json(), "id": file_id})
    world.files[file_id] = changed
    return Reply(200, changed.model_dump())


def _faults(call: Call, rest: list[str], world: World) -> Reply:
    match call.method, rest:
        case "POST", []:
            fault = Fault.model_validate(call.json())
            world.faults.append(fault)
            return Reply(201, fault.model_dump())
        case "GET", []:
            return Reply(200, [fault.model_dump() for fault in world.faults])
        case "DELETE", _:
            world.faults = [fault for fault in world.faults if rest and fault.id != rest[0]]
            return OK
        case _:
            return UNKNOWN


def _requests(world: World) -> dict[str, Any]:
    return {
        "total": sum(world.requests.values()),
        "by_operation": dict(world.requests),
        "by_account": {account: dict(counts) for account, counts in world.requests_by_account.items()},
        "faulted": dict(world.faulted),
    }


def _messages(call: Call, world: World) -> list[dict[str, Any]]:
    wanted = {name: call.query[name] for name in ("service", "to") if name in call.query}
    return [
        sent.model_dump()
        for sent in world.messages
        if all(getattr(sent, name) == value for name, value in wanted.items())
    ]


def _is_wanted(account: str, call: Call) -> bool:
    return call.query.get("account", account) == account
