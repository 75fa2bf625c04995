"""Tokens go over HTTPS, or not off this machine."""

import pytest

from schoolbell.gateways.https import _is_own, checked_url


@pytest.mark.parametrize(
    "url",
    [
        "https://www.googleapis.com/drive/v3",
        "https://oauth2.googleapis.com/token",
        "http://127.0.0.1:8700/drive/v3",
        "http://127.9.9.9/x",
        "http://[::1]:8700",
        "http://localhost:8700/token",
    ],
)
def test_takes_https_and_this_machine(url: str) -> None:
    assert checked_url(url) == url


@pytest.mark.parametrize(
    "url",
    [
        "http://www.googleapis.com/drive/v3",
        "http://localhost.example.org/",
        "http://10.0.0.1/",
        "http://127.0.0.1.example.org/",
        "ftp://127.0.0.1/",
        "https://user:password@www.googleapis.com/",
        "http://127.0.0.1@example.org/",
        "https://www.googleapis.com/?x=1",
        "www.googleapis.com/drive",
        "https://",
        "",
    ],
)
def test_refuses_to_send_tokens_in_the_clear(url: str) -> None:
    with pytest.raises(ValueError, match="expected"):
        checked_url(url)


def test_takes_the_machine_of_an_aws_emulator(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://172.17.0.1:4566")
    assert checked_url("http://172.17.0.1:8700/token") == "http://172.17.0.1:8700/token"
    with pytest.raises(ValueError, match="expected https"):
        checked_url("http://172.17.0.2:8700/token")


def test_takes_an_address_of_this_machine_beside_the_loopback(monkeypatch: pytest.MonkeyPatch) -> None:
    """The stand-in for outside services goes by that of Docker's bridge, where containers are to reach it too."""
    own = {"172.17.0.1"}
    monkeypatch.setattr("schoolbell.gateways.https._is_own", lambda address, _version: address in own)
    assert checked_url("http://172.17.0.1:8700/token") == "http://172.17.0.1:8700/token"
    with pytest.raises(ValueError, match="expected https"):
        checked_url("http://172.17.0.2:8700/token")


@pytest.mark.parametrize(("address", "is_own"), [("127.0.0.1", True), ("192.0.2.1", False), ("2001:db8::1", False)])
def test_tells_addresses_of_this_machine_from_others(address: str, is_own: bool) -> None:
    assert _is_own(address, 6 if ":" in address else 4) is is_own


def test_takes_no_plain_http_from_where_aws_is_reached_by_https(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", "https://vpce.example.org")
    with pytest.raises(ValueError, match="expected https"):
        checked_url("http://vpce.example.org/token")


def test_a_slash_at_the_end_does_not_matter() -> None:
    assert checked_url("https://www.googleapis.com/drive/v3/") == "https://www.googleapis.com/drive/v3"
