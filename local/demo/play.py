"""The order of the acts: side by side where they can be, one after the other where one needs what another has done."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from threading import Event, Thread
from typing import Final

from rich.console import Console

from local.demo.acts import (
    calendar,
    dead_letters,
    drive,
    lessons,
    night,
    reminder,
    retention,
    schedules,
    signals,
    waitlist,
)
from local.demo.display import Act, Display, summary
from local.demo.running import DemoError, Running
from local.generator import Term


@dataclass(frozen=True, slots=True)
class Part:
    """An act of the play, and which others must be over before it begins."""

    name: str
    title: str
    perform: Callable[[Act, Running, Term], None]
    after: tuple[str, ...] = ()


PARTS: Final = (
    Part("lessons", lessons.TITLE, lessons.perform),
    Part("schedules", schedules.TITLE, schedules.perform),
    Part("waitlist", waitlist.TITLE, waitlist.perform),
    Part("drive", drive.TITLE, drive.perform),
    Part("calendar", calendar.TITLE, calendar.perform),
    Part("reminder", reminder.TITLE, reminder.perform),
    Part("poison", dead_letters.TITLE, dead_letters.perform, after=("lessons",)),
    Part("signals", signals.TITLE, signals.perform, after=("lessons", "poison")),
    Part("night", night.TITLE, night.perform, after=("drive", "signals")),
    Part(
        "retention",
        retention.TITLE,
        retention.perform,
        after=("lessons", "schedules", "waitlist", "drive", "calendar", "reminder", "poison", "signals", "night"),
    ),
)


def play(running: Running, term: Term, console: Console) -> bool:
    """Perform all acts. Returns whether all went through and every check holds."""
    display = Display(console)
    acts = {part.name: Act(part.name, part.title, display) for part in PARTS}
    over = {part.name: Event() for part in PARTS}

    def appear(part: Part) -> None:
        act = acts[part.name]
        for other in part.after:
            over[other].wait()
        try:
            if running.stopping.is_set():
                return
            act.begin()
            act.end(failure_of(part, act, running, term))
        finally:
            over[part.name].set()

    threads = [Thread(target=appear, args=(part,), name=part.name, daemon=True) for part in PARTS]
    with display.shown():
        for thread in threads:
            thread.start()
        watch(threads, running)
    console.print()
    console.print(summary(list(acts.values())), width=min(console.width, 100))
    return all(act.passed for act in acts.values())


def failure_of(part: Part, act: Act, running: Running, term: Term) -> str:
    """Perform an act. Returns what broke it off, or an empty string."""
    try:
        part.perform(act, running, term)
    except DemoError as error:
        return str(error)
    except Exception as error:
        return f"{type(error).__name__}: {error}"
    return ""


def watch(threads: Sequence[Thread], running: Running) -> None:
    """Wait for the acts, which end by themselves; what hangs all the same is left behind."""
    for thread in threads:
        while thread.is_alive() and running.time_left() > 0:
            thread.join(0.2)
