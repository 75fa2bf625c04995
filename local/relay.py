"""Passes connections on from another address of this machine to the loopback: ``python -m local.relay ADDRESS PORT…``.

The services of the embedded stack listen on the loopback only. A container on Linux reaches this machine by the address
of Docker's bridge, and by this process the services behind it.
"""

import argparse
import asyncio
from contextlib import suppress
from functools import partial
from typing import Final

from local.emulator.process import LOOPBACK

PORTION: Final = 65_536  # bytes


async def relay(address: str, ports: list[int]) -> None:
    """Listens on each port of an address until it is cancelled.

    Raises:
        OSError: the address is none of this machine's, or a port is taken.
    """
    servers = [await asyncio.start_server(partial(_connect, port), address, port) for port in ports]
    await asyncio.gather(*(server.serve_forever() for server in servers))


async def _connect(port: int, from_client: asyncio.StreamReader, to_client: asyncio.StreamWriter) -> None:
    try:
        from_service, to_service = await asyncio.open_connection(LOOPBACK, port)
    except OSError:  # the service is down: the client finds its connection closed
        to_client.close()
        return
    await asyncio.gather(_copy(from_client, to_service), _copy(from_service, to_client))


async def _copy(source: asyncio.StreamReader, target: asyncio.StreamWriter) -> None:
    with suppress(ConnectionError):
        while data := await source.read(PORTION):
            target.write(data)
            await target.drain()
    with suppress(ConnectionError, OSError):
        if target.can_write_eof():
            target.write_eof()
    if source.at_eof() is False:
        target.close()


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m local.relay", description=__doc__)
    parser.add_argument("address")
    parser.add_argument("ports", nargs="+", type=int)
    options = parser.parse_args()
    with suppress(KeyboardInterrupt):
        asyncio.run(relay(options.address, options.ports))


if __name__ == "__main__":
    main()
