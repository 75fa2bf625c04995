"""What a run has written to its function's log, from CloudWatch Logs."""

import json
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any, Final

from schoolbell import aws
from schoolbell.operations.models import LogRecord, RunInfo
from schoolbell.settings import Settings

MARGIN: Final = timedelta(minutes=1)
"""How far around a run's own times its records are looked for: the clocks of database and log are not the same."""

_LEFT_OUT: Final = {"level", "message", "timestamp", "service", "location", "run_id", "xray_trace_id"}


def logs_of(run: RunInfo, settings: Settings, limit: int) -> list[LogRecord]:
    """The records of a run, oldest first; none where the log group is gone."""
    request = {
        "logGroupName": f"/aws/lambda/{settings.resource_name(run.job)}",
        "filterPattern": f'"{run.id}"',
        "startTime": _millis(run.started_at - MARGIN),
    }
    if run.finished_at:
        request["endTime"] = _millis(run.finished_at + MARGIN)
    pages = aws.client("logs").get_paginator("filter_log_events").paginate(**request)
    try:
        found = [_record(event) for page in pages for event in page["events"]][:limit]
    except Exception as error:
        if aws.error_code(error) != "ResourceNotFoundException":
            raise
        return []
    return sorted(found, key=lambda record: record.at)


def _millis(moment: datetime) -> int:
    return int(moment.timestamp() * 1000)


def _record(event: Mapping[str, Any]) -> LogRecord:
    """A record of a function's log: JSON as the jobs write it, or a text of Lambda's own."""
    at = datetime.fromtimestamp(event["timestamp"] / 1000, UTC)
    try:
        content = json.loads(event["message"])
    except ValueError:
        content = None
    if not isinstance(content, dict):
        return LogRecord(at, "", str(event["message"]).strip(), {})
    fields = {name: value for name, value in content.items() if name not in _LEFT_OUT}
    return LogRecord(at, str(content.get("level", "")), str(content.get("message", "")), fields)
