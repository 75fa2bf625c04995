"""How long data retention takes, and how much memory, at so many students with thirty lessons each.

The weekly run finds a week's worth of what is due; the first run finds all that ever was, and takes as long as its rows
take to write: minutes at a million students, which is measured once. One student in fifty left long ago: those are the
ones to be erased, beside the few who asked for it.
"""

from collections.abc import Sequence
from datetime import timedelta
from typing import Final

from sqlalchemy import text

from benchmarks import dataset
from benchmarks.outbox import queue
from benchmarks.scheduled import NOW, RUNS, Kind, Measured, measure
from schoolbell.database import Database

TITLE: Final = "Data retention: students erased, and lesson content and contact log cleared by age"
COLUMNS: Final = ("students", "run", "runs", "median", "peak memory", "students erased", "rows erased", "rows cleared")
JOB: Final = "functions.tutoring.data_retention.app"
SIZES: Final = (10_000, 100_000, 1_000_000)
ONCE: Final = 1_000_000
"""From here on the first run is measured once."""

KINDS: Final = (
    Kind("weekly", earlier=NOW - timedelta(days=7)),
    Kind("first", runs=lambda students: RUNS if students < ONCE else 1),
)

# Who has not been seen for years has had no lessons either.
_LONG_GONE: Final = """
UPDATE tutoring.sessions AS lesson
SET starts_at = starts_at - interval '2 years', ends_at = ends_at - interval '2 years'
FROM tutoring.students AS student
WHERE student.id = lesson.student_id AND student.status = 'inactive'
"""


def run(sizes: Sequence[int] = SIZES) -> list[tuple[str, ...]]:
    """Measures, and returns the lines of the table under `COLUMNS`."""
    with queue() as environment:
        return [_line(measured) for measured in measure(JOB, fill, sizes, kinds=KINDS, environment=environment)]


def fill(database: Database, students: int) -> None:
    """A tutoring business in which some students have been gone for years."""
    dataset.fill(database, students)
    with database.transaction() as connection:
        connection.execute(text("SET LOCAL statement_timeout = 0"))
        connection.execute(text(_LONG_GONE))


def _line(measured: Measured) -> tuple[str, ...]:
    result = measured.result
    return (
        f"{measured.size:,}",
        measured.kind,
        f"{measured.runs}",
        f"{measured.seconds:.2f} s",
        f"{measured.megabytes:.0f} MB",
        f"{result['students_erased']:,}",
        f"{sum(result['rows_erased'].values()):,}",
        f"{sum(result[name] for name in ('sessions_cleared', 'contacts_deleted', 'messages_cleared')):,}",
    )


if __name__ == "__main__":
    print(TITLE)
    print(" | ".join(COLUMNS))
    for line in run():
        print(" | ".join(line))
