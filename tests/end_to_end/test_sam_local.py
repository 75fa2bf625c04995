"""Each function answers its event in a Lambda container, as `sam local` starts it, with the deployed stack behind it.

The containers reach the stack as `make up CONTAINERS=true` has them reach it. A layer that SAM does not find, one for
another processor and an address that a container cannot reach would each fail every test here.
"""

import json
import os
import socket
import subprocess
from collections.abc import Iterator
from datetime import UTC, datetime
from functools import partial
from typing import Any
from uuid import uuid4

import pytest

from local import stack as embedded
from local.bundle import BUILT, LOCAL, architecture
from local.containers import host
from local.emulator.process import ACCESS_KEY, LOOPBACK, REGION, SECRET_KEY, client
from local.home import CHECKOUT, ENVIRONMENTS
from local.processes import ends_with_parent, free_port
from schoolbell.domains.platform.schema import dead_letters
from tests.end_to_end.conftest import NAME, PARAMETERS
from tests.end_to_end.engine import NoEngine, running_engine
from tests.end_to_end.stack import Stack
from tests.end_to_end.test_scheduled_jobs import HTTP, JOBS, MIGRATE, ROUTER, TASKS
from tests.end_to_end.waiting import eventually
from tests.template.bundle import Job

ENGINE = CHECKOUT / ".local" / "docker"
SAM = ENVIRONMENTS / "sam" / "bin" / "sam"
BUNDLE = (
    *("--template", str(BUILT / "template.yaml"), *LOCAL),
    *("--parameter-overrides", f"Architecture={architecture()}"),
)
CLOCKS = ("time", "scheduled_for")  # by which the events of rules and schedules say when they were due
WITHOUT_AWS = {name: value for name, value in os.environ.items() if not name.startswith("AWS_")}
CREDENTIALS = {
    "AWS_ACCESS_KEY_ID": ACCESS_KEY,
    "AWS_SECRET_ACCESS_KEY": SECRET_KEY,
    "AWS_REGION": REGION,
    "AWS_DEFAULT_REGION": REGION,
}


@pytest.fixture(scope="module")
def engine() -> Iterator[dict[str, str]]:
    """The variables with which SAM finds an engine."""
    try:
        with running_engine(ENGINE) as found:
            yield {"SAM_CLI_TELEMETRY": "0", **found}
    except NoEngine as reason:
        pytest.skip(f"no container can be started: {reason}")


@pytest.fixture(scope="module")
def functions(engine: dict[str, str], stack: Stack) -> Iterator[Any]:
    """A client of the functions in containers, as `sam local start-lambda` offers them."""
    with pytest.MonkeyPatch.context() as patch:
        for name, value in engine.items():
            patch.setenv(name, value)
        embedded.up(stack.home, NAME, enforce_iam=True, containers=host("true"), parameters=PARAMETERS)
    port = free_port()
    with (CHECKOUT / ".local" / "start-lambda.log").open("wb") as log:
        server = subprocess.Popen(
            [
                *(SAM, "local", "start-lambda", *BUNDLE),
                *("--env-vars", str(stack.home.variables), "--port", str(port)),
            ],
            env={**WITHOUT_AWS, **CREDENTIALS, **engine},
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            preexec_fn=ends_with_parent(),
        )
    try:
        eventually(partial(_listens, port), "sam local start-lambda to listen")
        yield client("lambda", port)
    finally:
        server.terminate()
        server.wait()


def _listens(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex((LOOPBACK, port)) == 0


def sam_name(job: str) -> str:
    """As `sam local` knows a function, e.g. `Tutoring/CalendarSync`."""
    domain, name = job.split(".")
    return f"{domain.capitalize()}/{Job(domain, name.replace('-', '_')).logical_id}"


def invoke(functions: Any, job: str, event: Any) -> Any:
    """A function's answer."""
    answer = functions.invoke(FunctionName=sam_name(job), Payload=json.dumps(event).encode())
    payload = json.loads(answer["Payload"].read() or b"null")
    assert "FunctionError" not in answer, payload
    return payload


@pytest.mark.parametrize("job", [job for job in JOBS if job not in (*TASKS, *HTTP, MIGRATE)])
def test_function_answers_its_event_in_a_container(functions: Any, stack: Stack, job: str) -> None:
    event = stack.event_of(job)
    if "Records" in event:
        for record in event["Records"]:
            record["messageId"] = str(uuid4())
        assert invoke(functions, job, event) == {"batchItemFailures": []}
        dead = {letter.message_id for letter in stack.rows(dead_letters, job=job)}
        assert job == ROUTER or {record["messageId"] for record in event["Records"]} <= dead
    else:
        answer = eventually(partial(_completed, functions, job, event), f"run of {job} beside those of its clock")
        (run,) = stack.runs(job, id=answer["run_id"])
        assert (run.status, run.dry_run) == ("completed", "dry_run" in event)


def _completed(functions: Any, job: str, event: dict[str, Any]) -> dict[str, Any]:
    """The answer of a run for this moment; empty if one that is under way kept it from its work."""
    now = datetime.now(UTC).isoformat()
    answer: dict[str, Any] = invoke(functions, job, event | {name: now for name in CLOCKS if name in event})
    assert answer["status"] in ("completed", "skipped")
    return answer if answer["status"] == "completed" else {}


@pytest.mark.parametrize("job", [*TASKS, MIGRATE])
def test_function_that_others_call_answers_its_event_in_a_container(functions: Any, stack: Stack, job: str) -> None:
    in_container = invoke(functions, job, stack.event_of(job))
    assert in_container == stack.invoke(job, stack.event_of(job))


def test_the_deployed_functions_reach_the_services_while_containers_do(functions: Any, stack: Stack) -> None:
    """The addresses in the providers' keys are those that both can take."""
    event = stack.event_of(ROUTER)
    for record in event["Records"]:
        record["messageId"] = str(uuid4())
    assert stack.invoke(ROUTER, event) == {"batchItemFailures": []}


@pytest.mark.parametrize(("job", "status"), HTTP.items())
def test_function_of_the_api_answers_its_event_in_a_container(
    functions: Any, stack: Stack, job: str, status: int
) -> None:
    assert invoke(functions, job, stack.event_of(job))["statusCode"] == status


def test_invoked_from_the_command_line_a_function_needs_no_stack(engine: dict[str, str]) -> None:
    event = CHECKOUT / "events" / "platform" / "health.json"
    answer = _sam(engine, "local", "invoke", "Platform/Health", "--event", str(event), *BUNDLE)
    assert json.loads(answer)["statusCode"] == 200


def test_event_that_sam_generates_is_understood(functions: Any, stack: Stack, engine: dict[str, str]) -> None:
    body, queue = r"{\"session_id\": \"6f1c7f7e-3f0a-4a56-9a51-0c1d6d1e5b0a\"}", f"{NAME}-tutoring-auto-complete"
    generated = _sam(engine, "local", "generate-event", "sqs", "receive-message", "--body", body, "--queue-name", queue)
    event = json.loads(generated)
    event["Records"][0]["messageId"] = message = str(uuid4())
    assert invoke(functions, "tutoring.auto-complete", event) == {"batchItemFailures": []}
    (dead,) = stack.rows(dead_letters, message_id=message)
    assert "no session 6f1c7f7e-3f0a-4a56-9a51-0c1d6d1e5b0a" in dead.error


def test_the_stacks_layers_are_found_by_their_arns_as_sam_sync_looks_for_them(stack: Stack) -> None:
    (runtime, schoolbell, *_) = stack.functions.get_function(FunctionName=stack.resource("tutoring.auto-complete"))[
        "Configuration"
    ]["Layers"]
    for version in (runtime["Arn"], schoolbell["Arn"]):
        listed = stack.functions.list_layer_versions(LayerName=version.rpartition(":")[0])["LayerVersions"]
        assert version in [each["LayerVersionArn"] for each in listed]


def _sam(engine: dict[str, str], *arguments: str) -> str:
    """What `sam` answers on its standard output."""
    done = subprocess.run(
        [SAM, *arguments],
        cwd=CHECKOUT,
        env={**WITHOUT_AWS, **engine},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip().splitlines()[-1] if arguments[1] == "invoke" else done.stdout
