"""The acts on the screen: those under way move, those that are over stay; plain lines where nothing can move."""

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from threading import RLock
from typing import Final

from rich.box import ROUNDED, SIMPLE_HEAD
from rich.console import Console, ConsoleOptions, Group, RenderableType, RenderResult
from rich.live import Live
from rich.panel import Panel
from rich.progress_bar import ProgressBar
from rich.spinner import Spinner
from rich.table import Table
from rich.text import Text

NUMBERS: Final = r"(?<![\w-])\d[\d,.:]*(?![\w-])"
WIDEST: Final = 100
MORE_THAN_A_LINE: Final = 4  # lines from which on an act that is under way gets a frame


@dataclass(frozen=True, slots=True)
class Check:
    """What should be so, and what is."""

    what: str
    expected: object
    found: object

    @property
    def holds(self) -> bool:
        return self.expected == self.found


@dataclass
class Act:
    """One act: what it says, how far it is, and what was checked. Its own thread writes, the display reads."""

    name: str
    title: str
    display: "Display"
    lines: list[tuple[float, str]] = field(default_factory=list)
    checks: list[Check] = field(default_factory=list)
    progress: tuple[float, float, str] | None = None
    began: float = 0.0
    took: float | None = None
    failure: str = ""

    @property
    def elapsed(self) -> float:
        """Seconds since it began."""
        return time.monotonic() - self.began if self.took is None else self.took

    @property
    def passed(self) -> bool:
        """Whether it went through, and all its checks hold."""
        return self.took is not None and not self.failure and all(check.holds for check in self.checks)

    def begin(self) -> None:
        """It comes on stage."""
        self.began = time.monotonic()
        self.display.enter(self)

    def say(self, text: str) -> None:
        """Tell the next thing that happened, in a line."""
        self.lines.append((self.elapsed, text))
        self.display.line(self, text)

    def at(self, done: float, total: float, unit: str = "") -> None:
        """How far it is with what it is doing now."""
        self.progress = (min(done, total), total, unit)

    def check(self, what: str, expected: object, found: object) -> None:
        """Compare what should be so with what is; the table at the end shows it."""
        self.checks.append(Check(what, expected, found))

    def end(self, failure: str = "") -> None:
        """It is over; `failure` says what broke it off."""
        self.failure = failure
        self.progress = None
        if failure:
            self.say(failure)
        self.took = self.elapsed
        self.display.leave(self)


class Display:
    """Shows acts that run side by side."""

    def __init__(self, console: Console) -> None:
        self.console = console
        self.moves = console.is_terminal and not console.is_dumb_terminal
        self._running: list[Act] = []
        self._began = time.monotonic()
        self._guard = RLock()

    @contextmanager
    def shown(self) -> Iterator[None]:
        """Show what is under way for as long as this lasts."""
        self._began = time.monotonic()
        if not self.moves:
            yield
            return
        with Live(_Stage(self), console=self.console, refresh_per_second=8, transient=True):
            yield

    def enter(self, act: Act) -> None:
        """An act begins."""
        with self._guard:
            self._running.append(act)
            if not self.moves:
                self._plain(act, f"▶ {act.title}")

    def line(self, act: Act, text: str) -> None:
        """An act said something."""
        if not self.moves:
            with self._guard:
                self._plain(act, text)

    def leave(self, act: Act) -> None:
        """An act is over."""
        with self._guard:
            self._running.remove(act)
            if not self.moves:
                self._plain(act, f"{mark(act)} {act.title}, {act.elapsed:.0f} s")
        if self.moves:  # not under the guard: whoever draws has the console, and asks for what is running
            self.console.print(over(act), width=min(self.console.width, WIDEST))

    def running(self) -> Sequence[Act]:
        """The acts that are under way, in the order in which they began."""
        with self._guard:
            return list(self._running)

    def _plain(self, act: Act, text: str) -> None:
        elapsed = time.monotonic() - self._began
        self.console.print(f"{elapsed:6.1f} s  {act.name:<10}  {text}", markup=False, soft_wrap=True)


@dataclass
class _Stage:
    """The acts that are under way, in no more lines than the terminal has."""

    display: Display
    spinner: Spinner = field(default_factory=lambda: Spinner("dots", style="cyan"))

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        acts = self.display.running()
        if not acts:
            return
        lines = max(1, (console.height - 1) // len(acts))
        width = min(console.width, WIDEST)
        for act in acts[: console.height - 1]:
            if lines >= MORE_THAN_A_LINE:
                body = tail(act, lines - 2 - (act.progress is not None), width - 4)
                frame = Panel(Group(*bar(act), body), title=self.head(act, console), title_align="left", width=width)
                frame.box, frame.border_style = ROUNDED, "cyan"
                yield frame
            else:
                yield one_line(Text.assemble(self.head(act, console), "  ", (progress(act), "cyan")), width)
                if lines > 1:
                    yield tail(act, lines - 1, width)

    def head(self, act: Act, console: Console) -> Text:
        """The title of an act under way, with a spinner."""
        turning = self.spinner.render(console.get_time())
        sign = turning if isinstance(turning, Text) else Text("·")
        return Text.assemble(sign, " ", (act.title, "bold"), (f" {act.elapsed:.0f} s", "dim"))


def bar(act: Act) -> list[RenderableType]:
    """How far an act is, as a bar, if it says so."""
    if act.progress is None:
        return []
    done, total, _ = act.progress
    grid = Table.grid(padding=(0, 1), expand=True)
    grid.add_column(ratio=1)
    grid.add_column(justify="right")
    grid.add_row(ProgressBar(total=total, completed=done), Text(progress(act), style="cyan"))
    return [grid]


def progress(act: Act) -> str:
    """How far an act is, in numbers, if it says so."""
    if act.progress is None:
        return ""
    done, total, unit = act.progress
    return f"{done:,.0f} of {total:,.0f} {unit}".rstrip()


def tail(act: Act, lines: int, width: int) -> Text:
    """The last lines that an act said, as many as there is room for."""
    shown = act.lines[-max(1, lines) :]
    return Text("\n").join(one_line(told(elapsed, text), width) for elapsed, text in shown)


def one_line(text: Text, width: int) -> Text:
    """Cut a text where it does not fit into a line."""
    text.truncate(width, overflow="ellipsis")
    text.no_wrap = True
    return text


def told(elapsed: float, text: str) -> Text:
    """A line with its time."""
    line = Text.assemble((f"{elapsed:5.1f}  ", "dim"), text)
    line.highlight_regex(NUMBERS, "cyan")
    return line


def mark(act: Act) -> str:
    """Whether an act went well."""
    return "✓" if act.passed else "✗"


def over(act: Act) -> Panel:
    """All that an act said."""
    colour = "green" if act.passed else "red"
    body = Table.grid(padding=(0, 2, 0, 0))
    body.add_column(justify="right", style="dim", no_wrap=True)
    body.add_column()
    for elapsed, text in act.lines:
        line = Text(text)
        line.highlight_regex(NUMBERS, "cyan")
        body.add_row(f"{elapsed:.1f}", line)
    title = Text.assemble((f"{mark(act)} ", colour), (act.title, "bold"), (f" {act.elapsed:.0f} s", "dim"))
    return Panel(body, title=title, title_align="left", border_style=colour, box=ROUNDED)


def summary(acts: Sequence[Act]) -> Table:
    """What was checked: expected and found."""
    table = Table(box=SIMPLE_HEAD, title="What should have happened, and what the database and AWS say", pad_edge=False)
    table.title_justify, table.title_style = "left", "bold"
    table.add_column("")
    table.add_column("", style="dim", no_wrap=True)
    table.add_column("", ratio=1)
    table.add_column("expected", justify="right", overflow="fold")
    table.add_column("found", justify="right", overflow="fold")
    for act in acts:
        name = act.name
        for check in act.checks:
            sign = Text("✓", "green") if check.holds else Text("✗", "red bold")
            table.add_row(sign, name, check.what, shown(check.expected), shown(check.found))
            name = ""
        if act.failure or act.took is None:
            table.add_row(Text("✗", "red bold"), name, Text(act.failure or "did not come to its end", "red"), "", "")
    return table


def shown(value: object) -> str:
    """A value of a check, for reading."""
    if value is None:
        return "none"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int):
        return f"{value:,}"
    return str(value)
