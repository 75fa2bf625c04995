"""Chromium as Debian has it, driven by Playwright."""

import shutil
from typing import Final

import pytest
from playwright.sync_api import Browser, Playwright

NAMES: Final = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
ARGUMENTS: Final = (
    "--headless",
    "--no-sandbox",  # tests run as root in containers
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)


def launch(playwright: Playwright) -> Browser:
    """Starts the browser that is installed; without one the test is skipped."""
    found = next((path for name in NAMES if (path := shutil.which(name))), None)
    if found is None:
        pytest.skip(f"there is no {NAMES[0]} on the PATH (apt-get install {NAMES[0]})")
    return playwright.chromium.launch(executable_path=found, args=list(ARGUMENTS))
