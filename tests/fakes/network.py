"""A way to the database that a test can break."""

import socket
import struct
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from urllib.parse import urlsplit

_RESET_ON_CLOSE = struct.pack("ii", 1, 0)


class BreakableWay:
    """Listens on a port of its own, and passes on what it gets to a server and back.

    Args:
        url: the server's; `url` is the same one by this way.
    """

    def __init__(self, url: str) -> None:
        parts = urlsplit(url)
        self._to = (parts.hostname or "127.0.0.1", parts.port or 5432)
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._breaks = threading.Event()
        here = f"127.0.0.1:{self._listener.getsockname()[1]}"
        self.url = url.replace(parts.netloc.rpartition("@")[2], here)
        threading.Thread(target=self._accept, daemon=True).start()

    def break_at_next_byte(self) -> None:
        """Resets the connection on which a client sends next, instead of passing on what it sends."""
        self._breaks.set()

    def close(self) -> None:
        self._listener.close()

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                server = socket.create_connection(self._to)
                threading.Thread(target=self._pass_on, args=(client, server), daemon=True).start()
                threading.Thread(target=self._pass_back, args=(server, client), daemon=True).start()

    def _pass_on(self, client: socket.socket, server: socket.socket) -> None:
        with server, client, suppress(OSError):
            while data := client.recv(65_536):
                if self._breaks.is_set():
                    self._breaks.clear()
                    client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET_ON_CLOSE)
                    server.shutdown(socket.SHUT_RDWR)
                    return
                server.sendall(data)

    def _pass_back(self, server: socket.socket, client: socket.socket) -> None:
        with suppress(OSError):
            while data := server.recv(65_536):
                client.sendall(data)


@contextmanager
def breakable_way(url: str) -> Iterator[BreakableWay]:
    """A way to a server that ends with the block."""
    way = BreakableWay(url)
    try:
        yield way
    finally:
        way.close()
