"""A TCP proxy on loopback that can stop passing on, as a network does that lost its way."""

from __future__ import annotations

import asyncio
import contextlib
import time
from types import TracebackType
from typing import Self

CHUNK = 65536


class Proxy:
    """Stands between one party and one registry node, in the event loop of the test.

    Attributes:
        target: the node's ``host:port``.
        used_at: when (on the monotonic clock) the party last sent something; 0 for never.
    """

    def __init__(self, target: str) -> None:
        self.target = target
        self.used_at = 0.0
        self._passing = asyncio.Event()
        self._passing.set()
        self._server: asyncio.Server | None = None
        self._port = 0
        self._tasks: set[asyncio.Task[None]] = set()

    @property
    def address(self) -> str:
        """``host:port`` for the party."""
        return f"127.0.0.1:{self._port}"

    def hang(self) -> None:
        """Pass nothing on any more, in either direction; nobody is told."""
        self._passing.clear()

    def heal(self) -> None:
        """Pass on what was held back, and whatever comes."""
        self._passing.set()

    async def cut(self) -> None:
        """Break all connections and refuse new ones."""
        await self._close()

    async def restore(self) -> None:
        """Listen on the same port again."""
        self._passing.set()
        await self._listen()

    async def _listen(self) -> None:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", self._port)
        self._port = self._server.sockets[0].getsockname()[1]

    async def _close(self) -> None:
        if self._server is not None:
            self._server.close()
            self._server = None
        for task in tuple(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task
        self._tasks.add(task)
        ends = [writer]
        try:
            await self._passing.wait()
            host, _, port = self.target.rpartition(":")
            answers, node = await asyncio.open_connection(host, int(port))
            ends.append(node)
            there = asyncio.create_task(self._pump(reader, node, outgoing=True))
            back = asyncio.create_task(self._pump(answers, writer, outgoing=False))
            try:
                await asyncio.wait({there, back}, return_when=asyncio.FIRST_COMPLETED)
            finally:
                there.cancel()
                back.cancel()
                await asyncio.gather(there, back, return_exceptions=True)
        except (OSError, asyncio.CancelledError):
            pass  # the node is down, or the test cuts: either way the party is hung up on
        finally:
            self._tasks.discard(task)
            for end in ends:
                end.transport.abort()

    async def _pump(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, *, outgoing: bool
    ) -> None:
        with contextlib.suppress(OSError):
            while data := await reader.read(CHUNK):
                if outgoing:
                    self.used_at = time.monotonic()
                await self._passing.wait()
                writer.write(data)
                await writer.drain()

    async def __aenter__(self) -> Self:
        await self._listen()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self._close()
