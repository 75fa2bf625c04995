"""The archive of audit records: which tier is kept how long, and the steps that archive, verify and delete records."""

import base64
import gzip
import hashlib
import io
import re
from calendar import monthrange
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, Delete, Row, TextClause, bindparam, delete, text
from sqlalchemy.dialects.postgresql import JSONB

from schoolbell import aws
from schoolbell.domains.platform.tables.audit import audit_logs
from schoolbell.jobs import Chunk, Cursor, JobContext

YEAR = 12  # months
ARCHIVE_AFTER = YEAR  # source 004: archiveOldLogs(365)

RECORDS_AT_A_TIME = 20_000
BYTES_AT_A_TIME = 16_000_000  # fewer records where they are long, so that memory stays flat whatever they hold
OBJECTS_AT_A_TIME = 8
FASTEST = 1  # of gzip's levels: half the time of its usual one, for a tenth more bytes


@dataclass(frozen=True, slots=True)
class Tier:
    """Audit records that are kept equally long."""

    name: str
    months: int
    records: str
    """Which they are, in SQL, to the letter as the indexes of the table say it."""


# Source 000: financial 7 years, student 3 years, general 1 year, fallback 6 months.
TIERS = (
    Tier("financial", 7 * YEAR, "tier = 'financial'"),
    Tier("student", 3 * YEAR, "tier = 'student'"),
    Tier("general", YEAR, "tier = 'general'"),
    Tier("fallback", 6, "tier NOT IN ('financial', 'student', 'general')"),
)


def before(job: JobContext, months: int) -> datetime:
    """Records from before this are older than so many months."""
    return months_before(job.now, months)


def months_before(moment: datetime, months: int) -> datetime:
    """The same day and time some calendar months earlier, or that month's last day if it is too short.

    >>> str(months_before(datetime(2024, 2, 29, 2, 0), 12))
    '2023-02-28 02:00:00'
    """
    year, month = divmod(moment.year * 12 + moment.month - 1 - months, 12)
    return moment.replace(year=year, month=month + 1, day=min(moment.day, monthrange(year, month + 1)[1]))


def counted(job: JobContext, connection: Connection, tier: Tier) -> Row[Any]:
    """How many records a run would archive and delete."""
    limits = {"before": before(job, ARCHIVE_AFTER), "due": before(job, tier.months)}
    return connection.execute(_of(tier, _COUNT), limits).one()


# What becomes of the records, some at a time: first outside a transaction, then in one


@dataclass(frozen=True, slots=True)
class Archive:
    """Some of the records of one archive object."""

    key: str
    ids: str
    """Their ids, with commas between."""
    is_intact: bool


@dataclass(frozen=True, slots=True)
class Some:
    """Records that are dealt with together."""

    intact: Sequence[Archive]
    broken: Sequence[Archive]
    first_at: str
    """None of them is older."""
    last: Cursor
    """Where the next ones start."""


type Prepare = Callable[[Cursor], Some | None]
type Settle = Callable[[Connection, Some | None], Chunk | None]


def archive_some(job: JobContext, tier: Tier) -> Prepare:
    """Puts the next records into the archive, an object a month, and reads back those that can be deleted at once."""
    unarchived = _of(tier, _UNARCHIVED)

    def store(month: Row[Any]) -> Archive:
        key = put(job, tier, month)
        return Archive(key, month.ids, not month.is_due or is_intact(job, key))

    def prepare(cursor: Cursor) -> Some | None:
        limits = {
            "before": before(job, ARCHIVE_AFTER),
            "due": before(job, tier.months),
            "records": RECORDS_AT_A_TIME,
            "bytes": BYTES_AT_A_TIME,
        }
        with job.transaction() as connection:
            months = connection.execute(unarchived, {**limits, **(cursor or START)}).all()
        return _some(job, store, months, cursor)

    return prepare


def mark_or_delete(job: JobContext, tier: Tier) -> Settle:
    """Of the records just archived, deletes those that are due and marks the others."""
    delete_new, mark = _changer(tier, _DELETE_NEW), _changer(tier, _MARK)

    def settle(connection: Connection, some: Some | None) -> Chunk | None:
        if some is None:
            return None
        deleted = delete_new(connection, some, some.intact, due=before(job, tier.months))
        archived = deleted + mark(connection, some, some.intact, now=job.now)
        unverified = sum(archive.ids.count(",") + 1 for archive in some.broken)
        return Chunk(some.last, archived, {"archived": archived, "deleted": deleted, "unverified": unverified})

    return settle


def verify_some(job: JobContext, tier: Tier) -> Prepare:
    """Reads back the archive objects of the next archived records that are due."""
    archived = _of(tier, _ARCHIVED)

    def verify(archive: Row[Any]) -> Archive:
        return Archive(archive.key, archive.ids, is_intact(job, archive.key))

    def prepare(cursor: Cursor) -> Some | None:
        limits = {"due": before(job, tier.months), "records": RECORDS_AT_A_TIME}
        with job.transaction() as connection:
            archives = connection.execute(archived, {**limits, **(cursor or START)}).all()
        return _some(job, verify, archives, cursor)

    return prepare


def delete_or_unmark(job: JobContext, tier: Tier) -> Settle:
    """Deletes the records whose archive is intact; the others count as not archived from now on."""
    delete_old, unmark = _changer(tier, _DELETE_OLD), _changer(tier, _UNMARK)

    def settle(connection: Connection, some: Some | None) -> Chunk | None:
        if some is None:
            return None
        deleted = delete_old(connection, some, some.intact, due=before(job, tier.months))
        unverified = unmark(connection, some, some.broken, now=job.now)
        return Chunk(some.last, deleted, {"deleted": deleted, "unverified": unverified})

    return settle


def _some(
    job: JobContext, look_after: Callable[[Row[Any]], Archive], rows: Sequence[Row[Any]], cursor: Cursor
) -> Some | None:
    if not rows:
        return None
    with ThreadPoolExecutor(OBJECTS_AT_A_TIME) as pool:
        archives = list(pool.map(look_after, rows))
    broken = [archive for archive in archives if not archive.is_intact]
    if broken:
        job.logger.error("audit archives are missing or damaged", keys=[archive.key for archive in broken])
    last = {"at": rows[0].last_at, "id": rows[0].last_id}
    intact = [archive for archive in archives if archive.is_intact]
    return Some(intact, broken, (cursor or START)["at"], last)


# The archive

NAME = re.compile(r"audit/[a-z]+/\d{4,}-\d\d/(?P<records>\d+)-(?P<sha256>[0-9a-f]{64})\.jsonl\.gz")


def put(job: JobContext, tier: Tier, month: Row[Any]) -> str:
    """Stores a month's records as an object of gzipped JSON Lines, and returns its key."""
    body = gzip.compress(month.lines.encode() + b"\n", FASTEST, mtime=0)
    digest = hashlib.sha256(body)
    key = f"audit/{tier.name}/{month.month}/{month.records}-{digest.hexdigest()}.jsonl.gz"
    aws.client("s3").put_object(
        Bucket=job.settings.archive_bucket,
        Key=key,
        Body=body,
        ContentType="application/gzip",
        ChecksumSHA256=base64.b64encode(digest.digest()).decode(),  # S3 refuses what arrives otherwise
    )
    return key


def is_intact(job: JobContext, key: str) -> bool:
    """Whether an archive object is there, and has as many records and the SHA-256 that its name says."""
    name = NAME.fullmatch(key)
    body = _read(job.settings.archive_bucket, key) if name else None
    if name is None or body is None or hashlib.sha256(body).hexdigest() != name["sha256"]:
        return False
    with gzip.open(io.BytesIO(body)) as lines:
        return sum(1 for _ in lines) == int(name["records"])


def _read(bucket: str, key: str) -> bytes | None:
    from botocore.exceptions import ClientError, FlexibleChecksumError

    try:
        return bytes(aws.client("s3").get_object(Bucket=bucket, Key=key)["Body"].read())
    except FlexibleChecksumError:  # it is not what S3 was given
        return None
    except ClientError as error:
        if aws.error_code(error) == "NoSuchKey":
            return None
        raise


# The statements

START = {"at": "-infinity", "id": "00000000-0000-0000-0000-000000000000"}


def _of(tier: Tier, statement: str) -> TextClause:
    """A statement for the records of one tier: written out, since an index with a condition matches no parameter."""
    return text(statement.replace("{tier}", tier.records))


_COUNT = """
SELECT count(*) FILTER (WHERE archived_to IS NULL AND occurred_at < :before) AS archived,
       count(*) FILTER (WHERE occurred_at < :due) AS deleted
FROM platform.audit_logs
WHERE {tier} AND isfinite(occurred_at) AND occurred_at < greatest(cast(:before AS timestamptz), :due)
"""

# A row a month. A record that came late, with an old time, is simply not archived yet, and makes an object of its own.
_UNARCHIVED = """
WITH log AS MATERIALIZED (
    SELECT id, tier, action, actor, subject, occurred_at, details, created_at
    FROM platform.audit_logs
    WHERE {tier} AND archived_to IS NULL AND occurred_at < :before
      AND isfinite(occurred_at) AND (occurred_at, id) > (cast(:at AS timestamptz), cast(:id AS uuid))
    ORDER BY occurred_at, id
    LIMIT :records
),
written AS MATERIALIZED (SELECT occurred_at, id, row_to_json(log)::text AS line FROM log),
measured AS (
    SELECT *, sum(octet_length(line)) OVER (ORDER BY occurred_at, id) - octet_length(line) AS bytes_before FROM written
),
taken AS MATERIALIZED (SELECT * FROM measured WHERE bytes_before < :bytes),
last AS (SELECT occurred_at::text AS last_at, id::text AS last_id FROM taken ORDER BY occurred_at DESC, id DESC LIMIT 1)
SELECT to_char(occurred_at AT TIME ZONE 'UTC', 'YYYY-MM') AS month, count(*) AS records,
       string_agg(line, chr(10) ORDER BY occurred_at, id) AS lines, string_agg(id::text, ',') AS ids,
       min(occurred_at) < :due AS is_due, min(last_at) AS last_at, min(last_id) AS last_id
FROM taken CROSS JOIN last
GROUP BY month
"""

# A row an archive object.
_ARCHIVED = """
WITH taken AS MATERIALIZED (
    SELECT id, occurred_at, archived_to
    FROM platform.audit_logs
    WHERE {tier} AND archived_to IS NOT NULL AND occurred_at < :due
      AND isfinite(occurred_at) AND (occurred_at, id) > (cast(:at AS timestamptz), cast(:id AS uuid))
    ORDER BY occurred_at, id
    LIMIT :records
),
last AS (SELECT occurred_at::text AS last_at, id::text AS last_id FROM taken ORDER BY occurred_at DESC, id DESC LIMIT 1)
SELECT archived_to AS key, string_agg(id::text, ',') AS ids, min(last_at) AS last_at, min(last_id) AS last_id
FROM taken CROSS JOIN last
GROUP BY archived_to
"""

# Records are changed by id, since others may have come between them. Tier and time only say where to look.
_GIVEN = """
WITH given AS MATERIALIZED (
    SELECT key, each::uuid AS id
    FROM jsonb_each_text(:archives) AS object (key, ids), string_to_table(ids, ',') AS each
)
"""

_AMONG = """
AND {tier} AND occurred_at BETWEEN cast(:first_at AS timestamptz) AND cast(:last_at AS timestamptz)
"""

_DELETE_NEW = """
DELETE FROM platform.audit_logs AS log USING given
WHERE log.id = given.id AND archived_to IS NULL AND occurred_at < :due
"""

_DELETE_OLD = """
DELETE FROM platform.audit_logs AS log USING given
WHERE log.id = given.id AND archived_to IS NOT NULL AND archived_to = given.key AND occurred_at < :due
"""

_MARK = """
UPDATE platform.audit_logs AS log SET archived_to = given.key, updated_at = :now FROM given
WHERE log.id = given.id AND archived_to IS NULL
"""

_UNMARK = """
UPDATE platform.audit_logs AS log SET archived_to = NULL, updated_at = :now FROM given
WHERE log.id = given.id AND archived_to IS NOT NULL AND archived_to = given.key
"""


def _changer(tier: Tier, statement: str) -> Callable[..., int]:
    """Makes the function that executes a statement on the records of archives, and returns how many it changed."""
    prepared = _of(tier, _GIVEN + statement + _AMONG).bindparams(bindparam("archives", type_=JSONB))

    def change(connection: Connection, some: Some, archives: Sequence[Archive], **values: datetime) -> int:
        given = {archive.key: archive.ids for archive in archives}
        if not given:
            return 0
        among = {"first_at": some.first_at, "last_at": some.last["at"]}
        return connection.execute(prepared, {"archives": given, **among, **values}).rowcount

    return change


def due_before_archived(job: JobContext, tier: Tier) -> Delete:
    """Deletes records whose tier's time is over before they are old enough to be archived."""
    old_enough = audit_logs.c.occurred_at >= before(job, ARCHIVE_AFTER)
    return delete(audit_logs).where(text(tier.records), old_enough, audit_logs.c.occurred_at < before(job, tier.months))
