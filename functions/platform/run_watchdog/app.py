"""Watch over the runs, every 5 minutes: which timed out, which were missed, and which take too long.

* A run whose invocation was killed is marked as timed out, and resumed where it had got further.
* A time that passed without a run gets one catch-up run, under its own name.
* A run that takes too long raises a warning.

There is one open alert a job and subject, until the trouble is over. docs/runbook.md says when each is raised.
"""

from datetime import timedelta

from schoolbell.jobs import JobContext, Result, scheduled_job
from schoolbell.operations import catalogue, statistics
from schoolbell.operations.missed_runs import start_missed_runs
from schoolbell.operations.slow_runs import warn_of_slow_runs
from schoolbell.operations.timed_out_runs import mark_timed_out_runs


class Watched(Result):
    """Counts of runs."""

    timed_out: int
    resumed: int
    missed: int
    """Times that passed without a run."""
    started: int
    """Catch-up runs for those of them that were not too many, and for those that a change of clocks left out."""
    counted: int
    """Runs that were added to the statistics."""
    slow: int


@scheduled_job("platform.run-watchdog", singleton=True)
def handler(job: JobContext) -> Watched:
    counted = count_runs(job)
    jobs = {info.name: info for info in catalogue.functions(job.settings)}
    timed_out = mark_timed_out_runs(job, jobs)
    missed = start_missed_runs(job, jobs)
    return Watched(
        timed_out=len(timed_out),
        resumed=sum(run.resumes for run in timed_out),
        missed=sum(len(each.missed) for each in missed),
        started=sum(len(each.started) for each in missed),
        counted=counted,
        slow=warn_of_slow_runs(job, jobs),
    )


def count_runs(job: JobContext) -> int:
    """Adds the runs that have ended to the statistics, as long as there is time."""
    counted = 0
    while job.remaining() > timedelta(minutes=1):
        with job.transaction() as connection:
            new = statistics.roll_up(connection, job.now)
        counted += new
        if new < statistics.RUNS_A_CALL:
            break
    return counted
