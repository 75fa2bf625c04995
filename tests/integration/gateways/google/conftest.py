"""Fixtures of the gateways' tests."""

from datetime import timedelta
from uuid import uuid4

import pytest

from schoolbell.gateways import https
from schoolbell.gateways.google.calendar import GoogleCalendar, calendar_of
from schoolbell.gateways.google.drive import GoogleDrive, drive_of
from schoolbell.settings import Settings
from tests.fixtures.google import Google


@pytest.fixture
def settings(settings: Settings, google: Google) -> Settings:
    """Settings that lead to the sandbox."""
    return google.settings_of(settings)


@pytest.fixture
def account(google: Google, resilience_table: str) -> str:
    """A connected account; its name is also its secret's."""
    return google.account()


@pytest.fixture
def calendar(settings: Settings, account: str) -> GoogleCalendar:
    return calendar_of(uuid4(), account, settings)


@pytest.fixture
def drive(settings: Settings, account: str) -> GoogleDrive:
    return drive_of(uuid4(), account, settings)


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """A client that waits for an answer for a tenth of a second."""
    impatient = https.PooledHttp(read=timedelta(seconds=0.1))
    monkeypatch.setattr("schoolbell.gateways.google.calendar.shared_http", lambda: impatient)
