"""A sliding-window rate limiter on DynamoDB, per tenant and over all tenants, in one atomic step.

Two buckets weighted by time stand for the window. With `previous` units spent in the bucket before and `current` in the
one that is running, of which the part `f` is over, the window that ends now holds about `previous * (1 - f) + current`.
This takes the previous bucket's units as evenly spread: after a burst at its end more than the limit can pass in a
window's length, though never twice as much.

An item is one bucket, and its key holds the bucket's number, so a previous bucket no longer changes and may be read
outside the transaction. How far the current bucket may fill is then a number, which makes the condition of an ADD:
concurrent callers never read, decide and overwrite each other. The tenant's bucket and the common one are filled in one
TransactWriteItems, so neither is spent when the other is exhausted.

**When DynamoDB throttles, fails or can't be reached, the answer is no** (`Limit.UNAVAILABLE`): what is limited here is
background work that loses nothing by waiting, and the table is most likely to throttle when there is too much of it. A
mistake (no such table, no permission) raises, since waiting would hide it for ever.

Clocks: callers should agree to within a small part of the window. One that is behind fills an older bucket, which then
counts for less; with synchronised Lambda clocks and windows of a minute that is nothing.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Any, Protocol

from schoolbell import aws

CONFLICTS = 5
"""Transactions that meet on the common bucket cancel each other; this many tries, each a few milliseconds."""

AFTER_CONFLICTS = timedelta(seconds=1)
AFTER_UNAVAILABLE = timedelta(seconds=30)
KEPT = timedelta(hours=1)
"""How long an item outlives its use, for people who look; the table's TTL removes it."""

_THROTTLED = frozenset({"ThrottlingError", "ProvisionedThroughputExceeded"})
_UNAVAILABLE = frozenset(
    {
        "ProvisionedThroughputExceededException",
        "ThrottlingException",
        "RequestLimitExceeded",
        "TransactionInProgressException",
        "InternalServerError",
        "ServiceUnavailable",
    }
)


class Limit(StrEnum):
    """Why there was no permit."""

    TENANT = "tenant"
    OVERALL = "overall"
    CONTENDED = "contended"
    UNAVAILABLE = "unavailable"


@dataclass(frozen=True, slots=True)
class Permit:
    """The call may be made, and has been counted."""


@dataclass(frozen=True, slots=True)
class Denied:
    """The call may not be made now, and nothing has been counted."""

    retry_after: timedelta
    """When there is room again, if nobody else spends anything meanwhile."""
    limit: Limit


@dataclass(frozen=True, slots=True)
class Budget:
    """How many units may be spent in any window of this length."""

    units: int
    window: timedelta

    def __post_init__(self) -> None:
        if self.units < 1 or self.window <= timedelta(0):
            raise ValueError(f"a budget needs units and a window, got {self.units} in {self.window}")

    def bucket(self, now: datetime) -> int:
        """The number of the bucket that is running."""
        return int(now.timestamp() // self.window.total_seconds())

    def room(self, now: datetime, previous: int) -> int:
        """How many units the running bucket may hold now, after `previous` in the one before."""
        return math.floor(self.units - previous * (1.0 - self._elapsed(now)))

    def wait(self, now: datetime, previous: int, current: int, cost: int) -> timedelta:
        """How long until `cost` units fit, if nobody else spends anything."""
        elapsed = self._elapsed(now)
        if current + cost <= self.units:
            if not previous:
                return timedelta(0)
            fits_at = 1.0 - (self.units - current - cost) / previous
            return self.window * max(0.0, fits_at - elapsed)
        fits_at = max(0.0, 1.0 - (self.units - cost) / current)
        return self.window * (1.0 - elapsed + fits_at)

    def _elapsed(self, now: datetime) -> float:
        return (now.timestamp() / self.window.total_seconds()) % 1.0


class DynamoDB(Protocol):
    """The two operations that the limiter uses, as boto3's client has them."""

    def batch_get_item(self, **request: Any) -> Mapping[str, Any]: ...

    def transact_write_items(self, **request: Any) -> Mapping[str, Any]: ...


@dataclass(frozen=True, slots=True)
class _Bucket:
    limit: Limit
    budget: Budget
    name: str

    def key(self, now: datetime, back: int = 0) -> dict[str, dict[str, str]]:
        return {"id": {"S": f"{self.name}#{self.budget.bucket(now) - back}"}}

    def expiration(self, now: datetime) -> int:
        ends = (self.budget.bucket(now) + 2) * self.budget.window.total_seconds()
        return int(ends + KEPT.total_seconds())


class RateLimiter:
    """Gives out permits for calls to one service.

    Args:
        name: the service; part of the items' keys.
        per_tenant: what one tenant may spend.
        overall: what all tenants together may spend.
        table: the DynamoDB table, with the key `id` (S) and the TTL attribute `expiration`.
        client: makes the DynamoDB client; called at the first `try_acquire`, so that boto3 is imported no earlier.
    """

    def __init__(
        self,
        name: str,
        *,
        per_tenant: Budget,
        overall: Budget,
        table: str,
        client: Callable[[], DynamoDB] = lambda: aws.client("dynamodb"),
    ) -> None:
        self._name = name
        self._per_tenant = per_tenant
        self._overall = overall
        self._table = table
        self._client = client

    def try_acquire(self, tenant: str, now: datetime, cost: int = 1) -> Permit | Denied:
        """Spends `cost` units of the tenant's budget and of the common one, or of neither. Never waits.

        Raises:
            ValueError: the cost is more than a whole budget, so it could never be granted.
            botocore.exceptions.ClientError: the table or the permission to use it is missing.
        """
        most = min(self._per_tenant.units, self._overall.units)
        if not 1 <= cost <= most:
            raise ValueError(f"cost must be from 1 to {most}, got {cost}")
        buckets = (
            _Bucket(Limit.TENANT, self._per_tenant, f"rate#{self._name}#tenant#{tenant}"),
            _Bucket(Limit.OVERALL, self._overall, f"rate#{self._name}#overall"),
        )
        try:
            return self._spend(buckets, now, cost)
        except Exception as error:
            if _is_unavailable(error):
                return Denied(AFTER_UNAVAILABLE, Limit.UNAVAILABLE)
            raise

    def _spend(self, buckets: Sequence[_Bucket], now: datetime, cost: int) -> Permit | Denied:
        previous = self._previous(buckets, now)
        if previous is None:
            return Denied(AFTER_UNAVAILABLE, Limit.UNAVAILABLE)
        room = [bucket.budget.room(now, spent) for bucket, spent in zip(buckets, previous, strict=True)]
        if any(each < cost for each in room):
            # Full by what the bucket before holds: what the running one holds can only make the wait longer.
            return _denied(buckets, previous, [0] * len(buckets), [each < cost for each in room], now, cost)
        writes = [self._add(bucket, now, cost, most=each - cost) for bucket, each in zip(buckets, room, strict=True)]
        for _ in range(CONFLICTS):
            reasons = self._write(writes)
            codes = [reason.get("Code", "None") for reason in reasons]
            if not any(code != "None" for code in codes):
                return Permit()
            if "ConditionalCheckFailed" in codes:
                current = [_spent(reason.get("Item")) for reason in reasons]
                return _denied(buckets, previous, current, [c == "ConditionalCheckFailed" for c in codes], now, cost)
            if not _THROTTLED.isdisjoint(codes):
                return Denied(AFTER_UNAVAILABLE, Limit.UNAVAILABLE)
        return Denied(AFTER_CONFLICTS, Limit.CONTENDED)

    def _previous(self, buckets: Sequence[_Bucket], now: datetime) -> list[int] | None:
        keys = [bucket.key(now, back=1) for bucket in buckets]
        request = {self._table: {"Keys": keys, "ConsistentRead": True}}
        answer = self._client().batch_get_item(RequestItems=request)
        if answer.get("UnprocessedKeys"):
            return None
        items = {item["id"]["S"]: item for item in answer["Responses"].get(self._table, [])}
        return [_spent(items.get(key["id"]["S"])) for key in keys]

    def _add(self, bucket: _Bucket, now: datetime, cost: int, most: int) -> dict[str, Any]:
        return {
            "Update": {
                "TableName": self._table,
                "Key": bucket.key(now),
                "UpdateExpression": "ADD spent :cost SET expiration = :expiration",
                "ConditionExpression": "attribute_not_exists(spent) OR spent <= :most",
                "ExpressionAttributeValues": {
                    ":cost": {"N": str(cost)},
                    ":most": {"N": str(most)},
                    ":expiration": {"N": str(bucket.expiration(now))},
                },
                "ReturnValuesOnConditionCheckFailure": "ALL_OLD",
            }
        }

    def _write(self, writes: Sequence[Mapping[str, Any]]) -> Sequence[Mapping[str, Any]]:
        """Why the transaction was cancelled, write by write; nothing if it was not."""
        try:
            self._client().transact_write_items(TransactItems=list(writes))
        except Exception as error:
            if aws.error_code(error) != "TransactionCanceledException":
                raise
            response: Mapping[str, Any] = getattr(error, "response", {})
            reasons: Sequence[Mapping[str, Any]] = response.get("CancellationReasons", ())
            return reasons or [{"Code": "TransactionConflict"}]
        return ()


def _denied(
    buckets: Sequence[_Bucket],
    previous: Sequence[int],
    current: Sequence[int],
    full: Sequence[bool],
    now: datetime,
    cost: int,
) -> Denied:
    waits = [
        (bucket.budget.wait(now, before, spent, cost), bucket.limit)
        for bucket, before, spent, is_full in zip(buckets, previous, current, full, strict=True)
        if is_full
    ]
    longest, limit = max(waits)
    return Denied(max(longest, timedelta(milliseconds=1)), limit)


def _spent(item: Mapping[str, Any] | None) -> int:
    return int(item["spent"]["N"]) if item else 0


def _is_unavailable(error: Exception) -> bool:
    from botocore.exceptions import ConnectionError as CannotConnect
    from botocore.exceptions import HTTPClientError

    if isinstance(error, CannotConnect | HTTPClientError):
        return True
    response: Mapping[str, Any] = getattr(error, "response", None) or {}
    status = response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0)
    return aws.error_code(error) in _UNAVAILABLE or status >= 500
