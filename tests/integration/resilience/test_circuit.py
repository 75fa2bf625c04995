"""Circuit breakers, with their state in DynamoDB (moto)."""

import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta

import pytest
from aws_lambda_powertools.utilities.circuit_breaker.base import CircuitBreakerHandler

from schoolbell.resilience.circuit import FAILURES_TO_OPEN, RECOVERY, Circuit, forget_circuits
from schoolbell.resilience.errors import CircuitOpen, NoBudget
from schoolbell.resilience.guard import Guard
from schoolbell.resilience.rate_limiter import Budget, RateLimiter
from tests.fixtures.google import budget_spent, circuit_state, open_circuit

MINUTE = timedelta(minutes=1)


class Unwell(Exception):
    """The service's own failure."""


class Refused(Exception):
    """The service's answer to a mistake of ours."""


class Neither(Exception):
    """Says nothing about the service."""


def raising(error: Exception) -> Callable[[], str]:
    def function() -> str:
        raise error

    return function


def call(circuit: Circuit, outcome: Exception | str = "done", times: int = 1) -> None:
    for _ in range(times):
        try:
            circuit.call(raising(outcome) if isinstance(outcome, Exception) else lambda: outcome)
        except (Unwell, Refused, Neither):
            continue


@pytest.fixture
def circuit(resilience_table: str) -> Circuit:
    return Circuit("service", failures=(Unwell,), answers=(Refused,), table=resilience_table)


def test_passes_values_and_errors_through(circuit: Circuit) -> None:
    assert circuit.call(lambda: "done") == "done"
    for error in (Unwell(), Refused(), Neither()):
        with pytest.raises(type(error)):
            circuit.call(raising(error))


def test_opens_after_a_row_of_failures_and_calls_nothing_then(circuit: Circuit) -> None:
    call(circuit, Unwell(), times=FAILURES_TO_OPEN)
    assert circuit.is_open()
    called: list[int] = []
    with pytest.raises(CircuitOpen) as refused:
        circuit.call(lambda: called.append(1))
    assert called == []
    assert timedelta(seconds=50) < refused.value.retry_after <= RECOVERY


def test_stays_closed_for_fewer_failures(circuit: Circuit) -> None:
    call(circuit, Unwell(), times=FAILURES_TO_OPEN - 1)
    assert not circuit.is_open()


@pytest.mark.parametrize("answer", ["done", Refused()])
def test_an_answer_ends_the_row(circuit: Circuit, answer: Exception | str) -> None:
    call(circuit, Unwell(), times=FAILURES_TO_OPEN - 1)
    call(circuit, answer)
    call(circuit, Unwell(), times=FAILURES_TO_OPEN - 1)
    assert not circuit.is_open()


def test_errors_of_ours_never_open_it(circuit: Circuit) -> None:
    call(circuit, Refused(), times=3 * FAILURES_TO_OPEN)
    call(circuit, Neither(), times=3 * FAILURES_TO_OPEN)
    assert not circuit.is_open()


def test_what_says_nothing_about_the_service_does_not_end_the_row(circuit: Circuit) -> None:
    call(circuit, Unwell(), times=FAILURES_TO_OPEN - 1)
    call(circuit, Neither())
    call(circuit, Unwell())
    assert circuit.is_open()


def test_other_functions_see_it_open(circuit: Circuit, resilience_table: str) -> None:
    call(circuit, Unwell(), times=FAILURES_TO_OPEN)
    forget_circuits()  # what another execution environment starts with
    other = Circuit("service", failures=(Unwell,), answers=(Refused,), table=resilience_table)
    assert other.is_open()


def test_circuits_are_separate(circuit: Circuit, resilience_table: str) -> None:
    call(circuit, Unwell(), times=FAILURES_TO_OPEN)
    assert not Circuit("another", failures=(Unwell,), answers=(), table=resilience_table).is_open()


@pytest.mark.parametrize("answer", ["done", Refused()])
def test_one_answer_after_the_recovery_closes_it(circuit: Circuit, answer: Exception | str) -> None:
    open_circuit("service", datetime.now(UTC) - RECOVERY)
    assert not circuit.is_open(), "due for a probe"
    call(circuit, answer)
    assert circuit_state("service") == "CLOSED"


def test_a_failed_probe_opens_it_again(circuit: Circuit) -> None:
    open_circuit("service", datetime.now(UTC) - RECOVERY)
    call(circuit, Unwell())
    assert circuit_state("service") == "OPEN"
    assert circuit.is_open()


def test_is_open_for_the_others_while_one_probes(circuit: Circuit) -> None:
    open_circuit("service", datetime.now(UTC) - RECOVERY)
    call(circuit, Neither())  # the probe ended without telling anything
    assert circuit_state("service") == "HALF_OPEN"
    forget_circuits()
    assert circuit.is_open()


def test_a_probe_that_told_nothing_is_taken_over_when_its_lease_is_over(
    circuit: Circuit, monkeypatch: pytest.MonkeyPatch
) -> None:
    open_circuit("service", datetime.now(UTC) - RECOVERY)
    call(circuit, Neither())
    forget_circuits()
    later = time.time() + RECOVERY.total_seconds() + 1
    monkeypatch.setattr(time, "time", lambda: later)
    monkeypatch.setattr(CircuitBreakerHandler, "_now", staticmethod(lambda: int(later)))
    assert not circuit.is_open()


def test_a_table_that_is_away_counts_as_closed(aws: object) -> None:
    forget_circuits()
    circuit = Circuit("service", failures=(Unwell,), answers=(), table="no-such-table")
    assert not circuit.is_open()
    assert circuit.call(lambda: "done") == "done"
    forget_circuits()


def guard(circuit: Circuit, table: str) -> Guard:
    budget = Budget(1, MINUTE)
    return Guard(circuit, RateLimiter("service", per_tenant=budget, overall=budget, table=table))


def test_an_open_circuit_spends_no_budget(circuit: Circuit, resilience_table: str) -> None:
    open_circuit("service")
    with pytest.raises(CircuitOpen):
        guard(circuit, resilience_table).call("a", lambda: "done")
    assert budget_spent("service") == 0


def test_without_budget_nothing_is_called(circuit: Circuit, resilience_table: str) -> None:
    guarded = guard(circuit, resilience_table)
    called: list[int] = []
    guarded.call("a", lambda: called.append(1))
    with pytest.raises(NoBudget) as denied:
        guarded.call("a", lambda: called.append(2))
    assert called == [1]
    assert denied.value.retry_after > timedelta(0)


def test_a_lack_of_budget_does_not_open_the_circuit(circuit: Circuit, resilience_table: str) -> None:
    guarded = guard(circuit, resilience_table)
    guarded.call("a", lambda: "done")
    for _ in range(3 * FAILURES_TO_OPEN):
        with pytest.raises(NoBudget):
            guarded.call("a", lambda: "done")
    assert not circuit.is_open()
