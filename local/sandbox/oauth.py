"""Google's token endpoint: a refresh token in, an access token for an hour out.

https://developers.google.com/identity/protocols/oauth2/web-server#offline
"""

import secrets
from datetime import UTC, datetime
from urllib.parse import parse_qs

from local.sandbox.messages import INVALID_CREDENTIALS, Call, Refusal, Reply
from local.sandbox.world import TOKEN_LIFE, AccessToken, World


def issue(call: Call, world: World) -> Reply:
    """Answers `POST /token`."""
    form = {name: values[0] for name, values in parse_qs(call.body.decode("latin-1")).items()}
    if form.get("grant_type") != "refresh_token":
        return _refusal(400, "unsupported_grant_type", "Invalid grant_type")
    if not form.get("client_id") or not form.get("client_secret"):
        return _refusal(401, "invalid_client", "The OAuth client was not found.")
    account = form.get("refresh_token")
    if not account:
        return _refusal(400, "invalid_request", "Missing required parameter: refresh_token")
    if account in world.revoked:
        return _refusal(400, "invalid_grant", "Token has been expired or revoked.")
    token = f"ya29.sandbox-{secrets.token_urlsafe(24)}"
    world.tokens[token] = AccessToken(account=account, expires_at=datetime.now(UTC) + TOKEN_LIFE)
    scope = "https://www.googleapis.com/auth/calendar.events https://www.googleapis.com/auth/drive"
    seconds = int(TOKEN_LIFE.total_seconds()) - 1
    return Reply(200, {"access_token": token, "expires_in": seconds, "scope": scope, "token_type": "Bearer"})


def wanted_account(call: Call) -> str | None:
    """Whose access token is asked for."""
    return parse_qs(call.body.decode("latin-1")).get("refresh_token", [None])[0]


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
