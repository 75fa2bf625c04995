"""How long to wait before trying again, as a pure policy."""

from dataclasses import dataclass
from datetime import timedelta


@dataclass(frozen=True, slots=True)
class Backoff:
    """Exponential backoff with full jitter.

    The wait before attempt n+1 is anywhere between nothing and `base * 2**(n-1)`, never over `cap`: spreading over the
    whole span keeps callers that failed together from coming back together.
    https://aws.amazon.com/builders-library/timeouts-retries-and-backoff-with-jitter/
    """

    base: timedelta
    cap: timedelta

    def delay(self, attempt: int, jitter: float) -> timedelta:
        """The wait after a failed attempt.

        Args:
            attempt: the attempt that failed, from 1.
            jitter: where in the span, from 0.0 to 1.0; `random.random()` in production.
        """
        if attempt < 1:
            raise ValueError(f"attempt counts from 1, got {attempt}")
        if not 0.0 <= jitter <= 1.0:
            raise ValueError(f"jitter is from 0.0 to 1.0, got {jitter}")
        # 2**63 seconds is past any cap; the bound keeps a large count from overflowing timedelta.
        span = min(self.cap.total_seconds(), self.base.total_seconds() * 2.0 ** min(attempt - 1, 63))
        return timedelta(seconds=span * jitter)
