"""A Docker engine with Lambda's image for Python 3.13, in which `sam local` runs functions.

What is there is used: an engine that answers, AWS's image if it can be had. Where root finds Debian's `dockerd` and no
engine runs, one is started, which ends with the tests. Where AWS's image is out of reach, a stand-in is made: the same
paths, the same order of modules and AWS's own runtime client, upon the programs and libraries of this machine.
"""

import io
import os
import shutil
import subprocess
import sys
import sysconfig
import tarfile
import tempfile
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from hashlib import sha256
from pathlib import Path
from typing import Final

from local.bundle import architecture
from local.processes import ends_with_parent
from tests.packaging.functions import interpreter, runtime_client

IMAGE: Final = f"public.ecr.aws/lambda/python:3.13-{architecture()}"
PROGRAMS: Final = ("sh", "cat", "chmod", "cp", "env", "ls", "mkdir", "mv", "rm")
UNUSED: Final = ("test", "site-packages", "idlelib", "tkinter", "turtledemo", "ensurepip", "config-3.13")
# What wheels may expect of any Linux (https://peps.python.org/pep-0599/), and what glibc resolves names with.
ASSUMED: Final = (
    *("libgcc_s.so.1", "libstdc++.so.6", "libm.so.6", "libdl.so.2", "librt.so.1", "libpthread.so.0", "libutil.so.1"),
    *("libresolv.so.2", "libnss_dns.so.2", "libnss_files.so.2"),
)
LABEL: Final = "schoolbell.stand-in"
PATIENCE: Final = 60  # seconds for the engine to answer
PULL: Final = 300  # seconds for AWS's image to come

# What Lambda's bootstrap does: the function first, then /opt, then the runtime's own folder.
BOOTSTRAP: Final = """
import os, sys
task, runtime = os.environ.get("LAMBDA_TASK_ROOT", "/var/task"), "/var/runtime"
others = [path for path in sys.path if path not in (task, runtime)]
sys.path[:] = [task, "/opt/python/lib/python3.13/site-packages", "/opt/python", runtime, *others]
from awslambdaric.__main__ import main
main([sys.argv[0], os.environ["_HANDLER"]])
"""
SCRIPTS: Final = {
    "lambda-entrypoint.sh": 'export _HANDLER="$1"\nexec /var/runtime/bootstrap\n',
    "var/runtime/bootstrap": (
        "export AWS_EXECUTION_ENV=AWS_Lambda_python3.13\nexec /var/lang/bin/python3.13 /var/runtime/bootstrap.py\n"
    ),
}
CHANGES: Final = (
    "ENV PATH=/var/lang/bin:/usr/local/bin:/usr/bin:/bin:/opt/bin",
    "ENV LANG=en_US.UTF-8",
    "ENV TZ=:/etc/localtime",
    "ENV LAMBDA_TASK_ROOT=/var/task",
    "ENV LAMBDA_RUNTIME_DIR=/var/runtime",
    "ENV LD_LIBRARY_PATH=/var/lang/lib:/var/task:/var/task/lib:/opt/lib",
    "WORKDIR /var/task",
    'ENTRYPOINT ["/lambda-entrypoint.sh"]',
)


class NoEngine(Exception):
    """There is no engine, or no image for it; the text says why."""


@contextmanager
def running_engine(folder: Path) -> Iterator[dict[str, str]]:
    """An engine that has the image. Yields the variables with which `docker` and `sam` find it.

    Args:
        folder: where an engine of ours keeps its images and containers.

    Raises:
        NoEngine: none can be had here.
    """
    if shutil.which("docker") is None:
        raise NoEngine("docker is not installed")
    if _answers({}):
        yield _with_image({})
        return
    if os.geteuid() != 0 or not shutil.which("dockerd"):
        raise NoEngine("no Docker engine answers, and only root can start one, where Debian's docker.io is installed")
    folder.mkdir(parents=True, exist_ok=True)
    sockets = Path(tempfile.mkdtemp(prefix="schoolbell-docker-"))  # a socket's path may have 107 characters
    found = {"DOCKER_HOST": f"unix://{sockets / 'docker.sock'}"}
    with (folder / "log").open("wb") as log:
        engine = subprocess.Popen(
            [
                *("dockerd", "--host", found["DOCKER_HOST"], "--pidfile", sockets / "pid"),
                *("--data-root", folder, "--exec-root", sockets),
            ],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            preexec_fn=ends_with_parent(),
        )
    try:
        end = time.monotonic() + PATIENCE
        while not _answers(found):
            if engine.poll() is not None or time.monotonic() > end:
                last = "\n".join((folder / "log").read_text(errors="replace").splitlines()[-5:])
                raise NoEngine(f"dockerd did not start:\n{last}")
            time.sleep(0.2)
        yield _with_image(found)
    finally:
        engine.terminate()
        engine.wait(PATIENCE)
        shutil.rmtree(sockets, ignore_errors=True)


def _answers(environment: dict[str, str]) -> bool:
    return docker(environment, "info").returncode == 0


def docker(
    environment: dict[str, str], *arguments: str, timeout: float | None = None
) -> subprocess.CompletedProcess[str]:
    """Run a command of Docker's."""
    return subprocess.run(
        ["docker", *arguments],
        env={**os.environ, **environment},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=timeout,
        check=False,
    )


def _with_image(environment: dict[str, str]) -> dict[str, str]:
    """The variables of an engine that has the image, plus one that keeps SAM from asking for a newer one."""
    label = f'{{{{index .Config.Labels "{LABEL}"}}}}'
    there = docker(environment, "image", "inspect", "--format", label, IMAGE)
    made_of = there.stdout.strip()  # nothing for AWS's image
    is_missing = there.returncode != 0 or made_of not in ("", _recipe())
    if is_missing and docker(environment, "pull", "--quiet", IMAGE, timeout=PULL).returncode != 0:
        _import_stand_in(environment)
    return {**environment, "SAM_SKIP_PULL_IMAGE": "1"}


def _recipe() -> str:
    return sha256(Path(__file__).read_bytes()).hexdigest()


def _import_stand_in(environment: dict[str, str]) -> None:
    if sys.platform != "linux":
        raise NoEngine(f"{IMAGE} is not there and cannot be pulled")
    changes = [word for change in (*CHANGES, f"LABEL {LABEL}={_recipe()}") for word in ("--change", change)]
    process = subprocess.Popen(
        ["docker", "import", *changes, "-", IMAGE],
        env={**os.environ, **environment},
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
    )
    assert process.stdin is not None
    with tarfile.open(fileobj=process.stdin, mode="w|") as image:
        _write_stand_in(image)
    process.stdin.close()
    if process.wait(PATIENCE) != 0:
        raise NoEngine(f"docker did not take the stand-in for {IMAGE}")


def _write_stand_in(image: tarfile.TarFile) -> None:
    """Write the root of a file system: a shell, Python in /var/lang, the runtime client in /var/runtime."""
    for folder in ("tmp", "opt", "var/task", "var/rapid", "etc"):
        _add_folder(image, folder)
    programs = [Path(found) for name in PROGRAMS if (found := shutil.which(name))]
    python, library = Path(interpreter()).resolve(), Path(sysconfig.get_path("stdlib"))
    image.add(python, "var/lang/bin/python3.13")
    image.add(library, "var/lang/lib/python3.13", filter=_used)
    for part in sorted(runtime_client().iterdir()):
        image.add(part.resolve(), f"var/runtime/{part.name}", filter=_used)
    for program in programs:
        image.add(program.resolve(), f"bin/{program.name}")
    modules = library.glob("lib-dynload/*.so")
    for needed in sorted(_libraries([*(program.resolve() for program in programs), python, *modules])):
        image.add(needed.resolve(), str(needed).lstrip("/"))
    _add_text(image, "var/runtime/bootstrap.py", BOOTSTRAP)
    for name, script in SCRIPTS.items():
        _add_text(image, name, f"#!/bin/sh\n{script}", mode=0o755)


def _used(member: tarfile.TarInfo) -> tarfile.TarInfo | None:
    return None if any(part.startswith(UNUSED) for part in Path(member.name).parts[4:]) else member


def _libraries(files: Iterable[Path]) -> set[Path]:
    """The shared libraries that programs and modules need, and the loader, by the paths that these look at."""
    listed = subprocess.run(["ldd", *files], capture_output=True, text=True, check=False).stdout
    words = (word for line in listed.splitlines() if not line.endswith(":") for word in line.split())
    needed = {Path(word) for word in words if word.startswith("/") and ".so" in word}
    assumed = {library.parent / name for library in needed for name in ASSUMED}
    return needed | {library for library in assumed if library.exists()}


def _add_folder(image: tarfile.TarFile, name: str) -> None:
    folder = tarfile.TarInfo(name)
    folder.type, folder.mode = tarfile.DIRTYPE, 0o1777
    image.addfile(folder)


def _add_text(image: tarfile.TarFile, name: str, text: str, mode: int = 0o644) -> None:
    file, content = tarfile.TarInfo(name), text.encode()
    file.size, file.mode = len(content), mode
    image.addfile(file, io.BytesIO(content))
