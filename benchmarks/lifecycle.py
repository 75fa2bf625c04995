"""How long lifecycle detection takes, and how much memory, at so many students with thirty lessons each.

The daily run finds the signals of the day before standing, and adds and ends a few; the first run finds every signal
new, and tells of each.
"""

from collections.abc import Sequence
from datetime import timedelta
from typing import Final

from benchmarks.dataset import fill
from benchmarks.scheduled import NOW, Kind, Measured, measure

TITLE: Final = "Lifecycle detection: every active student, thirty lessons each"
COLUMNS: Final = ("students", "run", "runs", "median", "peak memory", "new signals", "ended")
JOB: Final = "functions.tutoring.lifecycle_detection.app"
SIZES: Final = (10_000, 100_000, 1_000_000)


KINDS: Final = (Kind("daily", earlier=NOW - timedelta(days=1)), Kind("first"))


def run(sizes: Sequence[int] = SIZES) -> list[tuple[str, ...]]:
    """Measures, and returns the lines of the table under `COLUMNS`."""
    return [_line(measured) for measured in measure(JOB, fill, sizes, kinds=KINDS)]


def _line(measured: Measured) -> tuple[str, ...]:
    new = sum(measured.result[kind] for kind in ("gap", "churn", "enrollment_expiring", "streak"))
    return (
        f"{measured.size:,}",
        measured.kind,
        f"{measured.runs}",
        f"{measured.seconds:.2f} s",
        f"{measured.megabytes:.0f} MB",
        f"{new:,}",
        f"{measured.result['ended']:,}",
    )


if __name__ == "__main__":
    print(TITLE)
    print(" | ".join(COLUMNS))
    for line in run():
        print(" | ".join(line))
