"""A connection in memory, for what a server's protocol writes to the byte."""

from __future__ import annotations

import asyncio
from typing import Any


class Written(asyncio.Transport):
    """A transport that keeps what is written to it.

    Attributes:
        answer: all of it.
        closed: whether the protocol has closed it.
    """

    def __init__(self) -> None:
        super().__init__()
        self.answer = b""
        self.closed = False

    def write(self, data: Any) -> None:
        """See asyncio.WriteTransport."""
        self.answer += data

    def close(self) -> None:
        """See asyncio.BaseTransport."""
        self.closed = True

    def is_closing(self) -> bool:
        """See asyncio.BaseTransport."""
        return self.closed

    def pause_reading(self) -> None:
        """See asyncio.ReadTransport."""

    def resume_reading(self) -> None:
        """See asyncio.ReadTransport."""


async def converse(protocol: Any, *pieces: bytes) -> Written:
    """Send these to a protocol of uvicorn's; return the connection when all is answered."""
    connection = Written()
    protocol.connection_made(connection)
    for piece in pieces:
        protocol.data_received(piece)
    while tasks := tuple(protocol.tasks):
        await asyncio.gather(*tasks)
        await asyncio.sleep(0)  # the next one of a pipeline begins
    protocol.connection_lost(None)
    return connection
