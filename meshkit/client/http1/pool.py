"""The connections to one instance."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import socket
from collections import deque
from typing import Any

from meshkit.client.http1.connection import Connection
from meshkit.errors import CallError, CallTimeout, ConnectError

CONNECT_TIMEOUT = 1.0
# Shorter than what servers grant (ours 75 s), so that the client is the one who closes: a
# request never meets a connection that is just being closed.
IDLE_TIMEOUT = 30.0
TURNS = 5  # of the loop, from a socket that is connected to a connection that is made


class Pool:
    """Connections to one address of one instance, kept between requests.

    Args:
        host: name or address.
        port: of the instance.
        limit: connections at once; further calls wait for one.

    Attributes:
        closed: nothing is kept any more.
    """

    def __init__(self, host: str, port: int, limit: int) -> None:
        self._host = host
        self._port = port
        self._limit = limit
        self._idle: list[Connection] = []
        self._busy: set[Connection] = set()
        self._opening = 0
        self._waiting: deque[asyncio.Future[Connection | None]] = deque()
        self.closed = False

    @property
    def empty(self) -> bool:
        """Whether there is no connection, and nobody who wants one."""
        return not (self._idle or self._busy or self._opening or self._waiting)

    def kept(self) -> Connection | None:
        """Return a connection from an earlier request, the one used last, or None."""
        while self._idle:
            connection = self._idle.pop()
            if connection.usable:
                self._busy.add(connection)
                return connection
            connection.abort()
        return None

    async def take(self, seconds: float) -> Connection:
        """Return a connection, a kept or a new one; give it back with :meth:`give`.

        Raises:
            ConnectError: none can be made.
            CallTimeout: all are in use, and none was given back in time.
        """
        if (connection := self.kept()) is not None:
            return connection
        if len(self._busy) + self._opening >= self._limit:
            handed = await self._turn(seconds)
            if handed is not None:
                return handed
        else:
            self._opening += 1
        try:
            connection = await self._open(min(seconds, CONNECT_TIMEOUT))
        except BaseException:
            self._opening -= 1
            self._pass_on()
            raise
        self._opening -= 1
        self._busy.add(connection)
        return connection

    def give(self, connection: Connection) -> None:
        """Take a connection back, to be kept if its answer was read as a whole."""
        self._busy.discard(connection)
        if self.closed or not connection.complete or not connection.reusable:
            connection.abort()
            self._pass_on()
            return
        while self._waiting:
            turn = self._waiting.popleft()
            if not turn.done():
                self._busy.add(connection)
                turn.set_result(connection)
                return
        connection.since = asyncio.get_running_loop().time()
        self._idle.append(connection)

    def sweep(self, now: float) -> None:
        """Close what was idle for too long."""
        due = now - IDLE_TIMEOUT
        while self._idle and self._idle[0].since < due:  # the longest unused are at the bottom
            self._idle.pop(0).abort()

    def retire(self) -> None:
        """Close what is idle now, and the rest when its calls have ended."""
        self.closed = True
        while self._idle:
            self._idle.pop().abort()

    def close(self) -> None:
        """Close everything; calls under way fail."""
        self.retire()
        for connection in list(self._busy):
            connection.fail(closed())
        while self._waiting:
            turn = self._waiting.popleft()
            if not turn.done():
                turn.set_exception(closed())

    def _pass_on(self) -> None:
        """Let the next in line open a connection instead of the one that went."""
        while self._waiting:
            turn = self._waiting.popleft()
            if not turn.done():
                self._opening += 1
                turn.set_result(None)
                return

    async def _turn(self, seconds: float) -> Connection | None:
        """Wait for a connection; None for the right to open one."""
        turn: asyncio.Future[Connection | None] = asyncio.get_running_loop().create_future()
        self._waiting.append(turn)
        try:
            async with asyncio.timeout(seconds):
                return await turn
        except BaseException as error:
            if turn.done() and not turn.cancelled() and turn.exception() is None:
                self._decline(turn.result())
            if isinstance(error, TimeoutError):
                raise CallTimeout(f"has all {self._limit} connections in use") from None
            raise
        finally:
            with contextlib.suppress(ValueError):
                self._waiting.remove(turn)

    def _decline(self, handed: Connection | None) -> None:
        if handed is None:
            self._opening -= 1
            self._pass_on()
        else:
            self.give(handed)

    async def _open(self, seconds: float) -> Connection:
        loop = asyncio.get_running_loop()
        opening = asyncio.ensure_future(
            loop.create_connection(lambda: Connection(loop), self._host, self._port)
        )
        try:
            await _settled(opening, seconds)
        except BaseException:
            _give_up(opening)
            raise
        if not opening.done():
            opening.cancel()
            raise ConnectError(_too_slow(seconds))
        try:
            return opening.result()[1]
        except TimeoutError:  # the system's own: no answer to our packets
            raise ConnectError(_too_slow(seconds)) from None
        except OSError as error:
            raise ConnectError(_unreachable(error)) from None
        except (ValueError, OverflowError):
            raise ConnectError("has an address that is not valid") from None


async def _settled(opening: asyncio.Future[Any], seconds: float) -> None:
    """Wait until a connection was made or not, or the time is over.

    A loop that was held up for so long has yet to see what came meanwhile: a few turns more.
    """
    await asyncio.wait({opening}, timeout=seconds)
    for _ in range(TURNS):
        if opening.done():
            return
        await asyncio.sleep(0)


def _give_up(opening: asyncio.Future[tuple[asyncio.Transport, Connection]]) -> None:
    if not opening.cancel() and not opening.cancelled() and opening.exception() is None:
        opening.result()[1].abort()


def _too_slow(seconds: float) -> str:
    return f"did not accept a connection within {seconds:g} s"


def closed() -> CallError:
    """Return the error of calls after the client was closed."""
    return CallError("can't be called: the HTTP client is closed")


def _unreachable(error: OSError) -> str:
    # A name with several addresses fails with one error that quotes all.
    if error.errno == errno.ECONNREFUSED or f"[Errno {errno.ECONNREFUSED}]" in str(error):
        return "refused the connection"
    if isinstance(error, socket.gaierror):
        return f"can't be reached (its name can't be resolved: {error.strerror})"
    return f"can't be reached ({error.strerror or error})"
