"""Built functions, run as Lambda runs them: its runtime client, the artifact, the layers, and nothing else."""

import atexit
import importlib.metadata
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, Final

from local.bundle import BUILT
from tests.packaging.runtime_api import FunctionError, RuntimeApi
from tests.template.bundle import ROOT, Job, bundle

FIND_IMPORTS: Final = Path(__file__).with_name("find_imports.py")
RUNTIME_CLIENT: Final = ("awslambdaric", "simplejson", "snapshot-restore-py")  # with what it needs

# What /var/runtime/bootstrap does: the task first, then /opt, then the runtime's own folder.
BOOTSTRAP: Final = """
import os, runpy, sys
count = int(sys.argv[1])
sys.path[:0], sys.path[len(sys.path):] = sys.argv[2 : 2 + count], sys.argv[2 + count : 3 + count]
sys.argv = ["awslambdaric", os.environ["_HANDLER"]]
runpy.run_module("awslambdaric", run_name="__main__")
"""


def _layers() -> Iterator[tuple[str, Path]]:
    for domain, template in bundle().templates.items():
        folder = BUILT if domain == ROOT else BUILT / domain.capitalize()
        for name, resource in template.source["Resources"].items():
            if isinstance(resource, dict) and resource["Type"] == "AWS::Serverless::LayerVersion":
                yield name, folder / name


LAYERS: Final = dict(_layers())
"""The layers by what the templates call them, as Lambda merges them into /opt."""


@dataclass(frozen=True)
class BuiltFunction:
    """A job's function as `sam build` made it."""

    job: Job

    @property
    def artifact(self) -> Path:
        """The folder that becomes /var/task."""
        return BUILT / self.job.domain.capitalize() / self.job.logical_id

    @property
    def layers(self) -> list[Path]:
        """The folders that become /opt, in the order of the template."""
        return [LAYERS[_layer(name)] for name in bundle().function(self.job)["Layers"]]

    @property
    def path(self) -> list[Path]:
        """Where its modules are found, besides the standard library and the runtime client."""
        return [self.artifact, *(layer / "python" for layer in self.layers)]

    def environment(self) -> dict[str, str]:
        """The environment that the template gives it."""
        variables: Mapping[str, object] = bundle().function(self.job)["Environment"]["Variables"]
        return {name: str(value) for name, value in variables.items()}

    def __str__(self) -> str:
        return self.job.name


def _layer(logical_id: str) -> str:
    """SAM appends a digest of a layer's content to its logical id."""
    return next(name for name in LAYERS if logical_id.startswith(name))


@cache
def built_functions() -> list[BuiltFunction]:
    """All of them, as the templates list them."""
    return [BuiltFunction(job) for job in bundle().jobs]


class Running:
    """A function's process."""

    def __init__(self, process: subprocess.Popen[bytes], api: RuntimeApi, log: Path) -> None:
        self._process = process
        self._api = api
        self._log = log

    @property
    def log(self) -> str:
        """What it wrote."""
        return self._log.read_text(errors="replace")

    def invoke(self, event: Any) -> Any:
        """Its answer to an event.

        Raises:
            FunctionError: it raised or could not be loaded.
        """
        try:
            return self._api.invoke(event, lambda: self._process.poll() is None)
        except FunctionError as error:
            raise FunctionError(f"{error}\n{self.log[-4000:]}") from None


@contextmanager
def started(
    function: BuiltFunction, environment: Mapping[str, str], *, path: Sequence[Path] | None = None
) -> Iterator[Running]:
    """Starts a function in a process of its own, which sees no other packages and no variables but its own.

    Args:
        function: which.
        environment: variables besides those of the template, or instead of them.
        path: where its modules are found, if not where they should be.
    """
    name = function.job.resource_name
    properties = bundle().function(function.job)
    arn = f"arn:aws:lambda:{environment['AWS_REGION']}:{environment['AWS_ACCOUNT_ID']}:function:{name}"
    api = RuntimeApi(arn, properties["Timeout"])
    of_lambda = {
        "AWS_LAMBDA_RUNTIME_API": api.address,
        "AWS_LAMBDA_FUNCTION_NAME": name,
        "AWS_LAMBDA_FUNCTION_VERSION": "$LATEST",
        "AWS_LAMBDA_FUNCTION_MEMORY_SIZE": str(properties["MemorySize"]),
        "AWS_LAMBDA_LOG_GROUP_NAME": f"/aws/lambda/{name}",
        "AWS_LAMBDA_LOG_STREAM_NAME": "packaging",
        "AWS_LAMBDA_LOG_FORMAT": "JSON",
        "AWS_LAMBDA_INITIALIZATION_TYPE": "on-demand",
        "AWS_EXECUTION_ENV": "AWS_Lambda_python3.13",
        "LAMBDA_TASK_ROOT": str(function.artifact),
        "LAMBDA_RUNTIME_DIR": str(runtime_client()),
        "_HANDLER": properties["Handler"],
        "LANG": "C.UTF-8",
        "PATH": os.defpath,
        "TZ": ":UTC",
    }
    modules = function.path if path is None else path
    with tempfile.TemporaryDirectory() as folder:
        log = Path(folder) / "log"
        with log.open("wb") as written:
            process = subprocess.Popen(
                # -I and -S: no variables, no user's or environment's packages; -B: Lambda's folders are read-only.
                [interpreter(), "-I", "-S", "-B", "-c", BOOTSTRAP, str(len(modules)), *modules, runtime_client()],
                env={**of_lambda, **function.environment(), **environment},
                cwd=folder,
                stdin=subprocess.DEVNULL,
                stdout=written,
                stderr=subprocess.STDOUT,
            )
        try:
            yield Running(process, api, log)
        finally:
            process.kill()
            process.wait()
            api.close()


def imports_missing(path: Sequence[Path]) -> list[str]:
    """Modules that an `app.py` imports anywhere, in functions and branches too, and that are not on the path."""
    command = [interpreter(), "-I", "-S", "-B", str(FIND_IMPORTS), *map(str, path)]
    found = subprocess.run(command, capture_output=True, text=True, check=True, env={})
    return found.stdout.split()


def interpreter() -> str:
    """The Python that the environment of these tests was made from, which has no packages."""
    return str(getattr(sys, "_base_executable", sys.executable))


@cache
def runtime_client() -> Path:
    """A folder with nothing in it but Lambda's runtime client and what that needs."""
    folder = Path(tempfile.mkdtemp(prefix="schoolbell-runtime-client-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    for name in RUNTIME_CLIENT:
        distribution = importlib.metadata.distribution(name)
        for top in {file.parts[0] for file in distribution.files or [] if not file.parts[0].startswith((".", "__"))}:
            link = folder / top
            if not link.exists():
                link.symlink_to(Path(str(distribution.locate_file(top))))
    return folder
