"""An invocation that hangs says where, before Lambda ends it."""

import faulthandler
import os
import subprocess
import sys
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

FUNCTIONS: Final = Path(__file__).parents[3] / "functions"
HANDLERS: Final = sorted(".".join(app.relative_to(FUNCTIONS).parts[:2]) for app in FUNCTIONS.glob("*/*/app.py"))


def with_left(left: timedelta) -> Invocation:
    return Invocation(remaining=lambda: left)


HANGS: Final = """
import threading
from schoolbell.jobs.invocation import explained

class Context:
    def get_remaining_time_in_millis(self):
        return 2_200

def never_comes_back():
    threading.Event().wait(60)

def waits_for_a_thread(_event, _context):
    stuck = threading.Thread(target=never_comes_back)
    stuck.start()
    stuck.join()

explained(waits_for_a_thread)({}, Context())
"""


def test_of_an_invocation_that_hangs_every_thread_is_logged() -> None:
    process = subprocess.Popen(
        [sys.executable, "-c", HANGS],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stderr
    expected = {"in waits_for_a_thread", "in never_comes_back"}
    for line in process.stderr:
        expected -= {place for place in expected if place in line}
        if not expected:
            break
    process.kill()
    process.communicate()
    assert not expected


def test_an_invocation_that_ended_is_watched_no_longer(monkeypatch: pytest.MonkeyPatch) -> None:
    """The function may be frozen, and thawed for the next one when the time is long over."""
    done: list[str] = []
    monkeypatch.setattr(faulthandler, "dump_traceback_later", lambda *_, **__: done.append("watched"))
    monkeypatch.setattr(faulthandler, "cancel_dump_traceback_later", lambda: done.append("ended"))

    def fails(_event: Any, _context: LambdaContext) -> None:
        done.append("failed")
        raise KeyError

    with pytest.raises(KeyError):
        explained(fails)({}, with_left(timedelta(minutes=1)))
    assert done == ["watched", "failed", "ended"]


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
