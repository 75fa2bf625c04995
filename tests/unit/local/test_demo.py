"""The demo's display and plan, without a stack."""

from datetime import date, timedelta
from io import StringIO
from threading import Event
from typing import Any

import pytest
from rich.console import Console

from local.demo import play as plan
from local.demo.acts.signals import streak
from local.demo.display import Act, Display, _Stage, over, summary
from local.demo.play import PARTS, Part, play
from local.demo.running import DemoError

MONDAY = date(2026, 3, 2)


class Stack:
    """Stands for a running stack."""

    def __init__(self) -> None:
        self.stopping = Event()

    def time_left(self) -> float:
        return 10.0


def console(width: int = 80, height: int = 24, *, terminal: bool) -> Console:
    return Console(
        file=StringIO(), width=width, height=height, force_terminal=terminal, highlight=False, legacy_windows=False
    )


def written(shown: Console) -> str:
    assert isinstance(shown.file, StringIO)
    return shown.file.getvalue()


def perform(monkeypatch: pytest.MonkeyPatch, *parts: Part, terminal: bool = False) -> tuple[bool, str]:
    monkeypatch.setattr(plan, "PARTS", parts)
    shown = console(100, 40, terminal=terminal)
    stack: Any = Stack()
    term: Any = None
    return play(stack, term, shown), written(shown)


def right(act: Act, *_: object) -> None:
    act.say("something happens")
    act.check("things that happened", 1, 1)


def wrong(act: Act, *_: object) -> None:
    act.check("things that happened", 1, 2)


def broken(act: Act, *_: object) -> None:
    raise DemoError("waited 60 s in vain for it")


@pytest.mark.parametrize("terminal", [True, False])
def test_is_right_when_every_check_holds(monkeypatch: pytest.MonkeyPatch, terminal: bool) -> None:
    is_right, said = perform(monkeypatch, Part("a", "An act", right), terminal=terminal)
    assert is_right
    assert "something happens" in said
    assert "✗" not in said


def test_is_wrong_when_a_check_does_not_hold(monkeypatch: pytest.MonkeyPatch) -> None:
    is_right, said = perform(monkeypatch, Part("a", "An act", right), Part("b", "Another", wrong))
    assert not is_right
    assert "✗" in said


def test_an_act_that_breaks_off_makes_it_wrong_and_the_others_go_on(monkeypatch: pytest.MonkeyPatch) -> None:
    is_right, said = perform(monkeypatch, Part("a", "An act", broken), Part("b", "Another", right, after=("a",)))
    assert not is_right
    assert "waited 60 s in vain for it" in said
    assert "something happens" in said


def test_acts_wait_for_those_they_need(monkeypatch: pytest.MonkeyPatch) -> None:
    order: list[str] = []

    def note(act: Act, *_: object) -> None:
        order.append(act.name)

    perform(monkeypatch, Part("late", "Late", note, after=("early",)), Part("early", "Early", note))
    assert order == ["early", "late"]


def test_acts_wait_for_none_that_waits_for_them() -> None:
    names = [part.name for part in PARTS]
    for place, part in enumerate(PARTS):
        assert set(part.after) <= set(names[:place])


def test_where_nothing_can_move_there_are_no_control_codes(monkeypatch: pytest.MonkeyPatch) -> None:
    _, said = perform(monkeypatch, Part("a", "An act", right))
    assert "\x1b" not in said


@pytest.mark.parametrize(("width", "height"), [(100, 40), (80, 24), (60, 10), (40, 5)])
def test_what_is_under_way_fits_into_the_terminal(width: int, height: int) -> None:
    shown = console(width, height, terminal=True)
    display = Display(shown)
    for number in range(7):
        act = Act(f"act-{number}", f"Act {number}, which has a rather long title for a narrow terminal", display)
        act.begin()
        act.at(number, 10, "things")
        for line in range(6):
            act.say(f"line {line} " + "is rather long " * 10)
    lines = shown.render_lines(_Stage(display), pad=False)
    assert len(lines) < height


def test_the_table_says_which_act_never_ended() -> None:
    shown = console(terminal=False)
    act = Act("lost", "Lost", Display(shown))
    shown.print(summary([act]))
    assert "did not come to its end" in written(shown)
    assert not act.passed


def test_an_act_that_is_over_keeps_all_its_lines() -> None:
    shown = console(terminal=True)
    act = Act("a", "An act", Display(shown))
    act.begin()
    for number in range(50):
        act.say(f"line-{number:02}")
    act.end()
    shown.print(over(act))
    assert all(f"line-{number:02}" in written(shown) for number in range(50))


@pytest.mark.parametrize(
    ("weeks_ago", "length"),
    [((), 0), ((0,), 1), ((1,), 1), ((2,), 0), ((0, 1, 2), 3), ((1, 2, 3), 3), ((0, 2, 3), 1), (range(60), 53)],
)
def test_a_streak_may_end_with_the_week_before_this_one(weeks_ago: tuple[int, ...], length: int) -> None:
    assert streak({MONDAY - timedelta(weeks=ago) for ago in weeks_ago}, MONDAY) == length
