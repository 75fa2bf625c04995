"""Waiting for what happens elsewhere: by looking again, up to a deadline."""

import time
from collections.abc import Callable
from typing import Final

PATIENCE: Final = 60.0
"""Seconds that are enough for a cold start on a machine with other things to do; what takes longer says so."""

PAUSE: Final = 0.1


def eventually[T](look: Callable[[], T], what: str, *, patience: float = PATIENCE) -> T:
    """Looks again and again until there is something, and returns what is there.

    Args:
        look: returns something that is true when what is awaited has happened.
        what: is said when it has not, and followed by what was seen last.
        patience: seconds.
    """
    deadline = time.monotonic() + patience
    while not (seen := look()):
        if time.monotonic() > deadline:
            raise AssertionError(f"within {patience:.0f} s there was no {what}; seen last: {seen!r}")
        time.sleep(PAUSE)
    return seen
