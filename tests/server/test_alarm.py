"""One timer of a connection serves its keep-alive and the deadline of the request under way."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Callable, Iterator
from typing import Any

import uvicorn
from uvicorn.server import ServerState

from meshkit.server.alarm import Alarm
from meshkit.server.asgi import MeshApp
from meshkit.server.backlog import Backlog
from meshkit.server.bind import bind
from meshkit.server.health import Health, Phase
from meshkit.server.http_protocol import HttpProtocol
from tests.support.connection import Written
from tests.support.waiting import aeventually

GET = b"GET /%s HTTP/1.1\r\nHost: x\r\nx-meshkit-deadline: %d\r\n\r\n"
SHORT = 0.1
LONG = 60_000


async def until(condition: Callable[[], object]) -> None:
    async def probe() -> object:
        return condition()

    await aeventually(probe)


class Sleeper:
    """Notes when it was woken."""

    def __init__(self) -> None:
        self.woken: list[float] = []

    def overdue(self) -> None:
        self.woken.append(time.monotonic())


async def test_it_rings_for_the_last_who_set_it_and_not_before() -> None:
    alarm, first, last = Alarm(), Sleeper(), Sleeper()
    due = time.monotonic() + 2 * SHORT
    alarm.set(due - SHORT, first)
    alarm.set(due, last)
    await until(lambda: last.woken)
    assert last.woken[0] >= due
    assert first.woken == []


async def test_it_rings_earlier_than_it_was_set_before() -> None:
    alarm, sleeper = Alarm(), Sleeper()
    alarm.set(time.monotonic() + LONG, sleeper)
    alarm.set(time.monotonic(), sleeper)
    await until(lambda: sleeper.woken)


async def test_it_rings_for_nobody_who_was_forgotten_and_again_for_others() -> None:
    alarm, first, last = Alarm(), Sleeper(), Sleeper()
    alarm.set(time.monotonic() + SHORT, first)
    alarm.forget(last)  # who did not wait
    alarm.forget(first)
    await asyncio.sleep(2 * SHORT)
    alarm.set(time.monotonic(), last)
    await until(lambda: last.woken)
    assert first.woken == []


async def test_it_is_not_stopped_for_who_waits() -> None:
    alarm, sleeper = Alarm(), Sleeper()
    alarm.set(time.monotonic() + SHORT, sleeper)
    alarm.stop()
    await until(lambda: sleeper.woken)


class Held:
    """An application whose ``/held`` answers when told; it notes what was cancelled."""

    def __init__(self) -> None:
        self.answer = asyncio.Event()
        self.cancelled = 0

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["path"] == "/held":
            try:
                await self.answer.wait()
            except asyncio.CancelledError:
                self.cancelled += 1
                raise
        headers = [(b"content-length", b"2")]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": b"ok"})


@contextlib.contextmanager
def connected(app: Held, *, keep_alive: float = 75) -> Iterator[tuple[Any, Written]]:
    health = Health((), timeout=1.0, interval=1.0)
    health.phase = Phase.SERVING
    mesh: Any = MeshApp(app, health, dict)
    seconds: Any = keep_alive
    config = uvicorn.Config(
        mesh, interface="asgi3", ws="none", log_config=None, timeout_keep_alive=seconds
    )
    config.load()
    state = ServerState()
    state.default_headers = mesh.headers
    with bind("127.0.0.1", 0) as sock:
        protocol: Any = HttpProtocol(
            backlog=Backlog(sock), config=config, server_state=state, app_state={}
        )
        connection = Written()
        protocol.connection_made(connection)
        yield protocol, connection


async def test_a_connection_is_closed_when_idle_and_not_while_it_is_used() -> None:
    app = Held()
    with connected(app, keep_alive=SHORT) as (protocol, connection):
        protocol.data_received(GET % (b"", LONG))
        await until(lambda: connection.answer.endswith(b"ok"))
        protocol.data_received(GET % (b"held", LONG))
        await asyncio.sleep(3 * SHORT)
        assert not connection.closed
        app.answer.set()
        await until(lambda: connection.closed)
        assert connection.answer.count(b"200 OK") == 2


async def test_a_deadline_is_kept_on_a_connection_that_was_idle() -> None:
    app = Held()
    with connected(app) as (protocol, connection):
        protocol.data_received(GET % (b"", LONG))
        await until(lambda: connection.answer.endswith(b"ok"))
        protocol.data_received(GET % (b"held", 50))
        await until(lambda: b"504 Gateway Timeout" in connection.answer)
        assert app.cancelled == 1
        assert not connection.closed
        protocol.data_received(GET % (b"", LONG))
        await until(lambda: connection.answer.count(b"200 OK") == 2)


async def test_a_deadline_is_kept_when_the_caller_has_gone() -> None:
    app = Held()
    with connected(app) as (protocol, connection):
        protocol.data_received(GET % (b"held", 50))
        await asyncio.sleep(0)
        protocol.connection_lost(None)
        await until(lambda: app.cancelled == 1)
        assert connection.answer == b""
        await asyncio.gather(*protocol.tasks)
