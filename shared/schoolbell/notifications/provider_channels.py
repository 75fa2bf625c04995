"""Each channel's provider, with the circuit breaker and the rate limit that protect it."""

from dataclasses import dataclass
from datetime import timedelta
from functools import cache
from typing import Final

from schoolbell.gateways.errors import NeverWorks, Unavailable
from schoolbell.notifications.channels import Channel
from schoolbell.notifications.policy import RECOVERY
from schoolbell.notifications.providers import Provider, provider_of
from schoolbell.resilience.circuit import Circuit
from schoolbell.resilience.rate_limiter import Budget, RateLimiter
from schoolbell.settings import Settings

WINDOW: Final = timedelta(seconds=10)
"""Over which a provider's rate is kept: they allow bursts. https://docs.aws.amazon.com/ses/latest/dg/quotas.html"""


@dataclass(frozen=True, slots=True)
class ProviderChannel:
    """A channel's provider, and what protects it."""

    provider: Provider
    circuit: Circuit
    limiter: RateLimiter
    most: int
    """How many messages may be asked for at once."""


@cache
def provider_channel_of(channel: Channel, settings: Settings) -> ProviderChannel:
    """The provider of a channel, kept between invocations with its connections.

    Each queue may spend nine tenths of what the provider takes, so that a flood on one leaves something for the others.
    """
    rate = {
        Channel.EMAIL: settings.emails_a_second,
        Channel.SMS: settings.sms_a_second,
        Channel.PUSH: settings.pushes_a_second,
    }[channel]
    provider = provider_of(channel, settings)
    overall = rate * round(WINDOW.total_seconds())
    of_a_queue = max(1, overall * 9 // 10)
    name = f"notifications-{provider.name}"
    return ProviderChannel(
        provider,
        Circuit(
            name,
            failures=(Unavailable,),
            answers=(NeverWorks,),
            table=settings.resilience_table,
            recovery=RECOVERY,
        ),
        RateLimiter(
            name,
            per_tenant=Budget(of_a_queue, WINDOW),
            overall=Budget(overall, WINDOW),
            table=settings.resilience_table,
        ),
        most=of_a_queue,
    )
