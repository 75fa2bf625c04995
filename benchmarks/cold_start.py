"""What a cold start of each function costs: importing it in a fresh process, from what `sam build` made.

The reference is a process that imports only what every job stands on, from the same layer: SQLAlchemy Core with a
pg8000 engine, pydantic and Powertools' logger. Both see the built artifact and layers and nothing else, run in turns,
and write no bytecode, as in a Lambda, whose folders are read-only. What is compared is the time on the processor, which
other work on the machine disturbs least; the time on the clock stands beside it. The ratio is the median of those of
runs that followed each other, so that a machine that slows down meanwhile slows both. The processes end without
tidying up, which Lambda never waits for.
"""

import os
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Final, NamedTuple

from tests.packaging.functions import BuiltFunction, built_functions

TITLE: Final = "Cold start: importing each function as built, against importing what all of them stand on"
COLUMNS: Final = ("function", "runs", "on the clock", "processor", "reference's", "times the reference")
RUNS: Final = 9

REFERENCE: Final = """
import sqlalchemy, pg8000.dbapi, pydantic
from aws_lambda_powertools import Logger
Logger(service="reference")
sqlalchemy.create_engine("postgresql+pg8000://u:p@127.0.0.1/d")
"""
FUNCTION: Final = "from schoolbell.entrypoint import handler"
END: Final = "\nimport os; os._exit(0)"


def run() -> list[tuple[str, ...]]:
    """Measures, and returns the lines of the table under `COLUMNS`."""
    return [_line(function) for function in built_functions()]


class _Taken(NamedTuple):
    """Seconds that a process took."""

    clock: float
    processor: float


def _line(function: BuiltFunction) -> tuple[str, ...]:
    ours, reference = [], []
    for _ in range(RUNS + 1):
        ours.append(_taken(FUNCTION, function.path))
        reference.append(_taken(REFERENCE, function.path))
    pairs = [mine.processor / theirs.processor for mine, theirs in zip(ours[1:], reference[1:], strict=True)]
    return (
        str(function.job),
        f"{RUNS}",
        f"{statistics.median(run.clock for run in ours[1:]) * 1000:.0f} ms",
        f"{statistics.median(run.processor for run in ours[1:]) * 1000:.0f} ms",
        f"{statistics.median(run.processor for run in reference[1:]) * 1000:.0f} ms",
        f"{statistics.median(pairs):.2f}",
    )


def _taken(code: str, path: Sequence[Path]) -> _Taken:
    # -S leaves out site-packages, -P the current folder.
    environment = {
        "PATH": os.defpath,
        "PYTHONPATH": os.pathsep.join(map(str, path)),
        "PYTHONDONTWRITEBYTECODE": "1",
        "AWS_REGION": "us-east-1",
        "AWS_LAMBDA_FUNCTION_NAME": "benchmark",
    }
    started, before = time.perf_counter(), resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run([sys.executable, "-S", "-P", "-c", code + END], env=environment, check=True)
    clock, after = time.perf_counter() - started, resource.getrusage(resource.RUSAGE_CHILDREN)
    return _Taken(clock, after.ru_utime - before.ru_utime + after.ru_stime - before.ru_stime)


if __name__ == "__main__":
    for line in run():
        print(" | ".join(line))
