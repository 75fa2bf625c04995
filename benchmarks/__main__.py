"""Run the benchmarks, print their tables, keep them in benchmarks/RESULTS.md: ``python -m benchmarks [NAME ...]``."""

import argparse
import os
import platform
import subprocess
import time
from collections.abc import Sequence
from datetime import UTC, datetime
from importlib import import_module
from pathlib import Path
from typing import Final

from rich.console import Console
from rich.table import Table

from local.postgres import program_path

NAMES: Final = (
    "completion",
    "outbox",
    "notifications",
    "cold_start",
    "waitlist",
    "lifecycle",
    "retention",
    "audit",
    "admin",
    "metrics",
)
RESULTS: Final = Path(__file__).with_name("RESULTS.md")
CONSOLE: Final = Console()


def main() -> None:
    """Run what was asked for; everything else keeps the results that it had."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"{', '.join(NAMES)}; all if none is given")
    parser.add_argument("--most", type=int, help="no data set larger than this many students")
    options = parser.parse_args()
    if unknown := set(options.names) - set(NAMES):
        parser.error(f"no such benchmark: {', '.join(sorted(unknown))}")
    sections = _kept()
    for name in options.names or NAMES:
        module = import_module(f"benchmarks.{name}")
        started = time.monotonic()
        with CONSOLE.status(f"{module.TITLE} …"):
            sizes = [size for size in getattr(module, "SIZES", ()) if not options.most or size <= options.most]
            lines = module.run(sizes) if sizes else module.run()
        _show(module.TITLE, module.COLUMNS, lines)
        CONSOLE.print(f"  measured in {time.monotonic() - started:.0f} s\n", style="dim")
        sections[module.TITLE] = _section(module.TITLE, module.COLUMNS, lines)
        RESULTS.write_text(_document(sections))


def _show(title: str, columns: Sequence[str], lines: Sequence[Sequence[str]]) -> None:
    table = Table(title=title, title_justify="left")
    for position, column in enumerate(columns):
        table.add_column(column, justify="right" if position else "left")
    for line in lines:
        table.add_row(*line)
    CONSOLE.print(table)


def _section(title: str, columns: Sequence[str], lines: Sequence[Sequence[str]]) -> str:
    rows = [columns, ["---", *(["---:"] * (len(columns) - 1))], *lines]
    table = "\n".join(f"| {' | '.join(row)} |" for row in rows)
    return f"## {title}\n\n{datetime.now(UTC):%Y-%m-%d}, {machine()}\n\n{table}\n"


def _document(sections: dict[str, str]) -> str:
    head = (
        "# Measured\n\n"
        "Written by `make bench`. Medians; the database, the job and whatever stands in for AWS share the machine.\n\n"
    )
    return head + "\n".join(sections.values())


def _kept() -> dict[str, str]:
    if not RESULTS.exists():
        return {}
    parts = RESULTS.read_text().split("\n## ")[1:]
    return {part.partition("\n")[0]: f"## {part}" if part.endswith("\n") else f"## {part}\n" for part in parts}


def machine() -> str:
    """The machine in a few words, and how busy it was: whatever else ran on it slowed what was measured."""
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    return (
        f"{os.cpu_count()} cores ({_processor()}), {memory:.0f} GiB, "
        f"Python {platform.python_version()}, PostgreSQL {_postgres()}, load average {os.getloadavg()[1]:.1f}"
    )


def _processor() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return " ".join(line.partition(":")[2].split())
    return platform.machine()


def _postgres() -> str:
    version = subprocess.run([program_path("postgres"), "--version"], stdout=subprocess.PIPE, check=True, text=True)
    return version.stdout.split()[-1]


if __name__ == "__main__":
    main()
