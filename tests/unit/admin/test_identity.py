"""Whose tokens are taken: those of one issuer for one audience, signed by its keys, valid now, with the role."""

import base64
import hmac
import json
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import jwt
import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa

from local.sandbox import oidc
from local.sandbox.server import Sandbox, serving
from schoolbell.admin.identity import (
    LOOK_AGAIN_AFTER,
    Denied,
    Forbidden,
    Issuer,
    IssuerAway,
    has_role,
    is_for,
)
from schoolbell.gateways.https import Answer, Http, NoAnswer, PooledHttp


class Clock:
    """A clock that the test turns."""

    def __init__(self) -> None:
        self.now = datetime(2026, 3, 2, 10, tzinfo=UTC)

    def __call__(self) -> datetime:
        return self.now


class Line:
    """The way to the issuer: counts requests, and can be cut."""

    def __init__(self, http: Http) -> None:
        self.http = http
        self.asked: list[str] = []
        self.is_cut = False
        self.instead: dict[str, Answer] = {}

    def send(self, method: str, url: str, headers: Any, body: bytes | None = None) -> Answer:
        self.asked.append(url.rpartition("/")[2])
        if self.is_cut:
            raise NoAnswer("cut")
        return self.instead.get(url.rpartition("/")[2]) or self.http.send(method, url, headers, body)


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    with serving(Sandbox()) as address:
        yield f"{address}/oidc"


@pytest.fixture
def line() -> Line:
    return Line(PooledHttp())


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def issuer(url: str, line: Line, clock: Clock) -> Issuer:
    return Issuer(url, oidc.CLIENT, oidc.ROLE_CLAIM, line, clock)


AGO = -timedelta(minutes=1)
TO_COME = timedelta(hours=1)


def from_now(claims: dict[str, Any]) -> dict[str, Any]:
    """The claims with times in place of spans from now on, since tests are collected long before they run."""
    now = datetime.now(UTC)
    return {name: now + value if isinstance(value, timedelta) else value for name, value in claims.items()}


def test_a_token_of_the_issuer_with_the_role_is_taken(issuer: Issuer, url: str) -> None:
    operator = issuer.operator(oidc.token(url, {"sub": "operator-1"}))
    assert operator.subject == "operator-1"
    assert timedelta(hours=11) < operator.expires_at - datetime.now(UTC) <= oidc.LIVES


@pytest.mark.parametrize(
    "claims",
    [
        {"exp": AGO},
        {"exp": None},
        {"nbf": TO_COME},
        {"iat": TO_COME},
        {"iss": "https://elsewhere.example/oidc"},
        {"iss": None},
        {"sub": None},
        {"aud": "another-client"},
        {"aud": ["another-client"]},
        {"aud": None},
        {"aud": None, "client_id": "another-client"},
        {"aud": "another-client", "client_id": oidc.CLIENT},
        {"token_use": "refresh"},
    ],
    ids=str,
)
def test_a_token_that_is_not_right_is_refused(issuer: Issuer, url: str, claims: dict[str, Any]) -> None:
    with pytest.raises(Denied) as refused:
        issuer.operator(oidc.token(url, from_now(claims)))
    assert not isinstance(refused.value, Forbidden)


@pytest.mark.parametrize("claims", [{"aud": ["other", oidc.CLIENT]}, {"aud": None, "client_id": oidc.CLIENT}], ids=str)
def test_the_audience_may_be_one_of_several_or_cognitos_client_id(
    issuer: Issuer, url: str, claims: dict[str, Any]
) -> None:
    assert issuer.operator(oidc.token(url, {**claims, "token_use": "access"})).subject == oidc.OPERATOR


@pytest.mark.parametrize(
    "role",
    [
        None,
        "",
        [],
        "system_admin2",
        "System_Admin",
        "not system_admin",
        "system_admin ",
        ["system_admin2"],
        ["not system_admin", "SYSTEM_ADMIN"],
        [["system_admin"]],
        {"system_admin": True},
        True,
    ],
    ids=str,
)
def test_a_role_that_is_almost_right_is_refused(issuer: Issuer, url: str, role: object) -> None:
    with pytest.raises(Forbidden):
        issuer.operator(oidc.token(url, {oidc.ROLE_CLAIM: role}))


@pytest.mark.parametrize("role", ["system_admin", ["teacher", "system_admin"]])
def test_the_role_may_be_a_text_or_in_a_list(role: object) -> None:
    assert has_role(role)


def test_a_role_in_another_claim_is_none(url: str, line: Line) -> None:
    with pytest.raises(Forbidden):
        Issuer(url, oidc.CLIENT, "roles", line).operator(oidc.token(url, {}))


def test_without_an_audience_nobody_is_let_in() -> None:
    assert not is_for({"aud": ""}, "")
    assert not is_for({}, "")


def claims_of(url: str) -> dict[str, Any]:
    return jwt.decode(oidc.token(url, {}), options={"verify_signature": False})


def test_an_unsigned_token_is_refused(issuer: Issuer, url: str) -> None:
    unsigned = jwt.encode(claims_of(url), "", "none", {"kid": oidc.key_id()})
    with pytest.raises(Denied, match="algorithm"):
        issuer.operator(unsigned)
    head, body, _ = oidc.token(url, {}).split(".")
    with pytest.raises(Denied):
        issuer.operator(f"{head}.{body}.")


def test_a_token_signed_with_the_public_key_as_a_secret_is_refused(issuer: Issuer, url: str) -> None:
    pem = (
        oidc.signing_key()
        .public_key()
        .public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
    )

    def part(value: object) -> bytes:
        return base64.urlsafe_b64encode(json.dumps(value).encode()).rstrip(b"=")

    signed = part({"alg": "HS256", "typ": "JWT", "kid": oidc.key_id()}) + b"." + part(claims_of(url))
    signature = base64.urlsafe_b64encode(hmac.digest(pem, signed, "sha256")).rstrip(b"=")
    with pytest.raises(Denied, match="algorithm"):
        issuer.operator(f"{signed.decode()}.{signature.decode()}")


def test_a_key_of_somebody_else_is_refused_also_under_the_issuers_key_id(issuer: Issuer, url: str) -> None:
    other = rsa.generate_private_key(65_537, 2_048)
    with pytest.raises(Denied, match="InvalidSignature"):
        issuer.operator(jwt.encode(claims_of(url), other, "RS256", {"kid": oidc.key_id()}))
    curve = ec.generate_private_key(ec.SECP256R1())
    with pytest.raises(Denied, match="unknown key"):  # the issuer's key of that id is of another kind
        issuer.operator(jwt.encode(claims_of(url), curve, "ES256", {"kid": oidc.key_id()}))


@pytest.mark.parametrize("kid", [None, "another"])
def test_a_key_id_that_the_issuer_does_not_have_is_refused(issuer: Issuer, url: str, kid: str | None) -> None:
    headers = {"kid": kid} if kid else None
    with pytest.raises(Denied, match="key"):
        issuer.operator(jwt.encode(claims_of(url), oidc.signing_key(), "RS256", headers))


@pytest.mark.parametrize("token", ["", "x", "a.b.c", "..", "é" * 20, "x" * 100_000])
def test_what_is_no_token_is_refused(issuer: Issuer, token: str) -> None:
    with pytest.raises(Denied):
        issuer.operator(token)


def test_an_answer_to_another_login_is_refused(issuer: Issuer, url: str) -> None:
    with pytest.raises(Denied, match="nonce"):
        issuer.operator(oidc.token(url, {"nonce": "another"}), nonce="ours")
    with pytest.raises(Denied, match="nonce"):
        issuer.operator(oidc.token(url, {}), nonce="ours")


def test_keys_are_read_once_and_again_after_half_an_hour(issuer: Issuer, url: str, line: Line, clock: Clock) -> None:
    for _ in range(3):
        issuer.operator(oidc.token(url, {}))
    assert line.asked == ["openid-configuration", "keys"]
    clock.now += timedelta(minutes=30)
    issuer.operator(oidc.token(url, {}))
    assert line.asked.count("keys") == 1
    clock.now += timedelta(seconds=1)
    issuer.operator(oidc.token(url, {}))
    assert line.asked.count("keys") == 2


def test_made_up_key_ids_do_not_make_us_ask_all_the_time(issuer: Issuer, url: str, line: Line, clock: Clock) -> None:
    issuer.operator(oidc.token(url, {}))
    made_up = jwt.encode(claims_of(url), oidc.signing_key(), "RS256", {"kid": "made-up"})
    for _ in range(5):
        with pytest.raises(Denied):
            issuer.operator(made_up)
    assert line.asked.count("keys") == 1
    clock.now += LOOK_AGAIN_AFTER + timedelta(seconds=1)  # a key may be new
    with pytest.raises(Denied):
        issuer.operator(made_up)
    assert line.asked.count("keys") == 2


def test_an_issuer_that_is_away_is_missed_only_while_its_keys_are_not_known(
    issuer: Issuer, url: str, line: Line, clock: Clock
) -> None:
    line.is_cut = True
    with pytest.raises(IssuerAway):
        issuer.operator(oidc.token(url, {}))
    line.is_cut = False
    issuer.operator(oidc.token(url, {}))
    line.is_cut = True
    clock.now += timedelta(hours=1)
    assert issuer.operator(oidc.token(url, {})).subject == oidc.OPERATOR


@pytest.mark.parametrize(
    ("path", "answer"),
    [
        ("openid-configuration", Answer(200, {}, b"<html>")),
        ("openid-configuration", Answer(200, {}, b"[]")),
        ("openid-configuration", Answer(200, {}, b"{}")),
        ("openid-configuration", Answer(500, {}, b"")),
        ("openid-configuration", Answer(404, {}, b"")),
        ("keys", Answer(200, {}, b"[]")),
        ("keys", Answer(200, {}, b"{}")),
        ("keys", Answer(200, {}, b'{"keys": 1}')),
        ("keys", Answer(503, {}, b"")),
    ],
)
def test_nonsense_of_the_issuer_lets_nobody_in(issuer: Issuer, url: str, line: Line, path: str, answer: Answer) -> None:
    line.instead[path] = answer
    with pytest.raises(IssuerAway):
        issuer.operator(oidc.token(url, {}))


@pytest.mark.parametrize(
    "changed",
    [{"issuer": "https://elsewhere.example"}, {"jwks_uri": "http://elsewhere.example/keys"}],
    ids=str,
)
def test_metadata_of_another_issuer_or_keys_without_tls_are_not_used(
    issuer: Issuer, url: str, line: Line, changed: dict[str, str]
) -> None:
    line.instead["openid-configuration"] = Answer(200, {}, json.dumps(oidc.discovery(url) | changed).encode())
    with pytest.raises(IssuerAway):
        issuer.operator(oidc.token(url, {}))


def test_keys_that_are_not_for_signing_are_not_used(issuer: Issuer, url: str, line: Line) -> None:
    keys = [{**key, "use": "enc"} for key in oidc.keys()["keys"]]
    line.instead["keys"] = Answer(200, {}, json.dumps({"keys": keys}).encode())
    with pytest.raises(Denied, match="unknown key"):
        issuer.operator(oidc.token(url, {}))
