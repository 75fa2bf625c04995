"""How fast the admin page answers, with 60 jobs and a million runs behind it.

The function's handler answers as it would for API Gateway, on a PostgreSQL of its own and on the AWS emulator, which
knows 60 functions with their rules, schedules, queues and event source mappings. The first answer of an execution
environment asks AWS for everything and draws every chart; a later one asks AWS anew when what it said is over ten
seconds old. Statistics have been rolled up, but for the last thousand runs.
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
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Final
from unittest.mock import patch

from sqlalchemy import text

from local.emulator import ACCESS_KEY, REGION, SECRET_KEY, client, endpoint, start_emulator
from local.home import Home
from local.postgres import Postgres
from local.processes import free_port, stop
from local.sandbox import oidc
from local.sandbox.server import Sandbox, serving
from schoolbell.database import Database, DatabaseAddress
from schoolbell.database.migrations import upgrade
from schoolbell.jobs.statistics import roll_up
from tests.fakes.gateway import content, payload
from tests.performing import Invocation

TITLE: Final = "Admin page: an answer with 60 jobs and 1,000,000 runs of 30 days"
COLUMNS: Final = ("answer", "answers", "median", "fastest", "processor", "size")

STACK: Final = "bench"
ACCOUNT: Final = "000000000000"
JOBS: Final = 60
QUEUES: Final = 20
SCHEDULES: Final = 20
RUNS: Final = 1_000_000
NOT_COUNTED: Final = 1_000
ANSWERS: Final = 20
PAGE: Final = "/admin/scheduled-jobs"

type Answer = tuple[float, float, int]
"""Seconds that it took, seconds of the processor, and bytes."""


def run() -> list[tuple[str, ...]]:
    """Measures, and returns the lines of the table under `COLUMNS`."""
    with tempfile.TemporaryDirectory(prefix="schoolbell-bench-") as directory:
        folder = Path(directory)
        with database(folder) as url, emulator(folder) as environment, serving(Sandbox()) as sandbox:
            fill(url)
            variables = {
                **environment,
                "SCHOOLBELL_STACK": STACK,
                "SCHEDULE_GROUP": STACK,
                "AWS_ACCOUNT_ID": ACCOUNT,
                "ADMIN_ISSUER": f"{sandbox}/oidc",
                "ADMIN_AUDIENCE": oidc.CLIENT,
                "ADMIN_URL": "https://jobs.example.org",
                "BENCH_DATABASE": url,
                "BENCH_TOKEN": oidc.token(f"{sandbox}/oidc", {}),
                "POWERTOOLS_LOG_LEVEL": "ERROR",
            }
            measured = subprocess.run(
                [sys.executable, "-m", "benchmarks.admin", "measure"],
                env={**os.environ, **variables},
                stdout=subprocess.PIPE,
                check=True,
            )
    return [tuple(line) for line in json.loads(measured.stdout.splitlines()[-1])]


def measure() -> list[tuple[str, ...]]:
    """Measures in a process of its own, as an execution environment is one."""
    from functions.platform.admin.app import handler
    from schoolbell.admin import catalogue
    from schoolbell.jobs.runtime import Runtime, install
    from schoolbell.settings import settings

    address = DatabaseAddress.from_url(os.environ["BENCH_DATABASE"])
    on = Runtime(Database(lambda: address, timedelta(seconds=30)), settings(), lambda: datetime.now(UTC))
    install(on)
    cookie = {"Cookie": f"__Host-session={os.environ['BENCH_TOKEN']}", "Accept-Encoding": "gzip"}

    def ask(target: str, fresh: bool = False) -> Answer:
        headers = {"Cookie": cookie["Cookie"] + "; __Host-changed=1"} if fresh else {"Cookie": cookie["Cookie"]}
        event = payload("GET", target, {**headers, "Accept-Encoding": "gzip"})
        started, busy = time.perf_counter(), time.process_time()
        answer = handler(event, Invocation())
        taken, used = time.perf_counter() - started, time.process_time() - busy
        if answer["statusCode"] != 200:
            raise RuntimeError(f"{target} answered {answer['statusCode']}")
        return taken, used, len(content(answer))

    job = f"{PAGE}/platform.job-00"
    asked: list[tuple[str, Callable[[], Answer], int]] = [
        ("list, the first of an execution environment", lambda: ask(PAGE), 1),
        (f"list, AWS asked in the last {catalogue.KEPT.total_seconds():.0f} s", lambda: ask(PAGE), ANSWERS),
        ("list, AWS asked anew", lambda: ask(PAGE, fresh=True), ANSWERS),
        ("a job's page", lambda: ask(job), ANSWERS),
        ("a job's runs, the hundredth page on", lambda: ask(f"{job}/runs?before={deep(on.database)}"), ANSWERS),
    ]
    return [line_with_processor(name, [act() for _ in range(times)]) for name, act, times in asked]


def deep(database: Database) -> str:
    """The key of a page far into a job's history."""
    with database.transaction() as connection:
        row = connection.execute(
            text(
                "SELECT started_at, id FROM platform.job_runs WHERE job = 'platform.job-00' "
                "ORDER BY started_at DESC, id DESC OFFSET 2500 LIMIT 1"
            )
        ).one()
    return f"{row.started_at.isoformat().replace('+', '%2B')}_{row.id}"


def line_with_processor(name: str, answers: list[Answer]) -> tuple[str, ...]:
    """A line of the table; the processor's time is the function's own, whatever else the machine does."""
    median, fastest = (pick([taken for taken, _, _ in answers]) * 1000 for pick in (statistics.median, min))
    used = statistics.median(seconds * 1000 for _, seconds, _ in answers)
    size = answers[-1][2] / 1024
    return name, str(len(answers)), f"{median:.0f} ms", f"{fastest:.0f} ms", f"{used:.0f} ms", f"{size:.0f} KiB"


def line(name: str, answers: list[tuple[float, int]]) -> tuple[str, ...]:
    """A line of a table with the median, the slowest, and the size of what was answered."""
    taken = [seconds * 1000 for seconds, _ in answers]
    size = answers[-1][1] / 1024
    return name, str(len(taken)), f"{statistics.median(taken):.0f} ms", f"{max(taken):.0f} ms", f"{size:.0f} KiB"


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
            Handler="app.handler",
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


if __name__ == "__main__":
    if sys.argv[1:] == ["measure"]:
        print(json.dumps(measure()))
    else:
        for measured in run():
            print(" | ".join(measured))
