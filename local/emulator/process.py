"""The AWS emulator as a process: starting it, and talking to it."""

import os
import shutil
import urllib.error
import urllib.request
from collections.abc import Callable
from functools import partial
from typing import Any, Final

from local.home import CHECKOUT, ENVIRONMENTS, Home, RecordedProcess
from local.processes import start

REGION: Final = "us-east-1"
LOOPBACK: Final = "127.0.0.1"
ACCESS_KEY: Final = "test"  # the emulator's root user, whatever the secret
SECRET_KEY: Final = "test"  # noqa: S105 - it opens nothing


def start_emulator(
    home: Home, port: int, *, enforce_iam: bool, remember: Callable[[RecordedProcess], None] = lambda _: None
) -> RecordedProcess:
    """Start the emulator with nothing in it.

    Its environment is written out here, because Lambda functions inherit it: as on AWS, they shall see none of ours.
    """
    shutil.rmtree(home.scratch, ignore_errors=True)
    home.scratch.mkdir()
    environment = {
        "PATH": os.defpath,
        "PYTHONPATH": str(CHECKOUT),  # to start it; it takes this out again
        "HOME": str(home.scratch),
        "TMPDIR": str(home.scratch),
        "LANG": "C.UTF-8",
        "TZ": ":UTC",
        "PYTHONDONTWRITEBYTECODE": "1",  # a Lambda's folders are read-only
        "PYTHONUNBUFFERED": "1",
        "BIND_HOST": "127.0.0.1",
        "MINISTACK_HOST": "127.0.0.1",
        "MINISTACK_REGION": REGION,
        "GATEWAY_PORT": str(port),
        "AWS_ACCESS_KEY_ID": ACCESS_KEY,
        "AWS_SECRET_ACCESS_KEY": SECRET_KEY,
        "AUTH": str(enforce_iam).lower(),
    }
    return start(
        [ENVIRONMENTS / "emulator" / "bin" / "python", "-P", "-m", "local.emulator"],
        environment=environment,
        folder=home.scratch,
        log=home.logs / "emulator.log",
        ready=partial(answers, f"{endpoint(port)}/_ministack/health"),
        remember=remember,
    )


def endpoint(port: int, host: str = LOOPBACK) -> str:
    """The address of a service on this machine, e.g. of the emulator."""
    return f"http://{host}:{port}"


def answers(url: str) -> bool:
    """Whether a server on this machine answers with success."""
    try:
        with urllib.request.urlopen(url, timeout=2) as response:  # noqa: S310 - a loopback address of ours
            return bool(response.status == 200)
    except (urllib.error.URLError, OSError):
        return False


def client(service: str, port: int) -> Any:
    """A boto3 client of an emulated service, for the root user."""
    import boto3  # takes a third of a second, which a command that has nothing to do need not spend
    from botocore.config import Config

    return boto3.client(
        service,
        endpoint_url=endpoint(port),
        region_name=REGION,
        aws_access_key_id=ACCESS_KEY,
        aws_secret_access_key=SECRET_KEY,
        config=Config(read_timeout=910, retries={"total_max_attempts": 1}),
    )
