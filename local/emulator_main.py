"""The AWS emulator (ministack), brought closer to AWS where these jobs depend on the difference.

It runs in an environment of its own, which has nothing of this project in it, so it imports nothing from here. Each
function below says what AWS does; what it replaces belongs to the one version of ministack that
``requirements/emulator.txt`` pins.
"""

import contextvars
import hashlib
import io
import json
import operator
import os
import re
import tempfile
import threading
import time
import zipfile
from collections.abc import Callable
from contextlib import suppress
from datetime import UTC, datetime
from functools import lru_cache
from pathlib import Path
from typing import Any
from uuid import uuid4
from zoneinfo import ZoneInfo

from ministack import app
from ministack.core import iam_actions, iam_evaluator, lambda_runtime
from ministack.core.responses import request_scope, set_request_account_id, set_request_region
from ministack.services import apigateway, cloudwatch, eventbridge, iam, lambda_svc, scheduler, sqs, stepfunctions
from ministack.services.cloudformation import provisioners, stacks

TICK = 1.0  # seconds between two looks at the schedules and rules; ministack's own is 10
INVOCATION_PAYLOAD = 6_000_000  # bytes: Lambda's limit, which ends a batch before its BatchSize does
RECORD_ENVELOPE = 700  # bytes of an SQS record beside its body
CALLS = {"sqs": "sqs:SendMessage", "lambda": "lambda:InvokeFunction", "states": "states:StartExecution"}

_machine_role: contextvars.ContextVar[str] = contextvars.ContextVar("machine_role", default="")
_machine: contextvars.ContextVar[str] = contextvars.ContextVar("machine", default="")
_awaited_token: contextvars.ContextVar[str] = contextvars.ContextVar("awaited_token", default="")
_machine_of_token: dict[str, str] = {}
_move_tasks: dict[str, list[dict[str, Any]]] = {}


def role_may(role_arn: str, action: str, resource_arn: str) -> bool:
    """Whether a role's policies allow a call that a service makes in its name. Always true unless IAM is enforced."""
    if not app.AUTH:
        return True
    account, name = role_arn.split(":")[4], role_arn.rsplit("/", 1)[-1]
    context = iam_evaluator.EvalContext(
        principal_arn=f"arn:aws:sts::{account}:assumed-role/{name}/service",
        principal_type="AssumedRole",
        principal_account=account,
        action=action,
        resource_arn=resource_arn,
        region=resource_arn.split(":")[3],
    )
    boundary = iam_evaluator._permissions_boundary(iam._roles, name, account)
    policies = iam_evaluator._gather_role_policies(name, account)
    return bool(iam_evaluator.evaluate(context, policies, *boundary).decision == "Allow")


# EventBridge Scheduler: time zones, context attributes, the target's role


def next_occurrence(schedule: dict[str, Any], last: float | None) -> float | None:
    """When a schedule is next due after `last` (seconds since the epoch), in the schedule's own time zone."""
    expression = schedule["ScheduleExpression"].strip()
    zone = ZoneInfo(schedule.get("ScheduleExpressionTimezone") or "UTC")
    if expression.startswith("at("):
        moment = moment_of(expression, zone)
        return None if moment == last else moment
    since = schedule["CreationDate"] if last is None else last
    interval = eventbridge._parse_rate_seconds(expression)
    if interval is not None:
        return float(since + interval)
    fields = eventbridge._parse_cron_fields(expression)
    return None if fields is None else next_cron(fields, datetime.fromtimestamp(since, zone), zone)


@lru_cache(maxsize=200_000)
def moment_of(expression: str, zone: ZoneInfo) -> float:
    """The moment of a one-time schedule, of which there may be tens of thousands to look at in each tick."""
    return datetime.fromisoformat(expression[3:-1].strip()).replace(tzinfo=zone).timestamp()


def next_cron(fields: tuple[Any, ...], after: datetime, zone: ZoneInfo) -> float | None:
    """The next moment that matches. As on AWS, a local time that does not exist is skipped; a double one fires once."""
    wall = after.replace(tzinfo=UTC, fold=0)  # the calendar arithmetic is done on the wall clock
    while (wall := eventbridge._cron_next_fire(fields, wall)) is not None:
        moment = wall.replace(tzinfo=zone).astimezone(UTC)
        if moment.astimezone(zone).replace(tzinfo=UTC, fold=0) == wall and moment > after:
            return float(moment.timestamp())
    return None


def fire_due_schedules() -> None:
    """Send each schedule that is due to its target, once for each occurrence."""
    now = time.time()
    for key, schedule in list(scheduler._schedules._data.items()):
        ends = scheduler._to_epoch(schedule.get("EndDate"))
        starts = scheduler._to_epoch(schedule.get("StartDate"))
        if schedule["State"] != "ENABLED" or (ends and now > ends) or (starts and now < starts):
            continue
        due = next_occurrence(schedule, scheduler._schedule_last_fired.get(key))
        if due is None or due > now:
            continue
        scheduler._schedule_last_fired[key] = due
        fire(key, schedule, datetime.fromtimestamp(due, UTC))
        if schedule["ScheduleExpression"].startswith("at(") and schedule["ActionAfterCompletion"] == "DELETE":
            scheduler._schedules._data.pop(key, None)
            scheduler._schedule_last_fired.pop(key, None)


def fire(key: tuple[str, str, str], schedule: dict[str, Any], due: datetime) -> None:
    """Deliver one occurrence, with the context attributes of the target's input filled in."""
    account, region, _ = key
    target = dict(schedule["Target"])
    action = CALLS.get(target["Arn"].split(":")[2], "")
    if not role_may(target["RoleArn"], action, target["Arn"]):
        scheduler.logger.error("%s: its role may not %s on %s", schedule["Name"], action, target["Arn"])
        return
    attributes = {
        "schedule-arn": schedule["Arn"],
        "scheduled-time": due.strftime("%Y-%m-%dT%H:%M:%SZ"),
        "execution-id": str(uuid4()),
        "attempt-number": "1",
    }
    for name, value in attributes.items():
        if target.get("Input"):
            target["Input"] = target["Input"].replace(f"<aws.scheduler.{name}>", value)
    set_request_account_id(account)
    set_request_region(region)
    event = {
        "EventId": attributes["execution-id"],
        "Source": "aws.scheduler",
        "DetailType": "Scheduled Event",
        "Detail": "{}",
        "Time": due.timestamp(),
        "Resources": [schedule["Arn"]],
        "Account": account,
        "Region": region,
    }
    eventbridge._invoke_target(target, event, schedule)


# SQS event source mappings: batches up to BatchSize


def receive_batch(queue_url: str, batch_size: int) -> list[dict[str, Any]]:
    """Take what is visible, up to the mapping's BatchSize and what one invocation can carry. ministack takes ten."""
    with sqs._queues_lock:
        queue = sqs._get_q(queue_url)
        sqs._expire_retained(queue)
        sqs._dlq_sweep(queue)
        now, size, count = time.time(), 0, 0
        for message in queue["messages"]:
            if count == batch_size:
                break
            if message.get("visible_at", 0) > now:
                continue
            size += len(message["body"]) + RECORD_ENVELOPE
            if count and size > INVOCATION_PAYLOAD:
                break
            count += 1
        if not count:
            return []
        taken: list[dict[str, Any]] = sqs._collect_msgs(
            queue, count, int(queue["attributes"].get("VisibilityTimeout", "30"))
        )
        return taken


# SQS: dead letters go back by a message move task, which ministack does not know


def start_message_move_task(request: dict[str, Any], _queue_url: str) -> dict[str, Any]:
    """Move what is visible on a dead-letter queue, as new messages, to a queue or to those that the messages came from.

    https://docs.aws.amazon.com/AWSSimpleQueueService/latest/APIReference/API_StartMessageMoveTask.html
    """
    source = sqs._queue_by_arn(request["SourceArn"])
    if source is None:
        raise sqs._Err("ResourceNotFoundException", "The resource that you specified for the SourceArn doesn't exist.")
    with sqs._queues_lock:
        now = time.time()
        moved = 0
        for message in list(source["messages"]):
            destination = request.get("DestinationArn") or message["sys"].get("DeadLetterQueueSourceArn", "")
            target = sqs._queue_by_arn(destination)
            if target is None or message["visible_at"] > now:
                continue
            source["messages"].remove(message)
            system = {name: value for name, value in message["sys"].items() if name != "DeadLetterQueueSourceArn"}
            fresh = {"id": str(uuid4()), "sent_at": now, "visible_at": now, "receive_count": 0, "sys": system}
            target["messages"].append({**message, **fresh, "first_receive_at": None, "receipt_handle": None})
            moved += 1
    sqs.esm_wake.set()
    task = {
        "Status": "COMPLETED",
        "SourceArn": request["SourceArn"],
        "ApproximateNumberOfMessagesMoved": moved,
        "ApproximateNumberOfMessagesToMove": moved,
        "StartedTimestamp": int(now * 1000),
    }
    _move_tasks.setdefault(request["SourceArn"], []).insert(0, task)
    return {"TaskHandle": str(uuid4())}


def list_message_move_tasks(request: dict[str, Any], _queue_url: str) -> dict[str, Any]:
    """Tell of the latest message move tasks of a dead-letter queue, ten at most; here each is over at once.

    https://docs.aws.amazon.com/AWSSimpleQueueService/latest/APIReference/API_ListMessageMoveTasks.html
    """
    if sqs._queue_by_arn(request["SourceArn"]) is None:
        raise sqs._Err("ResourceNotFoundException", "The resource that you specified for the SourceArn doesn't exist.")
    asked = min(int(request.get("MaxResults") or 1), 10)
    return {"Results": _move_tasks.get(request["SourceArn"], [])[:asked]}


# Step Functions: timeouts that are computed, failed tasks that wait for a token, the machine's role


def execute_task(original: Callable[..., Any]) -> Callable[..., Any]:
    """TimeoutSeconds may be a JSONata expression, or come from the input by TimeoutSecondsPath."""

    def execute(state: dict[str, Any], given: Any, execution: dict[str, Any], context: dict[str, Any]) -> Any:
        machine = stepfunctions._state_machines.get(context["StateMachine"]["Id"]) or {}
        _machine_role.set(machine.get("roleArn", ""))
        _machine.set(context["StateMachine"]["Id"])
        if "TimeoutSecondsPath" in state:
            seconds = stepfunctions._resolve_path_or_ctx(state["TimeoutSecondsPath"], given, context)
            state = {**state, "TimeoutSeconds": seconds}
        elif isinstance(state.get("TimeoutSeconds"), str):
            seconds = stepfunctions._jsonata_state_field(state, "TimeoutSeconds", "number", given, context)
            state = {**state, "TimeoutSeconds": seconds}
        return original(state, given, execution, context)

    return execute


def await_callback(original: Callable[..., Any]) -> Callable[..., Any]:
    """Remember which token the task waits for, so that a failed call can end the wait, and whose token it is."""

    def wait(resource: str, given: Any, token: str, state: dict[str, Any]) -> Any:
        _awaited_token.set(token)
        _machine_of_token[token] = _machine.get()
        try:
            return original(resource, given, token, state)
        finally:
            _awaited_token.set("")

    return wait


def call_lambda(original: Callable[..., Any]) -> Callable[..., Any]:
    """A failed function fails its task, also one that waits for a token; and the machine's role must allow the call."""

    def call(function: str, event: Any) -> Any:
        role = _machine_role.get()
        try:
            if role and not role_may(role, "lambda:InvokeFunction", function):
                raise stepfunctions._ExecutionError("Lambda.AWSLambdaException", f"{role} may not invoke {function}")
            return original(function, event)
        except stepfunctions._ExecutionError as failure:
            waiting = stepfunctions._task_tokens.get(_awaited_token.get())
            if waiting:
                waiting["error"] = {"Error": failure.error, "Cause": failure.cause}
                waiting["event"].set()
            raise

    return call


# Lambda: what it says on a queue about an invocation that failed


def route_async_failure(original: Callable[..., None]) -> Callable[..., None]:
    """The record has a version, a time and the id of the request, which ministack leaves out.

    https://docs.aws.amazon.com/lambda/latest/dg/invocation-async-retain-records.html
    """

    def route(target_arn: str, *failure: Any) -> None:
        original(target_arn, *failure)
        queue = sqs._queue_by_arn(target_arn) if ":sqs:" in target_arn else None
        if queue is None:
            return
        with sqs._queues_lock:
            message = queue["messages"][-1]
            record = json.loads(message["body"])
            if "requestContext" not in record:
                return
            record["requestContext"].setdefault("requestId", str(uuid4()))
            now = datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
            message["body"] = json.dumps({"version": "1.0", "timestamp": now, **record})
            message["md5_body"] = hashlib.md5(message["body"].encode(), usedforsecurity=False).hexdigest()

    return route


# Lambda: a layer is unpacked once, not for each worker


class Layers:
    """The layer versions that functions use, unpacked."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._unpacked: dict[str, str] = {}
        self._lock = threading.Lock()

    def path(self, layer: str | dict[str, Any]) -> str:
        """The folder of a layer version."""
        arn = layer if isinstance(layer, str) else layer["Arn"]
        with self._lock:
            if arn not in self._unpacked:
                folder = self._folder / str(len(self._unpacked))
                with zipfile.ZipFile(io.BytesIO(lambda_svc._resolve_layer_zip(layer))) as archive:
                    archive.extractall(folder)
                self._unpacked[arn] = str(folder)
            return self._unpacked[arn]


def spawn_worker(original: Callable[..., None], layers: Layers) -> Callable[..., None]:
    """Start a worker on the layers' shared folders."""

    def spawn(worker: Any) -> None:
        config = worker.config
        folders = os.pathsep.join(layers.path(layer) for layer in config.get("Layers") or [])
        variables = (config.get("Environment") or {}).get("Variables") or {}
        environment = {"Variables": {**variables, "_LAMBDA_LAYERS_DIRS": folders}}
        worker.config = {**config, "Layers": [], "Environment": environment}
        try:
            original(worker)
        finally:
            worker.config = config

    return spawn


# API Gateway: an API is found at a name that every browser knows to be this machine's, and that is known beforehand


def named_api(original: Callable[..., Any]) -> Callable[..., Any]:
    """Make an API's id of its name. On AWS it is random, and whoever wants to know it asks."""

    def provision(kind: str, logical_id: str, properties: dict[str, Any], stack: str) -> Any:
        if kind == "AWS::ApiGatewayV2::Api":
            made = hashlib.sha256(properties["Name"].encode()).hexdigest()[:8]
            properties = {**properties, "Tags": {**properties.get("Tags", {}), "ms-custom-id": made}}
        return original(kind, logical_id, properties, stack)

    return provision


def verify_rs256(token: str, key: dict[str, Any]) -> bool:
    """Whether a token is signed with a public key: RSASSA-PKCS1-v1_5 with SHA-256, by RFC 8017, section 8.2.2.

    Ministack needs the package cryptography for that, which this environment does not have.
    """
    signed, _, signature = token.rpartition(".")
    modulus, exponent = (int.from_bytes(apigateway._b64url_decode(key[name])) for name in ("n", "e"))
    length = (modulus.bit_length() + 7) // 8
    given = apigateway._b64url_decode(signature)
    if len(given) != length:
        return False
    digest = hashlib.sha256(signed.encode()).digest()
    info = bytes.fromhex("3031300d060960864801650304020105000420") + digest
    expected = b"\x00\x01" + b"\xff" * (length - len(info) - 3) + b"\x00" + info
    return pow(int.from_bytes(given), exponent, modulus).to_bytes(length) == expected


def pass_cookies_on(original: Callable[..., Any]) -> Callable[..., Any]:
    """Hand a request's cookies to a function in a list of their own, as payload format 2.0 has them, not as a header.

    https://docs.aws.amazon.com/apigateway/latest/developerguide/http-api-develop-integrations-lambda.html
    """

    def execute(function: dict[str, Any], event: dict[str, Any]) -> Any:
        is_request = isinstance(event, dict) and "http" in event.get("requestContext", {})
        cookies = event["headers"].pop("cookie", "") if is_request else ""
        return original(function, {**event, "cookies": cookies.split("; ")} if cookies else event)

    return execute


# CloudFormation: nested stacks keep the attributes of what an update leaves alone; stacks tell what becomes of them


class Attributes:
    """What Fn::GetAtt answers for each resource of a nested stack, which ministack forgets when it has not changed."""

    def __init__(self) -> None:
        self._known: dict[tuple[str, str], dict[str, Any]] = {}

    def provision(self, original: Callable[..., Any]) -> Callable[..., Any]:
        """Remember the attributes of a new resource."""

        def provision(kind: str, logical_id: str, properties: dict[str, Any], stack: str) -> Any:
            physical_id, attributes = original(kind, logical_id, properties, stack)
            self._known[stack, physical_id] = attributes
            return physical_id, attributes

        return provision

    def update(self, original: Callable[..., Any]) -> Callable[..., Any]:
        """Give an unchanged resource the attributes that it had."""

        def update(
            kind: str,
            physical_id: str,
            old: dict[str, Any],
            new: dict[str, Any],
            stack: str,
            logical_id: str | None = None,
            attributes: dict[str, Any] | None = None,
        ) -> Any:
            had = attributes or self._known.get((stack, physical_id))
            now_id, now = original(kind, physical_id, old, new, stack, logical_id, had)
            self._known[stack, now_id] = now
            return now_id, now

        return update


def stack_event(original: Callable[..., None]) -> Callable[..., None]:
    """Send "CloudFormation Stack Status Change" to EventBridge, as AWS does at each change."""

    def add(stack_id: str, stack: str, logical_id: str, kind: str, status: str, *rest: Any, **named: Any) -> None:
        original(stack_id, stack, logical_id, kind, status, *rest, **named)
        if kind == "AWS::CloudFormation::Stack" and logical_id == stack:
            detail = {"stack-id": stack_id, "status-details": {"status": status, "status-reason": ""}}
            eventbridge._dispatch_event(
                {
                    "EventId": str(uuid4()),
                    "Source": "aws.cloudformation",
                    "DetailType": "CloudFormation Stack Status Change",
                    "Detail": json.dumps(detail),
                    "EventBusName": "default",
                    "Time": time.time(),
                    "Resources": [stack_id],
                    "Account": stack_id.split(":")[4],
                    "Region": stack_id.split(":")[3],
                }
            )

    return add


# CloudWatch: metrics from logs and of queues, alarms by metric math, missing data, and time


METRICS_EVERY = 2.0  # seconds between two looks at queues and alarms; AWS publishes a queue's metrics every minute
POINTS_KEPT = 1_000  # of a queue's metric: more than half an hour, and any alarm's range

COMPARISONS: dict[str, Callable[[float, float], bool]] = {
    "GreaterThanThreshold": operator.gt,
    "GreaterThanOrEqualToThreshold": operator.ge,
    "LessThanThreshold": operator.lt,
    "LessThanOrEqualToThreshold": operator.le,
}


def lambda_logs(original: Callable[..., None]) -> Callable[..., None]:
    """Take the metrics out of what a function logs in the embedded metric format.

    https://docs.aws.amazon.com/AmazonCloudWatch/latest/monitoring/CloudWatch_Embedded_Metric_Format_Specification.html
    """

    def emit(func: dict[str, Any], request_id: str, text: str, *rest: Any, **named: Any) -> None:
        original(func, request_id, text, *rest, **named)
        for line in (text or "").splitlines():
            if line.startswith("{") and '"_aws"' in line:
                with suppress(ValueError, KeyError, TypeError):  # no metrics, as on AWS
                    record_embedded(json.loads(line))

    return emit


def record_embedded(record: dict[str, Any]) -> None:
    """Record the metrics of one log record, for each set of dimensions it names."""
    for directive in record["_aws"]["CloudWatchMetrics"]:
        for names in directive["Dimensions"]:
            dimensions = {name: str(record[name]) for name in names}
            for metric in directive["Metrics"]:
                values = record[metric["Name"]]
                for value in values if isinstance(values, list) else [values]:
                    unit = metric.get("Unit", "None")
                    cloudwatch.record_metric(directive["Namespace"], metric["Name"], value, unit, dimensions)


def measure_queues() -> None:
    """Publish what the alarms ask of each queue: how many messages can be received, and how old the oldest is."""
    now = time.time()
    for (account, region, _), queue in sqs._queues.all_items():
        messages = list(queue["messages"])
        measured = {
            "ApproximateNumberOfMessagesVisible": sum(message.get("visible_at", 0) <= now for message in messages),
            "ApproximateAgeOfOldestMessage": max((now - message["sent_at"] for message in messages), default=0.0),
        }
        with request_scope(account, region):
            for name, value in measured.items():
                cloudwatch.record_metric("AWS/SQS", name, value, "None", {"QueueName": queue["name"]})
                points = metric_points("AWS/SQS", name, {"QueueName": queue["name"]})
                del points[:-POINTS_KEPT]


def metric_points(namespace: str, name: str, dimensions: dict[str, str]) -> list[dict[str, Any]]:
    """The points of one metric, oldest first."""
    bucket: list[dict[str, Any]] = cloudwatch._metric_bucket((namespace, name, cloudwatch._dims_key(dimensions)))
    return bucket


def alarm_record(original: Callable[..., dict[str, Any]]) -> Callable[..., dict[str, Any]]:
    """An alarm on an expression is kept as one on the metric that the expression is about."""

    def record(name: str, properties: dict[str, Any]) -> dict[str, Any]:
        if not properties.get("Metrics"):
            return original(name, properties)
        returned, stated = properties["Metrics"]
        if returned.get("Expression") != f"FILL({stated['Id']}, REPEAT)":
            raise ValueError(f"{name}: of metric math, FILL(metric, REPEAT) is known here and nothing else")
        metric, stat = stated["MetricStat"]["Metric"], stated["MetricStat"]
        plain = {**properties, **metric, "Statistic": stat["Stat"], "Period": stat["Period"], "Metrics": None}
        return {**original(name, plain), "IsRepeated": True}

    return record


def evaluate_alarm(alarm: dict[str, Any]) -> None:
    """Compare the alarm's last periods with its threshold, and tell of a change, as AWS does every minute.

    Ministack takes all periods for one, whatever the dimensions, and an absence of data for no reason to look.
    """
    values = period_values(alarm)
    missing = alarm.get("TreatMissingData", "missing")
    breaching = COMPARISONS[alarm["ComparisonOperator"]]
    known = [breaching(value, alarm["Threshold"]) for value in values if value is not None]
    absent = len(values) - len(known)
    if absent and (missing == "ignore" or (missing == "missing" and not known)):
        return
    count = sum(known) + absent * (missing == "breaching")
    state = "ALARM" if count >= alarm.get("DatapointsToAlarm", len(values)) else "OK"
    before = alarm["StateValue"]
    if state == before:
        return
    shown = ", ".join("-" if value is None else f"{value:g}" for value in values)
    reason = f"Threshold Crossed: [{shown}] {alarm['ComparisonOperator']} {alarm['Threshold']:g} is {state == 'ALARM'}"
    alarm.update(StateValue=state, StateReason=reason, StateUpdatedTimestamp=int(time.time()))
    cloudwatch._record_history(alarm["AlarmName"], before, state, reason)
    cloudwatch._dispatch_alarm_actions(alarm, before, state, reason)


def period_values(alarm: dict[str, Any]) -> list[float | None]:
    """The metric's statistic in each of the alarm's periods, oldest first; the last one ends now."""
    dimensions = {each["Name"]: each["Value"] for each in alarm["Dimensions"]}
    points = list(metric_points(alarm["Namespace"], alarm["MetricName"], dimensions))
    periods, length, now = alarm["EvaluationPeriods"], alarm["Period"], time.time()
    values: list[float | None] = []
    for start in (now - length * number for number in range(periods, 0, -1)):
        inside = [point for point in points if start < point["Timestamp"] <= start + length]
        value = cloudwatch._calc_stats(inside).get(alarm["Statistic"]) if inside else None
        if value is None and alarm.get("IsRepeated"):
            earlier = [point["Value"] for point in points if point["Timestamp"] <= start]
            value = values[-1] if values and values[-1] is not None else earlier[-1] if earlier else None
        values.append(value)
    return values


def evaluate_alarms() -> None:
    """Look at every alarm of every account."""
    for (account, region, name), alarm in cloudwatch._alarms.all_items():
        with request_scope(account, region):
            try:
                evaluate_alarm(alarm)
            except Exception:
                cloudwatch.logger.exception("alarm %s", name)


def watch_metrics() -> None:
    """Measure and compare, for ever."""
    while True:
        time.sleep(METRICS_EVERY)
        measure_queues()
        evaluate_alarms()


# IAM: a schedule's group is part of its ARN


def resource_arn(original: Callable[..., str]) -> Callable[..., str]:
    """The resource of a request: a task token is its machine's; a schedule's ARN names its group; an email is from
    somebody whom SES knows as an identity.

    Ministack takes tokens and emails to be nobody's, every group to be the default one, and the default bus to be part
    of a rule's ARN.
    """

    def resolve(
        service: str,
        method: str,
        path: str,
        headers: dict[str, str],
        body: bytes,
        query: dict[str, Any],
        region: str,
        account: str,
    ) -> str:
        arn = original(service, method, path, headers, body, query, region, account)
        if service == "states" and arn == "*" and b"taskToken" in body:
            machines = iter(stepfunctions._state_machines)
            return _machine_of_token.get(json.loads(body)["taskToken"]) or next(machines, arn)
        if service == "ses" and path.endswith("/outbound-emails"):
            return f"arn:aws:ses:{region}:{account}:identity/{json.loads(body).get('FromEmailAddress', '')}"
        if service == "events":
            return arn.replace(":rule/default/", ":rule/")
        if service == "sqs" and arn == "*" and b"SourceArn" in body:  # of message move tasks
            return str(json.loads(body)["SourceArn"])
        if service != "scheduler" or ":schedule/default/" not in arn:
            return arn
        asked = query.get("groupName") or "default"
        group = asked[0] if isinstance(asked, list) else asked
        if method in ("POST", "PUT"):
            group = json.loads(body).get("GroupName", "default")
        return arn.replace(":schedule/default/", f":schedule/{group}/")

    return resolve


# IAM: there are no permissions for batches; AWS asks for that of the single call


SINGLE_CALLS = {
    "sqs:SendMessageBatch": "sqs:SendMessage",
    "sqs:DeleteMessageBatch": "sqs:DeleteMessage",
    "sqs:ChangeMessageVisibilityBatch": "sqs:ChangeMessageVisibility",
    "sns:PublishBatch": "sns:Publish",
}


def iam_action(original: Callable[..., str | None]) -> Callable[..., str | None]:
    """The permission that a request needs."""

    def resolve(*request: Any) -> str | None:
        action = original(*request)
        return SINGLE_CALLS.get(action, action) if action else action

    return resolve


# IAM: the loopback counts as secure transport, since the emulator speaks plain HTTP on it


def condition_value(original: Callable[..., Any]) -> Callable[..., Any]:
    """Answer aws:SecureTransport with true, so that TLS-only policies can be kept in the template."""

    def resolve(key: str, context: Any) -> Any:
        return "true" if key.lower() == "aws:securetransport" else original(key, context)

    return resolve


def main() -> None:
    """Serve until told to stop."""
    scheduler._SCHEDULE_TICK_INTERVAL = eventbridge._SCHEDULER_TICK_INTERVAL = TICK
    scheduler._tick_schedules = fire_due_schedules
    sqs._receive_messages_for_esm = receive_batch
    sqs._HANDLERS["StartMessageMoveTask"] = start_message_move_task
    sqs._HANDLERS["ListMessageMoveTasks"] = list_message_move_tasks
    stepfunctions._execute_task = execute_task(stepfunctions._execute_task)
    stepfunctions._invoke_with_callback = await_callback(stepfunctions._invoke_with_callback)
    stepfunctions._call_lambda = call_lambda(stepfunctions._call_lambda)
    iam_evaluator._resolve_condition_key = condition_value(iam_evaluator._resolve_condition_key)
    iam_actions.extract_resource_arn = resource_arn(iam_actions.extract_resource_arn)
    iam_actions.extract_iam_action = iam_action(iam_actions.extract_iam_action)
    apigateway._verify_rs256_signature = verify_rs256
    lambda_svc._execute_function_with_config_scope = pass_cookies_on(lambda_svc._execute_function_with_config_scope)
    app._EXECUTE_API_RE = re.compile(r"^([a-f0-9]{8})\.execute-api\.(?:localhost|127\.0\.0\.1)(?::\d+)?$")
    attributes = Attributes()
    provisioners._provision_resource = named_api(attributes.provision(provisioners._provision_resource))
    provisioners._update_resource = attributes.update(provisioners._update_resource)
    stacks._add_event = stack_event(stacks._add_event)
    lambda_svc._route_async_failure = route_async_failure(lambda_svc._route_async_failure)
    lambda_svc._emit_lambda_logs = lambda_logs(lambda_svc._emit_lambda_logs)
    provisioners._cw_metric_alarm_record = alarm_record(provisioners._cw_metric_alarm_record)
    cloudwatch._evaluate_alarm = evaluate_alarm
    app._HEALTH_PATHS = ("/_ministack/health",)  # `/health` of an HTTP API is its own
    threading.Thread(target=watch_metrics, daemon=True, name="metrics").start()
    layers = Layers(Path(tempfile.mkdtemp(prefix="layers-")))
    lambda_runtime.Worker._spawn = spawn_worker(lambda_runtime.Worker._spawn, layers)
    app.main()


if __name__ == "__main__":
    main()
