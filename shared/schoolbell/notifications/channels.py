"""The ways in which a notification reaches a person."""

from enum import StrEnum


class Channel(StrEnum):
    """As `platform.notifications.channel` holds it."""

    EMAIL = "email"
    SMS = "sms"
    PUSH = "push"
