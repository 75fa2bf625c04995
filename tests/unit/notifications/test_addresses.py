"""Addresses that cannot be right are told from those that may be, and no error repeats one."""

import pytest

from schoolbell.gateways.errors import NeverWorks
from schoolbell.notifications.addresses import email_address, phone_number, push_token, sms_text, subject_line


@pytest.mark.parametrize(
    ("address", "sent_to"),
    [
        ("ada@example.org", "ada@example.org"),
        ("ada.lovelace+lessons@mail.example.co.uk", "ada.lovelace+lessons@mail.example.co.uk"),
        ("o'brien@example.org", "o'brien@example.org"),
        ("ada@BÜCHER.example", "ada@xn--bcher-kva.example"),
        ("ada@例え.テスト", "ada@xn--r8jz45g.xn--zckzah"),
        (f"{'a' * 64}@example.org", f"{'a' * 64}@example.org"),
    ],
)
def test_takes_addresses_of_emails(address: str, sent_to: str) -> None:
    assert email_address(address) == sent_to


@pytest.mark.parametrize(
    "address",
    [
        "",
        "ada",
        "@example.org",
        "ada@",
        "ada@example",
        "ada@@example.org",
        "ada@exa mple.org",
        "ada lovelace@example.org",
        ".ada@example.org",
        "ada..l@example.org",
        "ada@-example.org",
        "ada@example.org.",
        "ada@127.0.0.1",
        "ada@[127.0.0.1]",
        "äda@example.org",
        "Ada <ada@example.org>",
        "ada@example.org, eve@example.org",
        "ada@example.org\r\nBcc: eve@example.org",
        "ada@example.org\n",
        f"{'a' * 65}@example.org",
        f"ada@{'a' * 64}.org",
        f"ada@{'a.' * 130}org",
    ],
)
def test_refuses_what_is_no_address(address: str) -> None:
    with pytest.raises(NeverWorks) as rejected:
        email_address(address)
    assert str(rejected.value) == "the email address is not valid"


@pytest.mark.parametrize("number", ["+4930901820", "+12025550123", "+1234567", "+123456789012345"])
def test_takes_numbers_in_e164(number: str) -> None:
    assert phone_number(number) == number


@pytest.mark.parametrize(
    "number",
    [
        "",
        "4930901820",
        "004930901820",
        "+0930901820",
        "+49 30 901820",
        "+49-30-901820",
        "+123456",
        "+1234567890123456",
        "+4930901820\n",
        "+４９３０９０１８２０",
        "tel:+4930901820",
    ],
)
def test_refuses_other_numbers(number: str) -> None:
    with pytest.raises(NeverWorks) as rejected:
        phone_number(number)
    assert str(rejected.value) == "the telephone number is not in E.164"


@pytest.mark.parametrize("token", ["dGVzdA:APA91b-_x", "a" * 4_096])
def test_takes_push_tokens(token: str) -> None:
    assert push_token(token) == token


@pytest.mark.parametrize("token", ["", "short", "with a space in it", "a" * 4_097, "line\nbreaks-here"])
def test_refuses_what_is_no_push_token(token: str) -> None:
    with pytest.raises(NeverWorks, match="the push token is not valid"):
        push_token(token)


def test_a_subject_is_one_line() -> None:
    assert subject_line(" Your\r\nBcc: lesson ") == "Your Bcc: lesson"
    for nothing in (None, "", " \n"):
        with pytest.raises(NeverWorks, match="subject"):
            subject_line(nothing)


def test_a_text_message_has_a_text_that_fits() -> None:
    assert sms_text("x" * 1_600)
    for text in ("", "\n", "x" * 1_601):
        with pytest.raises(NeverWorks, match="text message"):
            sms_text(text)
