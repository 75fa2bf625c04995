"""These tests look at what is built, so it is built first."""

import pytest

from local.bundle import build


@pytest.fixture(scope="session", autouse=True)
def built() -> None:
    """The bundle as it is now; nothing happens if it has not changed since it was built."""
    build()
