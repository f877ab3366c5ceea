"""WebSockets to a service by its name."""

from __future__ import annotations

import asyncio
import contextlib
import signal
import subprocess
import sys
from collections.abc import AsyncIterator

import pytest
from websockets.asyncio.server import ServerConnection, serve
from websockets.datastructures import Headers
from websockets.http11 import Request, Response

from meshkit import Mesh, WebSocketClosed, identity
from meshkit.discovery.balancing import Outcome
from meshkit.errors import CallError, ConfigError, HTTPStatusError, MissingExtraError, NoInstances
from meshkit.model import Endpoint
from tests.client.http_servers import (
    Server,
    close_after_reading,
    http_answer,
    never_answer,
    raw_server,
    refusing,
    users,
)
from tests.support.processes import Processes


class Talk:
    """Sends back what it gets; the words ``close <code>`` and ``break`` end the connection."""

    def __init__(self, name: str | None = None) -> None:
        self.name = name
        self.paths: list[str] = []
        self.headers: list[Headers] = []

    async def __call__(self, socket: ServerConnection) -> None:
        assert socket.request is not None
        self.paths.append(socket.request.path)
        self.headers.append(socket.request.headers)
        async for message in socket:
            if isinstance(message, str) and message.startswith("close "):
                await socket.close(int(message[6:]), "so it is")
            elif message == "break":
                socket.transport.abort()
            else:
                await socket.send(message)

    @contextlib.asynccontextmanager
    async def serving(self) -> AsyncIterator[Endpoint]:
        def named(_: ServerConnection, __: Request, answer: Response) -> None:
            if self.name is not None:
                answer.headers[identity.INSTANCE] = self.name

        async with serve(
            self, "127.0.0.1", 0, process_response=named, subprotocols=None, select_subprotocol=None
        ) as server:
            host, port = next(iter(server.sockets)).getsockname()
            yield Endpoint(host, port)


async def test_messages() -> None:
    talk = Talk()
    async with talk.serving() as endpoint, users(endpoint) as ours:
        async with ours.client.websocket("/ws", params={"q": 1}, headers={"x-a": "b"}) as ws:
            assert ws.instance is not None
            assert ws.instance.id == "users-a"
            await ws.send_text("hello")
            assert await ws.receive_text() == "hello"
            await ws.send_bytes(b"\x00\xff")
            assert await ws.receive_bytes() == b"\x00\xff"
            await ws.send_json({"a": ["\u20ac"]})
            assert await ws.receive_json() == {"a": ["\u20ac"]}
            await ws.send_text("one")
            await ws.send_text("close 1000")
            assert [message async for message in ws] == ["one"]
            with pytest.raises(WebSocketClosed, match=r"closed with 1000 \(so it is\)"):
                await ws.send_text("too late")
        assert ours.outcomes == [("users-a", Outcome.OK)]
    assert (talk.paths, talk.headers[0]["x-a"]) == (["/ws?q=1"], "b")


@pytest.mark.parametrize(
    ("code", "says"),
    [(1001, "leaving"), (1012, "leaving"), (4001, "so it is")],
)
async def test_how_it_was_closed(code: int, says: str) -> None:
    async with Talk().serving() as endpoint, users(endpoint) as ours:
        async with ours.client.websocket("/ws") as ws:
            await ws.send_text(f"close {code}")
            with pytest.raises(WebSocketClosed, match=rf"^users: WebSocket /ws: .*{says}") as found:
                await anext(aiter(ws))
    assert (found.value.code, found.value.reason) == (code, "so it is")
    assert found.value.leaving is (says == "leaving")


async def test_a_broken_connection() -> None:
    async with Talk().serving() as endpoint, users(endpoint) as ours:
        async with ours.client.websocket("/ws") as ws:
            await ws.send_text("break")
            with pytest.raises(WebSocketClosed, match="the connection broke") as found:
                await ws.receive()
    assert (found.value.code, found.value.leaving) == (1006, False)


async def test_the_next_instance_is_asked() -> None:
    with refusing() as dead:
        async with (
            raw_server(close_after_reading) as broken,
            raw_server(Server(http_answer(503))) as starting,
            Talk().serving() as good,
            users(dead, broken, starting, good) as ours,
        ):
            async with ours.client.websocket("/ws") as ws:
                assert ws.instance is not None
                assert ws.instance.id == "users-d"
    kinds = [Outcome.REFUSED, Outcome.FAILED, Outcome.FAILED, Outcome.OK]
    assert [outcome for _, outcome in ours.outcomes] == kinds


async def test_an_instance_that_hangs_costs_one_handshake() -> None:
    async with (
        raw_server(never_answer) as hung,
        Talk().serving() as good,
        users(hung, good) as ours,
        asyncio.timeout(20),
        ours.client.websocket("/ws") as ws,
    ):
        await ws.send_text("x")
        assert await ws.receive() == "x"
    assert ours.outcomes == [("users-a", Outcome.TIMEOUT), ("users-b", Outcome.OK)]


async def test_somebody_else_at_the_address() -> None:
    async with (
        Talk("users-x").serving() as other,
        Talk("users-b").serving() as good,
        users(other, good, named=True) as ours,
    ):
        async with ours.client.websocket("/ws") as ws:
            assert ws.instance is not None
            assert ws.instance.id == "users-b"
    assert ours.outcomes == [("users-a", Outcome.WRONG), ("users-b", Outcome.OK)]


async def test_a_refusal_is_the_services_answer() -> None:
    async with raw_server(Server(http_answer(403))) as endpoint, users(endpoint, endpoint) as ours:
        with pytest.raises(HTTPStatusError, match="answered 403, not with a WebSocket") as found:
            async with ours.client.websocket("/ws?token=hush"):
                pytest.fail("refused, so no block")
    assert found.value.status_code == 403
    assert "hush" not in str(found.value)
    assert ours.outcomes == [("users-a", Outcome.OK)]


async def test_nobody_is_there() -> None:
    with refusing() as dead:
        async with users(dead) as ours:
            with pytest.raises(CallError, match=r"users-a .* refused the connection"):
                async with ours.client.websocket("/ws"):
                    pytest.fail("nobody is there, so no block")
    async with users() as ours:
        with pytest.raises(NoInstances):
            async with ours.client.websocket("/ws"):
                pytest.fail("nobody is there, so no block")


async def test_what_makes_no_sense() -> None:
    async with users() as ours:
        with pytest.raises(ConfigError, match="ping_interval must be more than 0 s"):
            ours.client.websocket("/ws", ping_interval=0)
        with pytest.raises(ConfigError, match="is not open"):
            await ours.client.websocket("/ws").send_text("x")


def test_without_the_extra() -> None:
    code = (
        "import sys; sys.modules['websockets'] = None\n"
        "import meshkit.client.http\n"
        "from meshkit import MissingExtraError\n"
        "try: import meshkit.client.websocket\n"
        "except MissingExtraError as error: print(error)\n"
    )
    ended = subprocess.run(
        [sys.executable, "-c", code], check=True, timeout=60, capture_output=True, text=True
    )
    assert "pip install 'meshkit[websocket]'" in ended.stdout
    assert issubclass(MissingExtraError, ConfigError)


async def test_a_real_service_that_is_stopped(services: Processes) -> None:
    """Its WebSockets say so, its event streams move on without losing or repeating an event."""
    both = services.start_all("live:Live", 2)
    async with Mesh(services.registry) as mesh, asyncio.timeout(60):
        live = mesh.http("live")
        async with live.sse("/ticks") as events, live.websocket("/talk") as ws:
            assert ws.instance is not None
            await ws.send_text("hi")
            assert (await ws.receive_json())["text"] == "hi"
            numbers = [int((await anext(events)).id) for _ in range(5)]
            assert events.response is not None
            left = {events.response.instance.id, ws.instance.id}
            stopping = [each for each in both if each.instance in left]
            if len(stopping) == 2:  # one has to stay
                stopping = [each for each in both if each.instance == ws.instance.id]
            stopping[0].send(signal.SIGTERM)
            numbers += [int((await anext(events)).id) for _ in range(100)]
            with pytest.raises(WebSocketClosed) as closed:
                await ws.receive()
            assert (closed.value.code, closed.value.leaving) == (1012, True)
            async with live.websocket("/talk") as again:
                assert again.instance is not None
                assert again.instance.id != ws.instance.id
        assert numbers == list(range(1, 106))
