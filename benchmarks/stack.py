"""The stack that the benchmarks of HTTP answers ask: 60 jobs, and a million runs behind them.

A PostgreSQL of its own with the runs, and the AWS emulator, which knows 60 functions with their rules, schedules,
queues and event source mappings. Statistics have been rolled up, but for the last thousand runs.
"""

import contextlib
import io
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
import zipfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Final
from unittest.mock import patch

from sqlalchemy import text

from local.emulator.process import ACCESS_KEY, REGION, SECRET_KEY, client, endpoint, start_emulator
from local.home import Home
from local.postgres import Postgres
from local.processes import free_port, stop
from schoolbell.database import Database, DatabaseAddress
from schoolbell.database.migrations import upgrade
from schoolbell.jobs.runtime import Runtime, install
from schoolbell.operations.statistics import roll_up
from schoolbell.settings import settings

STACK: Final = "bench"
ACCOUNT: Final = "000000000000"
JOBS: Final = 60
QUEUES: Final = 20
SCHEDULES: Final = 20
RUNS: Final = 1_000_000
NOT_COUNTED: Final = 1_000

TAKEN: Final = ("what", "times", "median", "fastest", "processor", "size")

type Taken = tuple[float, float, int]
"""Seconds on the clock, seconds of the processor, and bytes."""


def measured_by(module: str, **variables: str) -> list[tuple[str, ...]]:
    """The lines of a table that a module's `measure` prints as JSON, in a process of its own, as an environment is one.

    Args:
        module: run with the argument `measure`; it installs the stack with `install_stack`.
        variables: what its environment has besides.
    """
    with tempfile.TemporaryDirectory(prefix="schoolbell-bench-") as directory:
        folder = Path(directory)
        with database(folder) as url, emulator(folder) as emulated:
            fill(url)
            environment: Mapping[str, str] = {
                **os.environ,
                **emulated,
                "SCHOOLBELL_STACK": STACK,
                "SCHEDULE_GROUP": STACK,
                "AWS_ACCOUNT_ID": ACCOUNT,
                "BENCH_DATABASE": url,
                "POWERTOOLS_LOG_LEVEL": "ERROR",
                "POWERTOOLS_METRICS_DISABLED": "true",
                **variables,
            }
            measured = subprocess.run(
                [sys.executable, "-m", module, "measure"], env=environment, stdout=subprocess.PIPE, check=True
            )
    return [tuple(line) for line in json.loads(measured.stdout.splitlines()[-1])]


def install_stack() -> Runtime:
    """What the measuring process runs on."""
    address = DatabaseAddress.from_url(os.environ["BENCH_DATABASE"])
    on = Runtime(Database(lambda: address, timedelta(seconds=60)), settings(), lambda: datetime.now(UTC))
    install(on)
    return on


def timed(act: Callable[[], int]) -> Taken:
    """What an act that returns a size takes."""
    started, busy = time.perf_counter(), time.process_time()
    size = act()
    return time.perf_counter() - started, time.process_time() - busy, size


def line(name: str, all_taken: Sequence[Taken]) -> tuple[str, ...]:
    """A line of the table; the processor's time is the function's own, whatever else the machine does."""
    median, fastest = (pick([clock for clock, _, _ in all_taken]) * 1000 for pick in (statistics.median, min))
    used = statistics.median(processor * 1000 for _, processor, _ in all_taken)
    size = all_taken[-1][2] / 1024
    return name, str(len(all_taken)), f"{median:.0f} ms", f"{fastest:.0f} ms", f"{used:.0f} ms", f"{size:.0f} KiB"


@contextlib.contextmanager
def database(folder: Path) -> Iterator[str]:
    """A migrated PostgreSQL."""
    server = Postgres(folder / "data", lifetime="caller")
    server.start()
    try:
        yield server.url()
    finally:
        server.remove()


def fill(url: str) -> None:
    """Writes a million runs of 60 jobs over 30 days, and dead letters, and rolls the statistics up."""
    address = DatabaseAddress.from_url(url)
    database = Database(lambda: address, timedelta(minutes=10))
    with database.engine.connect() as connection:
        upgrade(connection)
    now = datetime.now(UTC)
    values = {"runs": RUNS, "jobs": JOBS, "now": now, "every": 30 * 86_400 / RUNS}
    with database.transaction() as connection:
        connection.execute(_RUNS, values)
        connection.execute(_LETTERS)
    while True:
        with database.transaction() as connection:
            if roll_up(connection, now, size=RUNS // 4) == 0:
                break
    with database.transaction() as connection:
        connection.execute(_RUNS, {**values, "runs": NOT_COUNTED, "every": 0.2})
    with database.engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        connection.execute(text("VACUUM ANALYZE platform.job_runs, platform.job_statistics"))
    database.close()


# Half of the runs are those of ten busy jobs; one in fifty fails.
_RUNS = text(
    """
    INSERT INTO platform.job_runs (job, trigger, started_at, finished_at, status, items_done, error, result)
    SELECT 'platform.job-' || lpad(number::text, 2, '0'), 'queue',
           at, at + (random() * 3 + 0.1) * interval '1 second',
           CASE WHEN mod(n, 50) = 0 THEN 'failed' ELSE 'completed' END, 7,
           CASE WHEN mod(n, 50) = 0 THEN 'session_id: no such session' END, '{"completed": 7}'
    FROM generate_series(1, :runs) AS n,
         LATERAL (
             SELECT cast(:now AS timestamptz) - (10 + n * cast(:every AS float8)) * interval '1 second',
                    CASE WHEN mod(n, 2) = 0 THEN mod(n / 2, 10) ELSE mod(n, :jobs) END
         ) AS run (at, number)
    """
)
_LETTERS = text(
    """
    INSERT INTO platform.dead_letters (job, queue, payload, attempts, reason, error)
    SELECT 'platform.job-' || lpad(mod(n, 10)::text, 2, '0'), 'q', '{}', 5, 'failed', 'no such session'
    FROM generate_series(1, 500) AS n
    """
)


@contextlib.contextmanager
def emulator(folder: Path) -> Iterator[dict[str, str]]:
    """The emulator with 60 functions and what rings them; gives the environment that leads there."""
    home = Home(folder / "home")
    home.logs.mkdir(parents=True, exist_ok=True)
    port = free_port()
    process = start_emulator(home, port, enforce_iam=False)
    try:
        deploy(port)
        yield {
            "AWS_ENDPOINT_URL": endpoint(port),
            "AWS_ACCESS_KEY_ID": ACCESS_KEY,
            "AWS_SECRET_ACCESS_KEY": SECRET_KEY,
            "AWS_REGION": REGION,
            "AWS_DEFAULT_REGION": REGION,
        }
    finally:
        stop(process)


def deploy(port: int) -> None:
    """Makes functions, queues, rules and schedules. Nothing of it is ever invoked."""
    with patch.dict(os.environ, {"AWS_DEFAULT_REGION": REGION}):
        services = {name: client(name, port) for name in ("iam", "lambda", "sqs", "events", "scheduler")}
    trust = json.dumps({"Version": "2012-10-17", "Statement": []})
    role = services["iam"].create_role(RoleName="bench", AssumeRolePolicyDocument=trust)["Role"]["Arn"]
    services["scheduler"].create_schedule_group(Name=STACK)
    code = io.BytesIO()
    with zipfile.ZipFile(code, "w") as archive:
        archive.writestr("app.py", "def handler(event, context): ...")
    for number in range(JOBS):
        name = f"{STACK}-platform-job-{number:02}"
        function: dict[str, Any] = services["lambda"].create_function(
            FunctionName=name,
            Runtime="python3.13",
            Role=role,
            Handler="schoolbell.entrypoint.handler",
            Code={"ZipFile": code.getvalue()},
            Description=f"Do the work of job {number}, as far as there is any",
            Timeout=300,
            Environment={"Variables": {"SCHOOLBELL_STACK": STACK, "SCHOOLBELL_DOMAIN": "platform"}},
        )
        if number < QUEUES:
            url = services["sqs"].create_queue(QueueName=name)["QueueUrl"]
            asked = services["sqs"].get_queue_attributes(QueueUrl=url, AttributeNames=["QueueArn"])
            services["lambda"].create_event_source_mapping(
                EventSourceArn=asked["Attributes"]["QueueArn"], FunctionName=name
            )
        elif number < QUEUES + SCHEDULES:
            services["scheduler"].create_schedule(
                Name=name,
                GroupName=STACK,
                ScheduleExpression=f"cron({number} 3 * * ? *)",
                ScheduleExpressionTimezone="Europe/Berlin",
                FlexibleTimeWindow={"Mode": "OFF"},
                Target={"Arn": function["FunctionArn"], "RoleArn": role},
            )
        else:
            services["events"].put_rule(Name=name, ScheduleExpression="rate(5 minutes)")
