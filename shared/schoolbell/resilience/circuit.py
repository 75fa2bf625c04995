"""Circuit breakers: Powertools' state machine, with its state in DynamoDB, shared by all functions.

    closed ──5 failures in a row──▶ open ──after a minute──▶ half open ──one answer──▶ closed
                                     ▲                           │
                                     └────────another failure────┘

What counts. A **failure** says that the service is unwell (5xx, timeouts, refused connections). An **answer** says that
it is well, be it an error of ours (400, 404): it ends a row of failures and closes a half-open circuit. Anything else
says neither (a tenant's revoked token, an exhausted quota, our own budget), and leaves the circuit as it is: one
teacher's trouble must not lock out all the others.

One answer closes the circuit, where Powertools' own default is three: the calendar job may have a single record to send
in five minutes, and the lease of the one prober would expire between the second probe and the third.

Failures in a row are counted by each execution environment for itself, and its view of the state is up to five seconds
old (Powertools' design: a healthy call writes nothing). When DynamoDB can't be read the circuit counts as closed.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta
from functools import cache
from typing import TYPE_CHECKING

from aws_lambda_powertools.utilities.circuit_breaker import (
    CircuitBreakerConfig,
    CircuitBreakerOpenError,
    CircuitInfo,
    CircuitState,
    CircuitTransition,
    circuit_breaker,
)

from schoolbell import aws
from schoolbell.resilience.errors import CircuitOpen
from schoolbell.settings import settings

if TYPE_CHECKING:  # the package imports boto3
    from aws_lambda_powertools.utilities.circuit_breaker.persistence import CircuitBreakerDynamoDBPersistence

FAILURES_TO_OPEN = 5
RECOVERY = timedelta(minutes=1)
ANSWERS_TO_CLOSE = 1
SOONEST_RETRY = timedelta(seconds=5)
"""While somebody else probes, there is no point in asking sooner than the local view of the state ages."""


@dataclass(frozen=True, slots=True)
class _Returned[T]:
    value: T

    def outcome(self) -> T:
        return self.value


@dataclass(frozen=True, slots=True)
class _Answered:
    error: Exception

    def outcome(self) -> None:
        raise self.error


class Circuit:
    """The circuit breaker of one outside service.

    Args:
        name: the service, and the key of its item in the table.
        failures: exceptions that say the service is unwell.
        answers: exceptions that say the service is well and refuses this call.
        table: the DynamoDB table, with the key `id` (S) and the TTL attribute `expiration`.
        recovery: how long an open circuit lets nothing through; whole seconds.
    """

    def __init__(
        self,
        name: str,
        *,
        failures: tuple[type[Exception], ...],
        answers: tuple[type[Exception], ...],
        table: str,
        recovery: timedelta = RECOVERY,
    ) -> None:
        self.name = name
        self._answers = answers
        self._table = table
        self._config = CircuitBreakerConfig(
            failure_threshold=FAILURES_TO_OPEN,
            recovery_timeout=int(recovery.total_seconds()),
            success_threshold=ANSWERS_TO_CLOSE,
            handled_exceptions=failures,
        )

    def call[T](self, function: Callable[[], T]) -> T:
        """Calls the function, unless the circuit is open.

        Raises:
            CircuitOpen: the function was not called.
            Exception: what the function raised.
        """

        def attempt() -> _Returned[T] | _Answered:
            try:
                return _Returned(function())
            except self._answers as error:
                return _Answered(error)

        guarded = circuit_breaker(
            name=self.name, persistence_store=_store(self._table), config=self._config, on_transition=_count_transition
        )
        try:
            result: _Returned[T] | _Answered = guarded(attempt)()
        except CircuitBreakerOpenError as error:
            raise self._opened(error.circuit) from None
        return result.outcome()  # type: ignore[return-value]  # `_Answered` raises

    def is_open(self) -> bool:
        """Whether a call now would be refused; a circuit that is due for a probe is not open."""
        store = _store(self._table)
        store.configure(self._config, self.name)
        record = store.get_state(self.name)
        now = time.time()
        if record.state is CircuitState.OPEN:
            return now < (record.opened_at or 0) + self._config.recovery_timeout
        return record.state is CircuitState.HALF_OPEN and now < (record.probe_lease_expiry or 0)

    def _opened(self, circuit: CircuitInfo | None) -> CircuitOpen:
        opened_at = circuit.opened_at if circuit and circuit.opened_at is not None else time.time()
        left = timedelta(seconds=opened_at + self._config.recovery_timeout - time.time())
        return CircuitOpen(f"the circuit {self.name} is open", max(left, SOONEST_RETRY))


@cache
def _store(table: str) -> "CircuitBreakerDynamoDBPersistence":
    from aws_lambda_powertools.utilities.circuit_breaker.persistence import CircuitBreakerDynamoDBPersistence

    return CircuitBreakerDynamoDBPersistence(table_name=table, boto3_client=aws.client("dynamodb"))


def forget_circuits() -> None:
    """Makes the next call read the state from the table, e.g. after a test replaced the table."""
    from aws_lambda_powertools.utilities.circuit_breaker import base

    _store.cache_clear()
    for counters in (base._LOCAL_FAILURES, base._LOCAL_SUCCESSES, base._LAST_OBSERVED_STATE):
        counters.clear()


def _count_transition(transition: CircuitTransition) -> None:
    from aws_lambda_powertools import Metrics
    from aws_lambda_powertools.metrics import MetricUnit

    metrics = Metrics(namespace=settings().metrics_namespace)
    metrics.add_dimension(name="circuit", value=transition.circuit_name)
    # What the alarm watches: 1 until the service is known to be well again, since a probe does not say so yet.
    metrics.add_metric("CircuitBroken", MetricUnit.Count, int(transition.to_state is not CircuitState.CLOSED))
    metrics.flush_metrics()
