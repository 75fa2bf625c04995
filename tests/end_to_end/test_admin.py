"""An operator's day in the browser: a job fails, one reads why, mends it, sees it succeed; schedules are changed."""

import json
from collections.abc import Iterator
from datetime import UTC, date, datetime, time, timedelta
from typing import Any
from urllib.error import HTTPError
from urllib.request import Request, urlopen
from uuid import uuid4
from zoneinfo import ZoneInfo

import pytest
from playwright.sync_api import Locator, Page, expect, sync_playwright
from sqlalchemy import Row

from local.deployment import admin_token, admin_url
from local.emulator.process import endpoint
from schoolbell.domains.platform.schema import audit_logs, dead_letters
from schoolbell.domains.tutoring.schema import sessions
from tests.browser.chromium import launch
from tests.end_to_end.stack import Stack
from tests.end_to_end.waiting import eventually
from tests.factories import Make

JOBS = "/admin/scheduled-jobs"
FAILING = "tutoring.auto-complete"
NIGHTLY = "tutoring.drive-sync"
PATIENCE = 60_000  # milliseconds for a cold start on a machine with other things to do


@pytest.fixture(scope="module")
def page(stack: Stack) -> Iterator[Page]:
    """A browser whose user signed in at the issuer."""
    with sync_playwright() as playwright:
        browser = launch(playwright)
        context = browser.new_context(base_url=admin_url(stack.name, stack.home.state().ports["emulator"]))
        context.set_default_timeout(PATIENCE)
        expect.set_options(timeout=PATIENCE)
        opened = context.new_page()
        opened.goto(JOBS)
        opened.get_by_role("link", name="Sign in with your account").click()
        opened.get_by_role("link", name="The demo operator").click()
        expect(opened.locator("h1")).to_have_text("Jobs")
        yield opened
        browser.close()


def test_a_job_that_fails_is_seen_understood_mended_and_seen_to_succeed(stack: Stack, page: Page, make: Make) -> None:
    missing = uuid4()
    stack.drop(FAILING, {"session_id": str(missing)})
    stack.dead_letter(FAILING, json.dumps({"session_id": str(missing)}))
    page.goto(JOBS)
    attention = page.locator(".attention")
    expect(attention).to_contain_text("dead letter")
    attention.get_by_role("link", name=FAILING).click()
    letters = page.locator("section", has=page.locator("#letters-title"))
    letters.locator("tr", has_text=str(missing)).get_by_role("link").click()
    expect(page.locator(".failure")).to_contain_text(f"no session {missing}")
    expect(page.locator("pre").first).to_contain_text(str(missing))

    lesson = make.session(id=missing)  # the application had been late to write it
    page.get_by_role("button", name="Redrive").click()
    expect(page.locator(".notice")).to_contain_text("sent again")
    done = stack.becomes(sessions, lesson.id, status="completed").completed_at
    page.get_by_role("link", name="All runs").or_(page.locator("#runs-title")).first.wait_for()

    def runs_that_did_it() -> list[Row[Any]]:
        runs = stack.runs(FAILING, status="completed")
        return [run for run in runs if run.started_at <= done <= run.finished_at]

    (run, *_) = eventually(runs_that_did_it, "run that completed the lesson")
    page.goto(f"{JOBS}/{FAILING}")
    expect(row_of(page, run)).to_contain_text("Completed")
    (letter,) = [row for row in stack.rows(dead_letters, job=FAILING) if str(missing) in (row.payload or "")]
    assert (letter.resolution, letter.resolved_by) == ("redriven", "6f0c1d9e-demo-operator")


def row_of(page: Page, run: Row[Any]) -> Locator:
    """A run's row in the list of its job's runs."""
    return page.locator("table.rows tbody tr", has=page.locator(f'a[href$="/runs/{run.id}"]'))


def test_a_run_is_read_with_its_log(stack: Stack, page: Page) -> None:
    page.goto(f"{JOBS}/{NIGHTLY}")
    known = {run.id for run in stack.runs(NIGHTLY)}
    page.get_by_role("button", name="Run now…").click()
    page.get_by_role("dialog").get_by_role("button", name="Run now").click()
    expect(page.locator(".notice")).to_contain_text("is on its way")
    (run,) = eventually(
        lambda: [run for run in stack.runs(NIGHTLY, trigger="manual", status="completed") if run.id not in known],
        f"completed run of {NIGHTLY}",
    )
    page.reload()
    expect(row_of(page, run)).to_contain_text("Manual")
    row_of(page, run).get_by_role("link").click()
    expect(page.locator("h1")).to_contain_text("Completed")

    def logged() -> bool:
        page.reload()
        return "run ended" in page.locator("main").inner_text()

    assert eventually(logged, "log of the run on the page")


def test_a_schedule_is_paused_and_resumed(stack: Stack, page: Page) -> None:
    name = stack.resource(NIGHTLY)
    page.goto(f"{JOBS}/{NIGHTLY}")
    page.get_by_role("button", name="Pause").click()
    expect(page.locator(".notice")).to_have_text(f"{NIGHTLY} is paused.")
    assert stack.scheduler.get_schedule(GroupName=stack.name, Name=name)["State"] == "DISABLED"
    page.goto(f"{JOBS}?show=paused")
    expect(page.get_by_role("link", name="drive-sync", exact=True)).to_be_visible()
    page.goto(f"{JOBS}/{NIGHTLY}")
    page.get_by_role("button", name="Resume").click()
    expect(page.locator(".notice")).to_have_text(f"{NIGHTLY} is resumed.")
    assert stack.scheduler.get_schedule(GroupName=stack.name, Name=name)["State"] == "ENABLED"
    actions = [row.action for row in stack.rows(audit_logs, subject=NIGHTLY, actor="6f0c1d9e-demo-operator")]
    assert actions[-2:] == ["job.paused", "job.resumed"]


def test_a_rule_is_paused_and_resumed(stack: Stack, page: Page) -> None:
    events, job = stack.client("events"), "tutoring.waitlist-expiry"
    page.goto(f"{JOBS}/{job}")
    page.get_by_role("button", name="Pause").click()
    expect(page.locator(".notice")).to_have_text(f"{job} is paused.")
    assert events.describe_rule(Name=stack.resource(job))["State"] == "DISABLED"
    page.get_by_role("button", name="Resume").click()
    expect(page.locator(".notice")).to_have_text(f"{job} is resumed.")
    assert events.describe_rule(Name=stack.resource(job))["State"] == "ENABLED"


def test_a_schedule_is_changed_and_its_times_are_right_across_a_change_of_clocks(stack: Stack, page: Page) -> None:
    zone = ZoneInfo("Europe/Berlin")
    change = datetime(2050, 3, 27)  # noqa: DTZ001 - a day of the calendar, on which clocks go forward
    days = [change + timedelta(days=number) for number in (-1, 0, 1)]
    before = stack.scheduler.get_schedule(GroupName=stack.name, Name=stack.resource(NIGHTLY))
    page.goto(f"{JOBS}/{NIGHTLY}/schedule")
    preview(page, f"cron(0 3 {days[0].day}-{days[2].day} 3 ? {change.year})", zone)
    expect(page.locator(".times li")).to_have_count(3)
    shown = [each.get_attribute("datetime") for each in page.locator(".times time").all()]
    expected = [day.replace(hour=3, tzinfo=zone).astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ") for day in days]
    assert shown == expected
    assert [each[11:13] for each in expected] == ["02", "01", "01"]
    changing, day = next_day_without_half_past_two(datetime.now(UTC).date())
    preview(page, "cron(30 2 * * ? *)", changing)
    expect(page.locator("#preview .warning")).to_contain_text(f"{day.day} {day:%b} {day.year}, 02:30")
    preview(page, "cron(0 25 * * ? *)", zone)
    expect(page.locator("#preview .notice.bad")).to_be_visible()
    preview(page, "cron(0 3 * * ? *)", zone)
    page.get_by_role("button", name="Save this schedule").click()
    expect(page.locator(".notice")).to_contain_text("At 03:00, Europe/Berlin")
    after = stack.scheduler.get_schedule(GroupName=stack.name, Name=stack.resource(NIGHTLY))
    assert (after["ScheduleExpression"], after["ScheduleExpressionTimezone"]) == ("cron(0 3 * * ? *)", "Europe/Berlin")
    assert after["Target"] == before["Target"]


def preview(page: Page, expression: str, zone: ZoneInfo) -> None:
    """Asks what a schedule would do, by the button: what is shown as one types is given up after some seconds."""
    page.get_by_label("Expression").fill(expression)
    page.get_by_label("Time zone").fill(zone.key)
    with page.expect_navigation():
        page.get_by_role("button", name="Preview").click()


def test_the_gateway_and_the_function_let_in_only_whom_the_issuer_sent(stack: Stack) -> None:
    port = stack.home.state().ports["emulator"]
    host = admin_url(stack.name, port).removeprefix("http://")

    def ask(path: str, token: str | None) -> tuple[int, Any]:
        headers = {"Host": host, **({"Authorization": f"Bearer {token}"} if token else {})}
        try:
            with urlopen(Request(f"{endpoint(port)}{path}", headers=headers), timeout=60) as answer:
                return answer.status, json.loads(answer.read())
        except HTTPError as error:
            return error.code, json.loads(error.read() or b"null")

    good = admin_token(stack.sandbox_url)
    assert ask("/admin/api/jobs", None)[0] == 401
    assert ask("/admin/api/jobs", f"{good[:-4]}AAAA")[0] == 401
    status, jobs = ask("/admin/api/jobs", good)
    assert status == 200
    assert {NIGHTLY, FAILING, "platform.admin"} <= {job["name"] for job in jobs}
    assert ask("/admin/openapi.json", good)[1]["openapi"].startswith("3.1")


def next_day_without_half_past_two(today: date) -> tuple[ZoneInfo, date]:
    """The next day on which clocks go forward, in Europe or in America: in one of them there is one within a year."""
    for day in (today + timedelta(days=number) for number in range(1, 365)):
        for zone in (ZoneInfo("Europe/Berlin"), ZoneInfo("America/New_York")):
            half_past_two = datetime.combine(day, time(2, 30), zone)
            if half_past_two.astimezone(UTC).astimezone(zone) != half_past_two:
                return zone, day
    raise AssertionError("a year without a spring")
