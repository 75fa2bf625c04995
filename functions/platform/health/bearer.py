"""The bearer token of those who may ask more than whether the function runs."""

import hmac
import time
from datetime import timedelta
from typing import Final

from schoolbell import aws
from schoolbell.settings import settings

TOKEN_FOR: Final = timedelta(minutes=1)
"""How often at most the token is read again, for one that was changed."""


class Token:
    """The token of `/metrics` and of the details, from Secrets Manager."""

    def __init__(self) -> None:
        self._value = b""
        self._read_at = -TOKEN_FOR.total_seconds()

    def is_given(self, authorization: str) -> bool:
        """Whether a header carries it; takes as long whatever is wrong with it."""
        scheme, _, given = authorization.partition(" ")
        is_bearer = scheme.lower() == "bearer"
        if is_bearer and self._is(given):
            return True
        return is_bearer and self._is_read_again() and self._is(given)

    def _is(self, given: str) -> bool:
        return bool(self._value) and hmac.compare_digest(given.strip().encode(), self._value)

    def _is_read_again(self) -> bool:
        if time.monotonic() - self._read_at < TOKEN_FOR.total_seconds():
            return False
        self._read_at = time.monotonic()
        answer = aws.client("secretsmanager").get_secret_value(SecretId=settings().monitoring_secret_id)
        self._value = str(answer["SecretString"]).encode()
        return True
