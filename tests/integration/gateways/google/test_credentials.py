"""Tokens: fetched when needed, kept, renewed, and given up on when they are revoked."""

import json
import logging
from uuid import UUID, uuid4

import pytest

from local.sandbox.messages import Call
from schoolbell import aws
from schoolbell.gateways.errors import NotNow, Revoked, Unavailable
from schoolbell.gateways.google.credentials import Ciphertext
from schoolbell.gateways.google.drive import GoogleDrive, drive_of
from schoolbell.settings import Settings
from tests.fixtures.google import Google


def end_access_tokens(google: Google) -> None:
    """What happens when a teacher changes the password: access tokens end before their time."""
    google.sandbox.store.world.tokens.clear()


def test_a_token_serves_many_calls_and_many_invocations(google: Google, settings: Settings, account: str) -> None:
    for _ in range(3):
        drive_of(uuid4(), account, settings).find_copy("x")
    assert google.requests("token") == 1


def test_a_token_that_ended_before_its_time_is_renewed(google: Google, drive: GoogleDrive) -> None:
    drive.find_copy("x")
    end_access_tokens(google)
    assert drive.find_copy("x") is None
    assert google.requests("token") == 2


def test_a_revoked_account_is_told_apart(google: Google, drive: GoogleDrive, account: str) -> None:
    google.revoke(account)
    with pytest.raises(Revoked, match="invalid_grant"):
        drive.find_copy("x")


def test_an_account_revoked_in_the_middle_is_told_apart(google: Google, drive: GoogleDrive, account: str) -> None:
    drive.find_copy("x")
    google.revoke(account)
    with pytest.raises(Revoked):
        drive.find_copy("x")


def test_a_401_with_a_fresh_token_is_a_revocation(google: Google, drive: GoogleDrive) -> None:
    google.fail(path="/drive/", status=401)
    with pytest.raises(Revoked, match="401"):
        drive.find_copy("x")


def test_a_teacher_who_connected_again_is_found_again(google: Google, drive: GoogleDrive, account: str) -> None:
    drive.find_copy("x")
    google.revoke(account)
    google.connect(account, "the teacher's new grant")
    assert drive.find_copy("x") is None


@pytest.mark.parametrize("status", [500, 503])
def test_a_token_endpoint_that_is_unwell_is_not_a_revocation(google: Google, drive: GoogleDrive, status: int) -> None:
    google.fail(path="^/token", status=status)
    with pytest.raises(Unavailable):
        drive.find_copy("x")


def test_a_token_endpoint_that_has_had_enough_says_how_long(google: Google, drive: GoogleDrive) -> None:
    google.fail(path="^/token", status=429, retry_after=7)
    with pytest.raises(NotNow) as not_now:
        drive.find_copy("x")
    assert not_now.value.retry_after.total_seconds() == 7


def test_a_token_endpoint_that_cannot_be_reached_is_not_a_revocation(
    google: Google, settings: Settings, account: str
) -> None:
    nowhere = settings.model_copy(update={"google_token_url": "http://127.0.0.1:9/token"})
    with pytest.raises(Unavailable):
        drive_of(uuid4(), account, nowhere).find_copy("x")


def test_a_client_that_google_does_not_know_is_our_trouble_and_not_the_teachers(
    google: Google, resilience_table: str, settings: Settings
) -> None:
    secret = json.dumps({"client_id": "", "client_secret": "secret", "refresh_token": "t"})
    aws.client("secretsmanager").create_secret(Name="unregistered", SecretString=secret)
    with pytest.raises(NotNow, match="invalid_client"):
        drive_of(uuid4(), "unregistered", settings).find_copy("x")


@pytest.mark.parametrize(
    ("text", "lacks"),
    [
        ("{}", "client_id, client_secret, refresh_token"),
        ('{"client_id": "a", "client_secret": "b"}', "refresh_token"),
        ("hunter2", "JSON"),
    ],
)
def test_a_secret_that_holds_no_credentials_must_be_made_anew_and_is_not_repeated(
    google: Google, resilience_table: str, settings: Settings, text: str, lacks: str
) -> None:
    aws.client("secretsmanager").create_secret(Name="broken", SecretString=text)
    with pytest.raises(Revoked) as revoked:
        drive_of(uuid4(), "broken", settings).find_copy("x")
    assert str(revoked.value) == f"credentials: the secret lacks {lacks}"


def test_a_secret_that_is_gone_must_be_made_anew(google: Google, resilience_table: str, settings: Settings) -> None:
    with pytest.raises(Revoked, match="does not exist"):
        drive_of(uuid4(), "nothing-here", settings).find_copy("x")


def test_a_secret_is_read_again_after_a_while(
    google: Google, drive: GoogleDrive, account: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    drive.find_copy("x")
    google.connect(account, "another account")
    monkeypatch.setattr("time.monotonic", lambda: 1e9)
    drive.find_copy("x")
    asked = google.sandbox.answer(Call("GET", "/sandbox/requests")).body
    assert "files.list" in asked["by_account"]["another account"]


def test_nothing_secret_is_logged(
    google: Google, drive: GoogleDrive, account: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    google.fail(path="/drive/", status=500)
    with pytest.raises(Unavailable):
        drive.find_copy("x")
    ours = [record.getMessage() for record in caplog.records if record.name.startswith(("schoolbell", "google"))]
    assert not any("ya29" in message or "Bearer" in message for message in ours)


def test_a_token_endpoint_that_answers_nonsense_is_not_now(google: Google, drive: GoogleDrive) -> None:
    google.fail(path="^/token", garbage=True)
    with pytest.raises(Unavailable):
        drive.find_copy("x")


@pytest.fixture
def connection_id() -> UUID:
    return uuid4()


@pytest.fixture
def ciphertext(google: Google, resilience_table: str, connection_id: UUID) -> Ciphertext:
    """The grant of an account as it is kept beside its connection."""
    return Ciphertext(connection_id, google.encrypted("an account", connection_id))


def test_a_grant_that_was_encrypted_for_its_connection_gives_tokens(
    google: Google, settings: Settings, ciphertext: Ciphertext
) -> None:
    for _ in range(3):
        drive_of(uuid4(), ciphertext, settings).find_copy("x")
    assert google.requests("token") == 1


def test_a_ciphertext_does_not_open_for_another_connection(settings: Settings, ciphertext: Ciphertext) -> None:
    copied = Ciphertext(uuid4(), ciphertext.blob)
    with pytest.raises(Revoked, match="not one of the stack's key for this connection"):
        drive_of(uuid4(), copied, settings).find_copy("x")


def test_a_damaged_ciphertext_is_told_apart(settings: Settings, ciphertext: Ciphertext) -> None:
    with pytest.raises(Revoked, match="ciphertext"):
        drive_of(uuid4(), Ciphertext(ciphertext.connection_id, b"damaged"), settings).find_copy("x")


def test_a_revoked_grant_that_was_encrypted_is_told_apart(
    google: Google, settings: Settings, ciphertext: Ciphertext
) -> None:
    drive = drive_of(uuid4(), ciphertext, settings)
    drive.find_copy("x")
    google.revoke("an account")
    with pytest.raises(Revoked):
        drive.find_copy("x")
