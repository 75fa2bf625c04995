"""Access tokens for a teacher's Google account, from the refresh token that is kept of it.

The refresh token is part of a JSON document: `{"client_id": ..., "client_secret": ..., "refresh_token": ...}`. It is
kept encrypted beside the teacher's connection, or in a secret of Secrets Manager. google-auth trades the refresh token
for access tokens, which last an hour and are kept between invocations. A secret is read again every five minutes, and
before a refusal is believed, since the teacher may have connected again. A ciphertext is opened once; a new connection
has another.
"""

import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from typing import Any, Protocol
from uuid import UUID

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
_NO_CIPHERTEXT = frozenset({"InvalidCiphertextException", "IncorrectKeyException"})
"""It was damaged, or made for another connection or with another key."""


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


@dataclass(frozen=True, slots=True)
class Ciphertext:
    """A grant as it is kept beside a connection: what KMS made of the JSON document, bound to that connection."""

    connection_id: UUID
    blob: bytes

    @property
    def context(self) -> dict[str, str]:
        """The encryption context: a ciphertext that was copied to another connection does not open there."""
        return {"connection_id": str(self.connection_id)}


type Grant = Ciphertext | str
"""What a teacher permitted, as it is kept: encrypted, or the name of a secret."""


class OAuthGrant(BaseModel):
    """The JSON document."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    client_id: str
    client_secret: SecretStr
    refresh_token: SecretStr


class OAuthTokens:
    """Access tokens from a refresh token."""

    def __init__(self, grant: Grant, token_url: str, http: Http) -> None:
        self._grant = grant
        self._token_url = token_url
        self._http = http
        self._credentials: Any = None  # google.oauth2.credentials.Credentials, which is imported on first use
        self._read_at = 0.0
        self._using = threading.Lock()

    def current(self) -> str:
        with self._using:
            if self._credentials is None or self._may_have_changed():
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

    def _may_have_changed(self) -> bool:
        is_secret = isinstance(self._grant, str)
        return is_secret and time.monotonic() > self._read_at + SECRET_AGE.total_seconds()

    def _read(self) -> bool:
        """Reads the grant, and tells whether it holds another refresh token than before."""
        from google.oauth2.credentials import Credentials

        if self._credentials is not None and isinstance(self._grant, Ciphertext):
            return False
        grant = _decrypted(self._grant) if isinstance(self._grant, Ciphertext) else _secret(self._grant)
        self._read_at = time.monotonic()
        refresh_token = grant.refresh_token.get_secret_value()
        if self._credentials is not None and self._credentials.refresh_token == refresh_token:
            return False
        self._credentials = Credentials(  # type: ignore[no-untyped-call]
            token=None,
            refresh_token=refresh_token,
            client_id=grant.client_id,
            client_secret=grant.client_secret.get_secret_value(),
            token_uri=self._token_url,
        )
        return True

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


def _secret(secret_id: str) -> OAuthGrant:
    try:
        answer = aws.client("secretsmanager").get_secret_value(SecretId=secret_id)
    except Exception as error:
        if aws.error_code(error) in _NO_SECRET:
            raise Revoked("credentials: the secret does not exist") from None
        raise
    return _grant("secret", answer["SecretString"])


def _decrypted(ciphertext: Ciphertext) -> OAuthGrant:
    try:
        answer = aws.client("kms").decrypt(CiphertextBlob=ciphertext.blob, EncryptionContext=ciphertext.context)
    except Exception as error:
        if aws.error_code(error) in _NO_CIPHERTEXT:
            raise Revoked("credentials: the ciphertext is not one of the stack's key for this connection") from None
        raise
    return _grant("ciphertext", answer["Plaintext"])


def _grant(kept_as: str, document: str | bytes) -> OAuthGrant:
    try:
        return OAuthGrant.model_validate_json(document)
    except ValidationError as error:
        missing = ", ".join(str(each["loc"][0]) if each["loc"] else "JSON" for each in error.errors())
        raise Revoked(f"credentials: the {kept_as} lacks {missing}") from None


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
def tokens_of(grant: Grant, token_url: str) -> OAuthTokens:
    """The tokens of an account, kept in this execution environment."""
    return OAuthTokens(grant, checked_url(token_url), shared_http())
