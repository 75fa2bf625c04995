"""What goes through the relay comes out as it went in, either way, and a service that is down closes the connection."""

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress

from local.emulator.process import LOOPBACK
from local.relay import relay

ELSEWHERE = "127.0.0.2"  # another address of this machine: all of 127.0.0.0/8 are, on Linux
MEGABYTE = 1024 * 1024


async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Answers when the client has said all that it has to say."""
    writer.write(await reader.read())
    await writer.drain()
    writer.close()


def with_relay(use: Callable[[int], Awaitable[None]], *, is_up: bool = True) -> None:
    async def run() -> None:
        service = await asyncio.start_server(echo, LOOPBACK, 0)
        port = int(service.sockets[0].getsockname()[1])
        if not is_up:
            service.close()
            await service.wait_closed()
        listening = asyncio.create_task(relay(ELSEWHERE, [port]))
        try:
            await use(port)
        finally:
            listening.cancel()
            with suppress(asyncio.CancelledError):
                await listening
            service.close()

    asyncio.run(asyncio.wait_for(run(), timeout=30))


async def connected(port: int) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    while True:
        try:
            return await asyncio.open_connection(ELSEWHERE, port)
        except ConnectionRefusedError:
            await asyncio.sleep(0)


def test_what_is_sent_is_answered_once_the_client_is_done() -> None:
    async def use(port: int) -> None:
        sent = bytes(range(256)) * (4 * MEGABYTE // 256)
        reader, writer = await connected(port)
        writer.write(sent)
        writer.write_eof()
        assert await reader.read() == sent
        writer.close()

    with_relay(use)


def test_connections_do_not_wait_for_each_other() -> None:
    async def use(port: int) -> None:
        idle = await connected(port)
        reader, writer = await connected(port)
        writer.write(b"second")
        writer.write_eof()
        assert await reader.read() == b"second"
        for stream in (idle[1], writer):
            stream.close()

    with_relay(use)


def test_a_service_that_is_down_closes_the_connection() -> None:
    async def use(port: int) -> None:
        reader, writer = await connected(port)
        assert await reader.read() == b""
        writer.close()

    with_relay(use, is_up=False)
