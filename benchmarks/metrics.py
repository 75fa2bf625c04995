"""How fast `/metrics` answers, and statistics are read and rolled up, with 60 jobs and a million runs behind them.

The stack is that of `benchmarks.stack`, as for the admin page. Most of a warm answer goes into asking for the counts of
80 queues, 20 at a time: a millisecond of the processor each on this side, and about as much on the emulator's.
"""

import json
import sys
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Final

from benchmarks.stack import RUNS, STACK, TAKEN, install_stack, line, measured_by, timed
from schoolbell import aws
from schoolbell.database import Database
from schoolbell.operations.statistics import read, roll_up
from tests.fakes.gateway import content, payload
from tests.performing import Invocation

TITLE: Final = "Metrics: an answer of /metrics with 60 jobs and 1,000,000 runs, and the statistics behind it"
COLUMNS: Final = TAKEN

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

    def ask() -> int:
        answer = app.handler(event, Invocation())
        if answer["statusCode"] != 200:
            raise RuntimeError(f"/metrics answered {answer['statusCode']}")
        return len(content(answer))

    def ask_anew() -> int:
        app._catalogues.clear()
        return ask()

    def read_since(since: timedelta | None) -> int:
        with on.database.transaction(read_only=True) as connection:
            return len(read(connection, on.clock() - since if since else None))

    asked: list[tuple[str, Callable[[], int], int]] = [
        ("/metrics, the first of an execution environment", ask, 1),
        (f"/metrics, jobs listed in the last {app.CATALOGUE_FOR.total_seconds():.0f} s", ask, ANSWERS),
        ("/metrics, jobs listed anew", ask_anew, ANSWERS),
        ("statistics of all time", lambda: read_since(None), ANSWERS),
        ("statistics of 30 days", lambda: read_since(timedelta(days=30)), ANSWERS),
        (f"writing and rolling up {ROLLED_UP_AT_ONCE:,} runs", lambda: roll_up_new(on.database), 3),
        (f"a roll-up that finds nothing in {RUNS:,} runs", lambda: roll_up_rest(on.database), ANSWERS),
    ]
    return [line(name, [timed(act) for _ in range(times)]) for name, act, times in asked]


def roll_up_new(database: Database) -> int:
    """Writes runs that have just ended, and rolls them up."""
    with database.transaction() as connection:
        connection.exec_driver_sql(
            "INSERT INTO platform.job_runs (job, trigger, status, started_at, finished_at)"
            " SELECT 'platform.job-' || lpad(mod(n, 60)::text, 2, '0'), 'queue', 'completed', now(), now()"
            f" FROM generate_series(1, {ROLLED_UP_AT_ONCE}) AS n"
        )
    return roll_up_rest(database)


def roll_up_rest(database: Database) -> int:
    """Rolls up what is left, which is nothing from the second time on."""
    with database.transaction() as connection:
        return roll_up(connection, datetime.now(UTC))


if __name__ == "__main__":
    if sys.argv[1:] == ["measure"]:
        print(json.dumps(measure()))
    else:
        for measured in run():
            print(" | ".join(measured))
