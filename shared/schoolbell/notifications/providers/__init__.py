"""The services that carry messages to people, behind one protocol.

A provider is a module of this package, named as the settings name it, with a function `provider(settings)`. It makes
one call to its service, with timeouts of its own and no repetition: circuits, limits and attempts are the delivery's.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib import import_module
from typing import Protocol

from schoolbell.notifications.channels import Channel
from schoolbell.settings import Settings


@dataclass(frozen=True, slots=True)
class Outgoing:
    """One message to one address, ready to go."""

    channel: Channel
    address: str
    """An email address, a telephone number in E.164, or a push token."""
    subject: str | None
    """The subject of an email, the title of a push message; none for a text message."""
    text: str
    html: str | None
    """The same as `text` for an email; none for the other channels."""
    key: str
    """The idempotency key: the same at each attempt to send this message to this address, and no other's."""
    data: Mapping[str, str] = field(default_factory=dict)
    """What the application on the device gets beside the text of a push message."""
    is_urgent: bool = False
    """Whether it is of high priority: a device is woken for it, and a text message goes the more reliable way."""


class Provider(Protocol):
    """Sends messages on one channel; safe to call from several threads at once."""

    @property
    def name(self) -> str:
        """As the settings have it, e.g. `ses`: names the circuit, and stands on the notification."""

    @property
    def channel(self) -> Channel:
        """The channel that it serves."""

    @property
    def honours_key(self) -> bool:
        """Whether it takes a message that it gets twice with the same key as one."""

    def send(self, message: Outgoing) -> str:
        """Hands one message over and returns the provider's id of it.

        Raises:
            NeverWorks: the message can never pass.
            Gone: nor can any other to this push token.
            Throttled: the provider takes no more for the moment.
            Unavailable: the provider can't take messages, and did not take this one.
            Uncertain: it may have taken it.
        """


def provider_name(channel: Channel, settings: Settings) -> str:
    """The provider that serves a channel, by the settings."""
    return {
        Channel.EMAIL: settings.email_provider,
        Channel.SMS: settings.sms_provider,
        Channel.PUSH: settings.push_provider,
    }[channel]


def provider_of(channel: Channel, settings: Settings) -> Provider:
    """The provider that serves a channel. Its module is imported only now: each brings what it alone needs."""
    module = import_module(f"{__name__}.{provider_name(channel, settings)}")
    made: Provider = module.provider(settings)
    return made
