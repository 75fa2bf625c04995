"""Delivery: each notification once, to whom it is for, by a way that they want, when they want it, and none lost."""

import json
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime, time, timedelta
from threading import Barrier
from typing import Any
from uuid import UUID, uuid4

import pytest
from sqlalchemy import Row, text, update

from functions.platform.notification_delivery.app import handler
from schoolbell import aws as clients
from schoolbell.database import Database
from schoolbell.domains.platform.schema import dead_letters, notifications, push_tokens
from schoolbell.gateways.errors import Gone, Misconfigured, NeverWorks, Unavailable, Uncertain, throttled
from schoolbell.notifications import templates
from schoolbell.notifications.channels import Channel
from schoolbell.notifications.delivery import ENOUGH_TIME
from schoolbell.notifications.providers import Outgoing
from schoolbell.resilience.circuit import FAILURES_TO_OPEN, Circuit
from tests.conftest import Queues
from tests.factories import Make
from tests.fixtures.database import Stored
from tests.fixtures.google import open_circuit
from tests.fixtures.notifications import HIGH, LOW, NORMAL, Providers
from tests.performing import Invocation, Performed, Performer, sqs_event

EMAIL, SMS, PUSH = Channel.EMAIL, Channel.SMS, Channel.PUSH

type Deliver = Callable[..., Performed]


@pytest.fixture
def deliver(perform: Performer, providers: Providers) -> Deliver:
    """Hands notifications over in one message: `deliver(row, row)`."""

    def hand_over(*rows: Row[Any], queue: str = NORMAL, **more: Any) -> Performed:
        ids = [str(row.id) for row in rows]
        return perform(handler, {"notification_ids": ids, **more.pop("payload", {})}, queue=queue, **more)

    return hand_over


@pytest.fixture
def now_of(stored: Stored) -> Callable[[Row[Any]], Row[Any]]:
    """The row as it is now."""
    return lambda row: stored(notifications, id=row.id)[0]


def snoozed(queue: str = NORMAL) -> int:
    """How many messages wait on a queue, with a delay or without."""
    counted = ("ApproximateNumberOfMessagesDelayed", "ApproximateNumberOfMessages")
    url = clients.client("sqs").get_queue_url(QueueName=f"schoolbell-{queue.replace('.', '-')}")["QueueUrl"]
    got = clients.client("sqs").get_queue_attributes(QueueUrl=url, AttributeNames=list(counted))["Attributes"]
    return sum(int(got[name]) for name in counted)


def shut(provider: Any, deliver: Deliver, make: Make) -> None:
    """Opens a provider's circuit."""
    provider.answers += [Unavailable("500")] * FAILURES_TO_OPEN
    rows = [make.to_deliver(channel=str(provider.channel), recipient=_literal(provider.channel)) for _ in range(5)]
    deliver(*rows, queue=LOW)
    assert not provider.answers


def _literal(channel: Channel) -> str:
    return {EMAIL: "someone@example.org", SMS: "+33612345678", PUSH: "device"}[channel]


# One notification


def test_a_notification_is_rendered_sent_and_marked(
    deliver: Deliver, make: Make, providers: Providers, now_of: Callable[[Row[Any]], Row[Any]], now: datetime
) -> None:
    teacher = make.teacher(timezone="Europe/Paris")
    student = make.student(teacher, name="Ben <b>", email="ben@example.org")
    row = make.to_deliver(student)
    assert deliver(row).failed == []
    (sent,) = providers[EMAIL].accepted
    assert (sent.address, sent.subject) == ("ben@example.org", "A place is free for you")
    assert "Wednesday 4 March 2026, 11:00 CET" in sent.text
    assert "Hello Ben <b>," in sent.text
    assert "Hello Ben &lt;b&gt;," in (sent.html or "")
    assert sent.data == {"notification_id": str(row.id), "template": "waitlist_offer"}
    after = now_of(row)
    assert (after.status, after.sent_at, after.attempts, after.sent_by) == ("sent", now, 1, "email")
    assert (after.provider, after.provider_message_id) == ("fake-email", f"fake-email-{sent.key}")
    assert (after.claimed_by, after.error) == (None, None)
    assert snoozed() == 0


def test_each_channel_gets_what_it_can_show(deliver: Deliver, make: Make, providers: Providers) -> None:
    student = make.student(phone="+33612345678")
    make.push_token(student, "device")
    deliver(make.to_deliver(student, channel="sms"), make.to_deliver(student, channel="push"))
    ((text,), (push,)) = providers[SMS].accepted, providers[PUSH].accepted
    assert (text.address, text.subject, text.html) == ("+33612345678", None, None)
    assert (push.address, push.subject, push.html) == ("device", "A place is free for you", None)
    assert text.text == push.text
    assert text.text.startswith("A place that you were waiting for is free. It is kept for you until")


@pytest.mark.parametrize(("priority", "is_urgent"), [("high", True), ("normal", False), ("low", False)])
def test_the_provider_is_told_what_is_urgent(
    deliver: Deliver, make: Make, providers: Providers, priority: str, is_urgent: bool
) -> None:
    deliver(make.to_deliver(priority=priority))
    assert providers[EMAIL].accepted[0].is_urgent is is_urgent


def test_an_address_can_stand_in_the_place_of_a_person(deliver: Deliver, make: Make, providers: Providers) -> None:
    deliver(make.to_deliver(recipient="head@school.example", template="session_review", data={"name": "Head"}))
    assert providers[EMAIL].addresses == ["head@school.example"]


def test_a_second_delivery_sends_nothing(deliver: Deliver, make: Make, providers: Providers) -> None:
    row = make.to_deliver()
    deliver(row)
    deliver(row)
    assert len(providers[EMAIL].accepted) == 1


@pytest.mark.parametrize("status", ["sent", "delivered", "failed", "suppressed"])
def test_what_is_over_is_not_sent(deliver: Deliver, make: Make, providers: Providers, status: str) -> None:
    deliver(make.to_deliver(status=status))
    assert not providers[EMAIL].calls
    assert snoozed() == 0


def test_a_planned_one_is_left_to_its_time(deliver: Deliver, make: Make, providers: Providers, now: datetime) -> None:
    deliver(make.to_deliver(scheduled_for=now + timedelta(hours=1)))
    assert not providers[EMAIL].calls
    assert snoozed() == 0


def test_a_message_about_nothing_is_discarded(perform: Performer, providers: Providers, stored: Stored) -> None:
    perform(handler, {"notification_ids": [str(uuid4())]}, queue=NORMAL)
    (letter,) = stored(dead_letters)
    assert (letter.reason, letter.error) == ("discarded", "notification_ids: none of these exists")
    assert letter.queue == "schoolbell-platform-notifications-normal"


@pytest.mark.parametrize(
    ("payload", "reason"),
    [
        ({"notification_ids": []}, "notification_ids: Tuple should have at least 1 item"),
        ({"notification_ids": [str(uuid4()) for _ in range(101)]}, "notification_ids: Tuple should have at most 100"),
        ({"notification_ids": ["7"]}, "notification_ids.0: Input should be a valid UUID"),
        ({"email": "ben@example.org"}, "notification_ids: Field required"),
    ],
)
def test_a_bad_message_is_discarded_with_the_field(
    perform: Performer, providers: Providers, stored: Stored, payload: dict[str, Any], reason: str
) -> None:
    perform(handler, payload, queue=NORMAL)
    (letter,) = stored(dead_letters)
    assert letter.error.startswith(reason)


# Whom it does not reach


@pytest.mark.parametrize(
    ("student", "columns", "reason"),
    [
        ({"email": None}, {}, "the recipient has no address for email"),
        ({"phone": None}, {"channel": "sms"}, "the recipient has no address for sms"),
        ({}, {"channel": "push"}, "the recipient has no address for push"),
        ({"status": "erased"}, {}, "the recipient has been erased"),
        ({}, {"recipient": f"student/{uuid4()}"}, "the recipient does not exist"),
        ({}, {"data": None}, "erased"),
        ({}, {"expires_at": datetime.fromisoformat("2026-03-02T10:00:00+00:00")}, "expired before it could be sent"),
    ],
)
def test_who_cannot_be_reached_is_passed_over_with_the_reason(
    deliver: Deliver,
    make: Make,
    providers: Providers,
    now_of: Callable[[Row[Any]], Row[Any]],
    student: dict[str, Any],
    columns: dict[str, Any],
    reason: str,
) -> None:
    row = make.to_deliver(make.student(**student), **columns)
    assert deliver(row).failed == []
    assert (now_of(row).status, now_of(row).error) == ("suppressed", reason)
    assert not any(provider.calls for provider in providers.values())
    assert snoozed() == 0


def test_who_opted_out_gets_nothing(
    deliver: Deliver, make: Make, providers: Providers, now_of: Callable[[Row[Any]], Row[Any]]
) -> None:
    student = make.student()
    make.preference(student, channel="email", wanted=False)
    row = make.to_deliver(student, priority="high")
    deliver(row)
    assert now_of(row).status == "suppressed"
    assert now_of(row).error == "the recipient wants no waitlist_offer by email"


def test_quiet_hours_hold_a_notification_until_their_end(
    deliver: Deliver, make: Make, providers: Providers, now_of: Callable[[Row[Any]], Row[Any]], now: datetime
) -> None:
    student = make.student()  # whose teacher is in UTC
    make.preference(student, quiet_from=time(9), quiet_until=time(12))
    row = make.to_deliver(student)
    deliver(row)
    after = now_of(row)
    assert (after.status, after.scheduled_for) == ("queued", now.replace(hour=12))
    assert (after.handed_over_at, after.attempts) == (None, 0)
    assert snoozed() == 0, "the minutely job hands it over when the time has come"


def test_quiet_hours_may_end_with_the_day(
    deliver: Deliver, make: Make, database: Database, now_of: Callable[[Row[Any]], Row[Any]], now: datetime
) -> None:
    """PostgreSQL's day ends at 24:00, which Python's does not."""
    student = make.student()
    make.preference(student, quiet_from=time(9), quiet_until=time(12))
    with database.transaction() as connection:
        connection.execute(text("UPDATE platform.notification_preferences SET quiet_until = '24:00'"))
    row = make.to_deliver(student)
    deliver(row)
    midnight = now.replace(hour=0) + timedelta(days=1)
    assert (now_of(row).status, now_of(row).scheduled_for) == ("queued", midnight)


def test_an_urgent_one_is_sent_in_quiet_hours(deliver: Deliver, make: Make, providers: Providers) -> None:
    student = make.student()
    make.preference(student, quiet_from=time(9), quiet_until=time(12))
    deliver(make.to_deliver(student, priority="high"), queue=HIGH)
    assert len(providers[EMAIL].accepted) == 1


# What can never be sent


@pytest.mark.parametrize(
    ("columns", "reason"),
    [
        ({"data": {}}, "data: expires_at: missing"),
        ({"template": "no_such_thing"}, "template: there is none of this name"),
        ({"template": "../layout"}, "template: there is none of this name"),
        ({"recipient": "someone", "channel": "email"}, "recipient: neither a person nor an address for email"),
        ({"recipient": "0612", "channel": "sms"}, "recipient: neither a person nor an address for sms"),
    ],
)
def test_what_can_never_be_sent_fails_alone_and_says_why(
    deliver: Deliver,
    make: Make,
    providers: Providers,
    queues: Queues,
    stored: Stored,
    now_of: Callable[[Row[Any]], Row[Any]],
    columns: dict[str, Any],
    reason: str,
) -> None:
    bad, good = make.to_deliver(**columns), make.to_deliver()
    assert deliver(bad, good).failed == []
    assert (now_of(bad).status, now_of(bad).error) == ("failed", reason)
    assert now_of(good).status == "sent"
    (letter,) = stored(dead_letters)
    assert (letter.job, letter.queue) == ("platform.notification-delivery", "schoolbell-platform-notifications-normal")
    assert (letter.reason, letter.error, letter.message_id) == ("discarded", reason, str(bad.id))
    (dead,) = queues.messages(NORMAL, dead=True)
    assert json.loads(dead["Body"]) == json.loads(letter.payload)
    assert json.loads(dead["Body"]) == {"notification_ids": [str(bad.id)], "also_failed": True}
    assert dead["MessageAttributes"]["recorded-as"]["StringValue"] == letter.message_id


def test_a_failed_one_that_is_sent_again_has_all_its_attempts(
    deliver: Deliver,
    make: Make,
    providers: Providers,
    database: Database,
    now_of: Callable[[Row[Any]], Row[Any]],
) -> None:
    row = make.to_deliver(data={})
    deliver(row)
    with database.transaction() as connection:
        connection.execute(update(notifications).values(data={"expires_at": "2026-03-04T10:00:00+00:00"}))
    deliver(row)
    assert now_of(row).status == "failed", "an ordinary message leaves it alone"
    deliver(row, payload={"also_failed": True})
    assert (now_of(row).status, now_of(row).attempts, now_of(row).error) == ("sent", 1, None)
    deliver(row, payload={"also_failed": True})
    assert len(providers[EMAIL].accepted) == 1


def test_a_rejected_message_is_not_tried_again(
    deliver: Deliver,
    make: Make,
    providers: Providers,
    stored: Stored,
    now_of: Callable[[Row[Any]], Row[Any]],
) -> None:
    providers[EMAIL].answers = [NeverWorks("fake: 400 MessageRejected")]
    row = make.to_deliver()
    deliver(row)
    assert (now_of(row).status, now_of(row).error) == ("failed", "fake: 400 MessageRejected")
    assert [letter.reason for letter in stored(dead_letters)] == ["discarded"]
    assert snoozed() == 0


# What may pass later


def test_five_attempts_and_then_a_dead_letter(
    deliver: Deliver,
    make: Make,
    providers: Providers,
    stored: Stored,
    now: datetime,
    now_of: Callable[[Row[Any]], Row[Any]],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("random.random", lambda: 1.0)
    # Errors of one message are no outage: the circuit stays closed, since others are answered in between.
    row, at, waits = make.to_deliver(recipient="unwell@example.org"), now, []

    def fail_one(message: Outgoing) -> None:
        if message.address == row.recipient:
            raise Unavailable("fake: 503")

    providers[EMAIL].before = fail_one
    for attempt in range(1, 6):
        deliver(row, make.to_deliver(), now=at)
        after = now_of(row)
        assert after.attempts == attempt
        if attempt < 5:
            assert (after.status, after.error) == ("queued", "fake: 503")
            waits.append(after.scheduled_for - at)
            at = after.scheduled_for
    assert waits == [timedelta(seconds=seconds) for seconds in (1, 2, 4, 8)]
    assert (after.status, after.error) == ("failed", "5 attempts: fake: 503")
    (letter,) = stored(dead_letters)
    assert (letter.reason, letter.attempts, letter.message_id) == ("failed", 5, str(row.id))


def test_a_batch_half_sent_does_not_send_its_first_half_again(
    deliver: Deliver, make: Make, providers: Providers, now: datetime, queues: Queues
) -> None:
    rows = [make.to_deliver(recipient=f"someone-{number}@example.org") for number in range(8)]

    def refuse_half(message: Any) -> None:
        if message.address[8] in "4567":
            raise throttled(timedelta(seconds=3))

    providers[EMAIL].before = refuse_half
    deliver(*rows)
    assert providers[EMAIL].addresses == [f"someone-{number}@example.org" for number in range(4)]
    assert snoozed() == 1
    providers[EMAIL].before = lambda _: None
    deliver(*rows, now=now + timedelta(seconds=3))
    assert providers[EMAIL].addresses == [f"someone-{number}@example.org" for number in range(8)]


def test_no_attempt_is_counted_when_the_provider_takes_no_more(
    deliver: Deliver, make: Make, providers: Providers, now: datetime, now_of: Callable[[Row[Any]], Row[Any]]
) -> None:
    providers[EMAIL].answers = [throttled(timedelta(seconds=7))]
    row = make.to_deliver()
    deliver(row)
    assert (now_of(row).status, now_of(row).attempts) == ("queued", 0)
    assert now_of(row).scheduled_for == now + timedelta(seconds=7)
    assert snoozed() == 1


def test_a_provider_that_takes_no_more_until_tomorrow_occupies_no_message(
    deliver: Deliver, make: Make, providers: Providers, now: datetime, now_of: Callable[[Row[Any]], Row[Any]]
) -> None:
    providers[EMAIL].answers = [throttled(timedelta(hours=20))]
    row = make.to_deliver()
    deliver(row)
    assert (now_of(row).scheduled_for, now_of(row).handed_over_at) == (now + timedelta(hours=20), None)
    assert snoozed() == 0


def test_a_wrong_key_of_ours_costs_no_attempt(
    deliver: Deliver, make: Make, providers: Providers, now_of: Callable[[Row[Any]], Row[Any]]
) -> None:
    providers[EMAIL].answers = [Misconfigured("fake: 401")]
    row = make.to_deliver()
    deliver(row)
    assert (now_of(row).status, now_of(row).attempts, now_of(row).error) == ("queued", 0, "fake: 401")
    assert snoozed() == 1


@pytest.mark.parametrize("honours_key", [False, True])
def test_what_may_have_arrived_is_sent_once_more_and_no_oftener(
    deliver: Deliver,
    make: Make,
    providers: Providers,
    now: datetime,
    now_of: Callable[[Row[Any]], Row[Any]],
    honours_key: bool,
) -> None:
    provider = providers[EMAIL]
    provider.honours_key = honours_key

    def say_nothing(_: Any) -> None:
        raise Uncertain("fake: ReadTimeoutError")

    provider.after = say_nothing
    row, at = make.to_deliver(), now
    while now_of(row).status == "queued":
        deliver(row, now=at)
        at += timedelta(minutes=20)
    assert now_of(row).status == "failed"
    assert len(provider.accepted) == (1 if honours_key else 2)
    assert provider.calls == (5 if honours_key else 2)


# When the function dies


def test_what_a_dead_function_had_claimed_is_sent_after_its_time(
    deliver: Deliver, make: Make, providers: Providers, now: datetime, now_of: Callable[[Row[Any]], Row[Any]]
) -> None:
    row = make.to_deliver(claimed_by=uuid4(), claimed_until=now + timedelta(seconds=30), attempts=1)
    deliver(row)
    assert not providers[EMAIL].calls
    assert snoozed() == 1
    deliver(row, now=now + timedelta(seconds=31))
    assert (now_of(row).status, now_of(row).attempts, now_of(row).uncertain) == ("sent", 2, 1)


@pytest.mark.parametrize(("honours_key", "calls"), [(False, 0), (True, 1)])
def test_functions_that_die_twice_make_no_second_duplicate(
    deliver: Deliver,
    make: Make,
    providers: Providers,
    now: datetime,
    now_of: Callable[[Row[Any]], Row[Any]],
    honours_key: bool,
    calls: int,
) -> None:
    providers[EMAIL].honours_key = honours_key
    row = make.to_deliver(claimed_by=uuid4(), claimed_until=now, attempts=2, uncertain=1)
    deliver(row)
    assert providers[EMAIL].calls == calls
    if not calls:
        assert now_of(row).status == "failed"
        assert now_of(row).error.startswith("may have been accepted 2 times")


def test_two_deliverers_at_once_send_each_once(
    make: Make, providers: Providers, perform: Performer, stored: Stored
) -> None:
    rows = [make.to_deliver(recipient=f"someone-{number}@example.org") for number in range(60)]
    event = sqs_event([{"notification_ids": [str(row.id) for row in rows]}], queue=NORMAL)
    meeting = Barrier(2)

    def run(_: int) -> Any:
        meeting.wait()
        return handler(event, Invocation())

    with ThreadPoolExecutor(2) as threads:
        assert list(threads.map(run, range(2))) == [{"batchItemFailures": []}] * 2
    assert len(providers[EMAIL].accepted) == 60
    assert {row.status for row in stored(notifications)} == {"sent"}


def test_what_there_is_no_time_for_is_left_to_the_next(
    deliver: Deliver, make: Make, providers: Providers, now_of: Callable[[Row[Any]], Row[Any]]
) -> None:
    row = make.to_deliver()
    deliver(row, invocation=Invocation(remaining=lambda: ENOUGH_TIME - timedelta(seconds=1)))
    assert not providers[EMAIL].calls
    assert (now_of(row).status, now_of(row).attempts) == ("queued", 0)
    assert snoozed() == 1


@pytest.fixture
def change(database: Database) -> Callable[..., None]:
    """Changes notifications as another invocation would, while this one is at work."""

    def update_all(**columns: Any) -> None:
        with database.transaction() as connection:
            connection.execute(update(notifications).values(columns))

    return update_all


def test_what_another_invocation_has_just_claimed_is_left_to_it(
    deliver: Deliver,
    make: Make,
    providers: Providers,
    change: Callable[..., None],
    now: datetime,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    render = templates.render

    def be_overtaken(*about: Any) -> Any:
        change(claimed_by=uuid4(), claimed_until=now + timedelta(minutes=1))
        return render(*about)

    monkeypatch.setattr(templates, "render", be_overtaken)
    deliver(make.to_deliver())
    assert not providers[EMAIL].calls
    assert snoozed() == 1


@pytest.mark.parametrize("meanwhile", [{"status": "failed"}, {"claimed_by": UUID(int=7)}], ids=str)
def test_what_the_provider_has_accepted_is_sent_whatever_others_made_of_it_meanwhile(
    deliver: Deliver,
    make: Make,
    providers: Providers,
    change: Callable[..., None],
    now_of: Callable[[Row[Any]], Row[Any]],
    meanwhile: dict[str, Any],
) -> None:
    providers[EMAIL].after = lambda _: change(**meanwhile)
    row = make.to_deliver()
    deliver(row)
    assert now_of(row).status == "sent"


@pytest.mark.parametrize("error", [NeverWorks("fake: 400"), Unavailable("fake: 500")], ids=str)
def test_what_another_invocation_took_over_is_its_own_when_this_ones_call_fails_late(
    deliver: Deliver,
    make: Make,
    providers: Providers,
    change: Callable[..., None],
    stored: Stored,
    now_of: Callable[[Row[Any]], Row[Any]],
    error: Exception,
) -> None:
    other = uuid4()

    def be_overtaken(_: Any) -> None:
        change(claimed_by=other)
        raise error

    providers[EMAIL].before = be_overtaken
    row = make.to_deliver()
    deliver(row)
    assert (now_of(row).status, now_of(row).claimed_by, now_of(row).error) == ("queued", other, None)
    assert not stored(dead_letters)


# When a provider is out of order


@pytest.mark.parametrize(("seconds", "sent"), [(29, 0), (30, 1)])
def test_an_open_circuit_is_tried_again_after_thirty_seconds(
    deliver: Deliver, make: Make, providers: Providers, circuits_stand_still: datetime, seconds: int, sent: int
) -> None:
    open_circuit("notifications-fake-email", circuits_stand_still - timedelta(seconds=seconds))
    deliver(make.to_deliver())
    assert len(providers[EMAIL].accepted) == sent


def test_a_rejected_message_says_that_the_provider_is_well(deliver: Deliver, make: Make, providers: Providers) -> None:
    few = [Unavailable("fake: 500")] * (FAILURES_TO_OPEN - 1)
    for answer in [*few, NeverWorks("fake: 400"), *few, None]:
        providers[EMAIL].answers = [answer]
        deliver(make.to_deliver())
    assert len(providers[EMAIL].accepted) == 1


def test_a_circuit_that_cannot_be_read_counts_as_closed(
    deliver: Deliver, make: Make, providers: Providers, monkeypatch: pytest.MonkeyPatch
) -> None:
    def be_away(_: Any) -> bool:
        raise ConnectionError("dynamodb")

    monkeypatch.setattr(Circuit, "is_open", be_away)
    deliver(make.to_deliver())
    assert len(providers[EMAIL].accepted) == 1


def test_what_waits_for_its_provider_is_under_way_so_that_nobody_hands_it_over_anew(
    deliver: Deliver, make: Make, providers: Providers, now: datetime, now_of: Callable[[Row[Any]], Row[Any]]
) -> None:
    shut(providers[EMAIL], deliver, make)
    row = make.to_deliver(handed_over_at=now - timedelta(minutes=25))
    deliver(row)
    assert now_of(row).handed_over_at == now


def test_an_open_circuit_holds_ordinary_messages_and_counts_no_attempt(
    deliver: Deliver, make: Make, providers: Providers, now_of: Callable[[Row[Any]], Row[Any]]
) -> None:
    shut(providers[EMAIL], deliver, make)
    row = make.to_deliver(make.student(phone="+33612345678"))
    calls = providers[EMAIL].calls
    deliver(row)
    assert providers[EMAIL].calls == calls
    assert not providers[SMS].calls
    assert (now_of(row).status, now_of(row).attempts) == ("queued", 0)
    assert snoozed() == 1


@pytest.mark.parametrize(
    ("channel", "broken", "student", "expected"),
    [
        (EMAIL, [EMAIL], {"phone": "+33612345678"}, SMS),
        (PUSH, [PUSH], {"phone": "+33612345678"}, EMAIL),
        (PUSH, [PUSH, EMAIL], {"phone": "+33612345678"}, SMS),
        (PUSH, [PUSH], {"phone": "+33612345678", "email": None}, SMS),
        (EMAIL, [EMAIL], {"phone": None}, None),
        (SMS, [SMS], {"phone": "+33612345678"}, None),
    ],
)
def test_an_urgent_one_falls_back_to_the_next_channel_that_the_person_has(
    deliver: Deliver,
    make: Make,
    providers: Providers,
    now_of: Callable[[Row[Any]], Row[Any]],
    channel: Channel,
    broken: list[Channel],
    student: dict[str, Any],
    expected: Channel | None,
) -> None:
    for each in broken:
        shut(providers[each], deliver, make)
    person = make.student(**student)
    make.push_token(person)
    row = make.to_deliver(person, channel=str(channel), priority="high")
    deliver(row, queue=HIGH)
    after = now_of(row)
    if expected is None:
        assert (after.status, after.attempts) == ("queued", 0)
        assert snoozed(HIGH) == 1
    else:
        assert (after.status, after.channel, after.sent_by) == ("sent", str(channel), str(expected))
        assert len(providers[expected].accepted) == 1


def test_an_urgent_one_does_not_fall_back_to_what_the_person_does_not_want(
    deliver: Deliver, make: Make, providers: Providers, now_of: Callable[[Row[Any]], Row[Any]]
) -> None:
    shut(providers[EMAIL], deliver, make)
    student = make.student(phone="+33612345678")
    make.preference(student, channel="sms", wanted=False)
    row = make.to_deliver(student, priority="high")
    deliver(row, queue=HIGH)
    assert now_of(row).status == "queued"
    assert not providers[SMS].calls


def test_a_circuit_that_opens_in_the_middle_sends_the_rest_by_the_other_channel(
    deliver: Deliver, make: Make, providers: Providers, stored: Stored
) -> None:
    providers[EMAIL].answers = [Unavailable("fake: 500")] * 1_000
    rows = [make.to_deliver(make.student(phone=f"+336123456{number:02}"), priority="high") for number in range(70)]
    deliver(*rows, queue=HIGH)
    after = stored(notifications)
    by_sms = [row for row in after if row.sent_by == "sms"]
    waiting = [row for row in after if row.status == "queued"]
    assert len(by_sms) + len(waiting) == 70
    assert len(by_sms) >= 20
    assert all(row.attempts == 1 for row in waiting), "those whose call failed wait for their own channel"


def test_a_spent_budget_waits_and_counts_no_attempt(
    perform: Performer, make: Make, providers: Providers, deliver: Deliver, stored: Stored
) -> None:
    rows = [make.to_deliver(recipient=f"someone-{number}@example.org") for number in range(100)]
    more = [make.to_deliver(recipient=f"other-{number}@example.org") for number in range(60)]
    deliver(*rows)
    deliver(*more)
    assert len(providers[EMAIL].accepted) <= 126, "nine tenths of 14 a second, in 10 seconds"
    assert all(row.attempts == 0 for row in stored(notifications, status="queued"))
    assert snoozed() == 1


def test_a_flood_on_one_queue_leaves_a_tenth_of_the_budget_to_the_others(
    make: Make, providers: Providers, deliver: Deliver
) -> None:
    def rows(number: int) -> list[Row[Any]]:
        return [make.to_deliver(recipient="someone@example.org") for _ in range(number)]

    for number, queue, sent in ((100, LOW, 100), (26, LOW, 126), (1, LOW, 126), (14, HIGH, 140), (1, HIGH, 140)):
        deliver(*rows(number), queue=queue)
        assert len(providers[EMAIL].accepted) == sent, "14 a second, in 10 seconds"


# Devices


def test_a_device_that_is_gone_is_forgotten_and_the_next_one_tried(
    deliver: Deliver, make: Make, providers: Providers, stored: Stored, now: datetime
) -> None:
    student = make.student()
    make.push_token(student, "new", last_seen_at=now)
    make.push_token(student, "old", last_seen_at=now - timedelta(days=9))
    providers[PUSH].answers = [Gone("fake: UNREGISTERED")]
    row = make.to_deliver(student, channel="push")
    deliver(row)
    assert providers[PUSH].addresses == ["old"]
    assert [each.token for each in stored(push_tokens)] == ["old"]
    (after,) = stored(notifications, id=row.id)
    assert (after.status, after.attempts) == ("sent", 1)


def test_without_a_device_left_a_push_message_is_passed_over(
    deliver: Deliver, make: Make, providers: Providers, stored: Stored, now_of: Callable[[Row[Any]], Row[Any]]
) -> None:
    student = make.student()
    make.push_token(student)
    providers[PUSH].answers = [Gone("fake: UNREGISTERED")]
    row = make.to_deliver(student, channel="push")
    deliver(row)
    assert (now_of(row).status, now_of(row).error) == ("suppressed", "the device has the application no longer")
    assert not stored(push_tokens)


# Many


def test_calls_are_made_at_the_same_time(deliver: Deliver, make: Make, providers: Providers) -> None:
    meeting = Barrier(20, timeout=60)

    def meet(_: Outgoing) -> None:
        meeting.wait()

    providers[EMAIL].before = meet
    deliver(*(make.to_deliver(recipient=f"someone-{number}@example.org") for number in range(20)))
    assert len(providers[EMAIL].accepted) == 20


def test_keys_differ_by_notification_and_address(deliver: Deliver, make: Make, providers: Providers) -> None:
    student = make.student(email="ben@example.org")
    rows = [make.to_deliver(student), make.to_deliver(student)]
    deliver(*rows)
    keys = [message.key for message in providers[EMAIL].accepted]
    assert len(set(keys)) == 2
    assert all(UUID(key) for key in keys)


def test_nothing_personal_is_logged(
    deliver: Deliver, make: Make, providers: Providers, capsys: pytest.CaptureFixture[str]
) -> None:
    providers[EMAIL].answers = [ValueError("ben@example.org")]
    student = make.student(name="Lovelace", email="ben@example.org")
    deliver(make.to_deliver(student), make.to_deliver(student, data={}))
    assert "ben@example.org" not in capsys.readouterr().out
