"""What is there before the first act: a term of lessons, teachers' Google accounts, and nothing of an earlier demo."""

import json
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from datetime import UTC, datetime
from itertools import batched
from typing import Any, Final

from sqlalchemy import text

from local.demo.running import Running, count
from local.generator import Term, load, term
from local.progress import step
from local.tables import empty
from schoolbell.domains.tutoring import schema as tutoring

TEACHERS: Final = 300
STUDENTS: Final = 4_000
SESSIONS: Final = 48_000
HANDS: Final = 8  # calls at once
ONE_SHOTS: Final = ("session-", "message-")


def prepare(running: Running, seed: int) -> Term:
    """Empty the stack, and load a term that is under way right now."""
    with step("Empty") as current:
        removed = clear_services(running)
        with running.database.transaction() as connection:
            empty(connection)
        current.note = f"tables, queues, {removed} of an earlier demo" if removed else "tables and queues"
    with step("Term") as current:
        made = term(seed, TEACHERS, STUDENTS, SESSIONS, datetime.now(UTC), secret_prefix=f"{running.stack}/google/")
        zones = {teacher["timezone"] for teacher in made.rows[tutoring.teachers]}
        current.note = f"{TEACHERS:,} teachers in {len(zones)} zones, {STUDENTS:,} students, {SESSIONS:,} lessons"
    with step("Load") as current:
        rows = sum(load(running.database, made).values())
        with running.database.transaction() as connection:
            connection.execute(text("ANALYZE"))
        current.note = f"{rows:,} rows"
    with step("Google") as current:
        accounts, files = connect_google(running, made)
        current.note = f"{count(accounts, 'connected account')} and {files:,} files in the stand-in"
    return made


def clear_services(running: Running) -> str:
    """Remove messages, one-shots, waiting executions, circuits and budgets; says what there was of the second."""
    sqs, states = running.client("sqs"), running.client("stepfunctions")
    for page in sqs.get_paginator("list_queues").paginate(QueueNamePrefix=f"{running.stack}-"):
        for url in page.get("QueueUrls", []):
            sqs.purge_queue(QueueUrl=url)
    machine = running.names.state_machine_arn("tutoring.waitlist-cascade")
    for execution in states.list_executions(stateMachineArn=machine, statusFilter="RUNNING")["executions"]:
        states.stop_execution(executionArn=execution["executionArn"], cause="the demo begins anew")
    removed = sum(remove_schedules(running, prefix) for prefix in ONE_SHOTS)
    dynamodb, table = running.client("dynamodb"), f"{running.stack}-resilience"
    for page in dynamodb.get_paginator("scan").paginate(TableName=table, ProjectionExpression="id"):
        for item in page["Items"]:
            dynamodb.delete_item(TableName=table, Key=item)
    running.google("POST", "reset")
    return count(removed, "schedule") if removed else ""


def remove_schedules(running: Running, prefix: str) -> int:
    """Delete the one-shots whose names begin so. Returns how many there were."""
    scheduler = running.client("scheduler")

    def remove(name: str) -> None:
        with suppress(scheduler.exceptions.ResourceNotFoundException):  # it went off
            scheduler.delete_schedule(Name=name, GroupName=running.stack)

    removed = 0
    with ThreadPoolExecutor(HANDS) as hands:
        while True:
            found = scheduler.list_schedules(GroupName=running.stack, NamePrefix=prefix, MaxResults=100)["Schedules"]
            list(hands.map(remove, [schedule["Name"] for schedule in found]))
            removed += len(found)
            if not found:
                return removed


def connect_google(running: Running, made: Term) -> tuple[int, int]:
    """Give each connected teacher an account with a token, and the files that the term speaks of."""
    secrets = running.client("secretsmanager")
    account_of = {row["teacher_id"]: row["secret_id"] for row in made.rows[tutoring.calendar_connections]}

    def connect(account: str) -> None:
        token = json.dumps({"client_id": "schoolbell", "client_secret": "-", "refresh_token": account})
        try:
            secrets.create_secret(Name=account, SecretString=token)
        except secrets.exceptions.ResourceExistsException:
            secrets.put_secret_value(SecretId=account, SecretString=token)

    with ThreadPoolExecutor(HANDS) as hands:
        list(hands.map(connect, account_of.values()))
    files = list(files_of(made, account_of))
    for some in batched(files, 500, strict=False):
        running.google("POST", "files", {"files": some})
    return len(account_of), len(files)


def files_of(made: Term, account_of: dict[Any, str]) -> list[dict[str, Any]]:
    """The files of teachers who have connected their account, and the copies that their students have."""
    resources = {row["id"]: row for row in made.rows[tutoring.drive_resources] if row["teacher_id"] in account_of}
    originals = [
        {"id": row["drive_file_id"], "account": account_of[row["teacher_id"]], "name": row["name"]}
        for row in resources.values()
    ]
    copies = [
        {
            "id": row["copied_file_id"],
            "account": account_of[resources[row["resource_id"]]["teacher_id"]],
            "name": resources[row["resource_id"]]["name"],
            "copied_from": resources[row["resource_id"]]["drive_file_id"],
        }
        for row in made.rows[tutoring.drive_file_copies]
        if row["resource_id"] in resources
    ]
    return originals + copies
