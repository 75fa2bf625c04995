"""The embedded server, which `make up` and the tests stand on."""

import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from uuid import uuid4

import pg8000.native
import pytest

from local.postgres import FAST_AND_FORGETFUL, Postgres, PostgresError
from schoolbell.database import DatabaseAddress

PATIENCE = 60.0


@pytest.fixture
def directory() -> Iterator[Path]:
    path = Path(tempfile.gettempdir()) / f"schoolbell-test-{os.getpid()}-{uuid4().hex[:8]}"
    yield path
    Postgres(path).remove()


def server(directory: Path, port: int | None = None) -> Postgres:
    return Postgres(directory, port=port, settings=FAST_AND_FORGETFUL, lifetime="caller")


def ask(url: str, question: str) -> object:
    address = DatabaseAddress.from_url(url)
    with pg8000.native.Connection(
        address.username,
        host=address.host,
        port=address.port,
        password=address.password.get_secret_value(),
        database=address.dbname,
    ) as connection:
        rows = connection.run(question)
    return rows[0][0] if rows else None


def test_a_second_start_finds_the_first_ones_server(directory: Path) -> None:
    url = server(directory).start()
    assert server(directory).start() == url
    assert ask(url, "SELECT current_database()") == "schoolbell"


def test_what_was_written_is_there_after_a_stop(directory: Path) -> None:
    ask(server(directory).start(), "CREATE TABLE kept AS SELECT 42 AS answer")
    server(directory).stop()
    assert not server(directory).running
    assert ask(server(directory).start(), "SELECT answer FROM kept") == 42


def test_stopping_twice_is_harmless(directory: Path) -> None:
    one = server(directory)
    one.start()
    one.stop()
    one.stop()


def test_removing_leaves_nothing(directory: Path) -> None:
    one = server(directory)
    one.start()
    one.remove()
    assert not directory.exists()


def test_a_server_that_was_killed_is_started_again(directory: Path) -> None:
    one = server(directory)
    one.start()
    os.kill(int((directory / "postmaster.pid").read_text().split()[0]), signal.SIGKILL)
    deadline = time.monotonic() + PATIENCE
    while one.running and time.monotonic() < deadline:
        time.sleep(0.01)
    assert ask(one.start(), "SELECT 1") == 1


def test_a_stranger_without_the_password_is_turned_away(directory: Path) -> None:
    address = DatabaseAddress.from_url(server(directory).start())
    with pytest.raises(pg8000.native.DatabaseError, match="password authentication failed"):
        pg8000.native.Connection("postgres", host=address.host, port=address.port, password="guess")


def test_data_in_a_private_directory_are_kept_where_the_server_can_reach_them(tmp_path: Path) -> None:
    tmp_path.chmod(0o700)  # as root's home is; a server of root's runs as somebody else
    one = server(tmp_path / "data")
    assert ask(one.start(), "SELECT 1") == 1
    one.remove()
    assert not (tmp_path / "data").exists()


def test_a_port_that_is_taken_is_an_error_that_says_so(directory: Path, postgres: Postgres) -> None:
    taken = DatabaseAddress.from_url(postgres.url()).port
    with pytest.raises(PostgresError, match="Address already in use"):
        server(directory, port=taken).start()


@pytest.mark.skipif(sys.platform != "linux", reason="other systems cannot tie a process to its parent")
def test_a_server_for_the_caller_ends_when_the_caller_is_killed(directory: Path) -> None:
    program = (
        "import os, signal; from pathlib import Path; from local.postgres import Postgres;"
        f"Postgres(Path({str(directory)!r}), lifetime='caller').start(); os.kill(os.getpid(), signal.SIGKILL)"
    )
    subprocess.run(
        [sys.executable, "-c", program], check=False, env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    )
    deadline = time.monotonic() + PATIENCE
    while Postgres(directory).running:
        assert time.monotonic() < deadline, "the server outlived its caller"
        time.sleep(0.05)
