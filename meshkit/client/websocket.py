"""WebSockets to a service: opened on an instance that the balancer picks.

Needs the extra ``websocket``; import this module on use. Once it is open a WebSocket stays where
it is, as its other end holds a state; when the instance leaves, its close code says so, and the
caller opens another one.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator, Sequence
from types import TracebackType
from typing import Any, Self

from meshkit import identity
from meshkit.client.headers import Headers
from meshkit.client.verdict import MISDIRECTED
from meshkit.context import OUTSIDE, current
from meshkit.discovery.balancing import Outcome
from meshkit.discovery.routing.router import Picker
from meshkit.discovery.target import Pick, Target
from meshkit.errors import (
    CallError,
    CallTimeout,
    ConfigError,
    ConnectError,
    ConnectionLost,
    HTTPStatusError,
    MissingExtraError,
    NoInstances,
    WebSocketClosed,
    WrongInstance,
)
from meshkit.model import Instance
from meshkit.propagation import outgoing

try:
    from websockets.asyncio.client import ClientConnection, connect
    from websockets.exceptions import ConnectionClosed, InvalidHandshake, InvalidStatus
    from websockets.typing import Subprotocol
except ImportError:
    raise MissingExtraError("a WebSocket to a service", "websocket") from None

CONNECT_TIMEOUT = 1.0
# An instance accepts within milliseconds or hangs: the next one is asked before the time is over.
HANDSHAKE_TIMEOUT = 2.0
ATTEMPTS = 3  # handshakes that may have reached an application
UNAVAILABLE = frozenset({502, 503, 504})
LEAVING = frozenset({1001, 1012})
ABNORMAL = 1006


class WebSocket:
    """One WebSocket; made by :meth:`~meshkit.HttpClient.websocket`.

    ::

        async with users.websocket("/ws") as ws:
            await ws.send_json({"hello": 1})
            print(await ws.receive_json())
            async for message in ws:        # str or bytes, until the other side closes
                ...

    The names are those of FastAPI's own WebSocket. Methods raise
    :class:`~meshkit.errors.WebSocketClosed` when the connection is closed or broke.

    Attributes:
        headers: of the answer that opened it.
    """

    def __init__(
        self,
        target: Target,
        picker: Picker,
        path: str,
        query: str,
        headers: Sequence[tuple[str, str]],
        *,
        timeout: float,
        subprotocols: Sequence[str],
        ping_interval: float | None,
        max_size: int | None,
    ) -> None:
        if ping_interval is not None and not ping_interval > 0:
            raise ConfigError(
                f"{target.service}: ping_interval must be more than 0 s, not {ping_interval:g}"
            )
        self.headers = Headers()
        self._target = target
        self._picker = picker
        self._path = path
        self._query = query
        self._sent = list(headers)
        self._timeout = timeout
        self._options: dict[str, Any] = {
            "subprotocols": [Subprotocol(each) for each in subprotocols] or None,
            "ping_interval": ping_interval,
            "ping_timeout": ping_interval,
            "max_size": max_size,
        }
        self._pick: Pick | None = None
        self._opened: ClientConnection | None = None
        self._reported = False

    @property
    def instance(self) -> Instance | None:
        """Whom it is open to, None before that."""
        return None if self._pick is None else self._pick.instance

    @property
    def subprotocol(self) -> str | None:
        """What the server has chosen of the subprotocols that were offered."""
        return self._connection.subprotocol

    async def send_text(self, data: str) -> None:
        """Send a text message."""
        await self._send(data)

    async def send_bytes(self, data: bytes) -> None:
        """Send a binary message."""
        await self._send(data)

    async def send_json(self, data: Any) -> None:
        """Send anything that JSON has a form for as a text message."""
        from meshkit.client.request import encode_json  # noqa: PLC0415 - not everybody sends JSON

        await self._send(encode_json(data).decode())

    async def receive(self) -> str | bytes:
        """Return the next message."""
        try:
            return await self._connection.recv()
        except ConnectionClosed as error:
            raise self._closed(error) from None

    async def receive_text(self) -> str:
        """Return the next message as text; a binary one is decoded as UTF-8."""
        message = await self.receive()
        return message if isinstance(message, str) else message.decode()

    async def receive_bytes(self) -> bytes:
        """Return the next message as bytes."""
        message = await self.receive()
        return message if isinstance(message, bytes) else message.encode()

    async def receive_json(self) -> Any:
        """Return the next message read as JSON. Raises ValueError when it is none."""
        return json.loads(await self.receive())

    async def __aiter__(self) -> AsyncIterator[str | bytes]:
        while True:
            try:
                yield await self.receive()
            except WebSocketClosed as closed:
                if closed.code == 1000:
                    return
                raise

    async def close(self, code: int = 1000, reason: str = "") -> None:
        """Close it. Closing twice is safe."""
        if self._opened is not None:
            await self._opened.close(code, reason)

    async def __aenter__(self) -> Self:
        await self._open()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.close()

    @property
    def _connection(self) -> ClientConnection:
        if self._opened is None:
            raise ConfigError("the WebSocket is not open: use it within its `async with`")
        return self._opened

    async def _send(self, data: str | bytes) -> None:
        try:
            await self._connection.send(data)
        except ConnectionClosed as error:
            raise self._closed(error) from None

    def _closed(self, error: ConnectionClosed) -> WebSocketClosed:
        """Return our error, and tell the balancer once what it says of the instance."""
        frame = error.rcvd
        code, reason = (frame.code, frame.reason) if frame else (ABNORMAL, "")
        assert self._pick is not None
        if not self._reported and (code in LEAVING or code == ABNORMAL):
            self._reported = True
            outcome = Outcome.DRAINING if code in LEAVING else Outcome.FAILED
            self._target.observe(self._pick.instance, outcome, 0.0)
        what = f"closed with {code}{f' ({reason})' if reason else ''}"
        if code == ABNORMAL:
            what = "the connection broke"
        elif code in LEAVING:
            what += ": the instance is leaving, open another one"
        line = f"{self._about()} {self._pick.instance.id}: {what}"
        return WebSocketClosed(line, code=code, reason=reason)

    def _about(self) -> str:
        return f"{self._target.service}: WebSocket {self._path}:"

    async def _open(self) -> None:
        deadline = time.monotonic() + self._timeout
        tried: list[str] = []
        failures: list[CallError] = []
        while True:
            pick = await self._choose(tried, failures, deadline)
            try:
                self._opened = await self._attempt(pick, deadline - time.monotonic())
            except CallError as error:
                if isinstance(error, HTTPStatusError):
                    raise
                tried.append(pick.instance.id)
                failures.append(type(error)(f"{pick.instance.id} ({pick.endpoint}) {error}"))
                reached = sum(not isinstance(each, ConnectError) for each in failures)
                if reached >= ATTEMPTS or time.monotonic() >= deadline:
                    raise self._failed(failures) from None
            else:
                self._pick = pick
                return

    async def _choose(self, tried: list[str], failures: list[CallError], deadline: float) -> Pick:
        try:
            pick = self._picker.try_pick("http", tried)
            if pick is None:
                async with asyncio.timeout(deadline - time.monotonic()):
                    pick = await self._picker.pick("http", tried)
        except NoInstances:
            if not failures:
                raise
            raise self._failed(failures) from None
        except TimeoutError:
            reason = f"no list of instances within {self._timeout:g} s"
            raise CallTimeout(f"{self._about()} {reason}") from None
        return pick

    def _failed(self, failures: list[CallError]) -> CallError:
        return type(failures[-1])(f"{self._about()} {'; '.join(map(str, failures))}")

    async def _attempt(self, pick: Pick, left: float) -> ClientConnection:
        """Open it on one instance, and tell the balancer how that went."""
        outcome = Outcome.CANCELLED
        try:
            opened = await self._handshake(pick, max(left, 0.001))
        except CallError as error:
            outcome = _outcome(error)
            raise
        else:
            outcome = Outcome.OK
        finally:
            pick.done(outcome)
        return opened

    async def _handshake(self, pick: Pick, left: float) -> ClientConnection:
        headers = list(self._sent)
        if (context := current()) is not OUTSIDE:
            headers = [*outgoing(context), *headers]
        if identity.proves_identity(pick.instance.metadata):
            headers.append((identity.TARGET, pick.instance.id))
        try:
            connection = await connect(
                f"ws://{pick.endpoint}{self._path}{self._query}",
                additional_headers=headers,
                user_agent_header="meshkit",
                proxy=None,
                open_timeout=min(left, HANDSHAKE_TIMEOUT),
                close_timeout=CONNECT_TIMEOUT,
                **self._options,
            )
        except TimeoutError:
            raise CallTimeout("did not answer in time") from None
        except InvalidStatus as error:
            raise self._rejected(pick, error) from None
        except (InvalidHandshake, EOFError) as error:
            raise ConnectionLost(f"sent no valid answer ({_line(error)})") from None
        except ConnectionRefusedError:
            raise ConnectError("refused the connection") from None
        except OSError as error:
            raise ConnectionLost(f"broke the connection ({_line(error)})") from None
        assert connection.response is not None
        self.headers = Headers(
            (name.lower(), value) for name, value in connection.response.headers.raw_items()
        )
        who = pick.instance
        if identity.proves_identity(who.metadata) and who.id not in self.headers.get_list(
            identity.INSTANCE
        ):
            await connection.close()
            named = self.headers.get(identity.INSTANCE, "somebody who gives no name")
            raise WrongInstance(f"was answered for by {named}")
        return connection

    def _rejected(self, pick: Pick, error: InvalidStatus) -> CallError:
        status = error.response.status_code
        if status == MISDIRECTED:
            return WrongInstance("is somebody else's address by now")
        if status in UNAVAILABLE:
            return ConnectionLost(f"answered {status}")
        line = f"{self._about()} {pick.instance.id} answered {status}, not with a WebSocket"
        return HTTPStatusError(line, status_code=status)


OUTCOMES: dict[type[CallError], Outcome] = {
    ConnectError: Outcome.REFUSED,
    WrongInstance: Outcome.WRONG,
    CallTimeout: Outcome.TIMEOUT,
}


def _outcome(error: CallError) -> Outcome:
    if isinstance(error, HTTPStatusError):
        return Outcome.FAILED if error.status_code >= 500 else Outcome.OK
    return OUTCOMES.get(type(error), Outcome.FAILED)


def _line(error: BaseException) -> str:
    return " ".join(str(error).split()) or type(error).__name__
