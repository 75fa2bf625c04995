"""Schedule expressions as EventBridge takes them: `rate()`, `cron()` and `at()`, with time zones.

What AWS would reject is refused here before AWS sees it, with a reason of one line that a person can act on.
https://docs.aws.amazon.com/scheduler/latest/UserGuide/schedule-types.html
https://docs.aws.amazon.com/eventbridge/latest/userguide/eb-scheduled-rule-pattern.html
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import cache
from itertools import chain, islice
from typing import TYPE_CHECKING, Any, Final, Literal
from zoneinfo import ZoneInfo, available_timezones

if TYPE_CHECKING:
    from aws_croniter import AwsCroniter

type Kind = Literal["rule", "scheduler"]
"""A rule of EventBridge (`rate` and `cron`, in UTC), or a schedule of EventBridge Scheduler (`at` and zones too)."""

FIRST_YEAR: Final = 1970
LAST_YEAR: Final = 2199
LONGEST: Final = 256
"""Characters; the limit of both services."""

_RATE = re.compile(r"rate\(([0-9]+) ([a-z]+)\)")
_CRON = re.compile(r"cron\((.*)\)")
_AT = re.compile(r"at\((.*)\)")
_MOMENT = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}")
_STEPPED_YEARS = re.compile(r"(?:\*|([0-9]{4})(?:-([0-9]{4}))?)/([1-9][0-9]{0,2})")
_UNITS: Final = {"minute": timedelta(minutes=1), "hour": timedelta(hours=1), "day": timedelta(days=1)}
_FIELDS: Final = ("minutes", "hours", "day of month", "month", "day of week", "year")
_RANGES: Final = (
    "0-59",
    "0-23",
    "1-31, L, L-1 or 15W",
    "1-12 or JAN-DEC",
    "1-7 or SUN-SAT (1 is Sunday), 6L or 2#1",
    f"{FIRST_YEAR}-{LAST_YEAR}",
)
_DAY_OF_MONTH, _DAY_OF_WEEK, _YEAR = 2, 4, 5
_LONGEST_GAP: Final = timedelta(hours=25)
"""No clock was ever put forward by more: Samoa left a whole day out in 2011."""


class InvalidExpression(ValueError):
    """What AWS would reject, in one line."""


@dataclass(frozen=True, slots=True)
class Expression:
    """A valid schedule expression in its time zone. All times it tells are timezone-aware, in UTC."""

    text: str
    timezone: str
    interval: timedelta | None = None
    cron: Any = None
    moment: datetime | None = None
    """The wall clock's time of an `at()`, without a zone."""

    def occurrences(self, after: datetime, count: int) -> list[datetime]:
        """The next times after a moment, as many as there are up to `count`.

        A rate counts from the moment on, since only AWS knows when it last went off.
        """
        return list(islice(self._after(after), count))

    def between(self, start: datetime, end: datetime) -> list[datetime]:
        """The times after `start`, up to `end` and at it, so that one window begins where the other ended."""
        return list(self._until(start, end))

    def skipped_between(self, start: datetime, end: datetime) -> list[datetime]:
        """The times that AWS leaves out because a spring change of clocks removes them from the wall clock.

        Each is told as if the clock had not been changed: 02:30 in Berlin on that morning is the moment that is called
        03:30 there. Those after `start` up to `end` are told.
        """
        if self.interval:
            return []
        skipped = (
            wall.replace(tzinfo=UTC) - offset
            for first, last, offset in self._gaps(start - _LONGEST_GAP, end)
            for wall in self._walls_in(first, last)
        )
        return [moment for moment in skipped if start < moment <= end]

    def in_words(self, zone: str | None = None) -> str:
        """What the expression says, e.g. `At 03:00, only on Sunday, Europe/Berlin` or `Every 5 minutes`.

        Args:
            zone: what to say of the time zone; its name, if not given.
        """
        zone = zone or self.timezone
        if self.interval:
            value, unit = self.text[5:-1].split()
            return f"Every {unit}" if value == "1" else f"Every {value} {unit}"
        if self.moment:
            return f"Once, at {self.moment:%H:%M:%S} on {self.moment.day} {self.moment:%B %Y}, {zone}"
        return f"{_cron_in_words(self.text[5:-1])}, {zone}"

    def refuse_past(self, now: datetime) -> None:
        """Refuses what will never go off any more; AWS takes an `at()` in the past and never rings it.

        Raises:
            InvalidExpression: there is no time after `now`.
        """
        if self.occurrences(now, 1):
            return
        if self.moment and self._exists(self.moment):
            raise InvalidExpression(f"{self.text} in {self.timezone} has passed")
        if self.moment:
            raise InvalidExpression(f"{self.text}: the change of clocks leaves that time out in {self.timezone}")
        raise InvalidExpression(f"{self.text} never goes off after {now.astimezone(UTC):%Y-%m-%d %H:%M} UTC")

    def _until(self, start: datetime, end: datetime) -> Iterator[datetime]:
        for moment in self._after(start):
            if moment > end:
                return
            yield moment

    def _after(self, start: datetime) -> Iterator[datetime]:
        """Times in order. A local time that does not exist is left out; a double one counts once, the first time."""
        start = start.astimezone(UTC)
        if self.interval:
            yield from _every(self.interval, start)
            return
        # The wall clock is ahead of itself for an hour when clocks are put back, so times already told come again.
        told = start
        for wall in self._walls(start.astimezone(self._zone).replace(tzinfo=None) - timedelta(minutes=1)):
            moment = wall.replace(tzinfo=self._zone).astimezone(UTC)
            if moment > told and self._exists(wall):
                told = moment
                yield moment

    @property
    def _zone(self) -> ZoneInfo:
        return ZoneInfo(self.timezone)

    def _exists(self, wall: datetime) -> bool:
        return wall.replace(tzinfo=self._zone).astimezone(UTC).astimezone(self._zone).replace(tzinfo=None) == wall

    def _walls(self, after: datetime) -> Iterator[datetime]:
        """The wall clock's times, without a zone, after one."""
        if self.moment:
            if self.moment > after:
                yield self.moment
            return
        wall: datetime | None = after
        while wall and (wall := _next(self.cron, wall)):
            yield wall

    def _walls_in(self, first: datetime, last: datetime) -> Iterator[datetime]:
        """The wall clock's times from one up to another, that one left out."""
        for wall in self._walls(first - timedelta(seconds=1)):
            if wall >= last:
                return
            yield wall

    def _gaps(self, start: datetime, end: datetime) -> Iterator[tuple[datetime, datetime, timedelta]]:
        """What the wall clock leaves out: from, to, and the offset from UTC that was in force before."""
        earlier = start.astimezone(UTC)
        while earlier < end:
            later = min(earlier + timedelta(hours=1), end.astimezone(UTC))
            before, after = self._offset(earlier), self._offset(later)
            if after > before:
                moment = self._changed(earlier, later).replace(tzinfo=None)
                yield moment + before, moment + after, before
            earlier = later

    def _changed(self, earlier: datetime, later: datetime) -> datetime:
        """When, to the minute, the offset changes between two moments."""
        before = self._offset(earlier)
        earlier = earlier.replace(second=0, microsecond=0)
        while later - earlier > timedelta(minutes=1):
            middle = earlier + timedelta(minutes=(later - earlier) // timedelta(minutes=2))
            earlier, later = (middle, later) if self._offset(middle) == before else (earlier, middle)
        return later.replace(second=0, microsecond=0)

    def _offset(self, moment: datetime) -> timedelta:
        return moment.astimezone(self._zone).utcoffset() or timedelta(0)


def parse(expression: str, timezone: str = "UTC", kind: Kind = "scheduler") -> Expression:
    """Reads an expression.

    Args:
        expression: e.g. `rate(5 minutes)`, `cron(0 3 ? * SUN *)`, `at(2026-03-29T02:30:00)`.
        timezone: an IANA name, by which `cron` and `at` are read.
        kind: a rule knows no zone but UTC, and no `at`.

    Raises:
        InvalidExpression: AWS would reject it.
    """
    if len(expression) > LONGEST:
        raise InvalidExpression(f"the expression has {len(expression)} characters; AWS allows {LONGEST}")
    _check_zone(timezone, kind)
    if match := _RATE.fullmatch(expression):
        return Expression(expression, timezone, interval=_interval(match[1], match[2]))
    if match := _CRON.fullmatch(expression):
        return Expression(expression, timezone, cron=_cron(match[1]))
    if match := _AT.fullmatch(expression):
        if kind == "rule":
            raise InvalidExpression("an EventBridge rule knows no at(), only rate() and cron()")
        return Expression(expression, timezone, moment=_moment(match[1]))
    if expression.startswith("rate("):
        raise InvalidExpression("rate() takes a whole number, one space and a unit, e.g. rate(5 minutes)")
    raise InvalidExpression(
        f"expected rate(5 minutes), cron(0 3 * * ? *) or at(2030-01-31T08:00:00), got {expression[:60]!r}"
    )


def _check_zone(timezone: str, kind: Kind) -> None:
    if timezone not in _zones():
        raise InvalidExpression(f"unknown time zone {timezone[:60]!r}: expected an IANA name, e.g. Europe/Berlin")
    if kind == "rule" and timezone not in ("UTC", "Etc/UTC"):
        raise InvalidExpression(f"an EventBridge rule is always in UTC; {timezone} takes a schedule of the Scheduler")


@cache
def _zones() -> frozenset[str]:
    return frozenset(available_timezones())


def _interval(value: str, unit: str) -> timedelta:
    singular = unit.removesuffix("s")
    if singular not in _UNITS:
        raise InvalidExpression(f"rate() takes minutes, hours or days, not {unit[:20]}; a minute is the shortest")
    number = int(value[:10])
    if number == 0 or value.startswith("0"):
        raise InvalidExpression(f"rate() takes a whole number from 1 on, without leading zeros, not {value[:20]}")
    if (number == 1) is unit.endswith("s"):
        raise InvalidExpression(f"rate({value[:20]} {unit}) must be rate({value[:20]} {singular}{'s' * (number != 1)})")
    if len(value) > 6:
        raise InvalidExpression(f"rate({value[:20]} {unit}) would go off less than once in centuries")
    return number * _UNITS[singular]


def _moment(text: str) -> datetime:
    if not _MOMENT.fullmatch(text):
        raise InvalidExpression("at() takes a time to the second, without a zone, e.g. at(2030-01-31T08:00:00)")
    try:
        moment = datetime.fromisoformat(text)
    except ValueError as error:
        raise InvalidExpression(f"at({text}): {error}") from None
    if not FIRST_YEAR <= moment.year <= LAST_YEAR:
        raise InvalidExpression(f"at({text}): the year must be {FIRST_YEAR}-{LAST_YEAR}")
    return moment


def _cron(text: str) -> "AwsCroniter":
    fields = text.split(" ")
    if len(fields) != len(_FIELDS) or "" in fields:
        given = len(text.split())
        if given == len(_FIELDS):
            raise InvalidExpression("the fields of cron() are parted by one space each")
        raise InvalidExpression(f"cron() takes 6 fields ({', '.join(_FIELDS)}), not {given}")
    if (fields[2] == "?") is (fields[4] == "?"):
        raise InvalidExpression("cron() needs ? in one of day of month and day of week, and only in one")
    taken = []
    for position, (name, field, allowed) in enumerate(zip(_FIELDS, fields, _RANGES, strict=True)):
        try:
            taken.append(_checked(position, field))
        except (ValueError, IndexError):
            raise InvalidExpression(f"cron(): {name} {field[:30]!r} is not of {allowed}") from None
    return _read(taken)


def _checked(position: int, field: str) -> str:
    """A field as the library takes it.

    Raises:
        ValueError: AWS would reject the field.
    """
    if position == _YEAR:
        field = ",".join(_years(part) for part in field.split(","))
    if position == _DAY_OF_WEEK and field.upper().startswith("L"):
        field = {"L": "7"}.get(field.upper(), "")  # the last day of a week is Saturday
    if field != "?":
        for part in _each(field):
            others = ["0", "0", "?" if position == _DAY_OF_WEEK else "1", "1", "?", "*"]
            _read([*others[:position], part, *others[position + 1 :]])
    elif position not in (_DAY_OF_MONTH, _DAY_OF_WEEK):
        raise ValueError(field)
    return field


def _read(fields: list[str]) -> "AwsCroniter":
    from aws_croniter import AwsCroniter  # imported for those few functions that ever read one

    return AwsCroniter(" ".join(fields))


def _each(field: str) -> set[str]:
    """What a field is made of: itself, or of a list each part, twice, since not everything may stand in a list.

    Shown a list with a mistake at its end, the library's patterns try two ways for each step before it: a line of a
    hundred characters takes them ten seconds, and each step more doubles that.
    """
    parts = field.split(",")
    return {field} if len(parts) == 1 else {f"{part},{part}" for part in parts}


def _years(part: str) -> str:
    """Years with a step, which the library does not know, written out; and no range that runs backwards."""
    stepped = _STEPPED_YEARS.fullmatch(part)
    if not stepped:
        start, _, end = part.partition("-")
        if end and start > end:
            raise ValueError(part)
        return part
    first, last = int(stepped[1] or FIRST_YEAR), int(stepped[2] or LAST_YEAR)
    if not FIRST_YEAR <= first <= last <= LAST_YEAR:
        raise ValueError(part)
    return ",".join(map(str, range(first, last + 1, int(stepped[3]))))


def _next(cron: "AwsCroniter", wall: datetime) -> datetime | None:
    """The next time on the wall clock, on which the library's arithmetic in UTC is done; `None` for none up to 2199."""
    # The library gives up after ten dates that do not exist, and would so miss a 29 February beyond 2100.
    year_ends = (datetime(year, 12, 31, 23, 59) for year in range(wall.year, LAST_YEAR))  # noqa: DTZ001
    for start in chain([wall], year_ends):
        found: datetime | None = cron.get_next(start.replace(tzinfo=UTC))[0]
        if found:
            return found.replace(tzinfo=None)
    return None


def _every(interval: timedelta, start: datetime) -> Iterator[datetime]:
    while start.year <= LAST_YEAR:
        start += interval
        yield start


def _cron_in_words(fields: str) -> str:
    from cron_descriptor import ExpressionDescriptor, FormatException, Options

    # AWS counts days of the week from Sunday as 1. Seconds in front tell the library that the last field is the year.
    options = Options(use_24hour_time_format=True, locale_code="en_US", day_of_week_start_index_zero=False)
    minutes, hours, day, month, weekday, year = fields.upper().split(" ")
    weekday = "7" if weekday == "L" else weekday
    try:
        return str(
            ExpressionDescriptor(f"0 {minutes} {hours} {day} {month} {weekday} {year}", options).get_description()
        )
    except FormatException:  # it has no words for hours in steps that stand in a list
        return f"cron({fields})"
