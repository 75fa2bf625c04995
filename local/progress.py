"""What a command is doing, one line a step."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

from rich.console import Console

CONSOLE: Final = Console(highlight=False, emoji=False)


class Step:
    """One step under way; `note` says what came of it."""

    def __init__(self) -> None:
        self.note = ""


@contextmanager
def step(name: str) -> Iterator[Step]:
    """Show a step while it runs, then how long it took, or that it failed."""
    current, began = Step(), time.monotonic()
    try:
        with CONSOLE.status(f"{name} …"):
            yield current
    except BaseException:
        CONSOLE.print(f"[red]✗[/] {name}")
        raise
    took = time.monotonic() - began
    CONSOLE.print(f"[green]✓[/] {name:<12} [dim]{took:5.1f} s[/]  {current.note}")
