"""EventBridge Scheduler's one-shot schedules on a clock that the test turns, as strict as AWS about its API."""

import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import cache
from threading import Lock
from typing import Any

from botocore.exceptions import ClientError
from botocore.loaders import Loader
from botocore.model import ServiceModel, Shape
from botocore.validate import ParamValidator

type Json = Any

AT = re.compile(r"at\((\d{4}-\d{2}-\d{2}T\d{2}:\d{2}:\d{2})\)")
QUEUE_ARN = re.compile(r"arn:aws[a-z-]*:sqs:[a-z0-9-]+:\d{12}:([A-Za-z0-9_-]{1,80})")


@dataclass(frozen=True)
class Rung:
    """A schedule that went off: what it sends, and to which queue."""

    queue: str
    body: str


@dataclass
class Scheduler:
    """A boto3 client `scheduler` with its service behind it.

    `before` is called with the operation and the schedule's name ahead of each call, outside all locks: a test may wait
    in it, change something, or raise what the call is to fail with. `after` is called when a call has had its effect,
    or was refused.
    """

    clock: Callable[[], datetime]
    group: str
    schedules: dict[str, dict[str, Json]] = field(default_factory=dict)
    calls: list[tuple[str, str]] = field(default_factory=list)
    """Operation and name of each call, in order."""
    before: Callable[[str, str], None] = lambda operation, name: None
    after: Callable[[str, str], None] = lambda operation, name: None
    _lock: Lock = field(default_factory=Lock)

    def create_schedule(self, **request: Json) -> Json:
        def create() -> None:
            self._check("CreateSchedule", request)
            if request["Name"] in self.schedules:
                raise refused("CreateSchedule", "ConflictException", f"Schedule {request['Name']} already exists.")
            self.schedules[request["Name"]] = request

        return self._call("create", request, create)

    def update_schedule(self, **request: Json) -> Json:
        def update() -> None:
            self._check("UpdateSchedule", request)
            self._find("UpdateSchedule", request["Name"])
            self.schedules[request["Name"]] = request  # replaced whole, as AWS does

        return self._call("update", request, update)

    def delete_schedule(self, **request: Json) -> Json:
        def delete() -> None:
            self._check("DeleteSchedule", request)
            self._find("DeleteSchedule", request["Name"])
            del self.schedules[request["Name"]]

        return self._call("delete", request, delete)

    # For the test

    def at(self, name: str) -> datetime | None:
        """When a schedule goes off; `None` if there is none."""
        schedule = self.schedules.get(name)
        return _time(schedule["ScheduleExpression"]) if schedule else None

    def go_off(self) -> list[Rung]:
        """Takes the schedules whose time has come, in order of time."""
        due = sorted((_time(schedule["ScheduleExpression"]), name) for name, schedule in self.schedules.items())
        rung = []
        for at, name in due:
            if at <= self.clock():
                schedule = self.schedules[name]
                queue = QUEUE_ARN.fullmatch(schedule["Target"]["Arn"])
                assert queue
                rung.append(Rung(queue[1], schedule["Target"]["Input"]))
                assert schedule["ActionAfterCompletion"] == "DELETE", f"{name} stays for ever"
                del self.schedules[name]
        return rung

    # What AWS checks

    def _call(self, operation: str, request: Mapping[str, Json], effect: Callable[[], None]) -> Json:
        name = str(request.get("Name"))
        self.before(operation, name)
        try:
            with self._lock:
                self.calls.append((operation, name))
                effect()
        finally:
            self.after(operation, name)
        return {"ResponseMetadata": {"HTTPStatusCode": 200}}

    def _find(self, operation: str, name: str) -> None:
        if name not in self.schedules:
            raise refused(operation, "ResourceNotFoundException", f"Schedule {name} does not exist.")

    def _check(self, operation: str, request: dict[str, Json]) -> None:
        shape = _service().operation_model(operation).input_shape
        assert shape
        errors = ParamValidator().validate(request, shape)
        assert not errors.has_errors(), errors.generate_report()
        broken = _broken_constraints(request, shape)
        if broken:
            raise refused(operation, "ValidationException", "; ".join(broken))
        if request.get("GroupName", "default") != self.group:
            raise refused(
                operation, "ResourceNotFoundException", f"Schedule group {request['GroupName']} does not exist."
            )
        if operation != "DeleteSchedule":
            self._check_definition(operation, request)

    def _check_definition(self, operation: str, request: Mapping[str, Json]) -> None:
        expression = request["ScheduleExpression"]
        if not AT.fullmatch(expression):
            raise refused(operation, "ValidationException", f"Invalid Schedule Expression {expression}.")
        if request.get("ScheduleExpressionTimezone", "UTC") != "UTC":
            raise AssertionError("one-shots are in UTC")
        if _time(expression) <= self.clock():
            raise refused(operation, "ValidationException", f"{expression} has passed")
        if request["FlexibleTimeWindow"] != {"Mode": "OFF"}:
            raise AssertionError("a one-shot that may come any time later")
        target = request["Target"]
        for arn in (target["Arn"], target.get("DeadLetterConfig", {}).get("Arn", target["Arn"])):
            if not QUEUE_ARN.fullmatch(arn):
                raise refused(operation, "ValidationException", f"Provided Arn is not in correct format: {arn}")
        json.loads(target["Input"])


def refused(operation: str, code: str, message: str) -> ClientError:
    """The error that boto3 raises for an answer of AWS's."""
    return ClientError({"Error": {"Code": code, "Message": message}}, operation)


def _time(expression: str) -> datetime:
    match = AT.fullmatch(expression)
    assert match, expression
    return datetime.fromisoformat(match[1]).replace(tzinfo=UTC)


@cache
def _service() -> ServiceModel:
    return ServiceModel(Loader().load_service_model("scheduler", "service-2"))


def _broken_constraints(value: Json, shape: Shape, where: str = "") -> list[str]:
    """The patterns and lengths of AWS's own service model that a value breaks; botocore sends them to AWS unchecked."""
    if shape.type_name == "structure":
        return [
            broken
            for name, each in value.items()
            for broken in _broken_constraints(each, shape.members[name], f"{where}.{name}".lstrip("."))
        ]
    if shape.type_name != "string":
        return []
    broken = []
    pattern = shape._shape_model.get("pattern")  # botocore reads the model but keeps no pattern
    if pattern and not re.fullmatch(pattern, value):
        broken.append(f"{where}: must match {pattern}")
    if len(value) > shape.metadata.get("max", len(value)):
        broken.append(f"{where}: longer than {shape.metadata['max']}")
    if shape.enum and value not in shape.enum:
        broken.append(f"{where}: must be one of {shape.enum}")
    return broken
