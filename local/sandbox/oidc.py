"""An OpenID Connect issuer that signs a demo operator in at a click: discovery, keys, authorization code with PKCE.

https://openid.net/specs/openid-connect-core-1_0.html, https://www.rfc-editor.org/rfc/rfc7636

| call | does |
| --- | --- |
| `GET /oidc/.well-known/openid-configuration`, `GET /oidc/keys` | metadata and public keys |
| `GET /oidc/authorize?...` | a page on which one chooses who one is |
| `POST /oidc/token` | a code for an ID token |
| `POST /oidc/demo-token` `{"role": "system_admin", "seconds": 3600}` | a token without all that; more keys are claims |
"""

import html
import json
import secrets
from base64 import urlsafe_b64encode
from datetime import UTC, datetime, timedelta
from functools import cache
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import parse_qs, urlencode

from local.sandbox.messages import Call, Reply
from local.sandbox.world import World

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey

CLIENT: Final = "schoolbell-admin"
ROLE: Final = "system_admin"
ROLE_CLAIM: Final = "cognito:groups"
OPERATOR: Final = "6f0c1d9e-demo-operator"
LIVES: Final = timedelta(hours=12)
PEOPLE: Final = {
    "operator": ("The demo operator", [ROLE]),
    "teacher": ("A teacher, who may not", ["teacher"]),
}

_kept: list[Path] = []


def keep_key(path: Path) -> None:
    """Keeps the signing key in a file: who has cached it (API Gateway, for two hours) need not notice a restart."""
    _kept[:] = [path]
    signing_key.cache_clear()


@cache
def signing_key() -> "RSAPrivateKey":
    """The issuer's key, generated on first use."""
    from cryptography.hazmat.primitives import serialization
    from cryptography.hazmat.primitives.asymmetric import rsa

    path = _kept[0] if _kept else None
    if path and path.exists():
        read = serialization.load_pem_private_key(path.read_bytes(), None)
        if isinstance(read, rsa.RSAPrivateKey):
            return read
    made = rsa.generate_private_key(65_537, 2_048)
    if path:
        path.touch(0o600)
        path.write_bytes(
            made.private_bytes(
                serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
            )
        )
    return made


def token(issuer: str, claims: dict[str, Any], lives: timedelta = LIVES) -> str:
    """A signed ID token of the demo operator, with other claims where they are given; `None` leaves one out."""
    import jwt

    now = datetime.now(UTC)
    all_claims = {
        "iss": issuer,
        "sub": OPERATOR,
        "aud": CLIENT,
        "iat": now,
        "nbf": now,
        "exp": now + lives,
        "token_use": "id",
        ROLE_CLAIM: [ROLE],
        **claims,
    }
    told = {name: value for name, value in all_claims.items() if value is not None}
    return jwt.encode(told, signing_key(), "RS256", {"kid": key_id()})


def key_id() -> str:
    """The name of the key, made of the key."""
    return sha256(str(signing_key().public_key().public_numbers().n).encode()).hexdigest()[:16]


def keys() -> dict[str, Any]:
    """The public keys."""
    from jwt.algorithms import RSAAlgorithm

    public = json.loads(RSAAlgorithm.to_jwk(signing_key().public_key()))
    return {"keys": [{**public, "kid": key_id(), "use": "sig", "alg": "RS256"}]}


def operation(method: str, segments: list[str]) -> str | None:
    """The name of the call; `segments` follow `/oidc`."""
    match method, segments:
        case "GET", [".well-known", "openid-configuration"]:
            return "discovery"
        case ("GET", ["keys" | "authorize"]) | ("POST", ["token" | "demo-token"]):
            return segments[0]
    return None


def caller(_call: Call, _segments: list[str], _world: World) -> str | None:
    """Nobody: what there is to know is public."""
    return None


def answer(call: Call, segments: list[str], world: World) -> Reply:
    """Answers a call."""
    issuer = f"http://{call.headers.get('host', '')}/oidc"
    match operation(call.method, segments):
        case "discovery":
            return Reply(200, discovery(issuer))
        case "keys":
            return Reply(200, keys())
        case "authorize":
            return _authorize(call, issuer, world)
        case "token":
            return _exchange(call, issuer, world)
        case "demo-token":
            wanted = call.json()
            lives = timedelta(seconds=wanted.pop("seconds", LIVES.total_seconds()))
            role = wanted.pop("role", ROLE)
            return Reply(200, {"token": token(issuer, {ROLE_CLAIM: role, **wanted}, lives)})
    return Reply(404, {"error": "not_found"})


def fault(status: int, reason: str | None, headers: dict[str, str]) -> Reply:
    """The error that a fault asks for."""
    return Reply(status, {"error": reason or "server_error"}, headers)


def discovery(issuer: str) -> dict[str, Any]:
    """The issuer's metadata."""
    return {
        "issuer": issuer,
        "authorization_endpoint": f"{issuer}/authorize",
        "token_endpoint": f"{issuer}/token",
        "jwks_uri": f"{issuer}/keys",
        "response_types_supported": ["code"],
        "subject_types_supported": ["public"],
        "id_token_signing_alg_values_supported": ["RS256"],
        "code_challenge_methods_supported": ["S256"],
        "token_endpoint_auth_methods_supported": ["none"],
    }


def _authorize(call: Call, issuer: str, world: World) -> Reply:
    asked = dict(call.query)
    chosen = PEOPLE.get(asked.pop("as", ""))
    needed = {"client_id": CLIENT, "response_type": "code", "code_challenge_method": "S256"}
    wrong = [name for name, value in needed.items() if asked.get(name) != value]
    missing = [name for name in ("redirect_uri", "state", "code_challenge", "scope") if not asked.get(name)]
    if wrong or missing:
        return Reply(400, {"error": "invalid_request", "error_description": ", ".join(wrong + missing)})
    if chosen is None:
        addresses = {who: html.escape(f"{issuer}/authorize?{urlencode({**asked, 'as': who})}") for who in PEOPLE}
        links = "".join(f'<p><a id="{who}" href="{addresses[who]}">{name}</a></p>' for who, (name, _) in PEOPLE.items())
        page = (
            '<!doctype html><html lang="en"><meta name="viewport" content="width=device-width"><title>Sign in</title>'
            '<body style="font:16px system-ui;max-width:24rem;margin:15vh auto;padding:0 1rem;color-scheme:light dark">'
            f"<h1>Who are you?</h1><p>A stand-in for an identity provider, on this machine only.</p>{links}"
        )
        return Reply(200, page.encode(), {"Content-Type": "text/html; charset=utf-8"})
    code = secrets.token_urlsafe(24)
    world.codes[code] = {**asked, "groups": json.dumps(chosen[1])}
    back = urlencode({"code": code, "state": asked["state"]})
    return Reply(302, b"", {"Location": f"{asked['redirect_uri']}?{back}"})


def _exchange(call: Call, issuer: str, world: World) -> Reply:
    form = {name: values[0] for name, values in parse_qs(call.body.decode("latin-1")).items()}
    asked = world.codes.pop(form.get("code", ""), None)
    challenge = urlsafe_b64encode(sha256(form.get("code_verifier", "").encode()).digest()).rstrip(b"=").decode()
    if (
        asked is None
        or form.get("grant_type") != "authorization_code"
        or form.get("redirect_uri") != asked["redirect_uri"]
        or form.get("client_id") != CLIENT
        or challenge != asked["code_challenge"]
    ):
        return Reply(400, {"error": "invalid_grant"})
    claims = {"nonce": asked.get("nonce"), ROLE_CLAIM: json.loads(asked["groups"])}
    return Reply(
        200,
        {
            "id_token": token(issuer, claims),
            "access_token": secrets.token_urlsafe(24),
            "token_type": "Bearer",
            "expires_in": int(LIVES.total_seconds()),
        },
        {"Cache-Control": "no-store"},
    )
