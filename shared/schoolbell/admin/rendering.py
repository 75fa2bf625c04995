"""The page's templates and static files."""

import json
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from functools import cache
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final
from zoneinfo import ZoneInfo

from markupsafe import Markup, escape

from schoolbell.admin.models import Job, Month, Run
from schoolbell.alerts import wording

if TYPE_CHECKING:
    from jinja2 import Environment

TEMPLATES: Final = Path(__file__).parent / "templates"
STATIC: Final = Path(__file__).parent / "static"
KINDS: Final = {
    "admin.css": "text/css; charset=utf-8",
    "admin.js": "text/javascript; charset=utf-8",
    "icon.svg": "image/svg+xml",
}


def render(template: str, **values: Any) -> str:
    """A page as HTML; every value is escaped."""
    return environment().get_template(template).render(values)


@cache
def environment() -> "Environment":
    """The templates, compiled on first use and kept."""
    from jinja2 import Environment, FileSystemLoader, StrictUndefined  # which a call of the API does not need

    made = Environment(
        loader=FileSystemLoader(TEMPLATES),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        auto_reload=False,
        cache_size=-1,
    )
    made.globals["static"] = static_address
    made.filters |= {
        "relative": wording.relative,
        "duration": wording.duration,
        "clock": wording.clock,
        "machine": wording.machine,
        "counted": wording.counted,
        "described": described,
        "local": local_time,
        "month_chart": month_chart,
        "state": state_of,
        "pretty": pretty,
    }
    return made


@cache
def static_file(name: str) -> tuple[str, str] | None:
    """A static file's text and content type; nothing if there is none of that name."""
    return ((STATIC / name).read_text(), KINDS[name]) if name in KINDS else None


@cache
def static_address(name: str) -> str:
    """Where a static file is served: its content is in the name, so that browsers may keep it for ever."""
    digest = sha256((STATIC / name).read_bytes()).hexdigest()[:12]
    return f"/admin/static/{digest}/{name}"


def state_of(job: Job) -> str:
    """The one word that decides how a row of the list looks."""
    if job.problems:
        return str(job.problems[0].severity)
    return "paused" if job.is_paused else "fine"


def month_chart(month: Month) -> Markup:
    """The small chart of a job's 30 days; nothing if it never ran."""
    from schoolbell.admin import charts  # a call of the API draws none

    if not month.runs:
        return Markup("")
    described = f"{wording.counted(month.runs, 'run')} in 30 days, {month.failures:,} failed"
    return charts.month([(day.runs, day.failures) for day in month.days], described)


def job_charts(month: Month, runs: tuple[Run, ...], now: datetime) -> Mapping[str, Any] | None:
    """The charts of a job's page: runs by day, and durations, the oldest first; nothing if it never ran."""
    from schoolbell.admin import charts

    over = [(run, run.took) for run in reversed(runs) if run.took is not None]
    if not month.runs and not over:
        return None
    today = now.astimezone(UTC).date()
    first = today - timedelta(days=len(month.days) - 1)
    days = [
        charts.Bar(f"{(at := first + timedelta(days=number)).day} {at:%b}", day.runs - day.failures, day.failures)
        for number, day in enumerate(month.days)
    ]
    durations = [
        charts.Bar(
            short(run.started_at),
            took.total_seconds() if run.status == "completed" else 0,
            0 if run.status == "completed" else max(took.total_seconds(), 0.001),
        )
        for run, took in over
    ]
    described = f"Runs by day: {wording.counted(month.runs, 'run')} in 30 days, {month.failures:,} failed"
    longest = max((took for _, took in over), default=None)
    return {
        "runs": charts.history(days, described, lambda count: f"{count:,.0f}") if month.runs else "",
        "durations": charts.history(
            durations,
            f"Durations of the last {len(over)} runs, {wording.duration(longest)} at most",
            lambda seconds: wording.duration(timedelta(seconds=seconds)) if seconds else "0",
        )
        if over
        else "",
        "counted": len(over),
    }


def short(moment: datetime) -> str:
    """A moment under a chart.

    >>> short(datetime(2026, 3, 2, 9, 5, tzinfo=UTC))
    '2 Mar 09:05'
    """
    at = moment.astimezone(UTC)
    return f"{at.day} {at:%b %H:%M}"


def local_time(moment: datetime, zone: str) -> str:
    """A moment as a clock on the wall shows it, with the difference to UTC.

    >>> local_time(datetime(2026, 3, 29, 1, 30, tzinfo=UTC), "Europe/Berlin")
    'Sun 29 Mar 2026, 03:30 (UTC+02:00)'
    """
    at = moment.astimezone(ZoneInfo(zone))
    difference = at.strftime("%:z")
    seconds = f"{at:%H:%M:%S}" if at.second else f"{at:%H:%M}"
    return f"{at:%a} {at.day} {at:%b %Y}, {seconds}" + ("" if zone == "UTC" else f" (UTC{difference})")


def described(text: str) -> Markup:
    """A job's description; what stands in backquotes is code.

    >>> described("By hand with `{}` & <more>")
    Markup('By hand with <code>{}</code> &amp; &lt;more&gt;')
    """
    parts = text.split("`")
    coded = (
        Markup("<code>{}</code>").format(part) if number % 2 else escape(part) for number, part in enumerate(parts)
    )
    return Markup("").join(coded)


def pretty(value: Any) -> str:
    """JSON over several lines; a text that is no JSON stays as it is."""
    if isinstance(value, str):
        try:
            value = json.loads(value)
        except ValueError:
            return str(value)
    return json.dumps(value, indent=2, ensure_ascii=False)
