"""Audit cleanup: what is archived, what is deleted, to the day, and what holds when the archive cannot be trusted."""

import gzip
import json
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import pytest
from botocore.exceptions import ClientError, FlexibleChecksumError
from sqlalchemy import Row, event, text

from functions.platform.audit_cleanup.app import handler
from schoolbell import aws as clients
from schoolbell.database import Database
from schoolbell.domains.platform import audit_archive
from schoolbell.domains.platform.audit_archive import months_before
from schoolbell.domains.platform.schema import alerts, audit_logs
from schoolbell.jobs.outcomes import JobFailed
from schoolbell.settings import Settings
from tests.factories import Make
from tests.faults.crash import Crashing, assert_crash_safe, contents
from tests.fixtures.database import Stored
from tests.performing import Invocation, Performed, Performer

NOW = datetime(2026, 3, 2, 10, 0, tzinfo=UTC)
TICK = timedelta(microseconds=1)

type Clean = Callable[..., Performed]
type Left = Callable[[], set[UUID]]


class Archive:
    """The archive bucket."""

    def __init__(self, bucket: str) -> None:
        self.bucket = bucket
        self.s3 = clients.client("s3")

    def objects(self) -> list[str]:
        return [item["Key"] for item in self.s3.list_objects_v2(Bucket=self.bucket).get("Contents", [])]

    def body(self, key: str) -> bytes:
        return bytes(self.s3.get_object(Bucket=self.bucket, Key=key)["Body"].read())

    def records(self, key: str) -> list[dict[str, Any]]:
        return [json.loads(line) for line in gzip.decompress(self.body(key)).splitlines()]

    def ids(self) -> list[str]:
        """The ids of all archived records; one that is in two objects is there twice."""
        return sorted(record["id"] for key in self.objects() for record in self.records(key))


@pytest.fixture
def archive(settings: Settings, aws: None) -> Archive:
    return Archive(settings.archive_bucket)


@pytest.fixture
def clean(perform: Performer) -> Clean:
    """Runs the job by hand at a time."""

    def run(at: datetime = NOW, **data: bool) -> Performed:
        return perform(handler, now=at, event=data)

    return run


@pytest.fixture
def left(stored: Stored) -> Left:
    """The ids of the records that are still in the database."""
    return lambda: {row.id for row in stored(audit_logs)}


def _ids(rows: Sequence[Row[Any]]) -> list[str]:
    return sorted(str(row.id) for row in rows)


# How long each tier is kept


@pytest.mark.parametrize(
    ("tier", "limit"),
    [
        ("financial", datetime(2019, 3, 2, 10, tzinfo=UTC)),
        ("student", datetime(2023, 3, 2, 10, tzinfo=UTC)),
        ("general", datetime(2025, 3, 2, 10, tzinfo=UTC)),
        ("marketing", datetime(2025, 9, 2, 10, tzinfo=UTC)),
        ("FINANCIAL", datetime(2025, 9, 2, 10, tzinfo=UTC)),
        ("", datetime(2025, 9, 2, 10, tzinfo=UTC)),
    ],
)
def test_a_tier_is_kept_to_the_microsecond(make: Make, clean: Clean, left: Left, tier: str, limit: datetime) -> None:
    make.audit_log(tier=tier, occurred_at=limit - TICK)
    kept = make.audit_log(tier=tier, occurred_at=limit)
    clean()
    assert left() == {kept.id}


@pytest.mark.parametrize(
    ("moment", "months", "before"),
    [
        ("2026-03-01T02:00", 12, "2025-03-01T02:00"),
        ("2024-02-29T02:00", 12, "2023-02-28T02:00"),
        ("2024-02-29T02:00", 48, "2020-02-29T02:00"),
        ("2026-08-31T02:00", 6, "2026-02-28T02:00"),
        ("2024-08-31T02:00", 6, "2024-02-29T02:00"),
        ("2026-01-01T02:00", 6, "2025-07-01T02:00"),
        ("2026-12-01T02:00", 12, "2025-12-01T02:00"),
        ("2026-03-01T02:00", 84, "2019-03-01T02:00"),
    ],
)
def test_months_are_calendar_months(moment: str, months: int, before: str) -> None:
    assert months_before(datetime.fromisoformat(moment), months) == datetime.fromisoformat(before)


def test_a_year_with_a_leap_day_is_not_over_after_365_days(make: Make, clean: Clean, left: Left) -> None:
    record = make.audit_log(tier="general", occurred_at=datetime(2024, 2, 28, 12, tzinfo=UTC))
    clean(datetime(2025, 2, 27, 13, tzinfo=UTC))
    clean(datetime(2025, 2, 28, 12, tzinfo=UTC))
    assert left() == {record.id}
    clean(datetime(2025, 2, 28, 12, tzinfo=UTC) + TICK)
    assert left() == set()


def test_a_record_of_the_leap_day_is_kept_until_the_first_of_march(make: Make, clean: Clean, left: Left) -> None:
    record = make.audit_log(tier="general", occurred_at=datetime(2024, 2, 29, 12, tzinfo=UTC))
    clean(datetime(2025, 2, 28, 23, tzinfo=UTC))
    assert left() == {record.id}
    clean(datetime(2025, 3, 1, 0, tzinfo=UTC))
    assert left() == set()


def test_seven_years_are_more_than_2555_days(make: Make, clean: Clean, left: Left) -> None:
    record = make.audit_log(tier="financial", occurred_at=NOW - timedelta(days=2556))
    clean()
    assert left() == {record.id}


# What is archived


@pytest.mark.parametrize("tier", ["financial", "student"])
def test_a_record_is_archived_after_a_year_and_stays(
    make: Make, clean: Clean, stored: Stored, archive: Archive, tier: str
) -> None:
    young = make.audit_log(tier=tier, occurred_at=datetime(2025, 3, 2, 10, tzinfo=UTC))
    old = make.audit_log(tier=tier, occurred_at=datetime(2025, 3, 2, 10, tzinfo=UTC) - TICK)
    result = clean().result
    (key,) = archive.objects()
    assert {row.id: row.archived_to for row in stored(audit_logs)} == {young.id: None, old.id: key}
    assert archive.ids() == [str(old.id)]
    assert (result["archived"][tier], result["deleted"][tier]) == (1, 0)


def test_an_object_is_named_by_tier_month_and_content(make: Make, clean: Clean, archive: Archive) -> None:
    # In UTC: this one is still of March.
    make.audit_log(tier="student", occurred_at=datetime.fromisoformat("2024-04-01T00:30+01:00"))
    make.audit_log(tier="student", occurred_at=datetime(2024, 4, 1, tzinfo=UTC))
    make.audit_log(tier="financial", occurred_at=datetime(2024, 4, 1, tzinfo=UTC))
    make.audit_log(tier="../../etc", occurred_at=datetime(2024, 4, 1, tzinfo=UTC))
    clean()
    names = [audit_archive.NAME.fullmatch(key) for key in archive.objects()]
    assert all(names)
    assert [key.rpartition("/")[0] for key in archive.objects()] == [
        "audit/fallback/2024-04",
        "audit/financial/2024-04",
        "audit/student/2024-03",
        "audit/student/2024-04",
    ]
    assert {name["records"] for name in names if name} == {"1"}


def test_an_archived_record_is_whole(make: Make, clean: Clean, archive: Archive) -> None:
    details = {"said": 'two\nlines, "quoted" — and ünïcode \\', "amount": 12.5, "nested": [None, True]}
    occurred_at = datetime(2024, 5, 6, 7, 8, 9, 123456, tzinfo=UTC)
    record = make.audit_log(
        tier="financial", occurred_at=occurred_at, details=details, actor=None, subject="s", created_at=occurred_at
    )
    clean()
    (key,) = archive.objects()
    assert archive.records(key) == [
        {
            "id": str(record.id),
            "tier": "financial",
            "action": "student.updated",
            "actor": None,
            "subject": "s",
            "occurred_at": "2024-05-06T07:08:09.123456+00:00",
            "details": details,
            "created_at": "2024-05-06T07:08:09.123456+00:00",
        }
    ]


@pytest.mark.parametrize(
    ("tier", "age"), [("general", 400), ("marketing", 400), ("student", 1200), ("financial", 2600)]
)
def test_what_is_older_than_a_year_is_archived_before_it_is_deleted(
    make: Make, clean: Clean, left: Left, archive: Archive, tier: str, age: int
) -> None:
    record = make.audit_log(tier=tier, occurred_at=NOW - timedelta(days=age))
    clean()
    assert left() == set()
    assert archive.ids() == [str(record.id)]


def test_a_fallback_record_goes_before_it_would_be_archived(
    make: Make, clean: Clean, left: Left, archive: Archive
) -> None:
    make.audit_log(tier="marketing", occurred_at=NOW - timedelta(days=200))
    result = clean().result
    assert left() == set()
    assert archive.objects() == []
    assert (result["archived"]["fallback"], result["deleted"]["fallback"]) == (0, 1)


def test_a_late_record_of_an_archived_month_is_archived_too(
    make: Make, clean: Clean, stored: Stored, archive: Archive
) -> None:
    first = make.audit_log(tier="student", occurred_at=datetime(2024, 4, 10, tzinfo=UTC))
    clean()
    (key,) = archive.objects()
    before = archive.body(key)
    late = make.audit_log(tier="student", occurred_at=datetime(2024, 4, 9, tzinfo=UTC))
    clean(NOW + timedelta(days=30))
    (other,) = set(archive.objects()) - {key}
    assert {row.id: row.archived_to for row in stored(audit_logs)} == {first.id: key, late.id: other}
    assert archive.body(key) == before
    assert archive.ids() == _ids([first, late])


def test_a_record_archived_years_ago_is_deleted_when_its_time_is_over(
    make: Make, clean: Clean, left: Left, archive: Archive
) -> None:
    record = make.audit_log(tier="student", occurred_at=NOW - timedelta(days=500))
    clean()
    assert left() == {record.id}
    result = clean(NOW + timedelta(days=700)).result
    assert left() == set()
    assert archive.ids() == [str(record.id)]
    assert (result["archived"]["student"], result["deleted"]["student"]) == (0, 1)


# An archive that cannot be trusted


class Faulty:
    """S3, of which an operation fails from its n-th call on."""

    def __init__(self, s3: Any, operation: str, at: int, error: Exception | None = None) -> None:
        self._s3, self._operation, self._left = s3, operation, at
        self._error = error or ClientError({"Error": {"Code": "ServiceUnavailable"}}, operation)

    def __getattr__(self, operation: str) -> Any:
        if operation == self._operation:
            self._left -= 1
            if self._left <= 0:
                raise self._error
        return getattr(self._s3, operation)


def _delete(archive: Archive, key: str) -> None:
    archive.s3.delete_object(Bucket=archive.bucket, Key=key)


def _replace(archive: Archive, key: str) -> None:
    archive.s3.put_object(Bucket=archive.bucket, Key=key, Body=gzip.compress(b'{"id": "another"}\n'))


def _rot(archive: Archive, key: str) -> None:
    """One byte changes on the disk, and S3 has not noticed."""
    from moto.s3.models import s3_backends

    stored = s3_backends["123456789012"]["aws"].buckets[archive.bucket].keys[key]
    body = bytearray(stored.value)
    body[len(body) // 2] ^= 1
    stored.value = bytes(body)


@pytest.mark.parametrize("damage", [_delete, _replace, _rot])
def test_what_is_not_in_the_archive_as_it_was_is_not_deleted(
    make: Make,
    clean: Clean,
    left: Left,
    stored: Stored,
    archive: Archive,
    outbox_rows: Callable[[], list[Row[Any]]],
    caplog: pytest.LogCaptureFixture,
    capsys: pytest.CaptureFixture[str],
    damage: Callable[[Archive, str], None],
) -> None:
    broken = make.audit_log(tier="student", occurred_at=NOW - timedelta(days=500))
    make.audit_log(tier="student", occurred_at=NOW - timedelta(days=600))
    clean()
    (key,) = {row.archived_to for row in stored(audit_logs, id=broken.id)}
    damage(archive, key)

    later = NOW + timedelta(days=700)
    result = clean(later).result
    assert left() == {broken.id}
    assert (result["deleted"]["student"], result["unverified"]) == (1, 1)
    assert [row.archived_to for row in stored(audit_logs)] == [None]
    (said,) = (record for record in caplog.records if record.levelname == "ERROR")
    assert (said.getMessage(), said.__dict__["keys"]) == ("audit archives are missing or damaged", [key])
    assert '"UnverifiedAuditRecords":[1.0]' in capsys.readouterr().out
    (alert,) = (row.payload for row in outbox_rows() if row.destination == "topic/alerts")
    assert (alert["action"], alert["severity"], alert["details"]) == ("trigger", "critical", {"records": 1})
    make.row(alerts, **{name: alert[name] for name in ("key", "severity", "summary", "source")})

    result = clean(later + timedelta(days=31)).result
    assert left() == set()
    assert str(broken.id) in archive.ids()
    assert (result["archived"]["student"], result["deleted"]["student"], result["unverified"]) == (1, 1, 0)
    assert [row.payload["action"] for row in outbox_rows() if row.destination == "topic/alerts"][1:] == ["resolve"]


def test_what_s3_itself_finds_damaged_is_not_deleted(
    make: Make, clean: Clean, left: Left, monkeypatch: pytest.MonkeyPatch
) -> None:
    record = make.audit_log(tier="general", occurred_at=NOW - timedelta(days=400))
    error = FlexibleChecksumError(error_msg="Expected checksum a did not match calculated checksum: b")
    faulty = Faulty(clients.client("s3"), "get_object", at=1, error=error)
    real = clients.client
    monkeypatch.setattr(clients, "client", lambda service: faulty if service == "s3" else real(service))
    assert clean().result["unverified"] == 1
    assert left() == {record.id}


def test_what_arrives_in_the_archive_as_something_else_is_not_deleted(
    make: Make, clean: Clean, left: Left, archive: Archive, monkeypatch: pytest.MonkeyPatch
) -> None:
    record = make.audit_log(tier="general", occurred_at=NOW - timedelta(days=400))

    def put(*arguments: Any) -> str:
        key = original(*arguments)
        _rot(archive, key)
        return key

    original = audit_archive.put
    monkeypatch.setattr(audit_archive, "put", put)
    assert clean().result["unverified"] == 1
    assert left() == {record.id}
    monkeypatch.setattr(audit_archive, "put", original)
    assert clean().result["unverified"] == 0
    assert left() == set()


def test_an_object_with_too_few_records_is_not_intact(
    make: Make, clean: Clean, left: Left, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The checksum is right and the count is not: an object of which a line is missing."""
    records = [make.audit_log(tier="general", occurred_at=NOW - timedelta(days=400, seconds=n)) for n in range(3)]

    class Short:
        def __init__(self, month: Any) -> None:
            self.month, self.records = month.month, month.records
            self.lines = month.lines.partition("\n")[2]

    original = audit_archive.put
    monkeypatch.setattr(audit_archive, "put", lambda job, tier, month: original(job, tier, Short(month)))  # type: ignore[arg-type]
    assert clean().result["unverified"] == 3
    assert left() == {record.id for record in records}


def test_a_name_that_no_run_has_written_counts_as_not_archived(make: Make, clean: Clean, stored: Stored) -> None:
    for name in ("", "somewhere", "audit/student/2023-01/1-" + "0" * 64 + ".jsonl.gz"):
        make.audit_log(tier="student", occurred_at=NOW - timedelta(days=1200), archived_to=name)
    assert clean().result["unverified"] == 3
    assert [row.archived_to for row in stored(audit_logs)] == [None, None, None]


@pytest.mark.parametrize("operation", ["put_object", "get_object"])
def test_s3_down_midway_keeps_what_was_done_and_loses_nothing(
    make: Make,
    perform: Performer,
    left: Left,
    archive: Archive,
    monkeypatch: pytest.MonkeyPatch,
    operation: str,
) -> None:
    monkeypatch.setattr(audit_archive, "RECORDS_AT_A_TIME", 2)
    records = [make.audit_log(tier="general", occurred_at=NOW - timedelta(days=400 - n)) for n in range(6)]
    real = clients.client
    faulty = Faulty(real("s3"), operation, at=2)
    invocation = Invocation()
    monkeypatch.setattr(clients, "client", lambda service: faulty if service == "s3" else real(service))
    with pytest.raises(JobFailed, match="ServiceUnavailable"):
        perform(handler, invocation=invocation)
    assert left() == {record.id for record in records[2:]}
    monkeypatch.setattr(clients, "client", real)
    result = perform(handler, invocation=invocation).result
    assert left() == set()
    assert archive.ids() == _ids(records)
    assert (result["archived"]["general"], result["deleted"]["general"]) == (6, 6)


# Many records, and at any time


@pytest.fixture
def few_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(audit_archive, "RECORDS_AT_A_TIME", 3)


@pytest.mark.usefixtures("few_at_a_time")
def test_records_of_the_same_moment_are_all_found(make: Make, clean: Clean, left: Left, archive: Archive) -> None:
    moment = NOW - timedelta(days=400)
    records = [make.audit_log(tier="general", occurred_at=moment) for _ in range(8)]
    kept = [make.audit_log(tier="student", occurred_at=moment) for _ in range(8)]
    clean()
    assert left() == {record.id for record in kept}
    assert archive.ids() == _ids([*records, *kept])
    clean(NOW + timedelta(days=800))
    assert left() == set()


@pytest.mark.usefixtures("few_at_a_time")
def test_no_more_is_deleted_at_a_time_than_a_batch(make: Make, clean: Clean, left: Left, database: Database) -> None:
    for _ in range(8):
        make.audit_log(tier="general", occurred_at=NOW - timedelta(days=400))
    sizes: list[int] = []

    def note(_connection: object, cursor: Any, statement: str, *_: object) -> None:
        if "DELETE FROM platform.audit_logs" in statement and cursor.rowcount:
            sizes.append(cursor.rowcount)

    event.listen(database.engine, "after_cursor_execute", note)
    clean()
    assert left() == set()
    assert sizes == [3, 3, 2]


def test_long_records_are_archived_in_smaller_objects(
    make: Make, clean: Clean, archive: Archive, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(audit_archive, "BYTES_AT_A_TIME", 5_000)
    records = [
        make.audit_log(
            tier="financial", occurred_at=datetime(2024, 6, 1, n, tzinfo=UTC), details={"text": "x" * length}
        )
        for n, length in enumerate([1_000, 9_000, 1_000, 1_000, 1_000, 4_000])
    ]
    clean()
    assert archive.ids() == _ids(records)
    assert sorted(len(archive.records(key)) for key in archive.objects()) == [
        2,
        4,
    ]  # the one that passes the limit goes too


def test_a_record_written_meanwhile_is_not_deleted_with_the_others(
    make: Make, clean: Clean, left: Left, archive: Archive, monkeypatch: pytest.MonkeyPatch
) -> None:
    moment = NOW - timedelta(days=400)
    for hours in (0, 2):
        make.audit_log(tier="general", occurred_at=moment + timedelta(hours=hours))
    late: list[Row[Any]] = []

    def put(*arguments: Any) -> str:
        if not late:
            late.append(make.audit_log(tier="general", occurred_at=moment + timedelta(hours=1)))
        return original(*arguments)

    original = audit_archive.put
    monkeypatch.setattr(audit_archive, "put", put)
    clean()
    assert left() == {late[0].id}
    clean()
    assert left() == set()
    assert str(late[0].id) in archive.ids()


def test_the_archive_is_never_called_in_a_transaction(
    make: Make, clean: Clean, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    for tier in ("general", "student", "financial", "marketing"):
        make.audit_log(tier=tier, occurred_at=NOW - timedelta(days=3000))
    make.audit_log(tier="student", occurred_at=NOW - timedelta(days=500))
    open_at_calls: list[int] = []
    real = clients.client

    class Watched:
        def __getattr__(self, operation: str) -> Any:
            open_at_calls.append(database.engine.pool.checkedout())  # type: ignore[attr-defined]
            return getattr(real("s3"), operation)

    monkeypatch.setattr(clients, "client", lambda service: Watched() if service == "s3" else real(service))
    clean()
    clean(NOW + timedelta(days=800))
    assert len(open_at_calls) >= 10
    assert set(open_at_calls) == {0}


@pytest.mark.usefixtures("few_at_a_time")
def test_a_second_run_changes_nothing(make: Make, clean: Clean, database: Database, archive: Archive) -> None:
    _one_of_each_kind(make)
    clean()
    before, keys = _rows(database), archive.objects()
    result = clean().result
    assert (_rows(database), archive.objects()) == (before, keys)
    assert sum([*result["archived"].values(), *result["deleted"].values()]) == 0


@pytest.mark.usefixtures("few_at_a_time")
def test_a_dry_run_says_what_a_run_does_and_touches_nothing(
    make: Make, clean: Clean, database: Database, archive: Archive
) -> None:
    _one_of_each_kind(make)
    before = _rows(database)
    foreseen = clean(dry_run=True)
    assert foreseen.answer["dry_run"] is True
    assert _rows(database) == before
    assert archive.objects() == []
    assert clean().result == foreseen.result
    assert min(foreseen.result["archived"].values()) > 0
    assert min(foreseen.result["deleted"].values()) > 0


@pytest.mark.usefixtures("few_at_a_time")
def test_a_run_that_is_out_of_time_goes_on_in_another_invocation(
    make: Make, perform: Performer, left: Left, archive: Archive
) -> None:
    records = [make.audit_log(tier="general", occurred_at=NOW - timedelta(days=400 - n)) for n in range(8)]
    minutes = iter([15] * 12 + [0.5] * 1_000)
    cut_short = perform(handler, invocation=Invocation(remaining=lambda: timedelta(minutes=next(minutes))))
    assert cut_short.status == "continued"
    assert 0 < len(left()) < 8
    goes_on = perform(handler, event={"run_id": cut_short.answer["run_id"]})
    assert goes_on.status == "completed"
    assert left() == set()
    assert archive.ids() == _ids(records)
    assert (goes_on.result["archived"]["general"], goes_on.result["deleted"]["general"]) == (8, 8)


def test_a_crash_anywhere_is_put_right_by_the_next_try(
    make: Make, perform: Performer, database: Database, archive: Archive, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(audit_archive, "RECORDS_AT_A_TIME", 2)
    monkeypatch.setattr(
        audit_archive, "TIERS", [tier for tier in audit_archive.TIERS if tier.name in ("student", "fallback")]
    )
    for age in (1090, 1091, 1092):  # of a student: archived now, and due in a month
        make.audit_log(tier="student", occurred_at=NOW - timedelta(days=age))
    perform(handler)
    for age in (400, 1091, 3000):
        make.audit_log(tier="student", occurred_at=NOW - timedelta(days=age))
    for age in (200, 400):
        make.audit_log(tier="marketing", occurred_at=NOW - timedelta(days=age))
    kept = set(archive.objects())
    invocation = Invocation()
    month_later = NOW + timedelta(days=30)

    def reset() -> None:
        for key in set(archive.objects()) - kept:
            _delete(archive, key)

    points = assert_crash_safe(
        database,
        Crashing(
            run=lambda: perform(handler, now=month_later, invocation=invocation),
            recover=lambda: perform(handler, now=month_later, invocation=invocation),
            outside=lambda: {key: archive.body(key) for key in archive.objects()},
            reset_outside=reset,
        ),
    )
    assert {"before s3.put_object", "after s3.put_object", "before s3.get_object", "after s3.get_object"} <= set(points)


def test_a_time_without_end_does_not_stop_the_run(make: Make, clean: Clean, left: Left, database: Database) -> None:
    with database.transaction() as connection:
        connection.execute(
            text("INSERT INTO platform.audit_logs (tier, action, occurred_at) VALUES ('general', 'odd', '-infinity')")
        )
    make.audit_log(tier="general", occurred_at=NOW - timedelta(days=400))
    assert clean().result["unverified"] == 0
    assert len(left()) == 1


def test_a_missing_bucket_fails_the_run_and_deletes_nothing(
    make: Make, clean: Clean, left: Left, archive: Archive
) -> None:
    record = make.audit_log(tier="general", occurred_at=NOW - timedelta(days=400))
    archive.s3.delete_bucket(Bucket=archive.bucket)
    with pytest.raises(JobFailed, match="NoSuchBucket"):
        clean()
    assert left() == {record.id}


def test_what_the_schedule_sends_runs_once(make: Make, perform: Performer, left: Left) -> None:
    make.audit_log(tier="general", occurred_at=NOW - timedelta(days=400))
    event: Mapping[str, Any] = {"scheduled_for": "2026-03-01T02:00:00Z"}
    assert perform(handler, event=event).status == "completed"
    assert left() == set()
    assert perform(handler, event=event).status == "skipped"


def _one_of_each_kind(make: Make) -> None:
    for tier in ("general", "student", "financial", "marketing", "import"):
        for age in (10, 200, 364, 366, 800, 1100, 2560):
            make.audit_log(tier=tier, occurred_at=NOW - timedelta(days=age))
    make.audit_log(tier="student", occurred_at=NOW - timedelta(days=500), archived_to="audit/none")


def _rows(database: Database) -> dict[str, Any]:
    return {name: rows for name, rows in contents(database).items() if name != "platform.job_runs"}
