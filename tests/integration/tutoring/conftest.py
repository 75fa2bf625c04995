"""Fixtures of the tutoring jobs' tests."""

from collections.abc import Iterator
from datetime import datetime

import pytest

from schoolbell import aws
from schoolbell.database import Database
from schoolbell.jobs.runtime import Runtime, install
from schoolbell.settings import Settings
from tests.factories import Make
from tests.fakes import one_shots
from tests.fakes.one_shots import OneShotWorld
from tests.fakes.step_functions import Clock
from tests.fakes.waitlist import Waitlist


@pytest.fixture
def waitlists(
    database: Database, make: Make, now: datetime, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Waitlist]:
    """The waiting list's jobs with their state machine, on a clock that starts at `now` and that the test turns."""
    world = Waitlist(database, make, Clock(now), settings)
    monkeypatch.setattr(aws, "client", world.network.client)
    install(Runtime(database, settings, world.clock))
    yield world
    install(None)


@pytest.fixture
def world(
    database: Database, make: Make, now: datetime, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> Iterator[OneShotWorld]:
    """Lessons and planned messages with their jobs, schedules and queues, on a clock that starts at `now`."""
    made = OneShotWorld(database, make, one_shots.Clock(now), settings)
    monkeypatch.setattr(aws, "client", made.client)
    install(Runtime(database, settings, made.clock))
    yield made
    install(None)
