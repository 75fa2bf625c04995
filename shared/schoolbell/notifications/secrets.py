"""The keys to outside services, as JSON in Secrets Manager: read on first use, and again when a key is refused."""

import threading
from datetime import timedelta

from pydantic import BaseModel, ConfigDict, ValidationError

from schoolbell import aws
from schoolbell.gateways.errors import Misconfigured

PATIENCE = timedelta(seconds=5)
"""A message waits for it."""

_NO_SECRET = frozenset({"ResourceNotFoundException", "InvalidRequestException"})
"""There is none, or it is marked for deletion. One that does not exist has no ARN by which a role could be allowed to
read it, and so the answer may be AccessDeniedException; it is that, too, where the KMS key is withheld."""


class Key(BaseModel):
    """What a secret holds; a field that nobody asked for may be a note of its owner's."""

    model_config = ConfigDict(frozen=True, extra="ignore")


class NoSecret(Misconfigured):
    """The service has not been set up: its secret does not exist."""


class Secret[K: Key]:
    """One service's secret, kept in this execution environment; safe to use from threads.

    Args:
        secret_id: its name in Secrets Manager.
        model: what it holds.
    """

    def __init__(self, secret_id: str, model: type[K]) -> None:
        self._secret_id = secret_id
        self._model = model
        self._key: K | None = None
        self._reading = threading.Lock()

    def current(self) -> K:
        """The key as it was last read.

        Raises:
            NoSecret: there is no such secret.
            Misconfigured: the secret can't be read, or is not what it should be.
        """
        with self._reading:
            if self._key is None:
                self._key = self._read()
            return self._key

    def exists(self) -> bool:
        """Whether there is such a secret; raises as `current` does of what else may be wrong with it."""
        try:
            self.current()
        except NoSecret:
            return False
        return True

    def renewed(self, refused: K) -> K:
        """The key as it is now, after one was refused; the same if nobody has changed it. Raises as `current` does."""
        with self._reading:
            if self._key is None or self._key == refused:
                self._key = self._read()
            return self._key

    def _read(self) -> K:
        name = self._secret_id.rpartition("/")[2]
        try:
            answer = aws.hasty_client("secretsmanager", PATIENCE).get_secret_value(SecretId=self._secret_id)
        except Exception as error:
            code = aws.error_code(error) or type(error).__name__
            if code in _NO_SECRET or (code == "AccessDeniedException" and "KMS" not in str(error)):
                raise NoSecret(f"{name}: the secret does not exist: {code}") from None
            raise Misconfigured(f"{name}: the secret can't be read: {code}") from None
        try:
            return self._model.model_validate_json(answer.get("SecretString") or "")
        except ValidationError as error:
            fields = ", ".join(str(each["loc"][0]) if each["loc"] else "JSON" for each in error.errors())
            raise Misconfigured(f"{name}: in the secret, not as it should be: {fields}") from None
