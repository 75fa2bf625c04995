"""Times, durations and counts in words."""

from datetime import UTC, datetime, timedelta
from typing import Final

MINUTE, HOUR, DAY = timedelta(minutes=1), timedelta(hours=1), timedelta(days=1)
_UNITS: Final = ((DAY, "day"), (HOUR, "hour"), (MINUTE, "minute"), (timedelta(seconds=1), "second"))


def relative(moment: datetime, now: datetime) -> str:
    """How far away a moment is.

    >>> now = datetime(2026, 3, 2, 10, tzinfo=UTC)
    >>> relative(now + timedelta(minutes=4, seconds=50), now), relative(now - timedelta(days=1, hours=2), now)
    ('in 4 minutes', '1 day ago')
    >>> relative(now, now)
    'now'
    """
    away = moment - now
    for unit, name in _UNITS:
        count = abs(away) // unit
        if count:
            text = f"{count:,} {name}{'' if count == 1 else 's'}"
            return f"in {text}" if away > timedelta(0) else f"{text} ago"
    return "now"


def duration(took: timedelta | None) -> str:
    """How long something took, to two figures that matter.

    >>> [duration(timedelta(seconds=seconds)) for seconds in (0.0004, 0.042, 3.21, 42.4, 75, 750, 3_700, 200_000)]
    ['< 1 ms', '42 ms', '3.2 s', '42 s', '1 min 15 s', '12 min', '1 h 1 min', '2 d 7 h']
    """
    if took is None:
        return "–"
    seconds = took.total_seconds()
    if seconds < 0.001:
        return "< 1 ms"
    if seconds < 1:
        return f"{seconds * 1000:.0f} ms"
    if seconds < 9.95:
        return f"{seconds:.1f} s"
    if seconds < 59.5:
        return f"{seconds:.0f} s"
    pairs = ((DAY, HOUR, "d h"), (HOUR, MINUTE, "h min"), (MINUTE, timedelta(seconds=1), "min s"))
    large, small, names = next((pair for pair in pairs if took >= pair[0]), pairs[-1])
    first, second = names.split()
    count, rest = divmod(took, large)
    return f"{count} {first} {rest // small} {second}" if rest // small and count < 10 else f"{count} {first}"


def clock(moment: datetime) -> str:
    """A moment as people read it, in UTC.

    >>> clock(datetime(2026, 3, 2, 9, 5, tzinfo=UTC))
    '2 Mar 2026, 09:05:00'
    """
    at = moment.astimezone(UTC)
    return f"{at.day} {at:%b %Y, %H:%M:%S}"


def machine(moment: datetime) -> str:
    """A moment as programs read it, in UTC.

    >>> machine(datetime(2026, 3, 2, 9, 5, tzinfo=UTC))
    '2026-03-02T09:05:00Z'
    """
    return moment.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def counted(number: int, noun: str, plural: str = "") -> str:
    """A number with its noun.

    >>> counted(1, "run"), counted(1_200, "run"), counted(2, "dead letter")
    ('1 run', '1,200 runs', '2 dead letters')
    """
    return f"{number:,} {noun if number == 1 else plural or noun + 's'}"
