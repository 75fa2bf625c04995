"""HTTPS requests with timeouts, on urllib3, which botocore brings anyway."""

import os
import socket
import threading
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime
from functools import cache
from ipaddress import ip_address
from typing import Any, Protocol
from urllib.parse import urlsplit

CONNECT_TIMEOUT = timedelta(seconds=3)
READ_TIMEOUT = timedelta(seconds=20)
"""Copying a large file is the slowest call: some seconds."""
CONNECTIONS = 4
LONGEST_RETRY_AFTER = timedelta(days=1)
"""The quotas that last longest are a day's."""


@dataclass(frozen=True, slots=True)
class Answer:
    """What a server answered."""

    status: int
    headers: Mapping[str, str]
    """By name in lower case."""
    body: bytes


class NoAnswer(Exception):
    """There was no connection, or no answer in time."""


class NoConnection(NoAnswer):
    """There was no connection, so nothing was sent."""


class Http(Protocol):
    """Sends requests."""

    def send(self, method: str, url: str, headers: Mapping[str, str], body: bytes | None = None) -> Answer:
        """Sends one request and waits for the answer.

        Raises:
            NoConnection: nothing was sent.
            NoAnswer: there was none.
        """


class PooledHttp:
    """Keeps connections open between requests, and between invocations. Follows no redirect and repeats nothing.

    Args:
        connect: how long a connection may take to come about.
        read: how long the server may be silent.
        total: how long both together may last, if less.
        connections: how many to a server are kept open; as many as threads that call it.
    """

    def __init__(
        self,
        connect: timedelta = CONNECT_TIMEOUT,
        read: timedelta = READ_TIMEOUT,
        total: timedelta | None = None,
        connections: int = CONNECTIONS,
    ) -> None:
        self._connect = connect
        self._read = read
        self._total = total
        self._connections = connections
        self._pool: Any = None
        self._making = threading.Lock()

    def send(self, method: str, url: str, headers: Mapping[str, str], body: bytes | None = None) -> Answer:
        from urllib3.exceptions import ConnectTimeoutError, HTTPError, NewConnectionError

        try:
            response = self._pooled().request(
                method, url, headers=dict(headers), body=body, retries=False, redirect=False
            )
        except (ConnectTimeoutError, NewConnectionError) as error:
            raise NoConnection(type(error).__name__) from None  # the text of urllib3's errors repeats the address
        except HTTPError as error:
            raise (NoConnection if _is_untrusted(error) else NoAnswer)(type(error).__name__) from None
        answered = {name.lower(): value for name, value in response.headers.items()}
        return Answer(response.status, answered, response.data)

    def _pooled(self) -> Any:
        import urllib3

        with self._making:
            if self._pool is None:
                timeout = urllib3.Timeout(
                    total=self._total.total_seconds() if self._total else None,
                    connect=self._connect.total_seconds(),
                    read=self._read.total_seconds(),
                )
                self._pool = urllib3.PoolManager(timeout=timeout, maxsize=self._connections)
            return self._pool


def _is_untrusted(error: Exception) -> bool:
    """Whether the server's certificate was what kept the connection from coming about."""
    from ssl import SSLCertVerificationError

    return bool(error.args) and isinstance(error.args[0], SSLCertVerificationError)


@cache
def shared_http() -> PooledHttp:
    """The connections of this execution environment."""
    return PooledHttp()


def retry_after(headers: Mapping[str, str], now: datetime) -> timedelta:
    """How long the server asks to be left alone, by `Retry-After` in seconds or as a date; zero if it does not say.

    Args:
        headers: the answer's, by name in lower case.
        now: the time from which a date is counted.
    """
    value = headers.get("retry-after", "").strip()
    if value.isdigit():
        asked = timedelta(seconds=int(value[:9]))
    else:
        try:
            at = parsedate_to_datetime(value)
        except ValueError:
            return timedelta(0)
        asked = (at if at.tzinfo else at.replace(tzinfo=UTC)) - now
    return max(timedelta(0), min(asked, LONGEST_RETRY_AFTER))


def checked_url(url: str) -> str:
    """An address to send tokens to: HTTPS, this machine's own, or that of an AWS emulator without HTTPS.

    The tokens were read from that emulator, so they are no secret to anyone on the way. A deployed function has none.

    Raises:
        ValueError: the address is neither, or is no address.
    """
    parts = urlsplit(url)
    if parts.username or parts.query or parts.fragment or not parts.hostname:
        raise ValueError("expected an address like https://host/path")
    if parts.scheme == "https" or (parts.scheme == "http" and _is_near(parts.hostname)):
        return url.rstrip("/")
    raise ValueError(f"expected https, which only an address of this machine may do without, got {parts.scheme}")


def _is_near(host: str) -> bool:
    emulator = urlsplit(os.environ.get("AWS_ENDPOINT_URL", ""))
    if emulator.scheme == "http" and host == emulator.hostname:
        return True
    try:
        address = ip_address(host)
    except ValueError:
        return host == "localhost"
    return address.is_loopback or _is_own(str(address), address.version)


def _is_own(address: str, version: int) -> bool:
    """Whether an address is one of this machine's, such as that of Docker's bridge: a socket can have no other."""
    with socket.socket(socket.AF_INET if version == 4 else socket.AF_INET6, socket.SOCK_DGRAM) as probe:
        try:
            probe.bind((address, 0))
        except OSError:
            return False
    return True
