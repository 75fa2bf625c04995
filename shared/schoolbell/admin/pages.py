"""The page `/admin/scheduled-jobs`: everything is read by links and done by forms, with no script."""

import json
from base64 import urlsafe_b64decode, urlsafe_b64encode
from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta
from functools import cache
from http import HTTPStatus
from typing import Any, Final, get_args
from urllib.parse import parse_qs, quote, urlencode
from uuid import UUID
from zoneinfo import available_timezones

from aws_lambda_powertools.event_handler import Response
from aws_lambda_powertools.event_handler.api_gateway import Router
from aws_lambda_powertools.shared.cookies import Cookie
from pydantic import JsonValue, TypeAdapter, ValidationError

from schoolbell.admin import rendering
from schoolbell.admin.acts import Acts
from schoolbell.admin.desk import Desk
from schoolbell.admin.login import HOME, Site, form_token
from schoolbell.admin.models import Done, Job, Reschedule, RunStatus, Trigger, Triggered
from schoolbell.admin.problems import NoSuchThing, Refusal
from schoolbell.jobs.outcomes import in_one_line
from schoolbell.operations.expressions import InvalidExpression

router = Router()  # type: ignore[no-untyped-call]
"""Its context holds `desk`, `acts` and `visit`."""

JUST_CHANGED: Final = timedelta(seconds=20)
"""Whoever has changed something sees what AWS says now, not what it said some seconds ago, for this long."""

RUNS_SHOWN, RUNS_DRAWN, LETTERS_SHOWN = 10, 50, 5
_DATA: Final = TypeAdapter(dict[str, JsonValue])

Html = Response[str]


@dataclass(frozen=True, slots=True)
class Visit:
    """A request of a browser."""

    site: Site
    session: str
    """The token in its cookie; empty when nobody is signed in."""
    has_just_changed: bool = False
    notice: dict[str, str] | None = None
    """What a form that was sent has come to, to be told on the next page."""
    login: str = ""
    """The cookie of a login that is under way."""


def desk() -> Desk:
    """What this request works with."""
    found: Desk = router.context["desk"]
    return found


def acts() -> Acts:
    """What this request's operator may do."""
    found: Acts = router.context["acts"]
    return found


def visit() -> Visit:
    """Whose browser asks."""
    found: Visit = router.context["visit"]
    return found


# ---- reading


@router.get(HOME, include_in_schema=False, enable_validation=False)
def list_jobs() -> Html:
    query = router.current_event.query_string_parameters
    shown, q = query.get("show", "all"), query.get("q", "").strip()[:100]
    everything = desk().jobs(fresh=visit().has_just_changed)
    wanted = FILTERS.get(shown, FILTERS["all"])[1]
    jobs = [job for job in everything if wanted(job) and matches(job, q)]
    return page(
        "jobs.html",
        filters=filters(everything, shown, q),
        shown=shown if shown in FILTERS else "all",
        q=q,
        problems=[job for job in jobs if job.problems],
        domains=by_domain(jobs),
    )


@router.get(f"{HOME}/<job>", include_in_schema=False, enable_validation=False)
def read_job(job: str) -> Html:
    found = desk().job(job, fresh=visit().has_just_changed)
    runs, letters = desk().runs(job, size=RUNS_DRAWN), desk().letters(job, size=LETTERS_SHOWN)
    older = runs.next or (len(runs.runs) > RUNS_SHOWN and "more") or None
    return page(
        "job.html",
        job=found,
        runs=runs.model_copy(update={"runs": runs.runs[:RUNS_SHOWN], "next": older}),
        letters=letters,
        charts=rendering.job_charts(found.month, runs.runs, desk().now),
    )


@router.get(f"{HOME}/<job>/runs", include_in_schema=False, enable_validation=False)
def list_runs(job: str) -> Html:
    query = router.current_event.query_string_parameters
    desk().known(job)
    shown = query.get("status", "")
    status: RunStatus | None = next((each for each in get_args(RunStatus) if each == shown), None)
    runs = desk().runs(job, status=status, before=query.get("before"))
    return page("runs.html", job=job, runs=runs, shown=shown if status else "")


@router.get(f"{HOME}/<job>/runs/<run>", include_in_schema=False, enable_validation=False)
def read_run(job: str, run: str) -> Html:
    found = desk().run(job, an_id(run))
    log, problem = desk().log(found)
    return page("run.html", run=found, log=log, log_problem=problem)


@router.get(f"{HOME}/<job>/dead-letters", include_in_schema=False, enable_validation=False)
def list_letters(job: str) -> Html:
    query = router.current_event.query_string_parameters
    resolved = query.get("resolved") == "true"
    found = desk().job(job, fresh=False)
    letters = desk().letters(job, resolved=resolved, before=query.get("before"))
    return page("letters.html", job=found, letters=letters, resolved=resolved)


@router.get(f"{HOME}/<job>/dead-letters/<letter>", include_in_schema=False, enable_validation=False)
def read_letter(job: str, letter: str) -> Html:
    return page("letter.html", letter=desk().letter(job, an_id(letter)))


@router.get(f"{HOME}/<job>/schedule", include_in_schema=False, enable_validation=False)
def change_schedule(job: str) -> Html:
    return page("schedule.html", **wanted_schedule(desk().job(job)), zones=zones())


@router.get(f"{HOME}/<job>/schedule/preview", include_in_schema=False, enable_validation=False)
def preview_schedule(job: str) -> Html:
    """The part of the page above that a script shows while one types: AWS is not asked anew for each letter."""
    return page("preview.html", **wanted_schedule(desk().job(job, fresh=visit().has_just_changed)))


def wanted_schedule(found: Job) -> dict[str, Any]:
    """The schedule that the query asks for, with what it would do or why it can't be; else the schedule as it is."""
    query = router.current_event.query_string_parameters
    now = found.schedule
    if now is None:
        raise NoSuchThing(f"{found.name} has no schedule.")
    expression = query.get("expression", now.expression).strip()
    timezone = query.get("timezone", now.timezone).strip()
    shown = {
        "job": found,
        "expression": expression,
        "timezone": timezone,
        "is_new": (expression, timezone) != (now.expression, now.timezone),
    }
    try:
        return {**shown, "preview": desk().preview(now, expression, timezone), "problem": None}
    except InvalidExpression as error:
        return {**shown, "preview": None, "problem": str(error)}


# ---- doing


@router.post(f"{HOME}/<job>/run", include_in_schema=False, enable_validation=False)
def run(job: str) -> Html:
    form = sent_form()
    return done(job, lambda: acts().run(job, trigger_of(form)))


@router.post(f"{HOME}/<job>/pause", include_in_schema=False, enable_validation=False)
def pause(job: str) -> Html:
    return done(job, lambda: acts().pause(job))


@router.post(f"{HOME}/<job>/resume", include_in_schema=False, enable_validation=False)
def resume(job: str) -> Html:
    return done(job, lambda: acts().resume(job))


@router.post(f"{HOME}/<job>/schedule", include_in_schema=False, enable_validation=False)
def reschedule(job: str) -> Html:
    form = sent_form()
    try:
        return done(job, lambda: acts().reschedule(job, reschedule_of(form)))
    except InvalidExpression:  # the page before says why
        wanted = {name: form.get(name, "") for name in ("expression", "timezone")}
        return seen_other(f"{HOME}/{quote(job)}/schedule?{urlencode(wanted)}")


@router.post(f"{HOME}/<job>/schedule/delete", include_in_schema=False, enable_validation=False)
def unschedule(job: str) -> Html:
    return done(job, lambda: acts().unschedule(job))


@router.post(f"{HOME}/<job>/dead-letters/redrive", include_in_schema=False, enable_validation=False)
def redrive_all(job: str) -> Html:
    return done(job, lambda: acts().redrive_all(job))


@router.post(f"{HOME}/<job>/dead-letters/drop", include_in_schema=False, enable_validation=False)
def drop_all(job: str) -> Html:
    return done(job, lambda: acts().drop_all(job))


@router.post(f"{HOME}/<job>/dead-letters/<letter>/redrive", include_in_schema=False, enable_validation=False)
def redrive(job: str, letter: str) -> Html:
    return done(job, lambda: acts().redrive(job, an_id(letter)))


@router.post(f"{HOME}/<job>/dead-letters/<letter>/drop", include_in_schema=False, enable_validation=False)
def drop(job: str, letter: str) -> Html:
    return done(job, lambda: acts().drop(job, an_id(letter)))


def done(job: str, act: Callable[[], Done | Triggered]) -> Html:
    """Does what a form asks for, and sends the browser to the job's page, where it is told what came of it."""
    try:
        outcome = act()
        kind, text = "good" if getattr(outcome, "changed", 1) else "warning", outcome.message
    except Refusal as refusal:
        kind, text = "bad", str(refusal)
    return seen_other(f"{HOME}/{quote(job)}", notice={"kind": kind, "text": text})


def sent_form() -> dict[str, str]:
    """The fields of the form that was sent."""
    return form_of(router.current_event.decoded_body or "")


def form_of(body: str) -> dict[str, str]:
    """The fields of a form, of each the first."""
    return {name: values[0] for name, values in parse_qs(body, keep_blank_values=True, max_num_fields=20).items()}


def trigger_of(form: dict[str, str]) -> Trigger:
    """What a form asks a job to be run with.

    Raises:
        Refusal: the data are no JSON object.
    """
    text = form.get("data", "").strip()
    try:
        data = _DATA.validate_json(text) if text else None
    except ValidationError as error:
        raise Refusal(f"The data can't be used: {in_one_line(error)}") from None
    return Trigger(data=data, queue=form.get("queue") or None, dry_run=form.get("dry_run") == "true")


def reschedule_of(form: dict[str, str]) -> Reschedule:
    """The schedule that a form asks for.

    Raises:
        Refusal: a field is missing or too long.
    """
    try:
        return Reschedule(expression=form.get("expression", ""), timezone=form.get("timezone", ""))
    except ValidationError as error:
        raise Refusal(f"The schedule was not changed: {in_one_line(error)}") from None


# ---- what pages are made of

FILTERS: Final[dict[str, tuple[str, Callable[[Job], bool]]]] = {
    "all": ("All", lambda _job: True),
    "problems": ("Problems", lambda job: bool(job.problems)),
    "paused": ("Paused", lambda job: job.is_paused),
    "schedule": ("On schedule", lambda job: job.trigger == "schedule"),
    "queue": ("On messages", lambda job: job.trigger == "queue"),
}


def filters(jobs: tuple[Job, ...], shown: str, q: str) -> list[dict[str, Any]]:
    """The list's filters, with how many jobs each shows."""
    made = []
    for key, (name, wanted) in FILTERS.items():
        query = {name: value for name, value in (("show", key if key != "all" else ""), ("q", q)) if value}
        count = sum(wanted(job) and matches(job, q) for job in jobs)
        made.append(
            {
                "name": name,
                "count": count,
                "url": f"{HOME}?{urlencode(query)}" if query else HOME,
                "is_chosen": key == (shown if shown in FILTERS else "all"),
                "kind": "bad" if key == "problems" and count else "",
            }
        )
    return made


def matches(job: Job, q: str) -> bool:
    """Whether a job's name or description has all the words."""
    text = f"{job.name} {job.description}".lower()
    return all(word in text for word in q.lower().split())


def by_domain(jobs: list[Job]) -> list[tuple[str, list[Job]]]:
    """The jobs of each domain; the domain whose job needs somebody most comes first, then the larger one."""
    domains: dict[str, list[Job]] = {}
    for job in jobs:
        domains.setdefault(job.domain, []).append(job)
    worst = {domain: min(bool(not job.problems) for job in found) for domain, found in domains.items()}
    return sorted(domains.items(), key=lambda each: (worst[each[0]], -len(each[1]), each[0]))


@cache
def zones() -> list[str]:
    """The time zones to choose from: those of places, and UTC."""
    not_places = ("Etc/", "posix/", "right/", "SystemV/")
    places = (zone for zone in available_timezones() if "/" in zone and not zone.startswith(not_places))
    return ["UTC", *sorted(places)]


def an_id(text: str) -> UUID:
    """The id in an address.

    Raises:
        NoSuchThing: it is none.
    """
    try:
        return UUID(text)
    except ValueError:
        raise NoSuchThing("There is nothing of that id.") from None


def page(template: str, status: HTTPStatus = HTTPStatus.OK, **values: Any) -> Html:
    """A page for the one who is signed in, or for nobody."""
    asked = visit()
    html = rendering.render(
        template,
        stack=desk().settings.schoolbell_stack,
        now=desk().now,
        notice=asked.notice,
        form_token=form_token(asked.session) if asked.session else "",
        **values,
    )
    ended = [asked.site.end(asked.site.notice)] if asked.notice else []
    return Response(status, "text/html; charset=utf-8", html, cookies=ended, compress=True)


def seen_other(address: str, *, notice: dict[str, str] | None = None, cookies: list[Cookie] | None = None) -> Html:
    """Sends the browser on to a page, which it asks for with GET."""
    site = visit().site
    given = list(cookies or [])
    if notice:
        given.append(site.cookie(site.notice, pack_notice(notice), JUST_CHANGED))
        given.append(site.cookie(site.just_changed, "1", JUST_CHANGED))
    return Response(HTTPStatus.SEE_OTHER, "text/html; charset=utf-8", "", {"Location": address}, given)


def pack_notice(notice: dict[str, str]) -> str:
    """A notice as it stands in its cookie."""
    return urlsafe_b64encode(json.dumps(notice).encode()).decode()


def unpack_notice(text: str | None) -> dict[str, str] | None:
    """Reads a notice from its cookie; nothing if that is none."""
    try:
        read = json.loads(urlsafe_b64decode(text or ""))
        return {"kind": str(read["kind"]), "text": str(read["text"])[:1000]}
    except (ValueError, KeyError, TypeError):
        return None
