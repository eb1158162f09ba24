"""A network that can fail: ways to servers that delay, hold back, damage or cut what they carry."""

import asyncio
import socket
import struct
import threading
from collections.abc import Callable, Coroutine
from contextlib import suppress
from typing import Any, Self

__all__ = ["Door", "Network", "Way"]

_CHUNK = 1 << 16
_POLL_SECONDS = 0.02  # the interval of looking whether held bytes may go on

Change = Callable[[bytes], bytes]


def _whole(data: bytes) -> bytes:
    return data


class Way:
    """The way to one server, through any number of doors. What is set applies from now on.

    Attributes:
        delay: seconds by which every chunk is late, in both directions.
        held: True while nothing comes through; connections stay open.
        closed: True while connections are refused.
        to_server: what becomes of each chunk on its way to the server.
        to_client: and of each on its way back.
        carried: how many chunks came through so far.
        doors: the sockets that listen.

    """

    def __init__(self, network: "Network", port: int) -> None:
        self.port = port
        self.delay = 0.0
        self.held = False
        self.closed = False
        self.to_server: Change = _whole
        self.to_client: Change = _whole
        self.carried = 0
        self._network = network
        self._open: set[asyncio.StreamWriter] = set()
        self.doors: list[asyncio.Server] = []

    def door(self) -> "Door":
        """Open another address that leads to the server."""
        door = Door(self)
        self._network.run(door.listen())
        return door

    def cut(self) -> None:
        """Reset every open connection."""
        self._network.run(self._cut())

    async def carry(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Carry one connection to its end."""
        ends = [writer]
        self._open.add(writer)
        try:
            if not self.closed:
                back, forth = await asyncio.open_connection("127.0.0.1", self.port)
                ends.append(forth)
                self._open.add(forth)
                pumps = [
                    self._pump(reader, forth, lambda data: self.to_server(data)),
                    self._pump(back, writer, lambda data: self.to_client(data)),
                ]
                await asyncio.wait(
                    map(asyncio.ensure_future, pumps), return_when=asyncio.FIRST_COMPLETED
                )
        except OSError:
            pass  # the server is not there: the caller's connection is reset
        finally:
            for end in ends:
                self._open.discard(end)
                _reset(end)

    async def _pump(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, change: Change
    ) -> None:
        with suppress(OSError):
            while data := await reader.read(_CHUNK):
                await asyncio.sleep(self.delay)
                while self.held:
                    await asyncio.sleep(_POLL_SECONDS)
                writer.write(change(data))
                self.carried += 1
                await writer.drain()

    async def _cut(self) -> None:
        for writer in [*self._open]:
            _reset(writer)


def _reset(writer: asyncio.StreamWriter) -> None:
    """End a connection at once, and let its peer know that it broke."""
    with suppress(OSError):  # it has ended already
        linger = struct.pack("ii", 1, 0)
        writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
    writer.transport.abort()


class Door:
    """An address that leads to a server.

    Attributes:
        port: where it listens.
        accepted: how many connections came through so far.

    """

    def __init__(self, way: Way) -> None:
        self.port = 0
        self.accepted = 0
        self._way = way

    @property
    def address(self) -> str:
        """The address for callers."""
        return f"127.0.0.1:{self.port}"

    async def listen(self) -> None:
        """Listen on a free port."""
        server = await asyncio.start_server(self._accept, "127.0.0.1", 0)
        self.port = server.sockets[0].getsockname()[1]
        self._way.doors.append(server)

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.accepted += 1
        with suppress(asyncio.CancelledError):  # the test is over
            await self._way.carry(reader, writer)


class Network:
    """Runs the ways of a test, in a thread of its own."""

    def __init__(self) -> None:
        self._loop = asyncio.new_event_loop()
        self._ways: list[Way] = []
        self._thread = threading.Thread(target=self._loop.run_forever, name="network")

    def way(self, port: int) -> Way:
        """Return a way to a server on this machine, which need not listen yet."""
        self._ways.append(Way(self, port))
        return self._ways[-1]

    def run(self, work: Coroutine[Any, Any, None]) -> None:
        """Run this in the network's thread, and wait for it."""
        asyncio.run_coroutine_threadsafe(work, self._loop).result()

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.run(self._end())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    async def _end(self) -> None:
        for door in [door for way in self._ways for door in way.doors]:
            door.close()
        tasks = asyncio.all_tasks() - {asyncio.current_task()}
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await asyncio.sleep(0)  # connections that were aborted are closed in the loop's next round
