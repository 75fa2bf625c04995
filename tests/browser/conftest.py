"""Fixtures: Chromium, and the admin page as it sees it.

The function answers in this process behind a stand-in for API Gateway, on a real PostgreSQL and on AWS as moto has it.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

import pytest
from playwright.sync_api import Browser, Page, expect, sync_playwright

from functions.platform.admin.app import handler
from local.sandbox import oidc
from schoolbell.database import Database
from schoolbell.jobs.runtime import Runtime, install
from schoolbell.settings import Settings
from tests.browser.chromium import launch
from tests.fakes.deployed import Aws
from tests.fakes.gateway import serving
from tests.fixtures.admin import JOBS

PATIENCE = 60_000  # milliseconds for an answer on a machine with other things to do


@dataclass
class Site:
    """The admin page in a browser whose user is signed in."""

    browser: Browser
    url: str
    issuer: str
    errors: list[str] = field(default_factory=list)
    """What the browser complained of: refused by the policy, failed in a script."""

    def page(self, **options: Any) -> Page:
        """A window of its own; options are those of a Playwright context: `java_script_enabled`, `viewport`, …"""
        context = self.browser.new_context(base_url=self.url, **options)
        context.set_default_timeout(PATIENCE)
        expect.set_options(timeout=PATIENCE)
        context.add_cookies([{"name": "session", "value": oidc.token(self.issuer, {}), "url": self.url}])
        page = context.new_page()
        page.on("console", lambda message: self.errors.append(message.text) if message.type == "error" else None)
        page.on("pageerror", lambda error: self.errors.append(str(error)))
        return page

    def open(self, path: str = "", **options: Any) -> Page:
        """A page below the list of jobs, in a window of its own."""
        page = self.page(**options)
        page.goto(f"{JOBS}{path}")
        return page


@pytest.fixture(scope="module")
def chromium() -> Iterator[Browser]:
    """The browser; no longer than for a module, since Playwright's event loop runs meanwhile."""
    with sync_playwright() as playwright:
        browser = launch(playwright)
        yield browser
        browser.close()


@pytest.fixture
def now() -> datetime:
    """The time; the browser's clock is the machine's."""
    return datetime.now(UTC).replace(microsecond=0)


@pytest.fixture
def site(chromium: Browser, stack: Aws, database: Database, admin_settings: Settings, issuer: str) -> Iterator[Site]:
    """The admin page. At the end the browser must have had no complaint."""
    with serving(handler) as url:
        here = admin_settings.model_copy(update={"admin_url": url})
        install(Runtime(database, here, lambda: datetime.now(UTC)))
        made = Site(chromium, url, issuer)
        yield made
        for context in chromium.contexts:
            context.close()
        install(None)
    assert made.errors == []
