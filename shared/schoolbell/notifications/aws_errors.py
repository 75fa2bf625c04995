"""What a failed call to SES or SNS means, by AWS's error code."""

from collections.abc import Callable
from typing import Any

from schoolbell import aws
from schoolbell.gateways.errors import (
    GatewayError,
    Misconfigured,
    NeverWorks,
    Unavailable,
    Uncertain,
    throttled,
)
from schoolbell.notifications.calls import AFTER_THROTTLING, as_code

_THROTTLED = frozenset(
    {
        "Throttling",
        "ThrottlingException",
        "ThrottledException",
        "TooManyRequestsException",
        "LimitExceededException",
        "RequestLimitExceeded",
        "RequestThrottled",
        "SlowDown",
        "KMSThrottling",
    }
)


def asking(
    service: str, call: Callable[[], Any], of_the_message: frozenset[str], *, our_own: str | None = None
) -> dict[str, Any]:
    """Makes a call of boto3.

    Args:
        service: stands in errors' texts, e.g. `ses`.
        call: makes it.
        of_the_message: error codes that are about the message. Others are about the account, and may pass.
        our_own: an address of ours; an error whose text names it is not about the message.

    Raises:
        GatewayError: one of the kinds told apart in `schoolbell.gateways.errors`.
    """
    from botocore.exceptions import BotoCoreError, ClientError
    from botocore.parsers import ResponseParserError

    try:
        answer: dict[str, Any] = call()
    except ClientError as error:
        raise _error_of(service, error, of_the_message, our_own) from None  # AWS's text repeats addresses
    except (BotoCoreError, ResponseParserError, LookupError) as error:  # a KeyError is botocore's word for nonsense
        raise _unanswered(service, error) from None
    return answer


def _error_of(service: str, error: Any, of_the_message: frozenset[str], our_own: str | None) -> GatewayError:
    code = aws.error_code(error)
    status = error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0)
    message = f"{service}: {status} {as_code(code)}".rstrip()
    if code in _THROTTLED or status == 429:
        return throttled(AFTER_THROTTLING)
    if status >= 500:
        return Uncertain(message) if status == 504 else Unavailable(message)
    if code not in of_the_message or (our_own and our_own in str(error)):
        return Misconfigured(message)
    return NeverWorks(message)


def _unanswered(service: str, error: Exception) -> Unavailable:
    from botocore.exceptions import ConnectTimeoutError, EndpointConnectionError, NoCredentialsError, SSLError

    message = f"{service}: {type(error).__name__}"
    if isinstance(error, ConnectTimeoutError | EndpointConnectionError | NoCredentialsError | SSLError):
        return Unavailable(message)
    return Uncertain(message)
