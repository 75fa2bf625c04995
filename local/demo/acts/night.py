"""What runs by itself at night and every hour: files, usage, alerts and the audit log."""

import gzip
import json
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from typing import Any, Final

from local.demo.display import Act
from local.demo.running import Running, array, count
from local.generator import Term

TITLE: Final = "The night's and the hour's other jobs"
TRASHED: Final = 3
DELETED: Final = 2

_COPIES = """
SELECT copy.id, copy.copied_file_id FROM tutoring.drive_file_copies AS copy
JOIN tutoring.drive_resources AS resource ON resource.id = copy.resource_id
WHERE copy.status = 'copied' AND copy.verified_at < now() - interval '1 hour'
  AND EXISTS (SELECT FROM tutoring.calendar_connections WHERE teacher_id = resource.teacher_id AND status = 'active')
ORDER BY copy.id
"""
_LOOKED_AT = (
    "SELECT count(*) FROM tutoring.drive_file_copies WHERE id = ANY (cast(:ids AS uuid[])) AND verified_at > :at"
)
_STATUSES = (
    "SELECT status, count(*) FROM tutoring.drive_file_copies WHERE id = ANY (cast(:ids AS uuid[])) GROUP BY status"
)
_VIEWS = """
SELECT count(*) FROM tutoring.content_events
WHERE kind = 'view' AND occurred_at > now() - interval '30 days' AND occurred_at <= now()
"""
_CACHED = "SELECT sum(views) FROM tutoring.content_analytics_cache WHERE window_days = 30"
_BREACHED = "SELECT count(*) FROM tutoring.metric_alert_states WHERE breached"
_ALERTS = "SELECT count(*) FROM tutoring.teacher_notifications WHERE kind = 'metric_alert'"
_TO_ARCHIVE = """
SELECT id FROM platform.audit_logs
WHERE tier IN ('financial', 'student', 'general') AND occurred_at < now() - interval '12 months'
"""
_TOO_OLD = """
SELECT count(*) FROM platform.audit_logs WHERE occurred_at < now() - CASE tier
    WHEN 'financial' THEN interval '84 months' WHEN 'student' THEN interval '36 months'
    WHEN 'general' THEN interval '12 months' ELSE interval '6 months' END
"""


def perform(act: Act, running: Running, term: Term) -> None:  # noqa: ARG001 - all acts are called alike
    """Ring each as its schedule or rule does."""
    verify_files(act, running)
    count_usage(act, running)
    alert(act, running)
    clean_audit(act, running)


def verify_files(act: Act, running: Running) -> None:
    """drive-sync asks for a look at each teacher's files, behind whose back some were thrown away."""
    copies = running.rows(_COPIES)
    ids = array(copy.id for copy in copies)
    for copy in copies[:TRASHED]:
        running.google("PATCH", f"files/{copy.copied_file_id}", {"trashed": True})
    for copy in copies[TRASHED : TRASHED + DELETED]:
        running.google("DELETE", f"files/{copy.copied_file_id}")
    began = datetime.now(UTC)
    answer = running.invoke("tutoring.drive-sync", {"scheduled_for": f"{began.replace(hour=3):%Y-%m-%dT%H:00:00Z}"})
    teachers = answer["result"]["teachers"]

    def look() -> bool:
        done = running.number(_LOOKED_AT, ids=ids, at=began)
        act.at(done, len(copies), "copies")
        return done == len(copies)

    running.until(look, "all copies to be looked at", seconds=180)
    act.progress = None
    found = dict(map(tuple, running.rows(_STATUSES, ids=ids)))
    act.say(
        f"drive-sync: {len(copies)} copies of {count(teachers, 'teacher')} looked at; "
        f"{found.get('trashed', 0)} are in the trash, {found.get('deleted', 0)} are gone"
    )
    act.check("copies found in the trash", TRASHED, found.get("trashed", 0))
    act.check("copies found deleted", DELETED, found.get("deleted", 0))


def count_usage(act: Act, running: Running) -> None:
    """content-analytics: the views of the last 30 days, against a plain count."""
    views = running.number(_VIEWS)
    result = running.ring("tutoring.content-analytics")["result"]
    act.say(f"content-analytics: the usage of {count(result['items'], 'item')} over 7, 30 and 90 days")
    act.check("views of material in 30 days", views, running.number(_CACHED))


def alert(act: Act, running: Running) -> None:
    """metric-alerts: figures that crossed their line, told once."""
    result = running.ring("tutoring.metric-alerts")["result"]
    running.pause(1)  # a second has one run
    again = running.ring("tutoring.metric-alerts").get("result") or {}
    act.say(
        f"metric-alerts: {count(result['rules'], 'rule')}, {result['fired']} of them crossed; "
        f"an hour later {again.get('fired', 0)} more"
    )
    act.check("alerts, one a crossed rule", running.number(_BREACHED), running.number(_ALERTS))


def clean_audit(act: Act, running: Running) -> None:
    """audit-cleanup: what is over a year old goes to S3, what is too old for its tier goes."""
    old = {str(record.id) for record in running.rows(_TO_ARCHIVE)}
    due = running.number(_TOO_OLD)
    first = datetime.now(UTC).replace(day=1, hour=2)
    result = running.invoke("platform.audit-cleanup", {"scheduled_for": f"{first:%Y-%m-%dT%H:00:00Z}"})["result"]
    archived, deleted = sum(result["archived"].values()), sum(result["deleted"].values())
    act.say(f"audit-cleanup: {count(archived, 'record')} archived in S3, {deleted} deleted from the database")
    act.check("audit records archived in S3", len(old), len(old & archive(running)))
    act.check("audit records deleted", due, deleted)
    act.check("of those too old, left", 0, running.number(_TOO_OLD))


def archive(running: Running) -> set[str]:
    """The ids of all records in the archive."""
    outputs = running.client("cloudformation").describe_stacks(StackName=running.stack)["Stacks"][0]["Outputs"]
    bucket = next(output["OutputValue"] for output in outputs if output["OutputKey"] == "ArchiveBucket")
    s3 = running.client("s3")
    pages = s3.get_paginator("list_objects_v2").paginate(Bucket=bucket)
    keys = [found["Key"] for page in pages for found in page.get("Contents", [])]

    def read(key: str) -> set[str]:
        lines = gzip.decompress(s3.get_object(Bucket=bucket, Key=key)["Body"].read()).splitlines()
        records: list[dict[str, Any]] = [json.loads(line) for line in lines]
        return {str(record["id"]) for record in records}

    with ThreadPoolExecutor(8) as readers:
        return set().union(*readers.map(read, keys))
