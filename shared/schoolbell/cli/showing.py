"""How the command line shows things: tables for people, JSON for programs."""

import json
import os
import sys
from collections.abc import Callable, Iterable, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

from pydantic_core import to_jsonable_python
from rich import box
from rich.console import Console
from rich.markup import escape
from rich.table import Table
from rich.text import Text

from schoolbell.operations import (
    Change,
    DeadLetterInfo,
    Health,
    JobInfo,
    LogRecord,
    QueueDepth,
    RunInfo,
)
from schoolbell.operations.trigger_records import CANCELLED

STATES = {
    "completed": "[green]✓ completed[/]",
    "running": "[cyan]… running[/]",
    "waiting": "[cyan]… waiting[/]",
    "sent": "[green]✓ sent[/]",
    "failed": "[red]✗ failed[/]",
    "timed_out": "[red]✗ timed out[/]",
    "cancelled": "[yellow]- cancelled[/]",
}

PIPED_WIDTH = 200
"""Columns, where there is no terminal to tell: wide enough that lines stay lines for `grep`."""

GAP = 3  # between two columns
SHORTEST_DESCRIPTION = 30
UNBROKEN = ("job", "run", "dead letter", "queue", "status", "started (UTC)", "died (UTC)", "took")


def _console() -> Console:
    is_told = sys.stdout.isatty() or "COLUMNS" in os.environ
    return Console(highlight=False, width=None if is_told else PIPED_WIDTH)


console = _console()


def as_json(content: Any) -> None:
    """Prints one JSON document. Times are ISO 8601, durations are seconds."""
    print(json.dumps(to_jsonable_python(content, timedelta_mode="float"), indent=2))  # noqa: T201 - for programs


def say(change: Change) -> None:
    """Says what was changed, or that nothing was to be."""
    mark = "[green]✓[/]" if change.is_changed else "[yellow]-[/]"
    console.print(f"{mark} {escape(change.message)}", soft_wrap=True)


def table(columns: Sequence[str], rows: Iterable[Sequence[str]], empty: str) -> None:
    """Prints a table, or a line when there is nothing in it."""
    listed = list(rows)
    if not listed:
        console.print(empty)
        return
    drawn = Table(*columns, box=box.SIMPLE_HEAD, pad_edge=False, header_style="bold")
    for column in drawn.columns:  # names and ids are there to be copied
        column.no_wrap = column.header in UNBROKEN
    for row in listed:
        drawn.add_row(*row)
    console.print(drawn)


def pairs(rows: Iterable[tuple[str, str]]) -> None:
    """Prints names and values."""
    drawn = Table(box=None, show_header=False, padding=(0, 2, 0, 0))
    for name, value in rows:
        drawn.add_row(f"[bold]{name}[/]", value)
    console.print(drawn)


def jobs(found: Sequence[JobInfo], now: datetime) -> None:
    """The catalogue, a line a job; what a job does is left out where there is no room to say it."""
    rows = [(escape(job.name), rung_by(job), next_run(job, now)) for job in found]
    taken = sum(
        max((Text.from_markup(cell).cell_len for cell in column), default=0) for column in zip(*rows, strict=True)
    )
    room = console.width - taken - 4 * GAP
    if room < SHORTEST_DESCRIPTION:
        table(("job", "rung by", "next run (UTC)"), rows, "There is no such job.")
        return
    described = ((*row, escape(_cut(job.description, room))) for row, job in zip(rows, found, strict=True))
    table(("job", "rung by", "next run (UTC)", "what it does"), described, "There is no such job.")


def _cut(text: str, room: int) -> str:
    return text if len(text) <= room else f"{text[: room - 1].rstrip()}…"


def job(found: JobInfo, now: datetime, queues: Sequence[QueueDepth], runs: Sequence[RunInfo]) -> None:
    """One job with its next times, its queues and its latest runs."""
    console.print(f"[bold]{escape(found.name)}[/]  {escape(found.description)}\n", soft_wrap=True)
    rows = [("rung by", rung_by(found))]
    if found.schedule:
        schedule = found.schedule
        rows += [
            ("expression", escape(f"{schedule.expression}, {found.zone_in_words or schedule.timezone}")),
            (
                "by",
                f"an EventBridge rule, {schedule.name}" if schedule.kind == "rule" else f"Scheduler, {schedule.name}",
            ),
            ("next run", next_run(found, now)),
        ]
    rows += [
        ("dry run", "yes" if found.has_dry_run else "no"),
        ("critical", "yes" if found.is_critical else "no"),
        ("may take", duration(found.timeout)),
    ]
    pairs(rows)
    if queues:
        console.print()
        show_queues(queues)
    console.print()
    show_runs(runs, found.name)


def rung_by(found: JobInfo) -> str:
    """What rings a job, in words."""
    if found.trigger == "called":
        return "those who call it"
    if found.queues:
        return "queue" if len(found.queues) == 1 else f"{len(found.queues)} queues"
    if found.schedule is None:
        return "[yellow]nothing: its schedule was deleted[/]"
    return escape(found.words)


def next_run(found: JobInfo, now: datetime) -> str:
    """When a job's schedule goes off next."""
    if found.schedule is None:
        return ""
    if not found.schedule.enabled:
        return "[yellow]paused[/]"
    at = found.schedule.next_run
    return f"{moment(at)} ({ahead(at - now)})" if at else "not known yet"


def show_runs(found: Sequence[RunInfo], job: str | None = None) -> None:
    """Runs, the latest first: of a job, or of all."""
    columns: dict[str, Callable[[RunInfo], str]] = {
        "run": lambda run: str(run.id),
        "job": lambda run: escape(run.job),
        "started (UTC)": lambda run: moment(run.started_at),
        "took": lambda run: duration(run.duration),
        "status": lambda run: status_of(run) + (" [dim](dry)[/]" if run.dry_run else ""),
        "items": items,
        "by": lambda run: run.trigger,
        "error": lambda run: escape(run.error or ""),
    }
    if job:
        del columns["job"]
    for name, value in (("items", items), ("error", columns["error"])):
        if not any(value(run) for run in found):
            del columns[name]
    rows = ([cell(run) for cell in columns.values()] for run in found)
    table(tuple(columns), rows, "There are no runs.")


def run(found: RunInfo) -> None:
    """One run, with what it did and what went wrong."""
    rows = [
        ("run", str(found.id)),
        ("job", escape(found.job)),
        ("status", status_of(found)),
        ("rung by", found.trigger + (", dry run" if found.dry_run else "")),
        ("scheduled for", moment(found.scheduled_for)),
        ("started", moment(found.started_at)),
        ("finished", moment(found.finished_at)),
        ("took", duration(found.duration)),
        ("attempt", str(found.attempt)),
        ("items", items(found)),
        ("data", escape(json.dumps(found.data)) if found.data else ""),
        ("result", escape(json.dumps(found.result)) if found.result else ""),
        ("error", f"[red]{escape(found.error)}[/]" if found.error else ""),
        ("request", found.request_id or ""),
    ]
    pairs(row for row in rows if row[1])
    if found.traceback:
        console.print(f"\n[dim]{escape(found.traceback)}[/]", soft_wrap=True)


def logs(found: Sequence[LogRecord]) -> None:
    """A run's log."""
    colours = {"ERROR": "red", "WARNING": "yellow"}
    for record in found:
        fields = " ".join(f"{name}={json.dumps(value)}" for name, value in record.fields.items())
        colour = colours.get(record.level, "default")
        text = f"{record.at:%H:%M:%S.%f}"[:-3] + f" [{colour}]{record.level:<7}[/] {escape(record.message)}"
        console.print(f"{text} [dim]{escape(fields)}[/]", soft_wrap=True)
    if not found:
        console.print("The run has written nothing, or its log is gone.")


def show_queues(found: Sequence[QueueDepth]) -> None:
    """Queues with what they hold."""
    table(
        ("queue", "waiting", "delayed", "in flight", "dead"),
        (
            (
                escape(queue.name),
                f"{queue.waiting:,}",
                f"{queue.delayed:,}",
                f"{queue.in_flight:,}",
                f"[red]{queue.dead:,}[/]" if queue.dead else "0",
            )
            for queue in found
        ),
        "It has no queue.",
    )


def dead_letters(found: Sequence[DeadLetterInfo], job: str | None = None) -> None:
    """Dead letters, the latest first: of a job, or of all."""
    columns: dict[str, Callable[[DeadLetterInfo], str]] = {
        "dead letter": lambda letter: str(letter.id),
        "job": lambda letter: escape(letter.job),
        "died (UTC)": lambda letter: moment(letter.dead_at),
        "reason": lambda letter: letter.reason.replace("_", " "),
        "error": lambda letter: escape(letter.error or ""),
        "resolved": lambda letter: (
            f"{letter.resolution} by {escape(letter.resolved_by or '')}" if letter.resolution else ""
        ),
    }
    if job:
        del columns["job"]
    if not any(letter.resolution for letter in found):
        del columns["resolved"]
    rows = ([cell(letter) for cell in columns.values()] for letter in found)
    table(tuple(columns), rows, "There are no dead letters.")


def dead_letter(found: DeadLetterInfo) -> None:
    """One dead letter, with its message."""
    rows = [
        ("dead letter", str(found.id)),
        ("job", escape(found.job)),
        ("queue", escape(found.queue)),
        ("message", escape(found.message_id)),
        ("died", moment(found.dead_at)),
        ("reason", found.reason.replace("_", " ")),
        ("tries", str(found.attempts)),
        ("error", f"[red]{escape(found.error)}[/]" if found.error else ""),
        (
            "resolved",
            f"{found.resolution} by {found.resolved_by}, {moment(found.resolved_at)}" if found.resolution else "",
        ),
        ("payload", escape(found.payload or "")),
    ]
    pairs(row for row in rows if row[1])
    if found.traceback:
        console.print(f"\n[dim]{escape(found.traceback)}[/]", soft_wrap=True)


def health(found: Health) -> None:
    """Whether the stack does its work."""
    mark = "[green]✓ healthy[/]" if found.is_healthy else "[red]✗ not healthy[/]"
    console.print(f"{mark}: {found.jobs} jobs, {found.queue_size:,} messages, {found.dead_letters:,} dead letters")
    for problem in found.problems:
        console.print(f"  [red]{escape(problem)}[/]", soft_wrap=True)
    for name in found.paused:
        console.print(f"  [yellow]{escape(name)} is paused[/]")


def times(found: Sequence[datetime], zone: str) -> None:
    """When a schedule goes off next, by the clock of its zone and in UTC."""
    from zoneinfo import ZoneInfo

    for at in found:
        console.print(f"  {at.astimezone(ZoneInfo(zone)):%a %d %b %Y %H:%M} {zone}  [dim]{moment(at)} UTC[/]")


def status_of(run: RunInfo) -> str:
    """How a run ended; one that was cancelled is a completed run that had nothing to do."""
    return STATES["cancelled" if run.error == CANCELLED else run.status]


def items(run: RunInfo) -> str:
    """How many items a run has done, of how many if that is known."""
    total = f" of {run.items_total:,}" if run.items_total is not None else ""
    failed = f", [red]{run.items_failed:,} failed[/]" if run.items_failed else ""
    return f"{run.items_done:,}{total}{failed}" if run.items_done or total or failed else ""


def moment(at: datetime | None) -> str:
    """A time in UTC, to the second."""
    return f"{at.astimezone(UTC):%Y-%m-%d %H:%M:%S}" if at else ""


def duration(took: timedelta | None) -> str:
    """How long something took."""
    if took is None:
        return ""
    seconds = took.total_seconds()
    if seconds < 60:
        return f"{seconds:.1f} s" if seconds % 1 else f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 3600 else f"{seconds / 3600:.1f} h"


def ahead(wait: timedelta) -> str:
    """How far ahead something is."""
    seconds = max(0.0, wait.total_seconds())
    for size, unit in ((86_400, "d"), (3_600, "h"), (60, "min")):
        if seconds >= size:
            return f"in {seconds / size:.0f} {unit}"
    return f"in {seconds:.0f} s"
