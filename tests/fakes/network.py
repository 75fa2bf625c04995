"""A way to the database that a test can break, and a server that never answers."""

import socket
import struct
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from urllib.parse import urlsplit

_RESET_ON_CLOSE = struct.pack("ii", 1, 0)


class _Listening:
    """Listens on a port of its own, and keeps every connection open until it is closed."""

    def __init__(self) -> None:
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._open: list[socket.socket] = []
        self._here = f"127.0.0.1:{self._listener.getsockname()[1]}"
        threading.Thread(target=self._accept, daemon=True).start()

    def close(self) -> None:
        for each in (self._listener, *self._open):
            with suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)
            each.close()

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                self._take(self._listener.accept()[0])

    def _take(self, client: socket.socket) -> None:
        self._open.append(client)


class BreakableWay(_Listening):
    """Listens on a port of its own, and passes on what it gets to a server and back.

    Args:
        url: the server's; `url` is the same one by this way.
    """

    def __init__(self, url: str) -> None:
        parts = urlsplit(url)
        self._to = (parts.hostname or "127.0.0.1", parts.port or 5432)
        self._breaks = threading.Event()
        self._forgotten: list[socket.socket] = []
        super().__init__()
        self.url = url.replace(parts.netloc.rpartition("@")[2], self._here)

    def break_at_next_byte(self) -> None:
        """Resets the connection on which a client sends next, instead of passing on what it sends."""
        self._breaks.set()

    def forget(self) -> None:
        """Passes nothing on any more between those who are connected, and tells neither."""
        self._forgotten += self._open

    def _take(self, client: socket.socket) -> None:
        server = socket.create_connection(self._to)
        self._open += [client, server]
        threading.Thread(target=self._pass_on, args=(client, server), daemon=True).start()
        threading.Thread(target=self._pass_on, args=(server, client), daemon=True).start()

    def _pass_on(self, one: socket.socket, other: socket.socket) -> None:
        is_of_client = one.getsockname() == self._listener.getsockname()
        with suppress(OSError):
            while data := one.recv(65_536):
                if is_of_client and self._breaks.is_set():
                    self._breaks.clear()
                    one.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET_ON_CLOSE)
                    one.close()
                    other.shutdown(socket.SHUT_RDWR)
                elif one not in self._forgotten:
                    other.sendall(data)


@contextmanager
def breakable_way(url: str) -> Iterator[BreakableWay]:
    """A way to a server that ends with the block."""
    way = BreakableWay(url)
    try:
        yield way
    finally:
        way.close()


class SilentServer(_Listening):
    """Takes every connection, on a port of its own, and never says a word."""

    def __init__(self) -> None:
        super().__init__()
        self.url = f"http://{self._here}"

    @property
    def callers(self) -> int:
        """How many have connected."""
        return len(self._open)


@contextmanager
def silent_server() -> Iterator[SilentServer]:
    """A server that never answers, until the block ends."""
    server = SilentServer()
    try:
        yield server
    finally:
        server.close()
