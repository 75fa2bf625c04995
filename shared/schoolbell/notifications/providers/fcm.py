"""Firebase Cloud Messaging, HTTP v1: push messages to Android, iOS and the web.

https://firebase.google.com/docs/reference/fcm/rest/v1/projects.messages/send
"""

import threading
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import timedelta
from functools import cache
from hashlib import sha256
from typing import Any

from pydantic import SecretStr, field_validator

from schoolbell.gateways.errors import GatewayError, Gone, Misconfigured, NeverWorks, Unavailable
from schoolbell.gateways.google.credentials import AuthResponse
from schoolbell.gateways.google.errors import reason_of
from schoolbell.gateways.https import Answer, Http, checked_url
from schoolbell.notifications.addresses import push_token
from schoolbell.notifications.calls import Request, Service, as_json, hasty_http, json_of
from schoolbell.notifications.channels import Channel
from schoolbell.notifications.providers import Outgoing
from schoolbell.notifications.secrets import Key, Secret
from schoolbell.settings import Settings

SCOPE = "https://www.googleapis.com/auth/firebase.messaging"
AFTER_MISCONFIGURATION = timedelta(minutes=15)
_FCM_ERROR = "type.googleapis.com/google.firebase.fcm.v1.FcmError"


class ServiceAccount(Key):
    """The secret `<stack>/providers/fcm`: a service account's key as Google's console hands it out."""

    project_id: str
    client_email: str
    private_key: SecretStr
    token_uri: str = "https://oauth2.googleapis.com/token"  # noqa: S105 - an address, not a token

    @field_validator("token_uri")
    @classmethod
    def _is_safe(cls, value: str) -> str:
        return checked_url(value)


@dataclass(frozen=True, slots=True)
class Session:
    """A service account, and its credentials at Google."""

    account: ServiceAccount
    credentials: Any
    """`google.oauth2.service_account.Credentials`, which is imported on first use."""

    @classmethod
    def of(cls, account: ServiceAccount) -> "Session":
        """A session that has no token yet.

        Raises:
            Misconfigured: the private key is none.
        """
        from google.oauth2.service_account import Credentials

        info = {**account.model_dump(), "private_key": account.private_key.get_secret_value()}
        try:
            made = Credentials.from_service_account_info(info, scopes=[SCOPE])  # type: ignore[no-untyped-call]
        except ValueError:
            raise Misconfigured("fcm: in the secret, not as it should be: private_key") from None
        return cls(account, made)

    @property
    def project(self) -> str:
        return self.account.project_id

    @property
    def token(self) -> str:
        return str(self.credentials.token)


class Tokens:
    """Access tokens of the service account, which last an hour; safe to use from threads."""

    def __init__(self, secret: Secret[ServiceAccount], http: Http) -> None:
        self._secret = secret
        self._service = Service("fcm: token", secret, http)
        self._session: Session | None = None
        self._using = threading.Lock()

    def current(self) -> tuple[str, str]:
        """The project, and an access token that should work.

        Raises:
            Misconfigured: the account gets none.
            Throttled, Unavailable: Google's token endpoint has had enough, or is unwell.
        """
        with self._using:
            session = self._session
            if session is None or not session.credentials.valid:
                session = self._refreshed(session or Session.of(self._secret.current()))
            return session.project, session.token

    def renewed(self, refused: str) -> tuple[str, str]:
        """The same with another token than the one that was refused; raises as `current` does."""
        with self._using:
            if self._session is not None and self._session.token == refused:
                self._refreshed(self._reread(self._session))
        return self.current()

    def _refreshed(self, session: Session) -> Session:
        try:
            self._refresh(session)
        except Misconfigured:
            reread = self._reread(session)
            if reread is session:
                raise
            session = reread
            self._refresh(session)
        self._session = session
        return session

    def _reread(self, session: Session) -> Session:
        """The session of the account that is in the secret now; the same one if that has not changed."""
        account = self._secret.renewed(session.account)
        return session if account == session.account else Session.of(account)

    def _refresh(self, session: Session) -> None:
        from google.auth.exceptions import GoogleAuthError

        try:
            session.credentials.refresh(self._send)
        except (GoogleAuthError, TypeError, ValueError) as error:
            # Refusals and 5xx were told apart before google-auth saw them; this is an answer that makes no sense.
            raise Unavailable(f"fcm: token: {type(error).__name__}") from None

    def _send(
        self,
        url: str,
        method: str = "POST",  # noqa: ARG002 - as it is for every token
        body: bytes | None = None,
        headers: Mapping[str, str] | None = None,
        timeout: float | None = None,  # noqa: ARG002 - google-auth's interface; the connection has its own
        **_: object,
    ) -> AuthResponse:
        """A `google.auth.transport.Request`. Whatever goes wrong here, no message has been sent."""
        try:
            answer = self._service.send(Request(url, headers or {}, body or b""))
        except Unavailable as error:
            raise Unavailable(str(error)) from None
        if answer.status == 429:
            raise self._service.error_of(answer)
        if answer.status >= 500:
            raise Unavailable(f"fcm: token: {answer.status}")
        if answer.status >= 300:
            raise Misconfigured(f"fcm: token: {answer.status} {reason_of(answer.body)}".rstrip())
        return AuthResponse(answer)


class Fcm:
    """Sends push messages.

    Args:
        base_url: where Firebase is; HTTPS, or this machine.
        secret: holds the service account.
        http: sends the requests.
    """

    name = "fcm"
    channel = Channel.PUSH
    honours_key = True
    """Not Firebase: the device, which shows a message with the key of an earlier one in its place."""

    def __init__(self, base_url: str, secret: Secret[ServiceAccount], http: Http) -> None:
        self._url = checked_url(base_url)
        self._service = Service(self.name, secret, http)
        self._tokens = Tokens(secret, http)

    def send(self, message: Outgoing) -> str:
        body = as_json({"message": _message(message)})
        project, token = self._tokens.current()
        answer = self._post(project, token, body)
        if answer.status in (401, 403, 404) and not _reason(answer):
            project, token = self._tokens.renewed(token)
            answer = self._post(project, token, body)
        if answer.status >= 300:
            raise self._error_of(answer)
        name = json_of(answer).get("name")
        if not isinstance(name, str) or not name.startswith("projects/"):
            raise self._service.garbage(answer)
        return name

    def _post(self, project: str, token: str, body: bytes) -> Answer:
        headers = {"Authorization": f"Bearer {token}", "Content-Type": "application/json"}
        return self._service.send(Request(f"{self._url}/v1/projects/{project}/messages:send", headers, body))

    def _error_of(self, answer: Answer) -> GatewayError:
        """https://firebase.google.com/docs/reference/fcm/rest/v1/ErrorCode"""
        reason = _reason(answer)
        if reason == "UNREGISTERED":
            return Gone(f"fcm: {answer.status} {reason}")
        if reason == "SENDER_ID_MISMATCH":
            return NeverWorks(f"fcm: {answer.status} {reason}")
        if reason == "THIRD_PARTY_AUTH_ERROR":
            # Apple's certificate is wrong; to other devices all is well, and what they take keeps the circuit closed.
            return Misconfigured(f"fcm: {answer.status} {reason}", AFTER_MISCONFIGURATION)
        # A 404 that does not say "unregistered" is about the project or the address. To forget a device for that would
        # be to forget them all.
        return self._service.error_of(answer, reason or reason_of(answer.body))


def _message(message: Outgoing) -> dict[str, Any]:
    notification = {"body": message.text}
    if message.subject:
        notification["title"] = message.subject
    key = sha256(message.key.encode()).hexdigest()  # as long as Apple allows
    android: dict[str, Any] = {"notification": {"tag": key}}
    webpush = {"Topic": key[:32]}
    if message.is_urgent:
        android["priority"] = "HIGH"
        webpush["Urgency"] = "high"
    return {
        "token": push_token(message.address),
        "notification": notification,
        "data": dict(message.data),
        "android": android,
        "apns": {"headers": {"apns-collapse-id": key}},
        "webpush": {"headers": webpush},
    }


def _reason(answer: Answer) -> str:
    """Firebase's own code, which is among the details of Google's error."""
    error = json_of(answer).get("error")
    details = error.get("details") if isinstance(error, dict) else None
    for detail in details if isinstance(details, list) else []:
        if isinstance(detail, dict) and detail.get("@type") == _FCM_ERROR and isinstance(detail.get("errorCode"), str):
            return str(detail["errorCode"])
    return ""


@cache
def provider(settings: Settings) -> Fcm:
    """The provider, kept with its connections and its tokens."""
    secret = Secret(settings.provider_secret("fcm"), ServiceAccount)
    return Fcm(settings.fcm_url, secret, hasty_http(settings.provider_timeout))
