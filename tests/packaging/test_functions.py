"""Each function works as it was built: from its artifact and its layers alone, it answers its event file."""

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final

import pytest

from local.emulator import ACCESS_KEY, REGION, SECRET_KEY, client, endpoint, start_emulator
from local.home import CHECKOUT, Home
from local.processes import free_port, stop
from schoolbell.database import Database, DatabaseAddress
from tests.packaging.functions import BuiltFunction, built_functions, imports_missing, started
from tests.packaging.runtime_api import FunctionError
from tests.template.bundle import bundle

ACCOUNT: Final = "000000000000"
NOBODY: Final = "http://127.0.0.1:9"  # nobody listens there: no function may need Google to answer its event

each_function = pytest.mark.parametrize("function", built_functions(), ids=str)


@pytest.fixture(scope="session")
def surroundings(migrated: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    """The environment of functions that run against an emulator with the resources of the templates, and a database."""
    port = free_port()
    process = start_emulator(Home(tmp_path_factory.mktemp("emulator")), port, enforce_iam=False)
    try:
        secret = client("secretsmanager", port).create_secret(Name="database", SecretString=_secret(migrated))
        _make_resources(port)
        yield {
            "AWS_ENDPOINT_URL": endpoint(port),
            "AWS_REGION": REGION,
            "AWS_DEFAULT_REGION": REGION,
            "AWS_ACCESS_KEY_ID": ACCESS_KEY,
            "AWS_SECRET_ACCESS_KEY": SECRET_KEY,
            "AWS_ACCOUNT_ID": ACCOUNT,
            "DATABASE_SECRET_ID": secret["ARN"],
            "GOOGLE_CALENDAR_URL": NOBODY,
            "GOOGLE_DRIVE_URL": NOBODY,
            "GOOGLE_TOKEN_URL": NOBODY,
        }
    finally:
        stop(process)


def _secret(url: str) -> str:
    address = DatabaseAddress.from_url(url)
    return json.dumps({**address.model_dump(mode="json"), "password": address.password.get_secret_value()})


def _make_resources(port: int) -> None:
    """Makes what functions call, with the names and keys that the templates give them."""
    for template in bundle().templates.values():
        for _, queue in template.of_type("AWS::SQS::Queue"):
            client("sqs", port).create_queue(QueueName=queue["QueueName"])
        for _, topic in template.of_type("AWS::SNS::Topic"):
            client("sns", port).create_topic(Name=topic["TopicName"])
        for _, table in template.of_type("AWS::DynamoDB::Table"):
            keys = {key: table[key] for key in ("TableName", "AttributeDefinitions", "KeySchema", "BillingMode")}
            client("dynamodb", port).create_table(**keys)
        for _, group in template.of_type("AWS::Scheduler::ScheduleGroup"):
            client("scheduler", port).create_schedule_group(Name=group["Name"])
        for name, _ in template.of_type("AWS::S3::Bucket"):
            client("s3", port).create_bucket(Bucket=name.lower())
        for _, machine in template.of_type("AWS::StepFunctions::StateMachine"):
            definition = json.dumps({"StartAt": "End", "States": {"End": {"Type": "Succeed"}}})
            role = f"arn:aws:iam::{ACCOUNT}:role/machine"
            client("stepfunctions", port).create_state_machine(
                name=machine["StateMachineName"], definition=definition, roleArn=role
            )


def event_of(function: BuiltFunction) -> Any:
    """The event file of a function."""
    path = CHECKOUT / "events" / function.job.domain / f"{function.job.folder}.json"
    return json.loads(path.read_text())


@each_function
def test_function_answers_its_event(
    function: BuiltFunction, surroundings: Mapping[str, str], database: Database
) -> None:
    event = event_of(function)
    with started(function, surroundings) as running:
        answers = [running.invoke(event), running.invoke(event)]  # in one execution environment, as on AWS
    for answer in answers:
        assert isinstance(answer, dict), running.log
        if bundle().queues(function.job):
            assert answer == {"batchItemFailures": []}
    if event.keys() & {"scheduled_for", "detail-type", "dry_run"}:
        assert answers[0]["status"] == "completed"


@each_function
def test_everything_a_function_may_import_is_there(function: BuiltFunction) -> None:
    """What is imported late, in a branch that the event does not reach, is there too."""
    assert imports_missing(function.path) == []


def test_import_that_is_missing_is_noticed(tmp_path: Path) -> None:
    package = tmp_path / "schoolbell"
    package.mkdir()
    (package / "__init__.py").touch()
    (package / "late.py").write_text("def late():\n    import no_such_package.module\n")
    job = tmp_path / "job"
    job.mkdir()
    (job / "app.py").write_text("if False:\n    from schoolbell import late\n    from .second import anything\n")
    (job / "second.py").write_text("from . import app\nfrom .third import anything\n")
    assert imports_missing([tmp_path]) == ["job.third", "no_such_package.module"]


def test_harness_notices_a_layer_that_is_missing(surroundings: Mapping[str, str]) -> None:
    function = built_functions()[0]
    without_runtime = [path for path in function.path if "RuntimeLayer" not in path.parts]
    with (
        started(function, surroundings, path=without_runtime) as running,
        pytest.raises(FunctionError, match="No module named"),
    ):
        running.invoke({})
