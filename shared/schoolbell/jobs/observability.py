"""Logs and metrics of every run, with nothing for a job's author to remember."""

from aws_lambda_powertools import Logger, Metrics
from aws_lambda_powertools.metrics import MetricUnit

from schoolbell.settings import Settings, settings


def logger_of(job: str) -> Logger:
    """The logger of a job: JSON, one record a line. Records carry ids, never names, addresses, bodies or tokens."""
    return Logger(service=job)


def count_failures(of: Settings, job: str, failures: int) -> None:
    """Counts how often a critical job failed just now, for its alarm, which lasts until it is told of none.

    Other jobs have no metric, since one costs 0.30 dollars a month: what there is to know of their runs is in
    `platform.job_runs` and in the metrics that Lambda and SQS have anyway.
    """
    if of.job_critical:
        count(job, "Failures", failures)


def count(job: str, metric: str, value: int) -> None:
    """Writes a metric that an alarm watches, in the embedded metric format, by job."""
    metrics = Metrics(namespace=settings().metrics_namespace, service=job)
    metrics.add_metric(metric, MetricUnit.Count, value)
    metrics.flush_metrics()
