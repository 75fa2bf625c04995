"""Access tokens for a teacher's Google account, from the refresh token in Secrets Manager.

The secret is JSON: `{"client_id": ..., "client_secret": ..., "refresh_token": ...}`. google-auth trades the refresh
token for access tokens, which last an hour and are kept between invocations. The secret is read again every five
minutes, and before a refusal is believed: the teacher may have connected anew.
"""

import threading
import time
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from typing import Any, Protocol

from pydantic import BaseModel, ConfigDict, SecretStr, ValidationError

from schoolbell import aws
from schoolbell.gateways.errors import NotNow, Revoked, Unavailable
from schoolbell.gateways.google.errors import error_of, reason_of
from schoolbell.gateways.https import Answer, Http, NoAnswer, checked_url, shared_http

SECRET_AGE = timedelta(minutes=5)
AFTER_MISCONFIGURATION = timedelta(minutes=15)
ACCOUNTS = 500
"""Accounts whose tokens one execution environment keeps."""

_NO_SECRET = frozenset({"ResourceNotFoundException", "InvalidRequestException"})
"""There is none, or it is marked for deletion."""


class Tokens(Protocol):
    """Gives out access tokens of one account."""

    def current(self) -> str:
        """An access token that should work.

        Raises:
            Revoked: the account no longer gives any.
            NotNow: the token endpoint did not answer, or has had enough.
        """

    def renewed(self, refused: str) -> str:
        """Another access token than the one that was refused; raises as `current` does."""


class OAuthSecret(BaseModel):
    """What a teacher's secret holds."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    client_id: str
    client_secret: SecretStr
    refresh_token: SecretStr


class OAuthTokens:
    """Access tokens from a refresh token."""

    def __init__(self, secret_id: str, token_url: str, http: Http) -> None:
        self._secret_id = secret_id
        self._token_url = token_url
        self._http = http
        self._credentials: Any = None  # google.oauth2.credentials.Credentials, which is imported on first use
        self._read_at = 0.0
        self._using = threading.Lock()

    def current(self) -> str:
        with self._using:
            if self._credentials is None or time.monotonic() > self._read_at + SECRET_AGE.total_seconds():
                self._read()
            if not self._credentials.valid:
                self._refresh()
            return str(self._credentials.token)

    def renewed(self, refused: str) -> str:
        with self._using:
            if self._credentials is None or self._credentials.token == refused:
                self._read()
                self._refresh()
            return str(self._credentials.token)

    def _read(self) -> bool:
        """Reads the secret, and tells whether it holds another refresh token than before."""
        from google.oauth2.credentials import Credentials

        secret = self._secret()
        self._read_at = time.monotonic()
        refresh_token = secret.refresh_token.get_secret_value()
        if self._credentials is not None and self._credentials.refresh_token == refresh_token:
            return False
        self._credentials = Credentials(  # type: ignore[no-untyped-call]
            token=None,
            refresh_token=refresh_token,
            client_id=secret.client_id,
            client_secret=secret.client_secret.get_secret_value(),
            token_uri=self._token_url,
        )
        return True

    def _secret(self) -> OAuthSecret:
        try:
            answer = aws.client("secretsmanager").get_secret_value(SecretId=self._secret_id)
        except Exception as error:
            if aws.error_code(error) in _NO_SECRET:
                raise Revoked("credentials: the secret does not exist") from None
            raise
        try:
            return OAuthSecret.model_validate_json(answer["SecretString"])
        except ValidationError as error:
            missing = ", ".join(str(each["loc"][0]) if each["loc"] else "JSON" for each in error.errors())
            raise Revoked(f"credentials: the secret lacks {missing}") from None

    def _refresh(self) -> None:
        from google.auth.exceptions import GoogleAuthError

        try:
            try:
                self._credentials.refresh(self._ask)
            except Revoked:
                if not self._read():
                    raise
                self._credentials.refresh(self._ask)
        except (GoogleAuthError, TypeError, ValueError) as error:
            # 5xx and refusals were told apart before google-auth saw them; this is an answer that makes no sense.
            raise Unavailable(f"token: {type(error).__name__}") from None

    def _ask(
        self,
        url: str,
        method: str = "GET",
        body: bytes | None = None,
        headers: Mapping[str, str] | None = None,
        timeout: float | None = None,  # noqa: ARG002 - google-auth's interface; the connection has its own
        **_: object,
    ) -> "AuthResponse":
        """A `google.auth.transport.Request`: google-auth's own on urllib3 imports three times as much."""
        try:
            answer = self._http.send(method, url, headers or {}, body)
        except NoAnswer as error:
            raise Unavailable(f"token: {error}") from None
        if answer.status >= 400:
            raise _refusal(answer)
        return AuthResponse(answer)


class AuthResponse:
    """A `google.auth.transport.Response`."""

    def __init__(self, answer: Answer) -> None:
        self.status = answer.status
        self.headers = answer.headers
        self.data = answer.body


def _refusal(answer: Answer) -> Exception:
    error = error_of("token", answer, datetime.now(UTC))
    if isinstance(error, NotNow):
        return error
    reason = reason_of(answer.body)
    if reason == "invalid_grant":
        return Revoked(f"token: {answer.status} {reason}")
    # invalid_client, unauthorized_client: our own registration at Google is broken, which the teacher cannot mend.
    return NotNow(f"token: {answer.status} {reason}".rstrip(), AFTER_MISCONFIGURATION)


@lru_cache(maxsize=ACCOUNTS)
def tokens_of(secret_id: str, token_url: str) -> OAuthTokens:
    """The tokens of an account, kept in this execution environment."""
    return OAuthTokens(secret_id, checked_url(token_url), shared_http())
