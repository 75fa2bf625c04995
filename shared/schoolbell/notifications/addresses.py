"""What a provider needs not be asked: addresses and texts that cannot be right. The errors never repeat them."""

import re

from schoolbell.gateways.errors import NeverWorks

LONGEST_SMS = 1_600
"""Characters; of SNS and of Twilio alike."""

_LOCAL = re.compile(r"[A-Za-z0-9!#$%&'*+/=?^_`{|}~-]+(\.[A-Za-z0-9!#$%&'*+/=?^_`{|}~-]+)*")
_DOMAIN = re.compile(r"([A-Za-z0-9]([A-Za-z0-9-]{0,61}[A-Za-z0-9])?\.)+([A-Za-z]{2,63}|xn--[A-Za-z0-9-]{2,59})")
_PHONE = re.compile(r"\+[1-9]\d{6,14}")
_TOKEN = re.compile(r"[!-~]{10,4096}")


def email_address(address: str) -> str:
    """An email address as it is sent to: a domain in letters of other scripts becomes its ASCII form.

    Quoted local parts and such of other scripts are valid mail, which SES does not send.
    https://docs.aws.amazon.com/ses/latest/APIReference-V2/API_Destination.html

    Raises:
        NeverWorks: it is none.

    >>> email_address("ada@bücher.example")
    'ada@xn--bcher-kva.example'
    """
    local, _, domain = address.rpartition("@")
    try:
        domain = domain.encode("idna").decode()
    except UnicodeError:
        domain = ""
    if len(local) > 64 or not _LOCAL.fullmatch(local) or len(domain) > 253 or not _DOMAIN.fullmatch(domain):
        raise NeverWorks("the email address is not valid")
    return f"{local}@{domain}"


def phone_number(number: str) -> str:
    """A telephone number in E.164, e.g. `+4930901820`.

    Raises:
        NeverWorks: it is none.
    """
    if not _PHONE.fullmatch(number):
        raise NeverWorks("the telephone number is not in E.164")
    return number


def push_token(token: str) -> str:
    """A push token.

    Raises:
        NeverWorks: it is none.
    """
    if not _TOKEN.fullmatch(token):
        raise NeverWorks("the push token is not valid")
    return token


def subject_line(subject: str | None) -> str:
    """The subject of an email: one line, and not empty.

    Raises:
        NeverWorks: there is none.
    """
    line = " ".join((subject or "").split())
    if not line:
        raise NeverWorks("the email has no subject")
    return line


def sms_text(text: str) -> str:
    """The text of a text message.

    Raises:
        NeverWorks: it is empty, or longer than any provider takes.
    """
    if not text.strip():
        raise NeverWorks("the text message is empty")
    if len(text) > LONGEST_SMS:
        raise NeverWorks(f"the text message has {len(text)} characters, more than {LONGEST_SMS}")
    return text
