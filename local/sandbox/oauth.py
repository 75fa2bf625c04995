"""Google's token endpoint: a refresh token or a service account's signed assertion in, an access token for an hour out.

https://developers.google.com/identity/protocols/oauth2/web-server#offline
https://developers.google.com/identity/protocols/oauth2/service-account#authorizingrequests
"""

import json
import secrets
from base64 import urlsafe_b64decode
from datetime import UTC, datetime
from functools import cache
from typing import Any
from urllib.parse import parse_qs

from local.sandbox.messages import INVALID_CREDENTIALS, Call, Refusal, Reply
from local.sandbox.world import PROJECT, TOKEN_LIFE, AccessToken, World

JWT_BEARER = "urn:ietf:params:oauth:grant-type:jwt-bearer"
SCOPE = "https://www.googleapis.com/auth/firebase.messaging"
AUDIENCE = "https://oauth2.googleapis.com/token"
"""Whom assertions are for: google-auth names Google's own endpoint, wherever it sends them."""


def issue(call: Call, world: World) -> Reply:
    """Answers `POST /token`."""
    form = {name: values[0] for name, values in parse_qs(call.body.decode("latin-1")).items()}
    if form.get("grant_type") == JWT_BEARER:
        return _issue_to_service_account(form.get("assertion", ""), call, world)
    if form.get("grant_type") != "refresh_token":
        return _refusal(400, "unsupported_grant_type", "Invalid grant_type")
    if not form.get("client_id") or not form.get("client_secret"):
        return _refusal(401, "invalid_client", "The OAuth client was not found.")
    account = form.get("refresh_token")
    if not account:
        return _refusal(400, "invalid_request", "Missing required parameter: refresh_token")
    if account in world.revoked:
        return _refusal(400, "invalid_grant", "Token has been expired or revoked.")
    scope = "https://www.googleapis.com/auth/calendar.events https://www.googleapis.com/auth/drive"
    return _issued(account, scope, world)


def _issue_to_service_account(assertion: str, call: Call, world: World) -> Reply:
    from google.auth import jwt  # the sandbox starts without it

    claims = _claims(assertion)
    account = str(claims.get("iss"))
    key = world.service_accounts.get(account)
    if key is None or account in world.revoked:
        return _refusal(400, "invalid_grant", "Invalid grant: account not found")
    try:
        jwt.decode(assertion, certs=key, audience=[AUDIENCE, token_url(call)])  # type: ignore[no-untyped-call]
    except Exception as error:  # google-auth's, of several kinds
        return _refusal(400, "invalid_grant", f"Invalid JWT: {type(error).__name__}")
    if claims.get("scope") != SCOPE:
        return _refusal(400, "invalid_scope", "Invalid OAuth scope or ID token audience provided.")
    return _issued(account, SCOPE, world)


def _issued(account: str, scope: str, world: World) -> Reply:
    token = f"ya29.sandbox-{secrets.token_urlsafe(24)}"
    world.tokens[token] = AccessToken(account=account, expires_at=datetime.now(UTC) + TOKEN_LIFE)
    seconds = int(TOKEN_LIFE.total_seconds()) - 1
    return Reply(200, {"access_token": token, "expires_in": seconds, "scope": scope, "token_type": "Bearer"})


def new_service_account(call: Call, world: World) -> dict[str, str]:
    """Makes a service account of the Firebase project; returns its key as Google's console hands it out."""
    private, public = _key_pair()
    email = f"push-{secrets.token_hex(4)}@{PROJECT}.iam.gserviceaccount.com"
    world.service_accounts[email] = public
    return {
        "type": "service_account",
        "project_id": PROJECT,
        "private_key_id": secrets.token_hex(20),
        "private_key": private,
        "client_email": email,
        "client_id": str(secrets.randbelow(10**20)),
        "token_uri": token_url(call),
    }


@cache
def _key_pair() -> tuple[str, str]:
    """A private key and its public one, in PEM: the same for all accounts, since making one takes a while."""
    from cryptography.hazmat.primitives import serialization
    from cryptography.hazmat.primitives.asymmetric import rsa

    key = rsa.generate_private_key(public_exponent=65_537, key_size=2_048)
    private = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    public = key.public_key().public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
    return private.decode(), public.decode()


def token_url(call: Call) -> str:
    """This endpoint's address, as the caller knows it."""
    return f"http://{call.headers.get('host', '127.0.0.1')}/token"


def wanted_account(call: Call) -> str | None:
    """Whose access token is asked for."""
    form = parse_qs(call.body.decode("latin-1"))
    if "assertion" in form:
        return _claims(form["assertion"][0]).get("iss")
    return form.get("refresh_token", [None])[0]


def _claims(assertion: str) -> dict[str, Any]:
    """What an assertion says, before anybody has looked whether it is true."""
    try:
        part = assertion.split(".")[1]
        claims = json.loads(urlsafe_b64decode(part + "=" * (-len(part) % 4)))
    except (IndexError, ValueError):
        return {}
    return claims if isinstance(claims, dict) else {}


def account_of(call: Call, world: World) -> str:
    """Whose token a call carries.

    Raises:
        Refusal: nobody's, or no longer.
    """
    token = call.headers.get("authorization", "").removeprefix("Bearer ")
    known = world.tokens.get(token)
    if known is None or known.account in world.revoked or known.expires_at <= datetime.now(UTC):
        raise Refusal(INVALID_CREDENTIALS)
    return known.account


def revoke(account: str, world: World) -> None:
    """What happens when a teacher takes the permission back: nothing issued so far works any more."""
    world.revoked.add(account)
    world.tokens = {token: known for token, known in world.tokens.items() if known.account != account}


def _refusal(status: int, error: str, description: str) -> Reply:
    return Reply(status, {"error": error, "error_description": description})
