"""CloudWatch: metrics from logs and of queues; alarms by metric math, missing data and time."""

import json
import operator
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Any

from ministack.core.responses import request_scope
from ministack.services import cloudwatch, lambda_svc, sqs
from ministack.services.cloudformation import provisioners

METRICS_EVERY = 2.0  # seconds between two looks at queues and alarms; AWS publishes a queue's metrics every minute
POINTS_KEPT = 1_000  # of a queue's metric: more than half an hour, and any alarm's range

COMPARISONS: dict[str, Callable[[float, float], bool]] = {
    "GreaterThanThreshold": operator.gt,
    "GreaterThanOrEqualToThreshold": operator.ge,
    "LessThanThreshold": operator.lt,
    "LessThanOrEqualToThreshold": operator.le,
}


# Metrics


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


# Alarms


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


def install() -> None:
    """Have metrics be recorded, and alarms go off by them; from now on in a thread."""
    lambda_svc._emit_lambda_logs = lambda_logs(lambda_svc._emit_lambda_logs)
    provisioners._cw_metric_alarm_record = alarm_record(provisioners._cw_metric_alarm_record)
    cloudwatch._evaluate_alarm = evaluate_alarm
    threading.Thread(target=watch_metrics, daemon=True, name="metrics").start()
