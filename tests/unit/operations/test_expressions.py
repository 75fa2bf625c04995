"""Schedule expressions: what is refused, when they go off across changes of clocks, and how they read."""

import time
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from schoolbell.operations.expressions import InvalidExpression, Kind, parse

BERLIN = "Europe/Berlin"
NEW_YORK = "America/New_York"
LORD_HOWE = "Australia/Lord_Howe"  # half an hour of summer time: 02:00 is 02:30 on 4 October 2026


def utc(text: str) -> datetime:
    return datetime.fromisoformat(text).replace(tzinfo=UTC)


def local(moments: list[datetime], zone: str) -> list[str]:
    return [f"{moment.astimezone(ZoneInfo(zone)):%d.%m. %H:%M}" for moment in moments]


@pytest.mark.parametrize(
    ("expression", "reason"),
    [
        ("", "expected rate(5 minutes), cron(0 3 * * ? *) or at(2030-01-31T08:00:00), got ''"),
        ("0 3 * * ? *", "expected rate(5 minutes)"),
        ("Rate(5 minutes)", "expected rate(5 minutes)"),
        ("rate(5 minutes) ", "rate() takes a whole number"),
        ("rate(5minutes)", "rate() takes a whole number"),
        ("rate(1.5 hours)", "rate() takes a whole number"),
        ("rate(-1 hours)", "rate() takes a whole number"),
        ("rate(1 minutes)", "rate(1 minutes) must be rate(1 minute)"),
        ("rate(5 minute)", "rate(5 minute) must be rate(5 minutes)"),
        ("rate(0 minutes)", "rate() takes a whole number from 1 on"),
        ("rate(05 minutes)", "rate() takes a whole number from 1 on"),
        ("rate(30 seconds)", "rate() takes minutes, hours or days, not seconds; a minute is the shortest"),
        ("rate(2 weeks)", "rate() takes minutes, hours or days, not weeks"),
        ("rate(99999999 days)", "would go off less than once in centuries"),
        ("cron()", "cron() takes 6 fields (minutes, hours, day of month, month, day of week, year), not 0"),
        ("cron(0 3 * * *)", "cron() takes 6 fields"),
        ("cron(0 0 3 * * ? *)", "cron() takes 6 fields"),
        ("cron(0  3 * * ? *)", "the fields of cron() are parted by one space each"),
        ("cron( 0 3 * * ? *)", "the fields of cron() are parted by one space each"),
        ("cron(0 3 * * * *)", "cron() needs ? in one of day of month and day of week"),
        ("cron(0 3 ? * ? *)", "cron() needs ? in one of day of month and day of week"),
        ("cron(0 3 1 * MON *)", "cron() needs ? in one of day of month and day of week"),
        ("cron(60 3 * * ? *)", "cron(): minutes '60' is not of 0-59"),
        ("cron(? 3 * * ? *)", "cron(): minutes '?' is not of 0-59"),
        ("cron(*/0 3 * * ? *)", "cron(): minutes '*/0' is not of 0-59"),
        ("cron(1-*/2 3 * * ? *)", "cron(): minutes '1-*/2' is not of 0-59"),
        ("cron(0,, 3 * * ? *)", "cron(): minutes '0,,' is not of 0-59"),
        ("cron(0 24 * * ? *)", "cron(): hours '24' is not of 0-23"),
        ("cron(0 3 32 * ? *)", "cron(): day of month '32' is not of 1-31"),
        ("cron(0 3 0 * ? *)", "cron(): day of month '0' is not of 1-31"),
        ("cron(0 3 L-31 * ? *)", "cron(): day of month 'L-31' is not of 1-31"),
        ("cron(0 3 1,L * ? *)", "cron(): day of month '1,L' is not of 1-31"),
        ("cron(0 3 * 13 ? *)", "cron(): month '13' is not of 1-12 or JAN-DEC"),
        ("cron(0 3 * MARCH ? *)", "cron(): month 'MARCH' is not of 1-12 or JAN-DEC"),
        ("cron(0 3 ? * 0 *)", "cron(): day of week '0' is not of 1-7 or SUN-SAT (1 is Sunday)"),
        ("cron(0 3 ? * 8 *)", "cron(): day of week '8' is not of 1-7"),
        ("cron(0 3 ? * 2#6 *)", "cron(): day of week '2#6' is not of 1-7"),
        ("cron(0 3 ? * 2/2 *)", "cron(): day of week '2/2' is not of 1-7"),
        ("cron(0 3 ? * L-2 *)", "cron(): day of week 'L-2' is not of 1-7"),
        ("cron(0 3 * * ? 1969)", "cron(): year '1969' is not of 1970-2199"),
        ("cron(0 3 * * ? 2200)", "cron(): year '2200' is not of 1970-2199"),
        ("cron(0 3 * * ? 2030-2020)", "cron(): year '2030-2020' is not of 1970-2199"),
        ("cron(0 3 * * ? 2190-2201/2)", "cron(): year '2190-2201/2' is not of 1970-2199"),
        ("at(2030-01-31)", "at() takes a time to the second, without a zone"),
        ("at(2030-01-31T08:00:00Z)", "at() takes a time to the second, without a zone"),
        ("at(2030-01-31 08:00:00)", "at() takes a time to the second, without a zone"),
        ("at(2030-02-30T08:00:00)", "at(2030-02-30T08:00:00): day"),
        ("at(2200-01-31T08:00:00)", "the year must be 1970-2199"),
        ("rate(" + "5" * 256 + " minutes)", "the expression has"),
    ],
)
def test_refuses_what_aws_would_reject_and_says_why(expression: str, reason: str) -> None:
    with pytest.raises(InvalidExpression) as refused:
        parse(expression)
    assert reason in str(refused.value)
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize("field", ["1/2", "1-20/2", "*/2"])
@pytest.mark.parametrize("mistake", ["x", "*", "?", "L", ""])
@pytest.mark.parametrize(
    "place", ["cron({} 3 * * ? *)", "cron(0 {} * * ? *)", "cron(0 3 {} * ? *)", "cron(0 3 * {} ? *)"]
)
def test_refuses_a_long_list_with_a_mistake_at_its_end_at_once(place: str, field: str, mistake: str) -> None:
    started = time.process_time()
    with pytest.raises(InvalidExpression):
        parse(place.format(",".join([*[field] * 20, mistake])))
    assert time.process_time() - started < 0.5


def test_a_list_may_be_as_long_as_aws_allows() -> None:
    steps = ",".join(["1/30"] * 40)
    assert local(parse(f"cron({steps} 3 * * ? *)").occurrences(utc("2026-03-02"), 3), "UTC") == [
        "02.03. 03:01",
        "02.03. 03:31",
        "03.03. 03:01",
    ]


@pytest.mark.parametrize(
    ("expression", "zone", "kind", "reason"),
    [
        ("rate(5 minutes)", "Europe/Bärlin", "scheduler", "unknown time zone 'Europe/Bärlin'"),
        ("rate(5 minutes)", "europe/berlin", "scheduler", "unknown time zone 'europe/berlin'"),
        ("rate(5 minutes)", "../etc/passwd", "scheduler", "unknown time zone"),
        ("rate(5 minutes)", "+01:00", "scheduler", "unknown time zone"),
        ("rate(5 minutes)", "", "scheduler", "unknown time zone"),
        ("cron(0 3 * * ? *)", BERLIN, "rule", "an EventBridge rule is always in UTC; Europe/Berlin takes a schedule"),
        ("at(2030-01-31T08:00:00)", "UTC", "rule", "an EventBridge rule knows no at()"),
    ],
)
def test_refuses_zones_and_kinds_that_aws_would_reject(expression: str, zone: str, kind: Kind, reason: str) -> None:
    with pytest.raises(InvalidExpression) as refused:
        parse(expression, zone, kind)
    assert reason in str(refused.value)


@pytest.mark.parametrize(
    ("expression", "zone", "after", "expected"),
    [
        # Berlin, 29 March 2026: 02:00 is 03:00; 25 October 2026: 03:00 is 02:00 again
        ("cron(30 2 * * ? *)", BERLIN, "2026-03-27T12:00", ["28.03. 02:30", "30.03. 02:30", "31.03. 02:30"]),
        ("cron(0 3 * * ? *)", BERLIN, "2026-03-27T12:00", ["28.03. 03:00", "29.03. 03:00", "30.03. 03:00"]),
        ("cron(0/30 1-3 * * ? *)", BERLIN, "2026-03-28T23:59", ["29.03. 01:00", "29.03. 01:30", "29.03. 03:00"]),
        ("cron(30 2 * * ? *)", BERLIN, "2026-10-24T12:00", ["25.10. 02:30", "26.10. 02:30", "27.10. 02:30"]),
        ("cron(30 2 * * ? *)", BERLIN, "2026-10-25T00:30", ["26.10. 02:30"]),  # 02:30, the first time
        ("cron(30 2 * * ? *)", BERLIN, "2026-10-25T01:15", ["26.10. 02:30"]),  # 02:15, the second time
        ("cron(0/30 2-3 * * ? *)", BERLIN, "2026-10-25T00:10", ["25.10. 02:30", "25.10. 03:00"]),
        # New York, 8 March 2026: 02:00 is 03:00; 1 November 2026: 02:00 is 01:00 again
        ("cron(15 2 * * ? *)", NEW_YORK, "2026-03-07T12:00", ["09.03. 02:15", "10.03. 02:15"]),
        ("cron(15 1 * * ? *)", NEW_YORK, "2026-10-31T12:00", ["01.11. 01:15", "02.11. 01:15"]),
        ("cron(15 1 * * ? *)", NEW_YORK, "2026-11-01T05:30", ["02.11. 01:15"]),
        # Lord Howe Island, 5 April 2026: 02:00 is 01:30 again
        ("cron(15 2 * * ? *)", LORD_HOWE, "2026-10-02T20:00", ["05.10. 02:15"]),
        ("cron(30 2 * * ? *)", LORD_HOWE, "2026-10-02T20:00", ["04.10. 02:30"]),
        ("cron(45 1 * * ? *)", LORD_HOWE, "2026-04-04T14:00", ["05.04. 01:45", "06.04. 01:45"]),
        ("at(2026-03-29T02:30:00)", BERLIN, "2026-03-01T00:00", []),
        ("at(2026-10-25T02:30:00)", BERLIN, "2026-10-01T00:00", ["25.10. 02:30"]),
        # what the library alone gets wrong
        ("cron(0 8 29 2 ? *)", "UTC", "2097-01-01T00:00", ["29.02. 08:00"]),
        ("cron(0 8 ? * L *)", "UTC", "2026-03-01T00:00", ["07.03. 08:00"]),
        ("cron(0 8 1 1 ? 2027/2)", "UTC", "2027-03-01T00:00", ["01.01. 08:00"]),
        ("cron(0 8 31 2 ? *)", "UTC", "2026-03-01T00:00", []),
        # nothing is left out when nobody asked for less
        ("cron(0 8 ? * 2#1 *)", BERLIN, "2026-03-03T00:00", ["06.04. 08:00"]),
        ("cron(0 8 L-1 * ? *)", BERLIN, "2026-03-03T00:00", ["30.03. 08:00"]),
        ("cron(0 8 15W * ? *)", BERLIN, "2026-03-03T00:00", ["16.03. 08:00"]),
    ],
)
def test_goes_off_by_the_wall_clock(expression: str, zone: str, after: str, expected: list[str]) -> None:
    found = parse(expression, zone).occurrences(utc(after), max(1, len(expected)))
    assert local(found, zone) == expected


def test_the_double_hour_goes_off_the_first_time() -> None:
    (moment,) = parse("cron(30 2 * * ? *)", BERLIN).occurrences(utc("2026-10-24T12:00"), 1)
    assert moment == utc("2026-10-25T00:30")


@pytest.mark.parametrize(
    ("expression", "zone", "window", "expected"),
    [
        ("cron(30 2 * * ? *)", BERLIN, ("2026-03-29T00:00", "2026-03-29T02:00"), ["2026-03-29T01:30"]),
        ("cron(30 2 * * ? *)", BERLIN, ("2026-03-29T01:25", "2026-03-29T01:30"), ["2026-03-29T01:30"]),
        ("cron(30 2 * * ? *)", BERLIN, ("2026-03-29T01:30", "2026-03-29T01:35"), []),
        (
            "cron(0/30 * * * ? *)",
            BERLIN,
            ("2026-01-01T00:00", "2026-12-31T00:00"),
            ["2026-03-29T01:00", "2026-03-29T01:30"],
        ),
        ("cron(0 3 * * ? *)", BERLIN, ("2026-01-01T00:00", "2026-12-31T00:00"), []),
        ("cron(0 2 * * ? *)", NEW_YORK, ("2026-03-01T00:00", "2026-03-31T00:00"), ["2026-03-08T07:00"]),
        ("cron(15 2 * * ? *)", LORD_HOWE, ("2026-10-01T00:00", "2026-10-31T00:00"), ["2026-10-03T15:45"]),
        ("cron(0 12 30 12 ? 2011)", "Pacific/Apia", ("2011-12-30T00:00", "2012-01-01T00:00"), ["2011-12-30T22:00"]),
        ("at(2026-03-29T02:30:00)", BERLIN, ("2026-03-28T00:00", "2026-03-30T00:00"), ["2026-03-29T01:30"]),
        ("rate(30 minutes)", BERLIN, ("2026-03-28T00:00", "2026-03-30T00:00"), []),
        ("cron(30 2 * * ? *)", "UTC", ("2026-03-28T00:00", "2026-03-30T00:00"), []),
    ],
)
def test_tells_what_the_spring_change_removes(
    expression: str, zone: str, window: tuple[str, str], expected: list[str]
) -> None:
    found = parse(expression, zone).skipped_between(*map(utc, window))
    assert found == [utc(each) for each in expected]


def test_windows_that_follow_each_other_leave_nothing_out_and_tell_nothing_twice() -> None:
    schedule = parse("cron(0/7 * * * ? *)", BERLIN)
    edges = [utc("2026-10-24T22:00") + timedelta(minutes=5 * n) for n in range(60)]
    pieces = [moment for start, end in pairwise(edges) for moment in schedule.between(start, end)]
    assert pieces == schedule.between(edges[0], edges[-1])


def test_a_rate_counts_from_the_moment_given() -> None:
    found = parse("rate(5 minutes)").occurrences(utc("2026-03-29T00:58:30"), 2)
    assert found == [utc("2026-03-29T01:03:30"), utc("2026-03-29T01:08:30")]


@pytest.mark.parametrize(
    ("expression", "zone", "reason"),
    [
        ("at(2026-03-01T08:00:00)", BERLIN, "at(2026-03-01T08:00:00) in Europe/Berlin has passed"),
        ("at(2026-03-02T08:00:00)", "UTC", "has passed"),  # this very moment
        ("at(2026-03-29T02:30:00)", BERLIN, "the change of clocks leaves that time out in Europe/Berlin"),
        ("cron(0 8 1 1 ? 2020)", "UTC", "never goes off after 2026-03-02 08:00 UTC"),
        ("cron(0 8 31 2 ? *)", "UTC", "never goes off"),
    ],
)
def test_refuses_what_never_goes_off_any_more(expression: str, zone: str, reason: str) -> None:
    with pytest.raises(InvalidExpression) as refused:
        parse(expression, zone).refuse_past(utc("2026-03-02T08:00"))
    assert reason in str(refused.value)


@pytest.mark.parametrize("expression", ["at(2026-03-02T08:00:01)", "cron(0 8 2 3 ? 2027)", "rate(1 day)"])
def test_takes_what_goes_off_once_more(expression: str) -> None:
    parse(expression).refuse_past(utc("2026-03-02T08:00"))


@pytest.mark.parametrize(
    ("expression", "zone", "words"),
    [
        ("rate(1 minute)", "UTC", "Every minute"),
        ("rate(5 minutes)", "UTC", "Every 5 minutes"),
        ("rate(1 day)", "UTC", "Every day"),
        ("cron(0/5 * * * ? *)", "UTC", "Every 5 minutes, UTC"),
        ("cron(0 2 1 * ? *)", BERLIN, "At 02:00, on day 1 of the month, Europe/Berlin"),
        ("cron(0 3 ? * 1 *)", BERLIN, "At 03:00, only on Sunday, Europe/Berlin"),
        ("cron(0 3 ? * MON-FRI *)", BERLIN, "At 03:00, Monday through Friday, Europe/Berlin"),
        ("cron(0 3 ? * 6L *)", "UTC", "At 03:00, on the last Friday of the month, UTC"),
        ("cron(0 3 ? * L *)", "UTC", "At 03:00, only on Saturday, UTC"),
        ("cron(0 3 ? * 2#1 2030)", "UTC", "At 03:00, on the first Monday of the month, only in 2030, UTC"),
        ("cron(0 1,*/5 * * ? *)", "UTC", "cron(0 1,*/5 * * ? *), UTC"),  # there are no words for it
        ("at(2026-03-02T08:00:01)", BERLIN, "Once, at 08:00:01 on 2 March 2026, Europe/Berlin"),
    ],
)
def test_reads_as_words(expression: str, zone: str, words: str) -> None:
    assert parse(expression, zone).in_words() == words


def numbers(first: int, last: int) -> st.SearchStrategy[tuple[str, frozenset[int]]]:
    """A field, and the values that it stands for."""
    everything = st.just(("*", frozenset(range(first, last + 1))))
    value = st.integers(first, last)
    lists = st.sets(value, min_size=1, max_size=4).map(lambda s: (",".join(map(str, sorted(s))), frozenset(s)))
    ranges = st.tuples(value, value).map(sorted).map(lambda r: (f"{r[0]}-{r[1]}", frozenset(range(r[0], r[1] + 1))))
    steps = st.tuples(value, st.integers(max(1, first), last)).map(
        lambda s: (f"{s[0]}/{s[1]}", frozenset(range(s[0], last + 1, s[1])))
    )
    return everything | lists | ranges | steps


@given(
    minutes=numbers(0, 59),
    hours=numbers(0, 23),
    days=numbers(1, 31),
    zone=st.sampled_from([BERLIN, NEW_YORK, LORD_HOWE, "UTC", "Asia/Kathmandu"]),
    start=st.integers(0, 363 * 24 * 60 * 60).map(lambda seconds: utc("2026-01-01") + timedelta(seconds=seconds)),
)
def test_agrees_with_a_reading_minute_by_minute(
    minutes: tuple[str, frozenset[int]],
    hours: tuple[str, frozenset[int]],
    days: tuple[str, frozenset[int]],
    zone: str,
    start: datetime,
) -> None:
    last = start + timedelta(hours=50)
    expected = []
    moment = start.replace(second=0, microsecond=0)
    while (moment := moment + timedelta(minutes=1)) <= last:
        wall = moment.astimezone(ZoneInfo(zone))
        if wall.minute in minutes[1] and wall.hour in hours[1] and wall.day in days[1] and not wall.fold:
            expected.append(moment)
    schedule = parse(f"cron({minutes[0]} {hours[0]} {days[0]} * ? *)", zone)
    assert schedule.between(start, last) == expected


@given(st.text(max_size=40), st.text(max_size=20))
def test_anything_else_is_refused_in_one_line(inside: str, zone: str) -> None:
    for expression in (inside, f"rate({inside})", f"cron({inside})", f"at({inside})", f"cron(0 {inside} * * ? *)"):
        assert len(refusal(expression, zone).splitlines()) <= 1
        assert len(refusal(expression, "UTC").splitlines()) <= 1


def refusal(expression: str, zone: str) -> str:
    try:
        parse(expression, zone)
    except InvalidExpression as refused:
        return str(refused)
    return ""
