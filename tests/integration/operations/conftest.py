"""A job client, and the stack that it works on."""

from datetime import datetime, timedelta

import pytest

from schoolbell import aws as clients
from schoolbell.database import Database
from schoolbell.operations import JobClient
from schoolbell.settings import Settings
from tests.fakes.deployed import Aws, deploy


class Clock:
    """The time, which the test turns on."""

    def __init__(self, now: datetime) -> None:
        self.now = now

    def __call__(self) -> datetime:
        return self.now

    def turn(self, by: timedelta) -> None:
        """Lets time pass."""
        self.now += by


@pytest.fixture
def clock(now: datetime) -> Clock:
    """The client's clock, which starts at `now`."""
    return Clock(now)


@pytest.fixture
def deployed(aws: None, settings: Settings, monkeypatch: pytest.MonkeyPatch) -> Aws:
    """A stack with a job of each kind."""
    deploy(settings)
    made = Aws(clients.client)
    monkeypatch.setattr(clients, "client", made.client)
    return made


@pytest.fixture
def client(deployed: Aws, database: Database, settings: Settings, clock: Clock) -> JobClient:
    """The client of an operator."""
    return JobClient(database, settings, actor="ada", clock=clock)
