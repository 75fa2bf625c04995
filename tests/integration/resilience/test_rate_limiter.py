"""The rate limiter, on DynamoDB (moto)."""

import threading
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from botocore.exceptions import ClientError, EndpointConnectionError, ReadTimeoutError

from schoolbell import aws as clients
from schoolbell.resilience.rate_limiter import Budget, Denied, Limit, Permit, RateLimiter
from tests.fixtures.google import budget_spent

MINUTE = timedelta(minutes=1)
START = datetime(2026, 3, 2, 10, 0, tzinfo=UTC)


def limiter(table: str, per_tenant: int = 3, overall: int = 5, **more: Any) -> RateLimiter:
    return RateLimiter(
        "google-drive", per_tenant=Budget(per_tenant, MINUTE), overall=Budget(overall, MINUTE), table=table, **more
    )


def granted(answers: list[Permit | Denied]) -> int:
    return sum(isinstance(answer, Permit) for answer in answers)


def test_a_tenant_gets_no_more_than_its_budget(resilience_table: str) -> None:
    answers = [limiter(resilience_table).try_acquire("a", START) for _ in range(4)]
    assert answers[:3] == [Permit()] * 3
    assert answers[3] == Denied(timedelta(seconds=80), Limit.TENANT)


def test_all_tenants_together_get_no_more_than_the_common_budget(resilience_table: str) -> None:
    answers = [limiter(resilience_table).try_acquire(tenant, START) for tenant in "aabbcc"]
    assert answers[:5] == [Permit()] * 5
    assert answers[5] == Denied(timedelta(seconds=72), Limit.OVERALL)


def test_a_call_denied_to_the_tenant_spends_nothing_of_the_common_budget(resilience_table: str) -> None:
    for _ in range(10):
        limiter(resilience_table).try_acquire("a", START)
    assert budget_spent("google-drive") == 3


def test_a_call_denied_overall_spends_nothing_of_the_tenants_budget(resilience_table: str) -> None:
    for tenant in "aabbb":
        limiter(resilience_table).try_acquire(tenant, START)
    for _ in range(10):
        limiter(resilience_table).try_acquire("c", START)
    assert budget_spent("google-drive", "c") == 0


def test_a_new_bucket_does_not_bring_a_whole_new_budget(resilience_table: str) -> None:
    end = START + timedelta(seconds=59)
    assert granted([limiter(resilience_table).try_acquire("a", end) for _ in range(3)]) == 3
    soon, halfway, later = (START + timedelta(seconds=s) for s in (61, 90, 130))
    assert isinstance(limiter(resilience_table).try_acquire("a", soon), Denied)
    assert granted([limiter(resilience_table).try_acquire("a", halfway) for _ in range(3)]) == 1
    assert granted([limiter(resilience_table).try_acquire("a", later) for _ in range(3)]) == 2


def test_what_retry_after_says_is_true(resilience_table: str) -> None:
    for _ in range(3):
        limiter(resilience_table).try_acquire("a", START)
    denied = limiter(resilience_table).try_acquire("a", START)
    assert isinstance(denied, Denied)
    just_before = START + denied.retry_after - timedelta(seconds=1)
    assert isinstance(limiter(resilience_table).try_acquire("a", just_before), Denied)
    then = START + denied.retry_after + timedelta(milliseconds=1)
    assert limiter(resilience_table).try_acquire("a", then) == Permit()


def test_a_call_that_costs_more_spends_more_or_nothing(resilience_table: str) -> None:
    assert limiter(resilience_table).try_acquire("a", START, cost=2) == Permit()
    assert isinstance(limiter(resilience_table).try_acquire("a", START, cost=2), Denied)
    assert limiter(resilience_table).try_acquire("a", START, cost=1) == Permit()
    assert budget_spent("google-drive", "a") == 3


@pytest.mark.parametrize("cost", [0, -1, 4])
def test_refuses_a_cost_that_could_never_be_granted(resilience_table: str, cost: int) -> None:
    with pytest.raises(ValueError, match="cost must be from 1 to 3"):
        limiter(resilience_table).try_acquire("a", START, cost=cost)


def test_services_do_not_share_budgets(resilience_table: str) -> None:
    other = RateLimiter(
        "google-calendar", per_tenant=Budget(1, MINUTE), overall=Budget(1, MINUTE), table=resilience_table
    )
    assert other.try_acquire("a", START) == Permit()
    assert limiter(resilience_table).try_acquire("a", START) == Permit()


def test_items_expire(resilience_table: str) -> None:
    limiter(resilience_table).try_acquire("a", START)
    items = clients.client("dynamodb").scan(TableName=resilience_table)["Items"]
    assert len(items) == 2
    for item in items:
        assert (
            START + 2 * MINUTE < datetime.fromtimestamp(int(item["expiration"]["N"]), UTC) < START + timedelta(days=1)
        )


class Serial:
    """DynamoDB as it is: each operation happens at one moment. (moto's threads run into each other.)"""

    def __init__(self) -> None:
        self._client = clients.client("dynamodb")
        self._lock = threading.Lock()

    def batch_get_item(self, **request: Any) -> Mapping[str, Any]:
        with self._lock:
            answer: Mapping[str, Any] = self._client.batch_get_item(**request)
            return answer

    def transact_write_items(self, **request: Any) -> Mapping[str, Any]:
        with self._lock:
            answer: Mapping[str, Any] = self._client.transact_write_items(**request)
            return answer


def test_many_at_once_get_what_is_there_and_no_more(resilience_table: str) -> None:
    client = Serial()
    shared = limiter(resilience_table, per_tenant=40, overall=25, client=lambda: client)
    with ThreadPoolExecutor(8) as threads:
        answers = list(threads.map(lambda n: shared.try_acquire(f"t{n % 3}", START), range(60)))
    assert granted(answers) == 25
    assert budget_spent("google-drive") == 25


class Broken:
    """A DynamoDB client that raises, or answers, what it is told."""

    def __init__(self, *transactions: Exception | None, read: Exception | Mapping[str, Any] | None = None) -> None:
        self.transactions = list(transactions)
        self.read = read
        self.tries = 0

    def batch_get_item(self, **_: Any) -> Mapping[str, Any]:
        if isinstance(self.read, Exception):
            raise self.read
        return self.read or {"Responses": {}}

    def transact_write_items(self, **_: Any) -> Mapping[str, Any]:
        self.tries += 1
        outcome = self.transactions.pop(0) if self.transactions else None
        if outcome:
            raise outcome
        return {}


def failure(code: str, *reasons: str, status: int = 400) -> ClientError:
    response = {
        "Error": {"Code": code, "Message": ""},
        "ResponseMetadata": {"HTTPStatusCode": status},
        "CancellationReasons": [{"Code": reason} for reason in reasons],
    }
    return ClientError(response, "TransactWriteItems")  # type: ignore[arg-type,unused-ignore]


def conflict() -> ClientError:
    return failure("TransactionCanceledException", "None", "TransactionConflict")


def test_transactions_that_met_are_tried_again() -> None:
    client = Broken(conflict(), conflict())
    assert limiter("t", client=lambda: client).try_acquire("a", START) == Permit()
    assert client.tries == 3


def test_a_crowd_is_sent_away_rather_than_waited_with() -> None:
    client = Broken(*(conflict() for _ in range(100)))
    denied = limiter("t", client=lambda: client).try_acquire("a", START)
    assert isinstance(denied, Denied)
    assert denied.limit is Limit.CONTENDED
    assert client.tries < 10


@pytest.mark.parametrize(
    "client",
    [
        Broken(failure("ProvisionedThroughputExceededException")),
        Broken(failure("ThrottlingException")),
        Broken(failure("InternalServerError", status=500)),
        Broken(failure("SomethingNew", status=503)),
        Broken(failure("TransactionCanceledException", "ThrottlingError", "None")),
        Broken(EndpointConnectionError(endpoint_url="https://dynamodb")),
        Broken(ReadTimeoutError(endpoint_url="https://dynamodb")),
        Broken(read=failure("ProvisionedThroughputExceededException")),
        Broken(read={"Responses": {}, "UnprocessedKeys": {"t": {}}}),
    ],
)
def test_says_no_while_dynamodb_throttles_or_is_away(client: Broken) -> None:
    denied = limiter("t", client=lambda: client).try_acquire("a", START)
    assert isinstance(denied, Denied)
    assert denied.limit is Limit.UNAVAILABLE
    assert denied.retry_after >= timedelta(seconds=10)


@pytest.mark.parametrize("code", ["ResourceNotFoundException", "AccessDeniedException", "ValidationException"])
def test_a_mistake_in_the_deployment_is_not_waited_for(code: str) -> None:
    with pytest.raises(ClientError):
        limiter("t", client=lambda: Broken(failure(code))).try_acquire("a", START)
