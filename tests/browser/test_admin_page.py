"""The admin page in a real browser: with scripts and without, by mouse, by keyboard, on a phone, read aloud."""

from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Any
from uuid import uuid4

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Page, Route, expect
from sqlalchemy import Row

from schoolbell import aws as clients
from schoolbell.domains.platform.schema import audit_logs, dead_letters, job_runs
from schoolbell.settings import Settings
from tests.browser.conftest import Site
from tests.factories import Make
from tests.fakes.deployed import DRY, QUEUED, RULED, SCHEDULED, Aws
from tests.fixtures.admin import JOBS
from tests.fixtures.database import Stored

PREVIEW = "**/schedule/preview?*"
PHONE: dict[str, Any] = {"viewport": {"width": 390, "height": 844}, "has_touch": True, "is_mobile": True}


@pytest.fixture
def history(make: Make, settings: Settings, now: datetime) -> Row[Any]:
    """A job that failed, a month of another, and three dead letters; returns the failed run."""
    for number in range(40):
        started = now - timedelta(hours=17 * number + 1)
        make.row(
            job_runs,
            job=QUEUED,
            trigger="queue",
            started_at=started,
            finished_at=started + timedelta(seconds=1 + number % 5),
            status="failed" if number % 9 == 4 else "completed",
            items_done=7,
            items_failed=int(number % 9 == 4),
        )
    for number in range(3):
        make.row(
            dead_letters,
            job=QUEUED,
            queue=settings.resource_name(QUEUED),
            message_id=str(uuid4()),
            payload='{"session_id": "s-1"}',
            attempts=5,
            reason="failed",
            error="session_id: no such session",
            dead_at=now - timedelta(hours=number + 1),
        )
    return make.row(
        job_runs,
        job=SCHEDULED,
        trigger="schedule",
        scheduled_for=now - timedelta(hours=7),
        started_at=now - timedelta(hours=7),
        finished_at=now - timedelta(hours=7, seconds=-12),
        status="failed",
        error="drive_file_id: the file is gone",
        traceback='File "app.py", line 3\n',
    )


def pages(failed: Row[Any], letter: Row[Any]) -> list[str]:
    """One page of each kind."""
    return [
        "",
        "?show=problems",
        f"/{QUEUED}",
        f"/{SCHEDULED}",
        f"/{SCHEDULED}/schedule?expression=cron(30+2+*+*+?+*)&timezone=Europe/Berlin",
        f"/{SCHEDULED}/schedule?expression=cron(x)&timezone=UTC",
        f"/{SCHEDULED}/runs",
        f"/{SCHEDULED}/runs/{failed.id}",
        f"/{QUEUED}/dead-letters",
        f"/{QUEUED}/dead-letters/{letter.id}",
        "/no.such-job",
    ]


# ---- without scripts


def test_without_scripts_one_sees_why_a_job_failed(site: Site, history: Row[Any]) -> None:
    page = site.open(java_script_enabled=False)
    attention = page.locator(".attention")
    expect(attention).to_contain_text("The last run failed")
    attention.get_by_role("link", name=SCHEDULED).click()
    page.locator("table.rows").get_by_role("link").first.click()
    expect(page.locator(".failure")).to_contain_text("drive_file_id: the file is gone")
    page.locator("summary").click()
    expect(page.locator("pre").first).to_contain_text("app.py")


def test_without_scripts_a_schedule_is_paused_and_resumed(site: Site, settings: Settings, stored: Stored) -> None:
    page = site.open(f"/{SCHEDULED}", java_script_enabled=False)
    page.get_by_role("button", name="Pause").click()
    expect(page.locator(".notice")).to_have_text(f"{SCHEDULED} is paused.")
    expect(page.locator(".facts")).to_contain_text("Paused")
    page.get_by_role("button", name="Resume").click()
    expect(page.locator(".notice")).to_have_text(f"{SCHEDULED} is resumed.")
    page.reload()
    expect(page.locator(".notice")).to_have_count(0)
    assert [row.action for row in stored(audit_logs)] == ["job.paused", "job.resumed"]


def test_without_scripts_a_schedule_is_previewed_and_then_saved(site: Site, settings: Settings) -> None:
    page = site.open(f"/{SCHEDULED}/schedule", java_script_enabled=False)
    page.get_by_label("Expression").fill("cron(30 2 * * ? *)")
    page.get_by_role("button", name="Preview").click()
    expect(page.locator(".times li")).to_have_count(5)
    page.get_by_role("button", name="Save this schedule").click()
    expect(page.locator(".notice")).to_contain_text("At 02:30, Europe/Berlin")
    expect(page.locator(".facts")).to_contain_text("cron(30 2 * * ? *)")


def test_without_scripts_one_confirms_before_all_is_dropped(site: Site, history: Row[Any], stored: Stored) -> None:
    page = site.open(f"/{QUEUED}", java_script_enabled=False)
    page.get_by_role("button", name="Drop all…").click()
    dialog = page.get_by_role("dialog", name="Drop all dead letters?")
    expect(dialog).to_contain_text("3 messages")
    dialog.get_by_role("button", name="Cancel").click()
    expect(dialog).to_be_hidden()
    assert not stored(audit_logs)
    page.get_by_role("button", name="Drop all…").click()
    dialog.get_by_role("button", name="Drop all").click()
    expect(page.locator(".notice")).to_contain_text("3 messages")
    assert {row.resolution for row in stored(dead_letters)} == {"dropped"}


def test_without_scripts_the_list_is_searched(site: Site) -> None:
    page = site.open(java_script_enabled=False)
    page.get_by_role("searchbox").fill("retention")
    page.get_by_role("searchbox").press("Enter")
    expect(page.locator("tr.fine, tr.paused, tr.bad")).to_have_count(1)


# ---- with the keyboard


def test_the_keyboard_alone_runs_a_job(site: Site, stack: Aws) -> None:
    page = site.open(f"/{DRY}")
    page.keyboard.press("Tab")
    expect(page.get_by_role("link", name="Skip to the content")).to_be_focused()
    page.keyboard.press("Enter")
    for _ in range(10):
        page.keyboard.press("Tab")
        if page.evaluate("document.activeElement.textContent") == "Run now…":
            break
    page.keyboard.press("Enter")
    expect(page.get_by_role("dialog", name=f"Run {DRY}")).to_be_visible()
    page.keyboard.press("Tab")
    expect(page.get_by_label("Dry run")).to_be_focused()
    expect(page.get_by_label("Dry run")).to_be_checked()  # the careful choice, for a critical job
    page.keyboard.press("Tab")
    page.keyboard.press("Tab")
    page.keyboard.press("Enter")
    expect(page.locator(".notice")).to_contain_text("A dry run of")
    assert stack.invoked[0][1]["dry_run"] is True


def test_escape_closes_a_question_and_gives_the_focus_back(site: Site, stored: Stored) -> None:
    page = site.open(f"/{RULED}")
    button = page.get_by_role("button", name="Delete schedule…")
    button.focus()
    page.keyboard.press("Enter")
    expect(page.get_by_role("dialog", name="Delete this schedule?")).to_be_visible()
    page.keyboard.press("Escape")
    expect(page.get_by_role("dialog", name="Delete this schedule?")).to_be_hidden()
    expect(button).to_be_focused()
    assert not stored(audit_logs)


# ---- what the script adds


def test_the_next_times_are_shown_as_one_types_and_what_is_wrong_is_said(site: Site) -> None:
    page = site.open(f"/{SCHEDULED}/schedule")
    page.get_by_label("Expression").fill("cron(15 4 * * ? *)")
    expect(page.locator("#preview-title")).to_have_text("At 04:15, Europe/Berlin")
    expect(page.locator(".times li")).to_have_count(5)
    page.get_by_label("Time zone").fill("Europe/Bern")
    expect(page.locator("#preview .notice.bad")).to_contain_text("Europe/Bern")
    expect(page.get_by_role("button", name="Save this schedule")).to_have_count(0)
    page.get_by_label("Time zone").fill("America/New_York")
    expect(page.locator("#preview-title")).to_have_text("At 04:15, America/New_York")


def test_times_of_what_stood_there_before_can_not_be_saved(site: Site) -> None:
    page = site.open(f"/{SCHEDULED}/schedule?expression=cron(15+4+*+*+?+*)")
    expect(page.get_by_role("button", name="Save this schedule")).to_be_visible()
    page.route(PREVIEW, lambda _route: None)  # the answer takes its time
    page.get_by_label("Expression").fill("cron(45 5 * * ? *)")
    expect(page.locator("#preview")).to_have_attribute("inert", "")
    assert not page.locator("#preview button").evaluate("it => { it.focus(); return it === document.activeElement; }")


@pytest.mark.parametrize(
    ("trouble", "patience"),
    [
        (lambda route: route.abort(), 0),
        (lambda route: route.fulfill(status=503, body="<p>Not now</p>"), 0),
        (lambda _route: None, 10_000),
    ],
    ids=["no connection", "an error", "no answer"],
)
def test_when_no_times_come_it_is_said_that_they_are_not_known(
    site: Site, trouble: Callable[[Route], None], patience: int
) -> None:
    page = site.page()
    page.clock.install()
    page.goto(f"{JOBS}/{SCHEDULED}/schedule?expression=cron(15+4+*+*+?+*)")
    asked: list[str] = []
    page.on("request", lambda request: asked.append(request.url) if "/preview" in request.url else None)
    page.route(PREVIEW, trouble)
    page.get_by_label("Expression").fill("cron(45 5 * * ? *)")
    page.clock.run_for(1_000 + patience)
    said = page.locator("#preview[aria-live=polite] .notice")
    expect(said).to_have_text("The next times are not known: the server did not tell them. It is asked again.")
    expect(page.locator(".times")).to_have_count(0)
    page.clock.run_for(3_000 + patience)
    expect(said).to_contain_text("Change something, or press Preview, to ask again.")
    page.clock.run_for(60_000)
    assert len(asked) == 2, "once more by itself, and not for ever"
    assert findings(page, "times that are not known") == []

    page.unroute(PREVIEW)
    page.get_by_label("Expression").fill("cron(50 6 * * ? *)")
    page.clock.run_for(1_000)
    expect(page.locator("#preview-title")).to_have_text("At 06:50, Europe/Berlin")
    site.errors.clear()  # the browser complains of what it was not given


def test_times_that_come_when_it_is_asked_again_are_shown(site: Site) -> None:
    page = site.open(f"/{SCHEDULED}/schedule")
    page.route(PREVIEW, lambda route: route.abort(), times=1)
    page.get_by_label("Expression").fill("cron(45 5 * * ? *)")
    expect(page.locator("#preview .notice")).to_contain_text("not known")
    expect(page.locator("#preview-title")).to_contain_text("At 05:45")
    expect(page.locator("#preview .notice")).to_have_count(0)
    site.errors.clear()


def test_the_list_is_searched_as_one_types(site: Site) -> None:
    page = site.open()
    page.get_by_role("searchbox").fill("retention")
    expect(page.get_by_role("link", name="data-retention", exact=True)).to_be_visible()
    expect(page.get_by_role("link", name="drive-sync", exact=True)).to_be_hidden()
    page.get_by_role("searchbox").fill("")
    expect(page.get_by_role("link", name="drive-sync", exact=True)).to_be_visible()


def test_the_page_follows_what_happens_and_can_be_held(site: Site, make: Make, settings: Settings) -> None:
    page = site.page()
    page.clock.install()
    page.goto(f"{JOBS}/{QUEUED}")
    expect(page.locator(".problems")).to_have_count(0)
    make.row(
        dead_letters, job=QUEUED, queue=settings.resource_name(QUEUED), message_id="m-1", payload="{}", reason="failed"
    )
    page.clock.run_for(11_000)
    expect(page.locator(".problems")).to_contain_text("1 dead letter")
    page.get_by_role("button", name="Live").click()
    expect(page.get_by_role("button", name="Live")).to_have_attribute("aria-pressed", "false")
    make.row(
        dead_letters, job=QUEUED, queue=settings.resource_name(QUEUED), message_id="m-2", payload="{}", reason="failed"
    )
    page.clock.run_for(30_000)
    expect(page.locator(".problems")).to_contain_text("1 dead letter")


def test_a_question_that_is_open_is_not_taken_away_by_the_refresh(
    site: Site, history: Row[Any], make: Make, settings: Settings
) -> None:
    page = site.page()
    page.clock.install()
    page.goto(f"{JOBS}/{QUEUED}")
    page.get_by_role("button", name="Redrive all…").click()
    make.row(
        dead_letters, job=QUEUED, queue=settings.resource_name(QUEUED), message_id="m-2", payload="{}", reason="failed"
    )
    page.clock.run_for(25_000)
    expect(page.get_by_role("dialog", name="Redrive all dead letters?")).to_be_visible()


# ---- signing in


def test_one_signs_in_at_the_issuer_and_out_again(site: Site) -> None:
    context = site.browser.new_context(base_url=site.url)
    page = context.new_page()
    page.goto(f"{JOBS}/{SCHEDULED}")
    page.get_by_role("link", name="Sign in with your account").click()
    page.get_by_role("link", name="The demo operator").click()
    expect(page.locator("h1")).to_have_text(SCHEDULED)
    page.get_by_role("button", name="Sign out").click()
    expect(page.locator("h1")).to_have_text("Sign in")
    page.goto(JOBS)
    expect(page.locator("h1")).to_have_text("Sign in")


def test_one_signs_in_with_a_token(site: Site) -> None:
    from local.sandbox import oidc

    page = site.browser.new_context(base_url=site.url, java_script_enabled=False).new_page()
    page.goto(f"{JOBS}?show=paused")
    page.get_by_text("Paste a token").click()
    page.get_by_label("Token of your identity provider").fill("not.a.token")
    page.get_by_role("button", name="Use this token").click()
    expect(page.locator("h1")).to_have_text("Sign in")
    page.get_by_label("Token of your identity provider").fill(oidc.token(site.issuer, {}))
    page.get_by_role("button", name="Use this token").click()
    expect(page.locator("h1")).to_have_text("Jobs")


# ---- for everybody


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [390, 1280])
def test_axe_has_no_serious_finding_and_nothing_is_wider_than_the_screen(
    site: Site, history: Row[Any], stored: Stored, scheme: str, width: int
) -> None:
    found: list[str] = []
    page = site.page(color_scheme=scheme, viewport={"width": width, "height": 900}, reduced_motion="reduce")
    for path in pages(history, stored(dead_letters)[0]):
        page.goto(f"{JOBS}{path}")
        found += findings(page, path)
        assert page.evaluate("document.documentElement.scrollWidth") <= width, path
        for button in page.locator("button[popovertarget]:visible").all():
            button.click()
            found += findings(page, f"{path} {button.inner_text()}")
            page.keyboard.press("Escape")
    page.context.clear_cookies()
    page.goto(JOBS)
    found += findings(page, "sign in")
    assert found == []
    site.errors.clear()  # the browser complains of the pages that say 401 and 404


def findings(page: Page, where: str) -> list[str]:
    """What axe has to complain of that is serious or critical."""
    violations = Axe().run(page).response["violations"]
    return [
        f"{where}: {violation['id']}: {violation['nodes'][0]['html'][:200]}"
        for violation in violations
        if violation["impact"] in ("serious", "critical")
    ]


def test_on_a_phone_one_pauses_a_job_with_the_thumb(site: Site, settings: Settings) -> None:
    page = site.open(**PHONE)
    page.get_by_role("link", name="drive-sync", exact=True).tap()
    button = page.get_by_role("button", name="Pause")
    box = button.bounding_box()
    assert box is not None
    assert box["height"] >= 44  # https://www.w3.org/WAI/WCAG22/Understanding/target-size-enhanced
    button.tap()
    expect(page.locator(".notice")).to_contain_text("is paused")
    schedule = clients.client("scheduler").get_schedule(
        GroupName=settings.schedule_group, Name=settings.resource_name(SCHEDULED)
    )
    assert schedule["State"] == "DISABLED"


def test_whoever_wants_no_motion_sees_none(site: Site, make: Make, now: datetime) -> None:
    make.row(job_runs, job=QUEUED, trigger="queue", started_at=now, status="running")
    page = site.open(reduced_motion="reduce")
    moving = page.evaluate("document.getAnimations().length")
    assert moving == 0
    assert site.open(reduced_motion="no-preference").evaluate("document.getAnimations().length") > 0


def test_times_are_readable_by_programs(site: Site, history: Row[Any]) -> None:
    page = site.open(f"/{SCHEDULED}")
    for time in page.locator("time").all():
        assert datetime.fromisoformat(time.get_attribute("datetime") or "").tzinfo is not None
