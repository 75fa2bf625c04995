"""How long the hourly run over the waiting lists takes: offers that nobody looks after, expired and offered on."""

from collections.abc import Sequence
from typing import Final

from benchmarks.dataset import fill
from benchmarks.outbox import queue
from benchmarks.scheduled import measure

TITLE: Final = "Waitlist expiry: stale offers expired, and their seats handed on through the outbox to SQS"
COLUMNS: Final = ("students", "runs", "median", "peak memory", "offers expired", "seats handed on")
JOB: Final = "functions.tutoring.waitlist_expiry.app"
SIZES: Final = (10_000, 100_000, 1_000_000)


def run(sizes: Sequence[int] = SIZES) -> list[tuple[str, ...]]:
    """Measures, and returns the lines of the table under `COLUMNS`."""
    with queue() as environment:
        return [
            (
                f"{measured.size:,}",
                f"{measured.runs}",
                f"{measured.seconds:.2f} s",
                f"{measured.megabytes:.0f} MB",
                f"{measured.result['offers']:,}",
                f"{measured.result['seats']:,}",
            )
            for measured in measure(JOB, fill, sizes, environment=environment)
        ]


if __name__ == "__main__":
    for line in run():
        print(" | ".join(line))
