"""An invocation that hangs says where, before Lambda ends it."""

import faulthandler
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from datetime import timedelta
from importlib import import_module
from pathlib import Path
from typing import Any, Final

import pytest

from schoolbell.jobs.invocation import LAST_WORDS, LambdaContext, explained
from schoolbell.jobs.runtime import install
from tests.performing import Invocation

SOON: Final = timedelta(seconds=0.2)
FUNCTIONS: Final = Path(__file__).parents[3] / "functions"
HANDLERS: Final = sorted(".".join(app.relative_to(FUNCTIONS).parts[:2]) for app in FUNCTIONS.glob("*/*/app.py"))


def with_left(left: timedelta) -> Invocation:
    return Invocation(remaining=lambda: left)


def test_of_an_invocation_that_hangs_every_thread_is_logged(capfd: pytest.CaptureFixture[str]) -> None:
    release = threading.Event()

    def waits_for_a_thread(_event: Any, _context: LambdaContext) -> None:
        stuck = threading.Thread(target=never_comes_back)
        stuck.start()
        stuck.join(SOON.total_seconds() * 10)

    def never_comes_back() -> None:
        release.wait(60)

    explained(waits_for_a_thread)({}, with_left(LAST_WORDS + SOON))
    release.set()
    logged = capfd.readouterr().err
    assert "in waits_for_a_thread" in logged
    assert "in never_comes_back" in logged


def test_an_invocation_that_ended_is_not_logged_while_the_function_waits_for_the_next(
    capfd: pytest.CaptureFixture[str],
) -> None:
    def fails(_event: Any, _context: LambdaContext) -> None:
        raise KeyError

    with pytest.raises(KeyError):
        explained(fails)({}, with_left(LAST_WORDS + SOON))
    time.sleep(SOON.total_seconds() * 3)
    assert capfd.readouterr().err == ""


def test_where_too_little_time_is_left_the_work_is_done_all_the_same() -> None:
    assert explained(lambda event, _context: event)("done", with_left(timedelta(0))) == "done"


@pytest.fixture
def watched(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[float]]:
    """After how many seconds threads would have been logged."""
    armed: list[float] = []
    monkeypatch.setattr(faulthandler, "dump_traceback_later", lambda seconds, file: armed.append(seconds))
    yield armed
    install(None)


@pytest.mark.parametrize("name", HANDLERS)
def test_every_function_does_so(name: str, watched: list[float]) -> None:
    handler = import_module(f"functions.{name}.app").handler
    with suppress(Exception):
        handler({"no such": "event"}, with_left(timedelta(minutes=1)))
    assert watched == [(timedelta(minutes=1) - LAST_WORDS).total_seconds()]
