"""Providers that take messages in memory, and say what a test wants them to."""

import threading
from collections.abc import Callable
from dataclasses import dataclass, field

from schoolbell.notifications.channels import Channel
from schoolbell.notifications.providers import Outgoing


@dataclass
class FakeProvider:
    """A provider on one channel. One that honours keys takes a message with a known key as the one it has."""

    channel: Channel
    honours_key: bool = False
    name: str = "fake"
    answers: list[Exception | None] = field(default_factory=list)
    """What the next calls come to, in turn; an error is raised before the message is taken."""
    accepted: list[Outgoing] = field(default_factory=list)
    calls: int = 0
    before: Callable[[Outgoing], None] = lambda _: None
    """Runs in each call before the message is taken; may raise."""
    after: Callable[[Outgoing], None] = lambda _: None
    """Runs in each call once the message has been taken; what it raises, the caller gets in place of the id."""
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def send(self, message: Outgoing) -> str:
        with self._lock:
            self.calls += 1
            answer = self.answers.pop(0) if self.answers else None
        self.before(message)
        if answer:
            raise answer
        with self._lock:
            if not (self.honours_key and message.key in {each.key for each in self.accepted}):
                self.accepted.append(message)
        self.after(message)
        return f"{self.name}-{message.key}"

    @property
    def addresses(self) -> list[str]:
        """Where the accepted messages went, in order."""
        return sorted(message.address for message in self.accepted)
