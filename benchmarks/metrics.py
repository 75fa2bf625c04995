"""How fast `/metrics` answers, and statistics are read and rolled up, with 60 jobs and a million runs behind them.

The stack is that of `benchmarks.stack`, as for the admin page. Most of a warm answer goes into asking for the counts of
80 queues, 20 at a time: a millisecond of the processor each on this side, and about as much on the emulator's.
"""

import json
import statistics
import sys
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Final

from benchmarks.stack import RUNS, STACK, install_stack, measured_by
from schoolbell import aws
from schoolbell.database import Database
from schoolbell.jobs.statistics import read, roll_up
from tests.fakes.gateway import content, payload
from tests.performing import Invocation

TITLE: Final = "Metrics: an answer of /metrics with 60 jobs and 1,000,000 runs, and the statistics behind it"
COLUMNS: Final = ("what", "times", "median", "slowest", "size")

SECRET: Final = f"{STACK}-platform-monitoring-token"
TOKEN: Final = "the-token-of-the-benchmark"  # noqa: S105 - it opens nothing
ANSWERS: Final = 20
ROLLED_UP_AT_ONCE: Final = 20_000


def run() -> list[tuple[str, ...]]:
    """Measures, and returns the lines of the table under `COLUMNS`."""
    return measured_by("benchmarks.metrics", MONITORING_SECRET_ID=SECRET)


def measure() -> list[tuple[str, ...]]:
    """Measures in this process."""
    from functions.platform.health import app

    on = install_stack()
    aws.client("secretsmanager").create_secret(Name=SECRET, SecretString=TOKEN)
    event = payload("GET", "/metrics", {"Authorization": f"Bearer {TOKEN}"})

    def ask() -> tuple[float, int]:
        started = time.perf_counter()
        answer = app.handler(event, Invocation())
        taken = time.perf_counter() - started
        if answer["statusCode"] != 200:
            raise RuntimeError(f"/metrics answered {answer['statusCode']}")
        return taken, len(content(answer))

    def ask_anew() -> tuple[float, int]:
        app._catalogues.clear()
        return ask()

    def read_since(since: timedelta | None) -> tuple[float, int]:
        started = time.perf_counter()
        with on.database.transaction(read_only=True) as connection:
            found = read(connection, on.clock() - since if since else None)
        return time.perf_counter() - started, len(found)

    asked: list[tuple[str, Callable[[], tuple[float, int]], int]] = [
        ("/metrics, the first of an execution environment", ask, 1),
        (f"/metrics, jobs listed in the last {app.CATALOGUE_FOR.total_seconds():.0f} s", ask, ANSWERS),
        ("/metrics, jobs listed anew", ask_anew, ANSWERS),
        ("statistics of all time", lambda: read_since(None), ANSWERS),
        ("statistics of 30 days", lambda: read_since(timedelta(days=30)), ANSWERS),
        (f"roll-up of {ROLLED_UP_AT_ONCE:,} runs", lambda: roll_up_new(on.database), 3),
        (f"a roll-up that finds nothing in {RUNS:,} runs", lambda: roll_up_rest(on.database), ANSWERS),
    ]
    return [line(name, [act() for _ in range(times)]) for name, act, times in asked]


def roll_up_new(database: Database) -> tuple[float, int]:
    """Rolls up runs that have just ended."""
    now = datetime.now(UTC)
    with database.transaction() as connection:
        connection.exec_driver_sql(
            "INSERT INTO platform.job_runs (job, trigger, status, started_at, finished_at)"
            " SELECT 'platform.job-' || lpad(mod(n, 60)::text, 2, '0'), 'queue', 'completed', now(), now()"
            f" FROM generate_series(1, {ROLLED_UP_AT_ONCE}) AS n"
        )
    return timed_roll_up(database, now)


def roll_up_rest(database: Database) -> tuple[float, int]:
    """Rolls up what is left, which is nothing from the second time on."""
    return timed_roll_up(database, datetime.now(UTC))


def timed_roll_up(database: Database, now: datetime) -> tuple[float, int]:
    started = time.perf_counter()
    with database.transaction() as connection:
        counted = roll_up(connection, now)
    return time.perf_counter() - started, counted


def line(name: str, answers: list[tuple[float, int]]) -> tuple[str, ...]:
    """A line of a table with the median, the slowest, and the size of what was answered."""
    taken = [seconds * 1000 for seconds, _ in answers]
    size = answers[-1][1] / 1024
    return name, str(len(taken)), f"{statistics.median(taken):.0f} ms", f"{max(taken):.0f} ms", f"{size:.0f} KiB"


if __name__ == "__main__":
    if sys.argv[1:] == ["measure"]:
        print(json.dumps(measure()))
    else:
        for measured in run():
            print(" | ".join(measured))
