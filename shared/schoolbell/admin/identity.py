"""Who may use the admin API and page: whoever brings a token of the OIDC issuer with the role `system_admin`.

A token is verified here for every request, whatever a gateway in front has verified before.
"""

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, Final

from pydantic import BaseModel, ConfigDict, ValidationError

from schoolbell.gateways.https import Http, NoAnswer, checked_url

if TYPE_CHECKING:
    from jwt import PyJWK

ROLE: Final = "system_admin"
ALGORITHMS: Final = ("RS256", "ES256")
TOKEN_USES: Final = ("id", "access")
LEEWAY: Final = timedelta(seconds=10)
"""How far the issuer's clock may be from ours."""

KEYS_LIVE: Final = timedelta(minutes=30)
LOOK_AGAIN_AFTER: Final = timedelta(seconds=30)
"""Tokens with made-up key ids make us ask the issuer no more often than this."""


class Denied(Exception):
    """The token does not say who this is. The text is for the log and names no person; the answer says nothing."""


class Forbidden(Denied):
    """The token is valid, and its bearer has not the role."""


class IssuerAway(Exception):
    """The issuer does not answer, or not as OpenID Connect wants it, so nobody can be verified now."""


@dataclass(frozen=True, slots=True)
class Operator:
    """Who was verified."""

    subject: str
    """The issuer's id for the person, which goes into the audit log; no name, no address."""
    expires_at: datetime


class Discovery(BaseModel):
    """The part of an issuer's metadata that is used. https://openid.net/specs/openid-connect-discovery-1_0.html"""

    model_config = ConfigDict(frozen=True, extra="ignore")

    issuer: str
    jwks_uri: str
    authorization_endpoint: str
    token_endpoint: str


class Issuer:
    """An OIDC issuer, with its metadata and keys kept for half an hour.

    Args:
        url: the issuer as it stands in the tokens' `iss`.
        audience: the client id that tokens must be made for.
        role_claim: where a token says what its bearer may do: a text or a list of texts.
        http: sends requests.
        clock: tells the time, timezone-aware.
    """

    def __init__(
        self, url: str, audience: str, role_claim: str, http: Http, clock: Callable[[], datetime] | None = None
    ) -> None:
        self.url = url
        self.audience = audience
        self._role_claim = role_claim
        self._http = http
        self._clock = clock or (lambda: datetime.now(UTC))
        self._discovery: Discovery | None = None
        self._keys: dict[str, PyJWK] = {}
        self._asked_at: datetime | None = None

    def operator(self, token: str, *, nonce: str | None = None) -> Operator:
        """Verifies a token.

        Args:
            token: an ID or access token, as the issuer signed it.
            nonce: what was sent with the login that the token answers, if it answers one.

        Raises:
            Denied: it is none of this issuer's for this audience, or not valid now.
            Forbidden: it is, without the role.
            IssuerAway: the issuer's keys could not be read.
        """
        claims = self._verified(token)
        if nonce is not None and claims.get("nonce") != nonce:
            raise Denied("nonce")
        if not has_role(claims.get(self._role_claim)):
            raise Forbidden("role")
        return Operator(str(claims["sub"]), datetime.fromtimestamp(claims["exp"], UTC))

    def discovery(self) -> Discovery:
        """The issuer's metadata.

        Raises:
            IssuerAway: it could not be read.
        """
        if self._discovery is None:
            self._read_all()
        if self._discovery is None:
            raise IssuerAway("no metadata")
        return self._discovery

    def get_json(self, url: str, headers: Mapping[str, str], method: str = "GET", body: bytes | None = None) -> Any:
        """The JSON that an address of the issuer answers.

        Raises:
            IssuerAway: there was no answer, or an error.
            Denied: the issuer refuses what was asked for.
        """
        try:
            answer = self._http.send(method, checked_url(url), {"Accept": "application/json", **headers}, body)
            if 400 <= answer.status < 500:
                raise Denied(f"the issuer answered {answer.status}")
            if answer.status != 200:
                raise IssuerAway(f"status {answer.status}")
            return json.loads(answer.body)
        except (NoAnswer, ValueError) as error:
            raise IssuerAway(type(error).__name__) from None

    def _verified(self, token: str) -> dict[str, Any]:
        import jwt

        try:
            key = self._key(jwt.get_unverified_header(token))
            claims: dict[str, Any] = jwt.decode(
                token,
                key,
                algorithms=[key.algorithm_name],
                issuer=self.url,
                leeway=LEEWAY,
                options={"require": ["exp", "iss", "sub"], "verify_aud": False},  # the next line has more to say
            )
        except jwt.PyJWTError as error:
            raise Denied(type(error).__name__) from None
        if not is_for(claims, self.audience):
            raise Denied("audience")
        if claims.get("token_use", TOKEN_USES[0]) not in TOKEN_USES:
            raise Denied("token_use")
        return claims

    def _key(self, header: Mapping[str, Any]) -> "PyJWK":
        algorithm, key_id = header.get("alg"), header.get("kid")
        if algorithm not in ALGORITHMS:
            raise Denied("algorithm")
        if not isinstance(key_id, str):
            raise Denied("no key id")
        now = self._clock()
        is_old = self._asked_at is None or now - self._asked_at > KEYS_LIVE
        may_ask = self._asked_at is None or now - self._asked_at > LOOK_AGAIN_AFTER
        if is_old or (key_id not in self._keys and may_ask):
            self._read_all()
        key = self._keys.get(key_id)
        if key is None or key.algorithm_name != algorithm:
            raise Denied("unknown key")
        return key

    def _read_all(self) -> None:
        """Reads metadata and keys anew; those that were read before stay while the issuer is away."""
        try:
            read = Discovery.model_validate(
                self.get_json(f"{self.url.rstrip('/')}/.well-known/openid-configuration", {})
            )
            if read.issuer != self.url:
                raise IssuerAway("the metadata is another issuer's")
            self._keys = _signing_keys(self.get_json(read.jwks_uri, {}))
            self._discovery = read
        except (IssuerAway, Denied, ValidationError) as error:
            if self._discovery is None:
                raise IssuerAway(type(error).__name__) from None
        self._asked_at = self._clock()


def has_role(claimed: object) -> bool:
    """Whether a role claim, a text or a list of texts, names the role, to the letter.

    >>> has_role("system_admin"), has_role(["teacher", "system_admin"])
    (True, True)
    >>> has_role("system_admin2"), has_role("System_Admin"), has_role("not system_admin"), has_role({"system_admin": 1})
    (False, False, False, False)
    """
    return claimed == ROLE or (isinstance(claimed, list) and ROLE in claimed)


def is_for(claims: Mapping[str, Any], audience: str) -> bool:
    """Whether a token was made for a client. Cognito's access tokens name it in `client_id`, and have no `aud`.

    https://docs.aws.amazon.com/apigateway/latest/developerguide/http-api-jwt-authorizer.html
    """
    named = claims.get("aud", claims.get("client_id"))
    return bool(audience) and (named == audience or (isinstance(named, list) and audience in named))


def _signing_keys(document: Any) -> "dict[str, PyJWK]":
    import jwt

    try:
        keys = jwt.PyJWKSet.from_dict(document).keys
    except (jwt.PyJWTError, AttributeError, TypeError) as error:
        raise IssuerAway(type(error).__name__) from None
    return {
        key.key_id: key
        for key in keys
        if key.key_id and key.public_key_use in (None, "sig") and key.algorithm_name in ALGORITHMS
    }
