"""Deliver notifications: render them, honour what people want, and hand them to the channel's provider, each once.

A message carries up to a hundred ids, and comes back until each of its notifications is settled; what is settled is
passed over. A row is claimed before its provider is called, and marked right after: when the function dies in between,
the next one knows that the provider may have it already. The states are drawn in docs/notifications.md.
"""

from collections.abc import Iterable
from datetime import timedelta
from math import ceil
from uuid import UUID

from pydantic import Field

from schoolbell.jobs import Batch, JobContext, Payload, Result, batch_job
from schoolbell.notifications import IDS_A_MESSAGE
from schoolbell.notifications.delivery import Delivery


class Notifications(Payload):
    """The notifications to deliver."""

    notification_ids: tuple[UUID, ...] = Field(min_length=1, max_length=IDS_A_MESSAGE)
    also_failed: bool = False
    """Those that failed, too: as in a dead letter, which an operator sends again."""


class Delivered(Result):
    """What became of the notifications; those that wait come back, by this message or in their time."""

    sent: int = 0
    suppressed: int = 0
    failed: int = 0
    waiting: int = 0


@batch_job("platform.notification-delivery", Notifications)
def handler(job: JobContext, batch: Batch[Notifications]) -> Delivered:
    delivery = Delivery(job, queue=batch.messages[0].received.queue)
    delivery.requeue_failed(_ids(payload for payload in batch.payloads if payload.also_failed))
    delivery.take(_ids(batch.payloads))
    delivery.send_all()
    for message in batch.messages:
        ids = message.payload.notification_ids
        if delivery.known.isdisjoint(ids):
            batch.discard(message, "notification_ids: none of these exists")
        elif delays := [delivery.delays[each] for each in ids if each in delivery.delays]:
            batch.snooze(message, timedelta(seconds=max(1, ceil(min(delays).total_seconds()))))
    return Delivered.model_validate(delivery.totals())


def _ids(payloads: Iterable[Notifications]) -> list[UUID]:
    return sorted({each for payload in payloads for each in payload.notification_ids})
