"""The order in which a call to an outside service is protected: circuit breaker, rate limiter, call."""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime

from schoolbell.resilience.circuit import Circuit
from schoolbell.resilience.errors import NoBudget
from schoolbell.resilience.rate_limiter import Denied, RateLimiter


@dataclass(frozen=True, slots=True)
class Guard:
    """A circuit breaker and a rate limiter around the calls to one service.

    An open circuit spends no budget, and a call without budget says nothing about the service's health.
    """

    circuit: Circuit
    limiter: RateLimiter
    clock: Callable[[], datetime] = lambda: datetime.now(UTC)
    """Not a run's `now`, which stands still while the run spends minutes waiting for the service."""

    def call[T](self, tenant: str, function: Callable[[], T], cost: int = 1) -> T:
        """Calls the function for a tenant.

        Args:
            tenant: whose budget is spent, beside the common one.
            function: makes the call.
            cost: how many units of the budgets the call takes.

        Raises:
            CircuitOpen: not called, the service has been failing.
            NoBudget: not called, the budget is spent.
            Exception: what the function raised.
        """

        def permitted() -> T:
            answer = self.limiter.try_acquire(tenant, self.clock(), cost)
            if isinstance(answer, Denied):
                raise NoBudget(f"no budget for {self.circuit.name} ({answer.limit})", answer.retry_after)
            return function()

        return self.circuit.call(permitted)
