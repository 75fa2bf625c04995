"""The function that migrates: for CloudFormation, which waits for an answer, and for an operator."""

import json
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, HTTPServer
from threading import Thread
from typing import Any

import pytest
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError

from functions.platform.migrate import app
from local.postgres import Postgres
from schoolbell.database import Database
from schoolbell.database.migrations import VERSIONS
from schoolbell.jobs.outcomes import InvalidEvent
from schoolbell.jobs.runtime import Runtime, install
from schoolbell.settings import Settings
from tests.fixtures.database import open_database

HEAD = max(path.name for path in VERSIONS.glob("*.py"))[:4]
A_PORT_WITH_NO_SERVER = "127.0.0.1:1"


class Invocation:
    """What Lambda says of an invocation."""

    aws_request_id = "4f7f2ef1-6f0b-4f5a-9a8b-7a3e35a8d9d1"
    invoked_function_arn = "arn:aws:lambda:us-east-1:000000000000:function:schoolbell-platform-migrate"

    def get_remaining_time_in_millis(self) -> int:
        return 60_000


class CloudFormation:
    """Where CloudFormation waits for a custom resource's answer; refuses as many answers as it is told to."""

    def __init__(self) -> None:
        self.answers: list[dict[str, Any]] = []
        self.content_types: list[str | None] = []
        self.refusals = 0
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_PUT(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                if outer.refusals:
                    outer.refusals -= 1
                    self.send_error(503)
                    return
                outer.answers.append(json.loads(body))
                outer.content_types.append(self.headers["Content-Type"])
                self.send_response(200)
                self.end_headers()

            def log_message(self, format: str, *args: Any) -> None:
                pass

        self._server = HTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_port}/answer?X-Amz-Signature=abc"
        self._thread = Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.01})
        self._thread.start()

    def request(self, kind: str, **more: str) -> dict[str, Any]:
        return {
            "RequestType": kind,
            "ResponseURL": self.url,
            "StackId": "arn:aws:cloudformation:us-east-1:000000000000:stack/schoolbell/1",
            "RequestId": "r-1",
            "ResourceType": "Custom::Migration",
            "LogicalResourceId": "Migration",
            "ServiceToken": Invocation.invoked_function_arn,
            "ResourceProperties": {"ServiceToken": Invocation.invoked_function_arn, "Code": "layer:7"},
            **more,
        }

    def stop(self) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()


@pytest.fixture
def cloudformation() -> Iterator[CloudFormation]:
    waiting = CloudFormation()
    yield waiting
    waiting.stop()


@pytest.fixture
def fresh(postgres: Postgres) -> Iterator[Database]:
    """A database with nothing in it, as the one that the function finds."""
    administrator = open_database(postgres.url("postgres"))
    engine = administrator.engine.execution_options(isolation_level="AUTOCOMMIT")
    with engine.connect() as connection:
        connection.execute(text("CREATE DATABASE fresh"))
    database = open_database(postgres.url("fresh"))
    install(Runtime(database=database, settings=Settings(), clock=lambda: datetime.now(UTC)))
    yield database
    install(None)
    database.close()
    with engine.connect() as connection:
        connection.execute(text("DROP DATABASE fresh WITH (FORCE)"))
    administrator.close()


@pytest.fixture
def unreachable() -> Iterator[None]:
    """A database that is away."""
    database = open_database(f"postgresql://somebody:secret@{A_PORT_WITH_NO_SERVER}/schoolbell?sslmode=disable")
    install(Runtime(database=database, settings=Settings(), clock=lambda: datetime.now(UTC)))
    yield
    install(None)


@pytest.fixture(autouse=True)
def without_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(app, "ANSWER_PAUSE", timedelta(0))


def tables(database: Database) -> int:
    with database.transaction() as connection:
        return int(
            connection.scalar(text("SELECT count(*) FROM information_schema.tables WHERE table_schema = 'tutoring'"))
            or 0
        )


def test_by_hand_it_tells_which_revisions_it_went_between(fresh: Database) -> None:
    assert app.handler({}, Invocation()) == {"from": None, "to": HEAD}
    assert app.handler({}, Invocation()) == {"from": HEAD, "to": HEAD}
    assert tables(fresh) > 0


@pytest.mark.parametrize("kind", ["Create", "Update"])
def test_a_deployment_migrates_and_is_told_so(fresh: Database, cloudformation: CloudFormation, kind: str) -> None:
    app.handler(cloudformation.request(kind), Invocation())
    assert tables(fresh) > 0
    assert cloudformation.answers == [
        {
            "Status": "SUCCESS",
            "StackId": "arn:aws:cloudformation:us-east-1:000000000000:stack/schoolbell/1",
            "RequestId": "r-1",
            "LogicalResourceId": "Migration",
            "PhysicalResourceId": "platform.migrate",
            "Data": {"from": None, "to": HEAD},
        }
    ]


def test_the_answer_has_an_empty_content_type_as_it_was_signed(fresh: Database, cloudformation: CloudFormation) -> None:
    app.handler(cloudformation.request("Create"), Invocation())
    assert cloudformation.content_types == [""]


def test_an_update_keeps_the_resource(fresh: Database, cloudformation: CloudFormation) -> None:
    app.handler(cloudformation.request("Update", PhysicalResourceId="as-it-was"), Invocation())
    assert cloudformation.answers[0]["PhysicalResourceId"] == "as-it-was"


def test_deleting_the_stack_leaves_the_database_alone(fresh: Database, cloudformation: CloudFormation) -> None:
    app.handler({}, Invocation())
    before = tables(fresh)
    app.handler(cloudformation.request("Delete", PhysicalResourceId="platform.migrate"), Invocation())
    assert cloudformation.answers[0]["Status"] == "SUCCESS"
    assert tables(fresh) == before


@pytest.mark.usefixtures("unreachable")
def test_a_stack_can_be_deleted_when_the_database_is_gone(cloudformation: CloudFormation) -> None:
    app.handler(cloudformation.request("Delete"), Invocation())
    assert cloudformation.answers[0]["Status"] == "SUCCESS"


@pytest.mark.usefixtures("unreachable")
def test_a_deployment_without_a_database_fails_with_the_reason_and_no_secret(cloudformation: CloudFormation) -> None:
    app.handler(cloudformation.request("Create"), Invocation())
    (answer,) = cloudformation.answers
    assert answer["Status"] == "FAILED"
    assert "can't reach the database" in answer["Reason"]
    assert "secret" not in answer["Reason"]
    assert "\n" not in answer["Reason"]


@pytest.mark.usefixtures("unreachable")
def test_by_hand_a_failure_is_raised() -> None:
    with pytest.raises(DBAPIError, match="can't reach the database"):
        app.handler({}, Invocation())


def test_an_answer_that_is_refused_is_sent_again(fresh: Database, cloudformation: CloudFormation) -> None:
    cloudformation.refusals = 2
    app.handler(cloudformation.request("Create"), Invocation())
    assert [answer["Status"] for answer in cloudformation.answers] == ["SUCCESS"]


def test_an_answer_that_cannot_be_sent_fails_the_invocation(fresh: Database, cloudformation: CloudFormation) -> None:
    cloudformation.refusals = 99
    with pytest.raises(OSError, match="503"):
        app.handler(cloudformation.request("Create"), Invocation())


@pytest.mark.parametrize(
    ("event", "complaint"),
    [
        ({"tables": "all"}, "tables: Extra inputs are not permitted"),
        ([], "valid dictionary"),
        ("migrate", "valid dictionary"),
        ({"RequestType": "Drop"}, "RequestType: Input should be 'Create', 'Update' or 'Delete'"),
        ({"RequestType": "Create", "ResponseURL": "file:///etc/passwd"}, "ResponseURL: String should match"),
    ],
)
def test_an_event_that_nobody_sends_is_refused_in_one_line(fresh: Database, event: Any, complaint: str) -> None:
    with pytest.raises(InvalidEvent, match=complaint) as refused:
        app.handler(event, Invocation())
    assert "\n" not in str(refused.value)
    assert tables(fresh) == 0
