"""An invocation that hangs says where, before Lambda ends it."""

import faulthandler
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import suppress
from datetime import timedelta
from pathlib import Path
from typing import Any, Final

import pytest

from schoolbell.jobs.invocation import LAST_WORDS, LambdaContext, explained, handler_of
from schoolbell.jobs.runtime import install
from tests.performing import Invocation


def with_left(left: timedelta) -> Invocation:
    return Invocation(remaining=lambda: left)


HANGS: Final = """
import threading
from schoolbell.jobs.invocation import explained

class Context:
    def get_remaining_time_in_millis(self):
        return 3_500  # of which two seconds are the last words: time enough to start a thread on a busy machine

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


IMPORTED: Final = """
import gc
from schoolbell.jobs.invocation import handler_of

class Context:
    def get_remaining_time_in_millis(self):
        return 60_000

assert not gc.get_freeze_count()
handler = handler_of("app")
assert handler({}, Context()) == (False, True), "the collector waits while the module is imported, and not beyond"
assert gc.get_freeze_count(), "and passes over what was imported"
"""

APP: Final = """
import gc
during = gc.isenabled()

def handler(event, context):
    return during, gc.isenabled()
"""


def test_what_is_imported_stays_out_of_the_garbage_collectors_sight(tmp_path: Path) -> None:
    (tmp_path / "app.py").write_text(APP)
    path = os.pathsep.join([str(tmp_path), *sys.path])
    subprocess.run([sys.executable, "-c", IMPORTED], env={**os.environ, "PYTHONPATH": path}, check=True)


@pytest.fixture
def watched(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[float]]:
    """After how many seconds threads would have been logged."""
    armed: list[float] = []
    monkeypatch.setattr(faulthandler, "dump_traceback_later", lambda seconds, file: armed.append(seconds))
    yield armed
    install(None)


def test_what_is_imported_is_explained(watched: list[float]) -> None:
    handler = handler_of("functions.tutoring.auto_complete.app")
    with suppress(Exception):
        handler({"no such": "event"}, with_left(timedelta(minutes=1)))
    assert watched == [(timedelta(minutes=1) - LAST_WORDS).total_seconds()]
