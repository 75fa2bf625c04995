"""Tokens go over HTTPS, or not off this machine."""

import pytest

from schoolbell.gateways.https import checked_url


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


def test_takes_no_plain_http_from_where_aws_is_reached_by_https(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", "https://vpce.example.org")
    with pytest.raises(ValueError, match="expected https"):
        checked_url("http://vpce.example.org/token")


def test_a_slash_at_the_end_does_not_matter() -> None:
    assert checked_url("https://www.googleapis.com/drive/v3/") == "https://www.googleapis.com/drive/v3"
