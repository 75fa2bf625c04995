"""How fast the admin page answers, with 60 jobs and a million runs behind it.

The function's handler answers as it would for API Gateway; what it asks is described in `benchmarks.stack`. The first
answer of an execution environment asks AWS for everything and draws every chart; a later one asks AWS anew when what it
said is over 15 seconds old.
"""

import json
import os
import sys
from collections.abc import Callable
from typing import Final

from sqlalchemy import text

from benchmarks.stack import TAKEN, install_stack, line, measured_by, timed
from local.sandbox import oidc
from local.sandbox.server import Sandbox, serving
from schoolbell.database import Database
from tests.fakes.gateway import content, payload
from tests.performing import Invocation

TITLE: Final = "Admin page: an answer with 60 jobs and 1,000,000 runs of 30 days"
COLUMNS: Final = TAKEN

ANSWERS: Final = 20
PAGE: Final = "/admin/scheduled-jobs"


def run() -> list[tuple[str, ...]]:
    """Measures, and returns the lines of the table under `COLUMNS`."""
    with serving(Sandbox()) as sandbox:
        return measured_by(
            "benchmarks.admin",
            ADMIN_ISSUER=f"{sandbox}/oidc",
            ADMIN_AUDIENCE=oidc.CLIENT,
            ADMIN_URL="https://jobs.example.org",
            BENCH_TOKEN=oidc.token(f"{sandbox}/oidc", {}),
        )


def measure() -> list[tuple[str, ...]]:
    """Measures in this process."""
    from functions.platform.admin.app import handler
    from schoolbell.admin import catalogue

    on = install_stack()
    cookie = {"Cookie": f"__Host-session={os.environ['BENCH_TOKEN']}", "Accept-Encoding": "gzip"}

    def ask(target: str, fresh: bool = False) -> int:
        headers = {"Cookie": cookie["Cookie"] + "; __Host-changed=1"} if fresh else {"Cookie": cookie["Cookie"]}
        answer = handler(payload("GET", target, {**headers, "Accept-Encoding": "gzip"}), Invocation())
        if answer["statusCode"] != 200:
            raise RuntimeError(f"{target} answered {answer['statusCode']}")
        return len(content(answer))

    job = f"{PAGE}/platform.job-00"
    asked: list[tuple[str, Callable[[], int], int]] = [
        ("list, the first of an execution environment", lambda: ask(PAGE), 1),
        (f"list, AWS asked in the last {catalogue.KEPT.total_seconds():.0f} s", lambda: ask(PAGE), ANSWERS),
        ("list, AWS asked anew", lambda: ask(PAGE, fresh=True), ANSWERS),
        ("a job's page", lambda: ask(job), ANSWERS),
        ("a job's runs, the hundredth page on", lambda: ask(f"{job}/runs?before={deep(on.database)}"), ANSWERS),
    ]
    return [line(name, [timed(act) for _ in range(times)]) for name, act, times in asked]


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


if __name__ == "__main__":
    if sys.argv[1:] == ["measure"]:
        print(json.dumps(measure()))
    else:
        for measured in run():
            print(" | ".join(measured))
