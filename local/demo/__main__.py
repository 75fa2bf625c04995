"""Runs the demo: `make demo`, or `python -m local.demo`."""

import argparse
import os
import sys
import time
from pathlib import Path

from local.home import CHECKOUT, DEFAULT_HOME, Home

sys.path.insert(0, str(CHECKOUT / "shared"))  # Lambda has the package in a layer

from local import stack
from local.bundle import CommandError
from local.demo.play import play
from local.demo.running import DemoError, Running
from local.demo.scenery import prepare
from local.postgres import PostgresError
from local.processes import ProcessError
from local.progress import CONSOLE


def main() -> int:
    """Bring the stack up, perform, and say how to look further. Returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m local.demo", description=__doc__)
    parser.add_argument("--home", type=Path, default=DEFAULT_HOME, help="where the instance keeps its files")
    parser.add_argument("--seed", type=int, default=2026, help="decides what the term is like")
    options = parser.parse_args()
    try:
        return demonstrate(Home(options.home), options.seed)
    except (CommandError, ProcessError, PostgresError, DemoError) as failure:
        CONSOLE.print(str(failure), style="red", markup=False, soft_wrap=True)
        return 1
    except KeyboardInterrupt:
        CONSOLE.print("\nStopped. The stack is running on; to end it: make down")
        return 130


def demonstrate(home: Home, seed: int) -> int:
    """The demo itself."""
    began = time.monotonic()
    state = home.state()
    asked = os.environ.get("AUTH", "").lower() in ("1", "true", "yes")
    stack.up(home, state.stack, enforce_iam=asked or state.enforces_iam)
    running = Running(home)
    try:
        CONSOLE.print()
        with running.without_rules():
            term = prepare(running, seed)
            CONSOLE.print()
            is_right = play(running, term, CONSOLE)
    finally:
        running.close()
    took = time.monotonic() - began
    if is_right:
        CONSOLE.print(f"[green]✓[/] All as it should be, in {took // 60:.0f} min {took % 60:.0f} s.\n")
    else:
        CONSOLE.print("[red]✗[/] Not all is as it should be: see the lines marked ✗.\n")
    CONSOLE.print(farewell(running), soft_wrap=True)
    return 0 if is_right else 1


def farewell(running: Running) -> str:
    """Where to look further."""
    return "\n".join(
        [
            "The stack is running on, with all that you have seen in it:",
            "  [cyan]make logs[/]     what the functions logged; JOB=drive-copy for one",
            "  [cyan]make status[/]   what is running, and where",
            "  [cyan]make demo[/]     once more, from the beginning",
            "  [cyan]make down[/]     the end",
            f"  database     {running.database_url}",
            f"  AWS          {running.endpoint}",
            f"  Google       {running.google_url}/sandbox/requests",
        ]
    )


if __name__ == "__main__":
    sys.exit(main())
