"""API Gateway: HTTP APIs with a known address, tokens of an issuer, cookies, and a `/health` of their own."""

import hashlib
import re
from collections.abc import Callable
from typing import Any

from ministack import app
from ministack.services import apigateway, lambda_svc
from ministack.services.cloudformation import provisioners

# An API is found at a name that every browser knows to be this machine's, and that is known beforehand


def named_api(original: Callable[..., Any]) -> Callable[..., Any]:
    """Make an API's id of its name. On AWS it is random, and whoever wants to know it asks."""

    def provision(kind: str, logical_id: str, properties: dict[str, Any], stack: str) -> Any:
        if kind == "AWS::ApiGatewayV2::Api":
            made = hashlib.sha256(properties["Name"].encode()).hexdigest()[:8]
            properties = {**properties, "Tags": {**properties.get("Tags", {}), "ms-custom-id": made}}
        return original(kind, logical_id, properties, stack)

    return provision


# What an API hands to a function


def verify_rs256(token: str, key: dict[str, Any]) -> bool:
    """Whether a token is signed with a public key: RSASSA-PKCS1-v1_5 with SHA-256, by RFC 8017, section 8.2.2.

    Ministack needs the package cryptography for that, which this environment does not have.
    """
    signed, _, signature = token.rpartition(".")
    modulus, exponent = (int.from_bytes(apigateway._b64url_decode(key[name])) for name in ("n", "e"))
    length = (modulus.bit_length() + 7) // 8
    given = apigateway._b64url_decode(signature)
    if len(given) != length:
        return False
    digest = hashlib.sha256(signed.encode()).digest()
    info = bytes.fromhex("3031300d060960864801650304020105000420") + digest
    expected = b"\x00\x01" + b"\xff" * (length - len(info) - 3) + b"\x00" + info
    return pow(int.from_bytes(given), exponent, modulus).to_bytes(length) == expected


def pass_cookies_on(original: Callable[..., Any]) -> Callable[..., Any]:
    """Hand a request's cookies to a function in a list of their own, as payload format 2.0 has them, not as a header.

    https://docs.aws.amazon.com/apigateway/latest/developerguide/http-api-develop-integrations-lambda.html
    """

    def execute(function: dict[str, Any], event: dict[str, Any]) -> Any:
        is_request = isinstance(event, dict) and "http" in event.get("requestContext", {})
        cookies = event["headers"].pop("cookie", "") if is_request else ""
        return original(function, {**event, "cookies": cookies.split("; ")} if cookies else event)

    return execute


def install() -> None:
    """Have the admin page and API be reached, and let in whom the issuer sent."""
    provisioners._provision_resource = named_api(provisioners._provision_resource)
    apigateway._verify_rs256_signature = verify_rs256
    lambda_svc._execute_function_with_config_scope = pass_cookies_on(lambda_svc._execute_function_with_config_scope)
    app._EXECUTE_API_RE = re.compile(r"^([a-f0-9]{8})\.execute-api\.(?:localhost|127\.0\.0\.1)(?::\d+)?$")
    app._HEALTH_PATHS = ("/_ministack/health",)  # `/health` of an HTTP API is its own
