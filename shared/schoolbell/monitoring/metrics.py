"""The metrics in Prometheus's text format, with the names of sources 001 and 002 as far as Prometheus's rules allow.

`promtool check metrics` refuses `_count` at the end of what is no histogram, and wants `_total` at a counter's end. So
`bullmq_queue_waiting_count` is `schoolbell_queue_waiting`, and `bullmq_queue_completed_count`, which only grows, is
`schoolbell_queue_completed_total`. docs/monitoring.md lists them all.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from itertools import accumulate
from typing import Final

from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

from schoolbell.monitoring.state import State
from schoolbell.operations.statistics import BOUNDS, Statistics

CONTENT_TYPE: Final = CONTENT_TYPE_LATEST
NOTHING: Final = Statistics()


def exposition(state: State, now: datetime) -> bytes:
    """The page that Prometheus reads."""
    registry = CollectorRegistry(auto_describe=False)
    registry.register(_Collector(state, now))
    return generate_latest(registry)


@dataclass(frozen=True, eq=False)
class _Collector(Collector):
    """Makes metrics of a state when they are collected."""

    state: State
    now: datetime

    def collect(self) -> Iterator[Metric]:
        yield from self._of_queues()
        yield from self._of_queue_jobs()
        yield from self._of_scheduled_jobs()
        yield _gauge("alerts_standing", "Alerts that were triggered and not resolved", "severity", self._alerts())

    def _of_queues(self) -> Iterator[Metric]:
        queues = self.state.queues.items()
        waiting = {name: depth.unreceived for name, depth in queues}
        yield _gauge(
            "queue_waiting", "Messages that wait in a queue, those included that are delayed", "queue", waiting
        )
        active = {name: depth.in_flight for name, depth in queues}
        yield _gauge("queue_active", "Messages that a function has received and is not done with", "queue", active)
        dead = dict(self.state.dead)
        yield _gauge(
            "dlq_messages", "Messages on a dead-letter queue, by the queue or job they come from", "queue", dead
        )

    def _of_queue_jobs(self) -> Iterator[Metric]:
        known = {job.name: self._statistics(job.name) for job in self.state.jobs if job.queues}
        done = {job: each.items_done for job, each in known.items()}
        failed = {job: each.items_failed for job, each in known.items()}
        yield _gauge("event_handlers", "Jobs that are fed by a queue", None, {"": len(known)})
        yield _counter("queue_completed", "Messages that a queue's job has handled", "queue", done)
        yield _counter(
            "queue_failed", "Deliveries of messages that a queue's job has failed to handle", "queue", failed
        )
        yield _counter("event_handler_errors", "Deliveries of messages that a job has failed to handle", "job", failed)
        yield _histogram("processing_duration_seconds", "Duration of a queue's invocations", "queue", known)
        yield _histogram("event_processing_duration_seconds", "Duration of a queue job's invocations", "job", known)

    def _of_scheduled_jobs(self) -> Iterator[Metric]:
        scheduled = {job.name: job.schedule for job in self.state.jobs if job.schedule}
        known = {job: self._statistics(job) for job in scheduled}
        runs = {job: each.runs for job, each in known.items()}
        failures = {job: each.failures for job, each in known.items()}
        next_runs = {
            job: max(0.0, (schedule.next_run - self.now).total_seconds())
            for job, schedule in scheduled.items()
            if schedule.next_run
        }
        paused = {job: int(not schedule.enabled) for job, schedule in scheduled.items()}
        running = {job: self.state.running.get(job, 0) for job in scheduled}
        yield _counter("scheduled_job_executions", "Runs of a scheduled job that ended, tries included", "job", runs)
        yield _counter("scheduled_job_failures", "Runs of a scheduled job that failed, tries included", "job", failures)
        yield _histogram("scheduled_job_duration_seconds", "Duration of a scheduled job's completed runs", "job", known)
        yield _counter("repeat_job_executions", "Runs of a scheduled job that ended, tries included", "job", runs)
        help_ = "Seconds until a scheduled job runs next; absent while it is paused"
        yield _gauge("repeat_job_next_execution_seconds", help_, "job", next_runs)
        yield _gauge("scheduled_job_running", "Runs of a scheduled job that are under way", "job", running)
        yield _gauge("scheduled_job_paused", "Whether a scheduled job's schedule is switched off", "job", paused)

    def _alerts(self) -> dict[str, float]:
        return {severity: self.state.standing_alerts.get(severity, 0) for severity in ("critical", "warning", "info")}

    def _statistics(self, job: str) -> Statistics:
        return self.state.statistics.get(job, NOTHING)


def _gauge(name: str, help_: str, label: str | None, values: dict[str, int] | dict[str, float]) -> Metric:
    family = GaugeMetricFamily(f"schoolbell_{name}", help_, labels=[label] if label else [])
    for of, value in values.items():
        family.add_metric([of] if label else [], value)
    return family


def _counter(name: str, help_: str, label: str, values: dict[str, int]) -> Metric:
    family = CounterMetricFamily(f"schoolbell_{name}", help_, labels=[label])
    for of, value in values.items():
        family.add_metric([of], value)
    return family


_EDGES: Final = [*(f"{bound:g}" for bound in BOUNDS), "+Inf"]


def _histogram(name: str, help_: str, label: str, known: dict[str, Statistics]) -> Metric:
    family = HistogramMetricFamily(f"schoolbell_{name}", help_, labels=[label])
    for of, each in known.items():
        family.add_metric([of], list(zip(_EDGES, accumulate(each.durations), strict=True)), sum_value=each.seconds)
    return family
