"""Which stack the command line works on, and how that ends: the client from the environment, and the exit codes."""

import getpass
import json
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from enum import IntEnum

from pydantic import ValidationError
from rich.console import Console
from rich.markup import escape
from sqlalchemy.exc import DBAPIError

from schoolbell import aws
from schoolbell.database import Database, DatabaseAddress, is_unavailable
from schoolbell.jobs.outcomes import in_one_line
from schoolbell.operations import InvalidExpression, JobClient, NotFound, Refused
from schoolbell.settings import Settings

STATEMENT_TIMEOUT = timedelta(seconds=30)


class Exit(IntEnum):
    """What the command's exit code says."""

    DONE = 0
    FAILED = 1
    """The run that was waited for failed, or the stack is not healthy."""
    USAGE = 2
    NOT_FOUND = 3
    REFUSED = 4
    """What was asked for can't be done, or AWS would reject it."""
    UNREACHABLE = 5
    """AWS or the database does not answer, or does not let this user in."""
    TIMED_OUT = 124
    """`--wait` was longer than `--timeout`; the job goes on."""


@contextmanager
def connected(*, as_json: bool) -> Iterator[JobClient]:
    """The client of the stack that the environment names. An error ends the command with a line and an exit code."""
    database = Database(_find_database, STATEMENT_TIMEOUT)
    try:
        yield JobClient(database, _settings(), actor=os.environ.get("SCHOOLBELL_ACTOR") or getpass.getuser())
    except NotFound as error:
        _fail(Exit.NOT_FOUND, str(error), as_json=as_json)
    except (Refused, InvalidExpression) as error:
        _fail(Exit.REFUSED, str(error), as_json=as_json)
    except SystemExit:
        raise
    except Exception as error:
        reason = _unreachable(error)
        if reason is None:
            raise
        _fail(Exit.UNREACHABLE, reason, as_json=as_json)
    finally:
        database.close()


def _settings() -> Settings:
    found = Settings.model_validate({name.lower(): value for name, value in os.environ.items() if value})
    if "AWS_REGION" not in os.environ:
        import boto3

        region = boto3.Session().region_name
        found = found.model_copy(update={"aws_region": region}) if region else found
        os.environ.setdefault("AWS_DEFAULT_REGION", found.aws_region)
    if "AWS_ACCOUNT_ID" not in os.environ:
        account = aws.client("sts").get_caller_identity()["Account"]
        found = found.model_copy(update={"aws_account_id": account})
    return found


def _find_database() -> DatabaseAddress:
    if url := os.environ.get("DATABASE_URL"):
        return DatabaseAddress.from_url(url)
    secret = os.environ.get("DATABASE_SECRET_ID")
    if not secret:
        raise Refused("set DATABASE_URL or DATABASE_SECRET_ID, e.g. by `. .local/env`")
    return DatabaseAddress.from_secret(aws.client("secretsmanager").get_secret_value(SecretId=secret)["SecretString"])


def _unreachable(error: Exception) -> str | None:
    """What to say of an error that comes from outside; `None` if it is this program's own."""
    if isinstance(error, DBAPIError) or is_unavailable(error):
        return f"the database: {in_one_line(error)}"
    if isinstance(error, ValidationError):
        return f"the environment: {in_one_line(error)}"
    if type(error).__module__.startswith("botocore"):
        return f"AWS: {' '.join(str(error).split())}"
    return None


def _fail(code: Exit, reason: str, *, as_json: bool) -> None:
    if as_json:
        print(json.dumps({"error": code.name.lower(), "message": reason}))  # noqa: T201 - this is a command line
    else:
        Console(stderr=True, highlight=False).print(f"[red]✗[/] {escape(reason)}", soft_wrap=True)
    sys.exit(code)
