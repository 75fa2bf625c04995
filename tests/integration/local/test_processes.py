"""Processes are remembered and ended, whatever becomes of the process that started them."""

import fcntl
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from local.home import CHECKOUT, RecordedProcess
from local.processes import alive, at_the_end, start, stop

PATIENCE = 60.0  # seconds

OWNER = """
import fcntl, signal, sys, time
from pathlib import Path
from local.processes import at_the_end

signal.signal(signal.SIGINT, signal.default_int_handler)  # ignored, where the tests run in the background of a shell
with open("lock", "w") as lock:
    fcntl.flock(lock, fcntl.LOCK_EX)
    with at_the_end([sys.executable, "-c", sys.argv[1]], folder=Path.cwd(), holding=lock.fileno()):
        print("up", flush=True)
        time.sleep(600)
"""
SLOWLY = "import pathlib, time; time.sleep(0.2); pathlib.Path('done').touch()"


def is_locked(file: Path) -> bool:
    with file.open() as opened:
        try:
            fcntl.flock(opened, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
        return False


@pytest.mark.parametrize(
    "end",
    [
        lambda owner: owner.kill(),
        lambda owner: owner.terminate(),
        lambda owner: owner.send_signal(signal.SIGINT),
        lambda owner: os.killpg(owner.pid, signal.SIGINT),
        lambda owner: os.killpg(owner.pid, signal.SIGKILL),
    ],
    ids=["killed", "terminated", "interrupted", "Ctrl-C", "killed with its group"],
)
def test_a_command_runs_when_its_owner_ends_and_holds_the_lock_until_then(
    tmp_path: Path, end: Callable[[subprocess.Popen[str]], None]
) -> None:
    owner = subprocess.Popen(
        [sys.executable, "-c", OWNER, SLOWLY],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(CHECKOUT)},
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        start_new_session=True,
    )
    assert owner.stdout
    assert owner.stdout.readline() == "up\n"
    assert not (tmp_path / "done").exists()
    end(owner)
    owner.communicate()
    deadline = time.monotonic() + PATIENCE
    while is_locked(tmp_path / "lock"):
        assert time.monotonic() < deadline, "nobody lets go of the lock"
        time.sleep(0.02)
    assert (tmp_path / "done").exists()


def test_a_process_is_remembered_before_it_is_ready(tmp_path: Path) -> None:
    """Whoever waits for it may be killed meanwhile, and it must be known what there is to end."""
    remembered: list[RecordedProcess] = []

    def interrupted() -> bool:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        start(
            ["sleep", "600"],
            environment={"PATH": os.defpath},
            folder=tmp_path,
            log=tmp_path / "log",
            remember=remembered.append,
            ready=interrupted,
        )
    (process,) = remembered
    assert alive(process)
    stop(process)
    assert not alive(process)


def test_at_the_end_of_the_block_the_command_has_run(tmp_path: Path) -> None:
    with (tmp_path / "lock").open("w") as lock:
        with at_the_end([sys.executable, "-c", SLOWLY], folder=tmp_path, holding=lock.fileno()):
            assert not (tmp_path / "done").exists()
        assert (tmp_path / "done").exists()


def test_a_command_that_fails_is_an_error(tmp_path: Path) -> None:
    with (
        (tmp_path / "lock").open("w") as lock,
        pytest.raises(subprocess.CalledProcessError),
        at_the_end([sys.executable, "-c", "raise SystemExit(3)"], folder=tmp_path, holding=lock.fileno()),
    ):
        pass
