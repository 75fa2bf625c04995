"""One connection to PostgreSQL an execution environment, kept between invocations."""

import json
import socket
import ssl
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from datetime import timedelta
from functools import cached_property, lru_cache
from typing import Any, Literal
from urllib.parse import parse_qs, unquote, urlsplit

import pg8000.dbapi
from pg8000.converters import make_params
from pg8000.core import NULL_BYTE, READY_FOR_QUERY, SYNC, Context, _flush, _read, ci_unpack
from pg8000.dbapi import convert_paramstyle
from pydantic import BaseModel, ConfigDict, Field, SecretStr
from sqlalchemy import Connection, Engine, create_engine, event
from sqlalchemy.engine import ExceptionContext
from sqlalchemy.exc import DBAPIError

CONNECT_TIMEOUT = timedelta(seconds=5)
SILENCE = timedelta(seconds=20)
"""A server whose machine does not even acknowledge for so long is gone, also in the middle of a statement."""

# SQLSTATEs that say the server is away, starting, stopping or full, not that the statement was wrong.
# https://www.postgresql.org/docs/current/errcodes-appendix.html
_UNAVAILABLE_CLASSES = ("08", "57P")
_UNAVAILABLE_CODES = ("53300", "53400", "25006")


class DatabaseAddress(BaseModel):
    """Where the database is: the JSON of an RDS secret, plus two optional keys of ours."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    host: str
    port: int = Field(default=5432, ge=1, le=65535)
    username: str
    password: SecretStr
    dbname: str
    sslmode: Literal["verify-full", "disable"] = "verify-full"
    ca_certificate: str | None = None
    """PEM text of the authority that signed the server's certificate, where the system doesn't know it."""

    @classmethod
    def from_secret(cls, text: str) -> "DatabaseAddress":
        """Reads the text of a Secrets Manager secret.

        Raises:
            pydantic.ValidationError: a key is missing or has a value that cannot be used.
        """
        return cls.model_validate(json.loads(text))

    @classmethod
    def from_url(cls, url: str) -> "DatabaseAddress":
        """Reads `postgresql://user:password@host:port/dbname?sslmode=disable`."""
        parts = urlsplit(url)
        return cls(
            host=parts.hostname or "127.0.0.1",
            port=parts.port or 5432,
            username=unquote(parts.username or "postgres"),
            password=SecretStr(unquote(parts.password or "")),
            dbname=parts.path.lstrip("/") or "postgres",
            sslmode="disable" if parse_qs(parts.query).get("sslmode") == ["disable"] else "verify-full",
        )

    def tls(self) -> ssl.SSLContext | bool:
        """The TLS settings as pg8000 takes them: `False` is no TLS at all."""
        if self.sslmode == "disable":
            return False
        return ssl.create_default_context(cadata=self.ca_certificate)


class _Connection(pg8000.dbapi.Connection):  # type: ignore[misc]
    """A connection that waits for the server once a statement, where pg8000 waits three times, and once more to begin.

    https://www.postgresql.org/docs/current/protocol-flow.html#PROTOCOL-FLOW-EXT-QUERY
    """

    def __init__(self, **given: Any) -> None:
        super().__init__(**given)  # within the time that the socket gives; a statement takes what it takes
        self._usock.settimeout(None)

    def cursor(self) -> "_Cursor":
        return _Cursor(self)

    def execute_unnamed(self, statement: str, vals: Any = (), oids: Any = (), stream: Any = None) -> Any:
        if stream is not None:  # COPY, where the server waits for the client in between
            return super().execute_unnamed(statement, vals, oids, stream)
        context = Context(statement)
        if not self._in_transaction and not self.autocommit:
            self.send_PARSE(NULL_BYTE, "begin transaction")
            self.send_BIND(NULL_BYTE, ())
            self.send_EXECUTE()
        self.send_PARSE(NULL_BYTE, statement, oids)
        self.send_DESCRIBE_STATEMENT(NULL_BYTE)
        try:
            self.send_BIND(NULL_BYTE, make_params(self.py_types, vals))
            self.send_EXECUTE()
        finally:  # whatever is refused, or a value that can't be sent: the server leaves out the rest up to the SYNC
            self._send_message(SYNC, b"")
            _flush(self._sock)
            self.handle_messages(context)
        return context

    def check(self, patience: timedelta) -> None:
        """Has the server show within that time that it is there, in no transaction, which would be one wait more."""
        self._usock.settimeout(patience.total_seconds())
        self.execute_simple("SELECT 1")
        self._usock.settimeout(None)

    def handle_messages(self, context: Any) -> None:
        """Reads what the server says up to the end of its answer, whatever there is to read.

        A value that Python doesn't have raises when all is read: what was left would be taken for the next answer.
        """
        code = None
        while code != READY_FOR_QUERY:
            code, message = self._receive()
            try:
                self.message_types[code](message, context)
            except Exception as error:
                context.error = context.error or error
        if context.error is not None:
            raise context.error

    def _receive(self) -> tuple[bytes, bytes]:
        try:
            code, length = ci_unpack(_read(self._sock, 5))
            return code, _read(self._sock, length - 4)
        except OSError as error:  # which pg8000 takes for no error of the database
            raise pg8000.dbapi.InterfaceError(f"network error: {error}") from error

    def commit(self) -> None:
        self.execute_simple("commit")

    def rollback(self) -> None:
        if self._in_transaction:
            self.execute_simple("rollback")

    def close(self) -> None:
        with suppress(pg8000.dbapi.InterfaceError):  # there is nobody to say goodbye to
            super().close()


class _Cursor(pg8000.dbapi.Cursor):  # type: ignore[misc]
    """A cursor that leaves it to the connection to begin a transaction, and reads a statement's placeholders once."""

    _input_oids: Any

    def execute(self, operation: str, args: Sequence[Any] = (), stream: Any = None) -> None:
        if stream is not None or (not args and ";" in operation):  # may be several statements, as in a migration
            super().execute(operation, args, stream)
            return
        statement = _numbered(operation) if args else operation
        self._context = self._c.execute_unnamed(statement, args, self._input_oids)
        self._row_iter = None if self._context.rows is None else iter(self._context.rows)
        self._input_oids = ()


@lru_cache(maxsize=256)
def _numbered(operation: str) -> str:
    """A statement with $1 in place of %s. pg8000 reads it letter by letter, which takes half a millisecond for ours."""
    statement, _ = convert_paramstyle("format", operation, ())
    return str(statement)


class Database:
    """Transactions on one PostgreSQL connection that is opened on first use and reopened when it was lost.

    Args:
        find: tells the address; called at each connect, so that a rotated password is picked up.
        statement_timeout: a statement that takes longer is cancelled by the server.
        connections: how many transactions may be open at once; one, except for callers with threads.
    """

    def __init__(self, find: Callable[[], DatabaseAddress], statement_timeout: timedelta, connections: int = 1) -> None:
        self._find = find
        self._statement_timeout = statement_timeout
        self._connections = connections

    @cached_property
    def engine(self) -> Engine:
        """The engine, whose pool never grows: what limits a database is the number of execution environments."""
        engine = create_engine(
            "postgresql+pg8000://",
            creator=self._connect,
            hide_parameters=True,  # an error's text goes into logs and runs, where nothing personal may stand
            pool_size=self._connections,
            max_overflow=0,
            pool_timeout=CONNECT_TIMEOUT.total_seconds(),
            pool_use_lifo=True,
        )
        event.listen(engine, "handle_error", _mark_lost_connections)
        return engine

    @contextmanager
    def transaction(self, *, read_only: bool = False) -> Iterator[Connection]:
        """One transaction: commits at the end of the block, rolls back when it raises.

        Raises:
            sqlalchemy.exc.DBAPIError: the database refused a statement or is away (`is_unavailable` tells which).
        """
        with self.engine.begin() as connection:
            if read_only:
                connection.exec_driver_sql("SET TRANSACTION READ ONLY")
            yield connection

    def check(self) -> None:
        """Drops a connection that died while the execution environment was frozen, so that the next use opens one.

        What lies between may have forgotten the connection; then there is no answer, and none is waited for long.
        """
        try:
            with self.engine.connect() as connection:
                opened: Any = connection.connection.driver_connection
                opened.check(CONNECT_TIMEOUT)
        except (DBAPIError, pg8000.dbapi.Error) as error:
            if not is_unavailable(error):
                raise
            self.engine.dispose()

    def close(self) -> None:
        """Closes the connection."""
        if "engine" in self.__dict__:
            self.engine.dispose()

    def _connect(self) -> Any:
        address = self._find()
        opened = _open_socket(address)
        try:
            return _Connection(
                user=address.username,
                password=address.password.get_secret_value(),
                host=address.host,
                database=address.dbname,
                ssl_context=address.tls(),
                sock=opened,
                # Start-up parameters rather than SET, which would pin the connection behind RDS Proxy.
                startup_params={
                    "TimeZone": "UTC",
                    "statement_timeout": str(int(self._statement_timeout.total_seconds() * 1000)),
                },
            )
        except BaseException:
            opened.close()
            raise


def _open_socket(address: DatabaseAddress) -> socket.socket:
    try:
        opened = socket.create_connection((address.host, address.port), CONNECT_TIMEOUT.total_seconds())
    except OSError as error:
        raise pg8000.dbapi.InterfaceError(f"network error: can't reach the database: {error}") from error
    # pg8000 doesn't set it, and without it the parts of one statement wait for each other's acknowledgement.
    opened.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    opened.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    if sys.platform == "linux":  # without these it takes a gone server's silence for hours of work
        seconds = int(SILENCE.total_seconds())
        opened.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, seconds // 2)
        opened.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, seconds // 4)
        opened.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, seconds * 1000)
    return opened


def is_unavailable(error: BaseException) -> bool:
    """Whether an error says that the database is away, as opposed to refusing a statement."""
    cause = error.orig if isinstance(error, DBAPIError) else error
    if isinstance(cause, pg8000.dbapi.InterfaceError | ConnectionError | TimeoutError):
        return True
    if isinstance(error, DBAPIError) and error.connection_invalidated:
        return True
    state = sql_state(cause)
    return state.startswith(_UNAVAILABLE_CLASSES) or state in _UNAVAILABLE_CODES


def sql_state(error: BaseException | None) -> str:
    """The five-letter SQLSTATE of an error from PostgreSQL, or an empty string."""
    cause = error.orig if isinstance(error, DBAPIError) else error
    details = cause.args[0] if cause is not None and cause.args else None
    return str(details.get("C", "")) if isinstance(details, dict) else ""


def _mark_lost_connections(context: ExceptionContext) -> None:
    # pg8000's dialect knows a broken socket, but not a server that said goodbye properly.
    if context.original_exception is not None and is_unavailable(context.original_exception):
        context.is_disconnect = True
