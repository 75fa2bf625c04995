"""Logs and metrics of every run, with nothing for a job's author to remember."""

from datetime import timedelta

from aws_lambda_powertools import Logger, Metrics
from aws_lambda_powertools.metrics import MetricUnit

from schoolbell.settings import settings


def logger_of(job: str) -> Logger:
    """The logger of a job: JSON, one record a line. Records carry ids, never names, addresses, bodies or tokens."""
    return Logger(service=job)


def count_run(job: str, *, failures: int, items: int, duration: timedelta) -> None:
    """Writes the metrics of one run in the embedded metric format: runs, failures, items and duration, by job."""
    metrics = Metrics(namespace=settings().metrics_namespace, service=job)
    metrics.add_metric("Runs", MetricUnit.Count, 1)
    metrics.add_metric("Failures", MetricUnit.Count, failures)
    metrics.add_metric("Items", MetricUnit.Count, items)
    metrics.add_metric("Duration", MetricUnit.Milliseconds, duration.total_seconds() * 1000)
    metrics.flush_metrics()


def count_alert(job: str, alert: str, value: int) -> None:
    """Writes a metric that an alarm watches, e.g. `OverdueErasureRequests`."""
    metrics = Metrics(namespace=settings().metrics_namespace, service=job)
    metrics.add_metric(alert, MetricUnit.Count, value)
    metrics.flush_metrics()
