"""Keep a schedule for each time zone in use, hourly and after each deployment, for jobs that run by time zone.

Source 002 has jobs run by the district's time zone, and districts across time zones. A function says so by
`JOB_BY_TIME_ZONE`, and the schedule that the template gives it, which is off, is the pattern: each zone in use gets one
like it, in that zone, that tells the job whose turn it is. See docs/time-zones.md.
"""

from schoolbell.jobs import JobContext, Result, scheduled_job
from schoolbell.operations import catalogue, zone_schedules


class Synced(Result):
    """Counts of jobs that run by time zone, of zones in use, and of schedules."""

    jobs: int
    zones: int
    created: int = 0
    updated: int = 0
    deleted: int = 0
    failed: int = 0


@scheduled_job("platform.schedule-sync", singleton=True)
def handler(job: JobContext) -> Synced:
    jobs = [info.name for info in catalogue.functions(job.settings) if info.is_by_time_zone]
    patterns = zone_schedules.patterns_of(jobs, job.settings)
    with job.transaction() as connection:
        zones = zone_schedules.zones_in_use(job, connection)
        planned = zone_schedules.plan(connection, job, sorted(patterns), zones)
    outcomes = zone_schedules.sync(patterns, planned, job.settings)
    zone_schedules.settle(job, planned, outcomes)
    counts = {done: outcomes.count(done) for done in ("created", "updated", "deleted")}
    failed = sum(isinstance(outcome, Exception) for outcome in outcomes)
    return Synced(jobs=len(jobs), zones=len(zones), failed=failed, **counts)
