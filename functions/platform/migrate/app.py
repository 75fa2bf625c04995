"""Apply the database migrations: in every deployment, as a CloudFormation custom resource, or by hand with `{}`."""

import json
import time
from datetime import timedelta
from http import HTTPStatus
from typing import TYPE_CHECKING, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from schoolbell.jobs.invocation import LambdaContext, remaining_time
from schoolbell.jobs.observability import logger_of
from schoolbell.jobs.outcomes import InvalidEvent, in_one_line
from schoolbell.jobs.runtime import runtime

if TYPE_CHECKING:
    from schoolbell.database.migrations import Upgrade

JOB = "platform.migrate"
ANSWER_ATTEMPTS = 3
ANSWER_PAUSE = timedelta(seconds=1)
ANSWER_TIMEOUT = timedelta(seconds=10)

logger = logger_of(JOB)


class ByHand(BaseModel):
    """An operator's invocation, which takes no data."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class Deployment(BaseModel):
    """CloudFormation's request to a custom resource, as far as it matters here.

    https://docs.aws.amazon.com/AWSCloudFormation/latest/UserGuide/crpg-ref-requests.html
    """

    model_config = ConfigDict(frozen=True, extra="ignore")

    request_type: Literal["Create", "Update", "Delete"] = Field(alias="RequestType")
    response_url: str = Field(alias="ResponseURL", pattern=r"^https?://")
    stack_id: str = Field(alias="StackId")
    request_id: str = Field(alias="RequestId")
    logical_resource_id: str = Field(alias="LogicalResourceId")
    physical_resource_id: str = Field(alias="PhysicalResourceId", default=JOB)


def handler(event: Any, context: LambdaContext) -> dict[str, str | None]:
    """Migrates the database to the newest revision.

    Returns:
        `{"from": ..., "to": ...}`: the revision before and after; null stands for an empty database.

    Raises:
        InvalidEvent: the event is neither `{}` nor a request of CloudFormation.
        Exception: the migration failed, when it was invoked by hand. CloudFormation gets failures as an answer instead.
    """
    match _read(event):
        case ByHand():
            return _outcome(_migrate(context))
        case deployment:
            return _deploy(deployment, context)


def _read(event: Any) -> Deployment | ByHand:
    expected: type[Deployment | ByHand] = Deployment if isinstance(event, dict) and "RequestType" in event else ByHand
    try:
        return expected.model_validate(event)
    except ValidationError as error:
        raise InvalidEvent(in_one_line(error)) from None


def _deploy(deployment: Deployment, context: LambdaContext) -> dict[str, str | None]:
    if deployment.request_type == "Delete":  # the stack goes; the database and what it holds stay
        _answer(deployment, {"Status": "SUCCESS"})
        return {}
    try:
        outcome = _outcome(_migrate(context))
    except Exception as error:
        logger.exception("migration failed")
        _answer(deployment, {"Status": "FAILED", "Reason": in_one_line(error)})
        return {}
    _answer(deployment, {"Status": "SUCCESS", "Data": outcome})
    return outcome


def _migrate(context: LambdaContext) -> "Upgrade":
    from schoolbell.database.migrations import upgrade  # with Alembic, which no deletion of the stack needs

    with runtime(remaining_time(context)).database.engine.connect() as connection:
        migrated = upgrade(connection)
    logger.info("migrated", extra={"before": migrated.before, "after": migrated.after})
    return migrated


def _outcome(migrated: "Upgrade") -> dict[str, str | None]:
    return {"from": migrated.before, "to": migrated.after}


def _answer(deployment: Deployment, outcome: dict[str, Any]) -> None:
    """Tells CloudFormation, which else waits an hour, what became of its request.

    Raises:
        OSError: it could not be reached; Lambda then tries the whole invocation again, which is harmless.
    """
    from http.client import HTTPException  # who invokes it by hand gets no answer of this kind
    from urllib.request import Request, urlopen

    body = json.dumps(
        {
            "StackId": deployment.stack_id,
            "RequestId": deployment.request_id,
            "LogicalResourceId": deployment.logical_resource_id,
            "PhysicalResourceId": deployment.physical_resource_id,
        }
        | outcome
    ).encode()
    # The address is signed for a request with an empty content type; urllib would send one of its own.
    request = Request(deployment.response_url, body, {"Content-Type": ""}, method="PUT")  # noqa: S310 - see the model
    for attempt in range(1, ANSWER_ATTEMPTS + 1):
        try:
            with urlopen(request, timeout=ANSWER_TIMEOUT.total_seconds()) as response:  # noqa: S310
                logger.info("answered", extra={"status": outcome["Status"], "code": HTTPStatus(response.status)})
            return
        except (OSError, HTTPException) as error:
            logger.warning("no answer went out", extra={"attempt": attempt, "error": type(error).__name__})
            if attempt == ANSWER_ATTEMPTS:
                raise
            time.sleep(ANSWER_PAUSE.total_seconds() * attempt)
