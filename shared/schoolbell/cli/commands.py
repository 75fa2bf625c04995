"""The commands of `schoolbell`. Each does what the job client does, and says it to a person or a program."""

import json
import re
import sys
from collections.abc import Sequence
from datetime import datetime, timedelta
from pathlib import Path
from typing import Annotated, Any, Literal
from uuid import UUID

import typer
from rich.progress import BarColumn, MofNCompleteColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

from schoolbell.cli import showing
from schoolbell.cli.connecting import Exit, connected
from schoolbell.operations import Change, JobClient, Outcome, Refused, RunHandle
from schoolbell.operations.expressions import parse

HELP = """
The jobs of a Schoolbell stack: see them, run them, pause them, change when they run, put right what failed.

It works on the stack SCHOOLBELL_STACK with the database at DATABASE_URL (or in the secret DATABASE_SECRET_ID) and the
AWS credentials of the environment. For the stack on this machine: `. .local/env`.

Exit codes: 0 done, or nothing was to be done; 1 the run failed, or the stack is not healthy; 2 wrong usage;
3 no such job, run or dead letter; 4 refused, with the reason; 5 AWS or the database does not answer;
124 `--wait` was longer than `--timeout`.
"""

_DURATION = re.compile(r"(?:(\d+)d)?(?:(\d+)h)?(?:(\d+)m)?(?:(\d+)s)?")

app = typer.Typer(
    name="schoolbell",
    help=HELP,
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode="markdown",
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)

Json = Annotated[bool, typer.Option("--json", help="Print one JSON document, for programs.")]
Job = Annotated[str, typer.Argument(help="A job, e.g. `tutoring.drive-sync`.", show_default=False)]
AnyJob = Annotated[str | None, typer.Argument(help="A job; all of them if left out.", show_default=False)]
Run = Annotated[UUID, typer.Argument(help="A run's id, as `schoolbell runs` shows it.", show_default=False)]
JobOrLetter = Annotated[
    str, typer.Argument(help="A job, for all its dead letters, or the id of one.", show_default=False)
]
Yes = Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")]


@app.command()
def jobs(
    trigger: Annotated[
        Literal["schedule", "queue", "called"] | None, typer.Option(help="Only those that are rung so.")
    ] = None,
    paused: Annotated[bool, typer.Option("--paused", help="Only those that are paused.")] = False,
    as_json: Json = False,
) -> None:
    """List the jobs, what rings them and when they run next.

    Example: `schoolbell jobs --trigger schedule`
    """
    with connected(as_json=as_json) as client:
        found = [
            job
            for job in client.jobs()
            if (trigger is None or job.trigger == trigger)
            and (not paused or (job.schedule is not None and not job.schedule.enabled))
        ]
        showing.as_json(found) if as_json else showing.jobs(found, client.clock())


@app.command()
def show(job: Job, as_json: Json = False) -> None:
    """Show one job: its schedule, its queues and its latest runs.

    Example: `schoolbell show tutoring.drive-sync`
    """
    with connected(as_json=as_json) as client:
        found, queues, runs = client.job(job), client.queues(job), client.runs(job, limit=5)
        if as_json:
            showing.as_json({"job": found, "queues": queues, "runs": runs})
        else:
            showing.job(found, client.clock(), queues, runs)


@app.command()
def trigger(
    job: Annotated[
        str,
        typer.Argument(help="A job, or a queue of it where it has several.", show_default=False),
    ],
    data: Annotated[str | None, typer.Option(help="What it is given: a JSON object.")] = None,
    data_file: Annotated[
        Path | None, typer.Option(help="A file with that; `-` is what is piped in.", allow_dash=True)
    ] = None,
    delay: Annotated[str | None, typer.Option(help="How much later: `90s`, `10m`, `2h`, `1d`, `1h30m`.")] = None,
    at: Annotated[str | None, typer.Option(help="When: `2026-03-02T08:00:00+01:00`.")] = None,
    key: Annotated[
        str | None, typer.Option(help="Names it: asked for twice it runs once, and it can be cancelled.")
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what would be done, and do nothing.")] = False,
    wait: Annotated[bool, typer.Option("--wait", help="Wait until it is over.")] = False,
    timeout: Annotated[str, typer.Option(help="How long to wait at most.")] = "15m",
    as_json: Json = False,
) -> None:
    """Run a job once: now, after a delay, or at a time.

    Examples: `schoolbell trigger tutoring.drive-sync --wait`,
    `schoolbell trigger tutoring.data-retention --dry-run --wait`,
    `schoolbell trigger tutoring.auto-complete --data '{"session_id": "…"}' --delay 2h --key lesson-7`
    """
    with connected(as_json=as_json) as client:
        handle = client.trigger(
            job,
            _data(data, data_file),
            delay=_duration(delay, "--delay") if delay else None,
            at=_moment(at) if at else None,
            key=key,
            dry_run=dry_run,
        )
        if not wait:
            showing.as_json(handle) if as_json else _say_triggered(handle)
            return
        if not as_json:
            _say_triggered(handle)
        outcome = _wait(client, handle, _duration(timeout, "--timeout"), is_silent=as_json)
        if as_json:
            showing.as_json({"handle": handle, "outcome": outcome})
        else:
            _say_outcome(outcome)
    sys.exit(_exit_code(outcome))


@app.command()
def cancel(
    key: Annotated[str, typer.Argument(help="The key, or the id that `trigger` answered.", show_default=False)],
    as_json: Json = False,
) -> None:
    """Cancel what was triggered and has not begun. The exit code is 4 when it is too late.

    Example: `schoolbell cancel lesson-7`
    """
    with connected(as_json=as_json) as client:
        answer = client.cancel(key)
        if as_json:
            showing.as_json(answer)
        else:
            showing.say(Change(is_changed=answer.is_cancelled, message=answer.message))
    sys.exit(Exit.DONE if answer.is_cancelled else Exit.REFUSED)


@app.command()
def pause(job: Job, as_json: Json = False) -> None:
    """Stop a job's schedule from ringing. It can still be triggered.

    Example: `schoolbell pause tutoring.metric-alerts`
    """
    with connected(as_json=as_json) as client:
        _answer(client.pause(job), as_json=as_json)


@app.command()
def resume(job: Job, as_json: Json = False) -> None:
    """Let a job's schedule ring again.

    Example: `schoolbell resume tutoring.metric-alerts`
    """
    with connected(as_json=as_json) as client:
        _answer(client.resume(job), as_json=as_json)


@app.command()
def reschedule(
    job: Job,
    expression: Annotated[str, typer.Argument(help="`rate(...)` or `cron(...)`, as AWS has it.", show_default=False)],
    timezone: Annotated[str | None, typer.Option(help="An IANA time zone; as it was if left out.")] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Show the next times, and change nothing.")] = False,
    as_json: Json = False,
) -> None:
    """Change when a job runs. The next five times are shown.

    Examples: `schoolbell reschedule tutoring.drive-sync 'cron(30 4 * * ? *)' --timezone Europe/Berlin`,
    `schoolbell reschedule tutoring.session-sweep 'rate(30 minutes)'`
    """
    with connected(as_json=as_json) as client:
        found = client.job(job)
        schedule = found.schedule
        zone = timezone or (schedule.timezone if schedule else "UTC")
        kind = schedule.kind if schedule else "scheduler"
        change = (
            Change(
                is_changed=False,
                message=f"{job} would run: {parse(expression, zone, kind).in_words(found.zone_in_words)}",
            )
            if dry_run
            else client.reschedule(job, expression, timezone)
        )
        following = client.next_occurrences(expression, zone)
        if as_json:
            showing.as_json({"change": change, "next": following})
        else:
            showing.say(change)
            showing.times(following, zone)


@app.command()
def unschedule(job: Job, yes: Yes = False, as_json: Json = False) -> None:
    """Delete a job's schedule. To stop it for a while, pause it.

    Example: `schoolbell unschedule tutoring.drive-sync --yes`
    """
    with connected(as_json=as_json) as client:
        _confirm(f"Delete the schedule of {client.job(job).name}?", yes=yes, as_json=as_json)
        _answer(client.unschedule(job), as_json=as_json)


@app.command()
def runs(
    job: AnyJob = None,
    status: Annotated[
        Literal["running", "completed", "failed", "timed_out"] | None, typer.Option(help="Only those.")
    ] = None,
    limit: Annotated[int, typer.Option("--limit", "-n", min=1, max=1000, help="How many at most.")] = 20,
    as_json: Json = False,
) -> None:
    """List runs, the latest first.

    Example: `schoolbell runs tutoring.drive-sync --status failed`
    """
    with connected(as_json=as_json) as client:
        found = client.runs(job, status=status, limit=limit)
        showing.as_json(found) if as_json else showing.show_runs(found, job)


@app.command()
def run(run_id: Run, as_json: Json = False) -> None:
    """Show one run: what it did, and why it failed.

    Example: `schoolbell run 6f1c0a52-…`
    """
    with connected(as_json=as_json) as client:
        found = client.run(run_id)
        showing.as_json(found) if as_json else showing.run(found)


@app.command()
def logs(run_id: Run, as_json: Json = False) -> None:
    """Show what a run has written to its log.

    Example: `schoolbell logs 6f1c0a52-…`
    """
    with connected(as_json=as_json) as client:
        found = client.logs(run_id)
        showing.as_json(found) if as_json else showing.logs(found)


@app.command()
def queue(job: AnyJob = None, as_json: Json = False) -> None:
    """Show how many messages wait, are delayed, in flight and dead.

    Example: `schoolbell queue tutoring.auto-complete`
    """
    with connected(as_json=as_json) as client:
        found = client.queues(job)
        showing.as_json(found) if as_json else showing.show_queues(found)


@app.command("dead-letters")
def dead_letters(
    what: Annotated[
        str | None,
        typer.Argument(metavar="[JOB|ID]", help="A job, or the id of one to see in full.", show_default=False),
    ] = None,
    resolved: Annotated[bool, typer.Option("--resolved", help="Also those that were redriven or dropped.")] = False,
    limit: Annotated[int, typer.Option("--limit", "-n", min=1, max=1000, help="How many at most.")] = 100,
    as_json: Json = False,
) -> None:
    """List dead letters, or show one with its message.

    Examples: `schoolbell dead-letters`, `schoolbell dead-letters tutoring.auto-complete`
    """
    with connected(as_json=as_json) as client:
        asked = _job_or_letter(what) if what else None
        if isinstance(asked, UUID):
            letter = client.dead_letter(asked)
            showing.as_json(letter) if as_json else showing.dead_letter(letter)
            return
        found = client.dead_letters(asked, resolved=resolved, limit=limit)
        showing.as_json(found) if as_json else showing.dead_letters(found, asked)


@app.command()
def redrive(what: JobOrLetter, as_json: Json = False) -> None:
    """Send dead letters again: all of a job, or one. Asked for twice they are sent once.

    Examples: `schoolbell redrive tutoring.auto-complete`, `schoolbell redrive 6f1c0a52-…`
    """
    with connected(as_json=as_json) as client:
        _answer(client.redrive(_job_or_letter(what)), as_json=as_json)


@app.command()
def drop(what: JobOrLetter, yes: Yes = False, as_json: Json = False) -> None:
    """Give dead letters up: all of a job, or one. The records stay, the messages go.

    Example: `schoolbell drop tutoring.auto-complete --yes`
    """
    with connected(as_json=as_json) as client:
        asked = _job_or_letter(what)
        target = "this dead letter" if isinstance(asked, UUID) else f"all dead letters of {asked}"
        _confirm(f"Drop {target}?", yes=yes, as_json=as_json)
        _answer(client.drop(asked), as_json=as_json)


@app.command()
def health(as_json: Json = False) -> None:
    """Say whether database and AWS answer, nothing piles up, and nothing is dead.

    Example: `schoolbell health || echo "somebody should look"`
    """
    with connected(as_json=as_json) as client:
        found = client.health()
        showing.as_json(found) if as_json else showing.health(found)
    sys.exit(Exit.DONE if found.is_healthy else Exit.FAILED)


def main(arguments: Sequence[str] | None = None) -> None:
    """The script `schoolbell`."""
    app(args=list(arguments) if arguments is not None else None)


def _answer(change: Change, *, as_json: bool) -> None:
    showing.as_json(change) if as_json else showing.say(change)


def _confirm(question: str, *, yes: bool, as_json: bool) -> None:
    if yes:
        return
    if as_json or not sys.stdin.isatty():
        raise Refused("nobody is there to be asked; add --yes if that is meant")
    if not typer.confirm(question):
        raise Refused("nothing was changed")


def _say_triggered(handle: RunHandle) -> None:
    if not handle.is_new:
        showing.console.print(f"[yellow]-[/] {handle.job} was triggered with this key already; its run is {handle.id}")
    elif handle.due_at:
        showing.console.print(f"[green]✓[/] {handle.job} runs at {showing.moment(handle.due_at)} UTC, as {handle.id}")
        showing.console.print(f"  to cancel it: schoolbell cancel '{handle.key}'", soft_wrap=True)
    else:
        showing.console.print(f"[green]✓[/] {handle.job} is triggered, as {handle.id}", soft_wrap=True)


def _wait(client: JobClient, handle: RunHandle, timeout: timedelta, *, is_silent: bool) -> Outcome:
    """Waits until it is over or the time is up, with a bar that says how far it is."""
    outcome = Outcome("waiting")
    columns = (
        SpinnerColumn(),
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
    )
    with Progress(*columns, console=showing.console, transient=True, disable=is_silent) as progress:
        task = progress.add_task("waiting", total=None)
        for outcome in client.watch(handle, timeout):
            done, total = (outcome.run.items_done, outcome.run.items_total) if outcome.run else (0, None)
            progress.update(task, description=outcome.state, completed=done, total=total)
    return outcome


def _say_outcome(outcome: Outcome) -> None:
    if outcome.run:
        showing.run(outcome.run)
        return
    showing.console.print(showing.STATES[outcome.state] + (f": {outcome.error}" if outcome.error else ""))


def _exit_code(outcome: Outcome) -> Exit:
    if not outcome.is_final:
        return Exit.TIMED_OUT
    return Exit.DONE if outcome.state in ("completed", "sent") else Exit.FAILED


def _data(text: str | None, file: Path | None) -> dict[str, Any] | None:
    if text is not None and file is not None:
        raise typer.BadParameter("give --data or --data-file, not both")
    if file is not None:
        text = sys.stdin.read() if str(file) == "-" else file.read_text()
    if text is None:
        return None
    try:
        content = json.loads(text)
    except ValueError as error:
        raise Refused(f"data: not JSON: {error}") from None
    if not isinstance(content, dict):
        raise Refused("data: not a JSON object")
    return content


def _duration(text: str, option: str) -> timedelta:
    match = _DURATION.fullmatch(text)
    if not match or not text:
        raise typer.BadParameter(f"{option} takes a duration like 90s, 10m, 2h, 1d or 1h30m, not {text!r}")
    days, hours, minutes, seconds = (int(number or 0) for number in match.groups())
    return timedelta(days=days, hours=hours, minutes=minutes, seconds=seconds)


def _moment(text: str) -> datetime:
    try:
        return datetime.fromisoformat(text)
    except ValueError:
        raise typer.BadParameter(f"--at takes a time like 2026-03-02T08:00:00+01:00, not {text!r}") from None


def _job_or_letter(text: str) -> str | UUID:
    try:
        return UUID(text)
    except ValueError:
        return text
