"""AWS clients, made on first use: importing boto3 and making one client costs a cold start about 0.3 seconds."""

import threading
from collections.abc import Mapping
from datetime import timedelta
from functools import cache
from typing import Any, Final

from schoolbell.settings import settings

CONNECT_SECONDS: Final = 3
"""How long AWS may take to accept a connection."""

_making = threading.Lock()


def client(service: str) -> Any:
    """The boto3 client of a service, e.g. `sqs`: made once an execution environment, safe to call from threads.

    The type is `Any` since boto3 makes a client's methods at run time from the service's description.
    """
    with _making:
        return _client(service)


@cache
def _client(service: str) -> Any:
    import boto3
    from botocore.config import Config

    known = settings()
    config = Config(
        connect_timeout=CONNECT_SECONDS,
        read_timeout=known.aws_answer_seconds,
        retries={"mode": "standard", "total_max_attempts": known.aws_attempts},
        max_pool_connections=20,
        tcp_keepalive=True,
    )
    return boto3.client(service, config=config)  # type: ignore[call-overload,unused-ignore]


def hasty_client(service: str, patience: timedelta) -> Any:
    """A client whose calls are made once and wait no longer than that: a send that botocore repeats is sent twice."""
    with _making:
        return _hasty_client(service, patience)


@cache
def _hasty_client(service: str, patience: timedelta) -> Any:
    import boto3
    from botocore.config import Config

    seconds = patience.total_seconds()
    config = Config(
        connect_timeout=seconds / 5,  # the rest is for the answer
        read_timeout=seconds * 4 / 5,
        retries={"mode": "standard", "total_max_attempts": 1},
        max_pool_connections=50,
        tcp_keepalive=True,
    )
    return boto3.client(service, config=config)  # type: ignore[call-overload,unused-ignore]


def forget_clients() -> None:
    """Makes the next call of `client` make a new one, e.g. after the endpoint changed in a test."""
    _client.cache_clear()
    _hasty_client.cache_clear()


def error_code(error: Exception) -> str:
    """The AWS error code that a botocore `ClientError` carries, or an empty string."""
    response: Mapping[str, Any] = getattr(error, "response", None) or {}
    return str(response.get("Error", {}).get("Code", ""))


def is_unreachable(error: Exception) -> bool:
    """Whether a call of AWS had no answer at all."""
    from botocore.exceptions import ConnectionError, HTTPClientError

    return isinstance(error, ConnectionError | HTTPClientError)


def is_no_such_queue(error: Exception) -> bool:
    """Whether SQS says that there is no queue at the address, in either of its two protocols."""
    return error_code(error).rpartition(".")[2] in ("NonExistentQueue", "QueueDoesNotExist")
