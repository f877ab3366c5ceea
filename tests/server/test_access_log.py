"""The access log: one line for each request, over both transports, and nothing secret in it."""

# ruff: noqa: N802 - methods are named as in the proto

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import grpc
import grpc.aio
import httpx2
import pytest
from fastapi import Request, WebSocket
from fastapi.responses import StreamingResponse
from grpc_health.v1 import health_pb2, health_pb2_grpc
from websockets.asyncio.client import connect

from meshkit import MeshService, Runtime, get, post, websocket
from meshkit.identity import TARGET
from meshkit.propagation import DEADLINE, REQUEST
from meshkit.server.access_log import AccessLog, Entry
from tests.protos import echo_pb2_grpc
from tests.protos.echo_pb2 import EchoReply, EchoRequest
from tests.support.waiting import aeventually

REGISTRY = "memory://access-log"


class Shop(MeshService, echo_pb2_grpc.EchoServicer):
    name = "shop"

    @get("/items/{number}")
    async def read(self, number: int) -> str:
        return "x" * number

    @get("/bug")
    async def bug(self) -> None:
        raise RuntimeError("a bug")

    @get("/slow")
    async def slow(self) -> None:
        await asyncio.sleep(60)

    @get("/stream")
    async def stream(self) -> StreamingResponse:
        async def chunks() -> AsyncIterator[bytes]:
            for _ in range(5):
                yield b"chunk"

        return StreamingResponse(chunks())

    @post("/login")
    async def login(self, request: Request) -> None:
        await request.body()

    @websocket("/talk")
    async def talk(self, socket: WebSocket) -> None:
        await socket.accept()
        await socket.send_text("hello")
        await socket.close()

    async def Say(self, request: EchoRequest, context: Any) -> EchoReply:
        if request.text == "bug":
            raise RuntimeError("a bug")
        if request.text == "slow":
            await asyncio.sleep(60)
        if request.text == "nobody":
            await context.abort(grpc.StatusCode.NOT_FOUND, "nobody")
        return EchoReply(text=request.text)

    def Look(self, request: EchoRequest, context: Any) -> EchoReply:
        if request.text == "nobody":
            context.abort(grpc.StatusCode.NOT_FOUND, "nobody")
        return EchoReply(text=request.text)

    async def Repeat(self, request: EchoRequest, context: Any) -> AsyncIterator[EchoReply]:
        for _ in range(3):
            yield EchoReply(text=request.text)

    async def Join(self, requests: AsyncIterator[EchoRequest], context: Any) -> EchoReply:
        return EchoReply(text=" ".join([request.text async for request in requests]))

    async def Chat(self, requests: AsyncIterator[EchoRequest], context: Any) -> None:
        async for request in requests:
            await context.write(EchoReply(text=request.text))


@pytest.fixture
def entries(monkeypatch: pytest.MonkeyPatch) -> list[Entry]:
    found: list[Entry] = []
    monkeypatch.setattr(AccessLog, "write", found.append)
    return found


@pytest.fixture
async def runtime(entries: list[Entry]) -> AsyncIterator[Runtime]:
    async with Runtime(Shop(), registry=REGISTRY, access_log=True, drain_delay=0) as running:
        yield running


@pytest.fixture
async def http(runtime: Runtime) -> AsyncIterator[httpx2.AsyncClient]:
    assert runtime.http_url
    headers = {"user-agent": "tests/1.0"}
    async with httpx2.AsyncClient(base_url=runtime.http_url, headers=headers) as client:
        yield client


@pytest.fixture
async def stub(runtime: Runtime) -> AsyncIterator[Any]:
    assert runtime.grpc_target
    async with grpc.aio.insecure_channel(runtime.grpc_target) as channel:
        yield echo_pb2_grpc.EchoStub(channel)  # type: ignore[no-untyped-call]


async def only(entries: list[Entry]) -> Entry:
    """The one line; that of a stream comes a moment after its end."""

    async def there() -> bool:
        return bool(entries)

    await aeventually(there)
    (entry,) = entries
    return entry


async def test_a_line_tells_what_was_asked_and_what_became_of_it(
    http: httpx2.AsyncClient, entries: list[Entry]
) -> None:
    headers = {REQUEST: "abc-1", DEADLINE: "5000"}
    await http.get("/items/10?secret=1", headers=headers)
    entry = await only(entries)
    assert (entry.method, entry.path, entry.status, entry.bytes) == ("GET", "/items/10", 200, 12)
    assert (entry.request_id, entry.peer, entry.agent) == ("abc-1", "127.0.0.1", "tests/1.0")
    assert 0 < entry.duration_ms < 60_000
    assert entry.deadline_ms is not None
    assert 0 < entry.deadline_ms <= 5000


@pytest.mark.parametrize(
    ("path", "headers", "status"),
    [
        ("/nowhere", {}, 404),
        ("/items/x", {}, 422),
        ("/bug", {}, 500),
        ("/items/1", {TARGET: "somebody-else"}, 421),
        ("/slow", {DEADLINE: "50"}, 504),
    ],
)
async def test_every_answer_has_its_line(
    http: httpx2.AsyncClient,
    entries: list[Entry],
    path: str,
    headers: dict[str, str],
    status: int,
) -> None:
    await http.get(path, headers=headers)
    entry = await only(entries)
    assert entry.status == status
    assert entry.bytes > 0


async def test_a_stream_has_one_line_with_all_its_bytes(
    http: httpx2.AsyncClient, entries: list[Entry]
) -> None:
    await http.get("/stream")
    entry = await only(entries)
    assert (entry.status, entry.bytes) == (200, 25)


async def test_a_websocket_has_one_line_at_its_end(runtime: Runtime, entries: list[Entry]) -> None:
    assert runtime.http_url
    async with connect(runtime.http_url.replace("http", "ws") + "/talk?token=hidden") as talk:
        assert await talk.recv() == "hello"
    entry = await only(entries)
    assert (entry.method, entry.path, entry.bytes) == ("WEBSOCKET", "/talk", 5)


async def test_health_questions_have_none(
    http: httpx2.AsyncClient, entries: list[Entry], runtime: Runtime
) -> None:
    await http.get("/health/live")
    await http.get("/health/ready")
    assert runtime.grpc_target
    async with grpc.aio.insecure_channel(runtime.grpc_target) as channel:
        health: Any = health_pb2_grpc.HealthStub(channel)
        await health.Check(health_pb2.HealthCheckRequest(), timeout=10)
    assert entries == []


async def test_secrets_of_a_request_are_not_in_its_line(
    http: httpx2.AsyncClient, entries: list[Entry]
) -> None:
    await http.post(
        "/login?token=secret-1",
        headers={
            "authorization": "Bearer secret-2",
            "x-api-key": "secret-3",
            "cookie": "session=secret-4",
        },
        json={"password": "secret-5"},
    )
    entry = await only(entries)
    assert entry.status == 200
    assert "secret" not in str(entry)
    assert "secret" not in str(entry._asdict())


async def test_nothing_from_outside_breaks_a_line(
    http: httpx2.AsyncClient, entries: list[Entry]
) -> None:
    agent = b"\xe9'\" \\n\t" + b"x" * 5000
    await http.get("/%0Aforged%20line%1B", headers={b"user-agent": agent})
    entry = await only(entries)
    assert entry.path == "/%0Aforged%20line%1B"
    assert len(entry.agent) == 200
    assert str(entry).isprintable()


@pytest.mark.parametrize(
    ("text", "status"),
    [("hello", "OK"), ("bug", "UNKNOWN"), ("nobody", "NOT_FOUND"), ("slow", "DEADLINE_EXCEEDED")],
)
async def test_a_grpc_call_has_its_line(
    stub: Any, entries: list[Entry], text: str, status: str
) -> None:
    call = stub.Say(EchoRequest(text=text), timeout=0.5 if text == "slow" else 20)
    await call.code()
    entry = await only(entries)
    assert (entry.method, entry.path) == ("GRPC", "/meshkit.tests.Echo/Say")
    assert entry.status == status
    assert entry.bytes == (EchoReply(text=text).ByteSize() if status == "OK" else 0)
    assert entry.request_id
    assert "127.0.0.1" in entry.peer
    assert entry.agent.startswith("grpc-python")
    assert entry.deadline_ms is not None


@pytest.mark.parametrize(
    ("method", "count"), [("Look", 1), ("Repeat", 3), ("Join", 1), ("Chat", 0)]
)
async def test_all_forms_of_grpc_methods_have_one_line(
    stub: Any, entries: list[Entry], method: str, count: int
) -> None:
    async def texts() -> AsyncIterator[EchoRequest]:
        yield EchoRequest(text="hello")

    streams = method in ("Join", "Chat")
    call = getattr(stub, method)(texts() if streams else EchoRequest(text="hello"), timeout=20)
    replies = [reply async for reply in call] if method in ("Repeat", "Chat") else [await call]
    assert {reply.text for reply in replies} == {"hello"}
    entry = await only(entries)
    assert entry.status == "OK"
    assert entry.bytes == count * EchoReply(text="hello").ByteSize()


async def test_the_status_of_a_handler_in_a_thread_is_known(
    stub: Any, entries: list[Entry]
) -> None:
    await stub.Look(EchoRequest(text="nobody"), timeout=20).code()
    assert (await only(entries)).status == "NOT_FOUND"


async def test_a_caller_who_leaves_is_told_apart(stub: Any, entries: list[Entry]) -> None:
    call = stub.Say(EchoRequest(text="slow"), timeout=60)
    await asyncio.sleep(0.3)
    call.cancel()
    assert (await only(entries)).status == "CANCELLED"


async def test_without_meshkit_run_it_goes_through_logging(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level("INFO", "meshkit.access")
    async with (
        Runtime(Shop(), registry=REGISTRY, access_log=True, drain_delay=0) as runtime,
        httpx2.AsyncClient(base_url=runtime.http_url or "") as client,
    ):
        await client.get("/items/1")
    (record,) = [record for record in caplog.records if record.name == "meshkit.access"]
    assert record.__dict__["path"] == "/items/1"
    assert record.__dict__["status"] == 200


async def test_off_means_that_there_is_no_layer() -> None:
    service = Shop()
    async with Runtime(service, registry=REGISTRY, drain_delay=0) as runtime:
        assert runtime._servers.http
        front: Any = runtime._servers.http.config.app
        assert front.app is runtime._servers.http._app
