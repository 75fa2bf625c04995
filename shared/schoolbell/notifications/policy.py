"""What is to be done with a notification, as pure functions: now or later, by which route, or not at all."""

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, time, timedelta
from typing import Any, Final
from uuid import UUID
from zoneinfo import ZoneInfo

from schoolbell.database.tables import ERASED_RECIPIENT
from schoolbell.gateways.errors import GatewayError, Misconfigured, NeverWorks, Throttled, Unavailable, Uncertain
from schoolbell.notifications import Priority
from schoolbell.notifications.channels import Channel
from schoolbell.resilience.backoff import Backoff

ATTEMPTS: Final = 5  # source 001
RETRY: Final = Backoff(base=timedelta(seconds=1), cap=timedelta(minutes=15))  # source 001: from 1 second
UNCERTAIN_ATTEMPTS: Final = 2
"""So often may a provider be left with a message of which nobody knows whether it was accepted: one may be double."""

RECOVERY: Final = timedelta(seconds=30)
"""How long a circuit stays open, and how long a message waits for an operator to put a provider's key right."""

# Source 001: what an open circuit of one channel falls back to.
FALLBACK: Final = {
    Channel.EMAIL: (Channel.SMS,),
    Channel.PUSH: (Channel.EMAIL, Channel.SMS),
    Channel.SMS: (),
}

_SPACING: Final = re.compile(r"[ ()./-]")
"""What people write between the digits of a telephone number."""

_PERSON: Final = re.compile(r"(teacher|student)/[0-9a-f-]{36}", re.IGNORECASE)
_ADDRESSES: Final = {
    Channel.EMAIL: re.compile(r"[^@\s]+@[^@\s]+"),
    Channel.SMS: re.compile(r"\+[1-9]\d{6,14}"),  # E.164
    Channel.PUSH: re.compile(r"\S{1,4096}"),
}


@dataclass(frozen=True, slots=True)
class Person:
    """Whom a notification is for, as the view of people has them."""

    name: str
    email: str | None
    phone: str | None
    timezone: str
    is_erased: bool
    tokens: Sequence[str] = ()
    """Of their devices, the one that was used last first."""


@dataclass(frozen=True, slots=True)
class Preference:
    """A row of what a person wants; `*` is any kind or channel, and `None` says nothing."""

    kind: str
    channel: str
    wanted: bool | None = None
    quiet_from: time | None = None
    quiet_until: time | None = None
    timezone: str | None = None


@dataclass(frozen=True, slots=True)
class Queued:
    """A notification that is to be sent, and all that decides how."""

    id: UUID
    channel: Channel
    recipient: str
    template: str
    data: dict[str, Any] | None
    priority: Priority
    expires_at: datetime | None
    person: Person | None
    preferences: Sequence[Preference] = ()

    @property
    def zone(self) -> ZoneInfo:
        """The time zone of the person; UTC where there is none, or none that exists."""
        return _zone(self.person.timezone if self.person else None)


@dataclass(frozen=True, slots=True)
class Route:
    """A channel and an address on it."""

    channel: Channel
    address: str


@dataclass(frozen=True, slots=True)
class Send:
    """To be sent now, by the first of these routes whose circuit is closed."""

    routes: Sequence[Route]


@dataclass(frozen=True, slots=True)
class Wait:
    """To be sent later."""

    until: datetime


@dataclass(frozen=True, slots=True)
class Suppress:
    """Not to be sent, and nothing is wrong."""

    reason: str


@dataclass(frozen=True, slots=True)
class Fail:
    """Can never be sent as it is."""

    reason: str


type Plan = Send | Wait | Suppress | Fail


def plan(notification: Queued, now: datetime) -> Plan:
    """What to do with a notification whose time has come."""
    if notification.expires_at and notification.expires_at <= now:
        return Suppress("expired before it could be sent")
    if notification.data is None or notification.recipient == ERASED_RECIPIENT:
        return Suppress("erased")
    if not _PERSON.fullmatch(notification.recipient):
        return _to_address(notification)
    if notification.person is None:
        return Suppress("the recipient does not exist")
    if notification.person.is_erased:
        return Suppress("the recipient has been erased")
    if not _is_wanted(notification, notification.channel):
        return Suppress(f"the recipient wants no {notification.template} by {notification.channel}")
    if not _routes(notification, notification.channel):
        return Suppress(f"the recipient has no address for {notification.channel}")
    if notification.priority is not Priority.HIGH and (until := _quiet_until(notification, now)):
        return Wait(until)
    channels = [notification.channel]
    if notification.priority is Priority.HIGH:
        channels += [each for each in FALLBACK[notification.channel] if _is_wanted(notification, each)]
    return Send([route for channel in channels for route in _routes(notification, channel)])


def _to_address(notification: Queued) -> Plan:
    if not _ADDRESSES[notification.channel].fullmatch(notification.recipient):
        return Fail(f"recipient: neither a person nor an address for {notification.channel}")
    return Send([Route(notification.channel, notification.recipient)])


def _routes(notification: Queued, channel: Channel) -> list[Route]:
    if (person := notification.person) is None:
        return []
    phone = person.phone and _SPACING.sub("", person.phone)
    addresses = {Channel.EMAIL: [person.email], Channel.SMS: [phone], Channel.PUSH: person.tokens}[channel]
    return [Route(channel, address) for address in addresses if address]


# Preferences


def _is_wanted(notification: Queued, channel: Channel) -> bool:
    for preference in closest(notification.preferences, notification.template, channel):
        if preference.wanted is not None:
            return preference.wanted
    return True


def _quiet_until(notification: Queued, now: datetime) -> datetime | None:
    for preference in closest(notification.preferences, notification.template, notification.channel):
        if preference.quiet_from is not None and preference.quiet_until is not None:
            zone = _zone(preference.timezone) if preference.timezone else notification.zone
            return quiet_until(now, zone, preference.quiet_from, preference.quiet_until)
    return None


def closest(preferences: Iterable[Preference], kind: str, channel: Channel) -> list[Preference]:
    """The preferences that speak of a kind and channel, the most exact first; the kind says more than the channel."""
    about = [each for each in preferences if each.kind in (kind, "*") and each.channel in (channel, "*")]
    return sorted(about, key=lambda each: (each.kind == "*", each.channel == "*"))


def quiet_until(now: datetime, zone: ZoneInfo, begin: time, end: time) -> datetime | None:
    """When the quiet hours in which a time falls are over, in UTC; `None` if it falls in none.

    The hours go by the clock on the wall: an hour that is repeated in autumn is quiet twice, and an end that the spring
    change skips comes when the clock has gone forward. Those that begin and end at the same time last all day.
    """
    local = now.astimezone(zone)
    wall = local.time().replace(fold=0)
    is_quiet = begin <= wall < end if begin < end else wall >= begin or wall < end
    if not is_quiet:
        return None
    for days in range(3):
        date = local.date() + timedelta(days=days)
        for fold in (0, 1):
            over = datetime.combine(date, end.replace(fold=fold), zone).astimezone(UTC)
            if over > now:
                return over
    raise ValueError(f"no end of the quiet hours {begin} to {end}")


def _zone(name: str | None) -> ZoneInfo:
    try:
        return ZoneInfo(name or "UTC")
    except (ValueError, OSError, KeyError):  # what an application wrote need not be a zone
        return ZoneInfo("UTC")


# What a provider says


@dataclass(frozen=True, slots=True)
class Again:
    """To be tried again after a while."""

    delay: timedelta
    is_attempt: bool = True
    """Whether this one counts: it does not where the provider was not to blame, or never saw the message."""
    is_uncertain: bool = False


def after(error: GatewayError, attempt: int, uncertain: int, jitter: float, *, honours_key: bool) -> Again | Fail:
    """What follows an attempt that failed.

    Args:
        error: what the provider said.
        attempt: which of the attempts that count it was, from 1.
        uncertain: how often before nobody knew whether the message was accepted.
        jitter: where in the span of the backoff, from 0.0 to 1.0.
        honours_key: whether the provider would know the message again.
    """
    match error:
        case NeverWorks():
            return Fail(str(error))
        case Throttled():
            return Again(error.retry_after, is_attempt=False)
        case Misconfigured():
            return Again(max(RECOVERY, error.retry_after), is_attempt=False)
        case Uncertain() if is_doubtful(uncertain + 1, honours_key=honours_key):
            return Fail(f"may have been accepted {uncertain + 1} times: {error}")
        case Unavailable() if attempt < ATTEMPTS:
            delay = max(RETRY.delay(attempt, jitter), error.retry_after)
            return Again(delay, is_uncertain=isinstance(error, Uncertain))
    return Fail(f"{attempt} attempts: {error}")


def is_doubtful(uncertain: int, *, honours_key: bool) -> bool:
    """Whether sending a message once more could make a second duplicate of it."""
    return uncertain >= UNCERTAIN_ATTEMPTS and not honours_key
