"""Processes that outlive the command that started them, and are ended by a later one, or when that command ends."""

import ctypes
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final

import psutil

from local.home import RecordedProcess

PATIENCE: Final = 120.0  # seconds for a process to be ready; enough on a machine with other things to do
GRACE: Final = 10.0  # seconds to end by itself before it is killed


class ProcessError(RuntimeError):
    """A process did not start."""


def start(
    command: Sequence[str | Path],
    *,
    environment: Mapping[str, str],
    folder: Path,
    log: Path,
    ready: Callable[[], bool],
    remember: Callable[[RecordedProcess], None] = lambda _: None,
) -> RecordedProcess:
    """Start a process in a group of its own, and wait until it is ready.

    Args:
        command: what to start.
        environment: all that it sees of one.
        folder: where.
        log: what it says.
        ready: whether it is.
        remember: called at once, since whoever waits may not live to see it ready.

    Raises:
        ProcessError: with the end of its log.
    """
    with log.open("wb") as written:
        process = subprocess.Popen(
            [str(part) for part in command],
            stdin=subprocess.DEVNULL,
            stdout=written,
            stderr=subprocess.STDOUT,
            cwd=folder,
            env=dict(environment),
            start_new_session=True,
        )
    record = RecordedProcess(pid=process.pid, started=psutil.Process(process.pid).create_time())
    remember(record)
    deadline = time.monotonic() + PATIENCE
    while not ready():
        if process.poll() is not None or time.monotonic() > deadline:
            stop(record)
            end = "\n".join(log.read_text(errors="replace").splitlines()[-20:])
            raise ProcessError(f"{Path(command[-1]).name} did not start; {log} ends with\n{end}")
        time.sleep(0.05)
    return record


def alive(record: RecordedProcess | None) -> bool:
    """Whether it is still the process we started that has this number."""
    if record is None:
        return False
    try:
        process = psutil.Process(record.pid)
        return abs(process.create_time() - record.started) < 1 and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def stop(record: RecordedProcess | None) -> None:
    """End a process that we started, its children and their children; do nothing when it is gone."""
    if record is None or not alive(record):
        return
    family = [psutil.Process(record.pid)]
    with suppress(psutil.NoSuchProcess):
        family += family[0].children(recursive=True)
    for process in family:
        with suppress(psutil.NoSuchProcess):
            process.terminate()
    _, stubborn = psutil.wait_procs(family, timeout=GRACE)
    for process in stubborn:
        with suppress(psutil.NoSuchProcess):
            process.kill()
    with suppress(ProcessLookupError, PermissionError):
        os.killpg(record.pid, signal.SIGKILL)  # whoever was started in the meantime


@contextmanager
def at_the_end(command: Sequence[str | Path], *, folder: Path, holding: int) -> Iterator[None]:
    """Has a command run when the block ends or this process does, however that comes about: it may be killed.

    A shell waits for the end of a pipe, which is there as soon as nobody holds the pipe's other end.

    Args:
        command: what is to run, without a terminal.
        folder: where.
        holding: the descriptor of a locked file; it stays locked until the command has run.

    Raises:
        subprocess.CalledProcessError: at the end of the block, the command failed.
    """
    wait_and_run = ["sh", "-c", 'cat && exec "$@"', "sh", *(str(part) for part in command)]
    waiting = subprocess.Popen(
        wait_and_run,
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        cwd=folder,
        pass_fds=[holding],
        start_new_session=True,  # a Ctrl-C ends this process, and so the wait, but not the command
    )
    try:
        yield
    finally:
        waiting.communicate()
        if waiting.returncode:
            raise subprocess.CalledProcessError(waiting.returncode, wait_and_run)


def ends_with_parent(number: signal.Signals = signal.SIGTERM) -> Callable[[], None] | None:
    """What a child does (`preexec_fn`) to ask Linux for a signal when the process that started it ends."""
    if sys.platform != "linux":
        return None
    prctl = ctypes.CDLL(None).prctl  # loaded here, since the child may not be allowed to read Python's own files
    set_parent_death_signal = 1
    return lambda: prctl(set_parent_death_signal, number, 0, 0, 0)


def free_port(preferred: int | None = None) -> int:
    """A free port of the loopback: the one we had, if nobody has taken it since."""
    for port in (preferred, 0):
        if port is None:
            continue
        with socket.socket() as probe, suppress(OSError):
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(("127.0.0.1", port))
            return int(probe.getsockname()[1])
    raise ProcessError("no free port")
