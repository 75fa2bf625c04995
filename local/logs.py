"""The functions' logs, from the emulator's CloudWatch, for reading."""

import json
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any, Final

from rich.text import Text

from local.emulator.process import client
from local.progress import CONSOLE

NOISE: Final = ("START RequestId", "END RequestId", "REPORT RequestId", "INIT_START")
COLOURS: Final = {"ERROR": "red", "CRITICAL": "red", "WARNING": "yellow", "DEBUG": "dim"}
SHOWN: Final = ("timestamp", "level", "message", "service", "location", "xray_trace_id", "function_name")
PAUSE: Final = 1.0  # seconds between two looks at the logs


def show_logs(stack: str, port: int, function: str, *, follow: bool) -> None:
    """Print the records of all functions, or of those whose name contains `function`; go on with new ones to follow."""
    seen: set[tuple[str, ...]] = set()  # the emulator's records have no ids
    while True:
        for group, event in records(stack, port, function):
            identity = (group, event["logStreamName"], str(event["timestamp"]), event["message"])
            if identity not in seen:
                seen.add(identity)
                CONSOLE.print(line(group.removeprefix(f"/aws/lambda/{stack}-"), event), soft_wrap=True)
        if not follow:
            return
        time.sleep(PAUSE)


def records(stack: str, port: int, function: str) -> Iterator[tuple[str, dict[str, Any]]]:
    """What was logged, in the order of time."""
    logs = client("logs", port)
    found = []
    for page in logs.get_paginator("describe_log_groups").paginate(logGroupNamePrefix=f"/aws/lambda/{stack}-"):
        for group in page["logGroups"]:
            if function in group["logGroupName"]:
                for events in logs.get_paginator("filter_log_events").paginate(logGroupName=group["logGroupName"]):
                    found += [(group["logGroupName"], event) for event in events["events"]]
    yield from sorted(found, key=lambda record: record[1]["timestamp"])


def line(function: str, event: dict[str, Any]) -> Text:
    """One record as one line: time, function, message, and whatever else the record says."""
    message, level, rest = event["message"].rstrip(), "", ""
    if message.startswith(NOISE):
        level = "DEBUG"
    elif message.startswith("{"):
        try:
            record = json.loads(message)
        except ValueError:
            record = {"message": message}
        level, message = record.get("level", ""), str(record.get("message", ""))
        rest = " ".join(f"{name}={value}" for name, value in record.items() if name not in SHOWN)
    moment = datetime.fromtimestamp(event["timestamp"] / 1000, UTC).strftime("%H:%M:%S.%f")[:-3]
    return Text.assemble(
        (f"{moment} ", "dim"), (f"{function:<28} ", "cyan"), (message, COLOURS.get(level, "")), (f" {rest}", "dim")
    )
