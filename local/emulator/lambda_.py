"""Lambda: what it says on a queue about a failed invocation, layers that are unpacked once, and found by their ARNs."""

import hashlib
import io
import json
import os
import tempfile
import threading
import zipfile
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Concatenate
from urllib.parse import unquote
from uuid import uuid4

from ministack.core import lambda_runtime
from ministack.services import lambda_svc, sqs

# Records of invocations that failed


def route_async_failure(original: Callable[..., None]) -> Callable[..., None]:
    """The record has a version, a time and the id of the request, which ministack leaves out.

    https://docs.aws.amazon.com/lambda/latest/dg/invocation-async-retain-records.html
    """

    def route(target_arn: str, *failure: Any) -> None:
        original(target_arn, *failure)
        queue = sqs._queue_by_arn(target_arn) if ":sqs:" in target_arn else None
        if queue is None:
            return
        with sqs._queues_lock:
            message = queue["messages"][-1]
            record = json.loads(message["body"])
            if "requestContext" not in record:
                return
            record["requestContext"].setdefault("requestId", str(uuid4()))
            now = datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
            message["body"] = json.dumps({"version": "1.0", "timestamp": now, **record})
            message["md5_body"] = hashlib.md5(message["body"].encode(), usedforsecurity=False).hexdigest()

    return route


# A layer is unpacked once, not for each worker


class Layers:
    """The layer versions that functions use, unpacked."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._unpacked: dict[str, str] = {}
        self._lock = threading.Lock()

    def path(self, layer: str | dict[str, Any]) -> str:
        """The folder of a layer version."""
        arn = layer if isinstance(layer, str) else layer["Arn"]
        with self._lock:
            if arn not in self._unpacked:
                folder = self._folder / str(len(self._unpacked))
                with zipfile.ZipFile(io.BytesIO(lambda_svc._resolve_layer_zip(layer))) as archive:
                    archive.extractall(folder)
                self._unpacked[arn] = str(folder)
            return self._unpacked[arn]


def spawn_worker(original: Callable[..., None], layers: Layers) -> Callable[..., None]:
    """Start a worker on the layers' shared folders."""

    def spawn(worker: Any) -> None:
        config = worker.config
        folders = os.pathsep.join(layers.path(layer) for layer in config.get("Layers") or [])
        variables = (config.get("Environment") or {}).get("Variables") or {}
        environment = {"Variables": {**variables, "_LAMBDA_LAYERS_DIRS": folders}}
        worker.config = {**config, "Layers": [], "Environment": environment}
        try:
            original(worker)
        finally:
            worker.config = config

    return spawn


# A layer is named by its name or its ARN, which is what `sam sync` has


def by_name[**P, R](original: Callable[Concatenate[str, P], R]) -> Callable[Concatenate[str, P], R]:
    """A call about a layer may give its ARN for its name.

    https://docs.aws.amazon.com/lambda/latest/api/API_ListLayerVersions.html
    """

    def call(layer: str, /, *arguments: P.args, **named: P.kwargs) -> R:
        return original(unquote(layer).rpartition(":")[2], *arguments, **named)

    return call


def install() -> None:
    """Have failed invocations recorded in full, workers share their layers, and layers be found by their ARNs."""
    for operation in ("_list_layer_versions", "_publish_layer_version", "_delete_layer_version"):
        setattr(lambda_svc, operation, by_name(getattr(lambda_svc, operation)))
    lambda_svc._route_async_failure = route_async_failure(lambda_svc._route_async_failure)
    layers = Layers(Path(tempfile.mkdtemp(prefix="layers-")))
    lambda_runtime.Worker._spawn = spawn_worker(lambda_runtime.Worker._spawn, layers)
