"""What a call brings along over gRPC: for handlers of all forms, async and in threads."""

# ruff: noqa: N802 - methods are named as in the proto

from __future__ import annotations

import asyncio
import json
import threading
import time
from collections.abc import AsyncIterator, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import grpc
import grpc.aio
import pytest

from meshkit import CallTimeout, ConnectionLost, NoInstances, context, identity
from meshkit.propagation import DEADLINE, REQUEST
from meshkit.server.grpc import GrpcServer
from tests.protos import echo_pb2_grpc
from tests.protos.echo_pb2 import EchoReply, EchoRequest
from tests.support.waiting import aeventually

TRACEPARENT = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"
KINDS = ("unary", "server stream", "client stream", "both streams")
METADATA = (
    (REQUEST, "job-7"),
    ("traceparent", TRACEPARENT),
    ("tracestate", "a=1"),
    ("tracestate", "b=2"),
    ("baggage", "tenant=acme,secret=1"),
    ("x-user", "u1"),
    (DEADLINE, "1"),
)


def seen() -> EchoReply:
    call = context.current()
    left = call.remaining
    found = {
        "request_id": call.request_id,
        "traceparent": call.traceparent,
        "tracestate": call.tracestate,
        "baggage": dict(call.baggage),
        "user": call.header("x-user"),
        "limited": left is not None and 5 < left <= 10,  # gRPC rounds up
    }
    return EchoReply(text=json.dumps(found))


class AsyncEcho(echo_pb2_grpc.EchoServicer):
    def __init__(self) -> None:
        self.notes: list[str] = []
        self.left: list[float | None] = []
        self.tasks: list[asyncio.Task[None]] = []
        self.release = threading.Event()

    async def Say(self, request: EchoRequest, _context: Any) -> EchoReply:
        if request.text == "hang":
            await self._hang()
        raised(request.text)
        if request.text == "spawn":
            self.left.append(context.remaining())
            self.tasks.append(asyncio.create_task(self._later()))
        return seen()

    async def Repeat(self, request: EchoRequest, _context: Any) -> AsyncIterator[EchoReply]:
        raised(request.text)
        for _ in range(3):
            yield seen()
            await asyncio.sleep(0.01)
        if request.text == "hang":
            await self._hang()

    async def Join(self, requests: AsyncIterator[EchoRequest], _context: Any) -> EchoReply:
        async for _ in requests:
            pass
        return seen()

    async def Chat(
        self, requests: AsyncIterator[EchoRequest], _context: Any
    ) -> AsyncIterator[EchoReply]:
        async for _ in requests:
            yield seen()

    async def _hang(self) -> None:
        self.notes.append("began")
        try:
            await asyncio.sleep(20)
        except asyncio.CancelledError:
            self.notes.append("cancelled")
            raise

    async def _later(self) -> None:
        await asyncio.sleep(0.5)
        self.left.append(context.remaining())


def raised(text: str) -> None:
    errors = {"late": CallTimeout, "nobody": NoInstances, "lost": ConnectionLost}
    if text in errors:
        raise errors[text](f"users: GET /x: 127.0.0.1 {text}")
    if text in grpc.StatusCode.__members__:
        metadata = grpc.aio.Metadata()
        raise grpc.aio.AioRpcError(grpc.StatusCode[text], metadata, metadata, "of users")


class SyncEcho(AsyncEcho):
    def Say(self, request: EchoRequest, _context: Any) -> EchoReply:  # type: ignore[override]
        if request.text == "hang":
            self.notes.append("began")
            self.release.wait(20)
            self.notes.append("ended")
        raised(request.text)
        return seen()

    def Repeat(  # type: ignore[override]
        self, request: EchoRequest, _context: Any
    ) -> Iterator[EchoReply]:
        raised(request.text)
        for _ in range(3):
            yield seen()

    def Join(  # type: ignore[override]
        self, requests: Iterator[EchoRequest], _context: Any
    ) -> EchoReply:
        for _ in requests:
            pass
        return seen()

    def Chat(  # type: ignore[override]
        self, requests: Iterator[EchoRequest], _context: Any
    ) -> Iterator[EchoReply]:
        for _ in requests:
            yield seen()


@pytest.fixture(params=[AsyncEcho, SyncEcho], ids=["async", "sync"])
def echo(request: pytest.FixtureRequest) -> Iterator[AsyncEcho]:
    made = request.param()
    yield made
    made.release.set()


# For what a thread can't do: be cancelled, or start tasks.
only_async = pytest.mark.parametrize("echo", [AsyncEcho], indirect=True, ids=["async"])


@pytest.fixture
async def stub(echo: AsyncEcho) -> AsyncIterator[Any]:
    server = GrpcServer("127.0.0.1", 0, baggage=("tenant",))
    server.add(echo, [echo_pb2_grpc.add_EchoServicer_to_server], reflection=False)
    await server.start()
    server.identify("echo", "echo-1")
    async with grpc.aio.insecure_channel(f"127.0.0.1:{server.port}") as channel:
        yield echo_pb2_grpc.EchoStub(channel)  # type: ignore[no-untyped-call]
    echo.release.set()
    await server.stop(grace=0)


async def call(
    stub: Any, kind: str, *, metadata: Sequence[tuple[str, str]] = ()
) -> tuple[list[dict[str, Any]], str | None]:
    """Make a call of one kind; return what its handler saw, and the id that was answered."""
    one, many = EchoRequest(), iter([EchoRequest()] * 3)
    options = {"metadata": metadata, "timeout": 9}
    if kind in ("unary", "client stream"):
        made = stub.Say(one, **options) if kind == "unary" else stub.Join(many, **options)
        replies = [await made]
    else:
        made = stub.Repeat(one, **options) if "both" not in kind else stub.Chat(many, **options)
        replies = [reply async for reply in made]
    trailing = await made.trailing_metadata()
    return [json.loads(reply.text) for reply in replies], trailing.get(REQUEST)


@pytest.mark.parametrize("kind", KINDS)
async def test_a_handler_sees_what_the_call_brought(stub: Any, kind: str) -> None:
    found, request_id = await call(stub, kind, metadata=METADATA)
    expected = {
        "request_id": "job-7",
        "traceparent": TRACEPARENT,
        "tracestate": "a=1,b=2",
        "baggage": {"tenant": "acme"},
        "user": "u1",
        "limited": True,
    }
    assert len(found) in (1, 3)
    assert found == [expected] * len(found)
    assert request_id == "job-7"
    assert context.current() is context.OUTSIDE


@pytest.mark.parametrize("kind", KINDS)
async def test_a_call_that_brings_nothing_gets_an_id(stub: Any, kind: str) -> None:
    ids = set()
    for _ in range(5):
        found, request_id = await call(stub, kind)
        (seen_id,) = {each["request_id"] for each in found}
        assert seen_id == request_id
        assert all(each["baggage"] == {} for each in found)
        ids.add(seen_id)
    assert len(ids) == 5


async def test_no_deadline_is_none(stub: Any) -> None:
    reply = await stub.Say(EchoRequest())
    assert json.loads(reply.text)["limited"] is False


async def test_a_handler_ends_when_the_deadline_passes(stub: Any, echo: AsyncEcho) -> None:
    with pytest.raises(grpc.aio.AioRpcError) as late:
        await stub.Say(EchoRequest(text="hang"), timeout=0.2)
    assert late.value.code() is grpc.StatusCode.DEADLINE_EXCEEDED
    if isinstance(echo, SyncEcho):  # a thread can't be cancelled
        assert echo.notes == ["began"]
        echo.release.set()
        await noted(echo, "began", "ended")
    else:
        await noted(echo, "began", "cancelled")


@only_async
async def test_a_handler_that_streams_ends_too(stub: Any, echo: AsyncEcho) -> None:
    with pytest.raises(grpc.aio.AioRpcError) as late:
        async for _ in stub.Repeat(EchoRequest(text="hang"), timeout=0.4):
            pass
    assert late.value.code() is grpc.StatusCode.DEADLINE_EXCEEDED
    await noted(echo, "began", "cancelled")


async def test_a_handler_ends_when_its_caller_gives_up(stub: Any, echo: AsyncEcho) -> None:
    made = stub.Say(EchoRequest(text="hang"))
    await noted(echo, "began")
    made.cancel()
    if isinstance(echo, SyncEcho):
        echo.release.set()
    await noted(echo, "began", "ended" if isinstance(echo, SyncEcho) else "cancelled")


@only_async
async def test_what_a_handler_starts_goes_on_without_its_deadline(
    stub: Any, echo: AsyncEcho
) -> None:
    await stub.Say(EchoRequest(text="spawn"), timeout=0.3)
    await echo.tasks[0]
    before, after = echo.left
    assert before is not None
    assert before < 1
    assert after is None


async def test_a_call_that_waited_too_long_for_a_thread_never_reaches_its_handler() -> None:
    echo, server = SyncEcho(), GrpcServer("127.0.0.1", 0)
    server.add(echo, [echo_pb2_grpc.add_EchoServicer_to_server], reflection=False)
    await server.start()
    server.identify("echo", "echo-1")
    loop = asyncio.get_running_loop()
    with ThreadPoolExecutor(1) as one_thread:
        loop.set_default_executor(one_thread)
        async with grpc.aio.insecure_channel(f"127.0.0.1:{server.port}") as channel:
            stub: Any = echo_pb2_grpc.EchoStub(channel)  # type: ignore[no-untyped-call]
            first = stub.Say(EchoRequest(text="hang"))
            await noted(echo, "began")
            late = stub.Say(EchoRequest(text="hang"), timeout=0.2)
            assert await late.code() is grpc.StatusCode.DEADLINE_EXCEEDED
            echo.release.set()
            await first
            await stub.Say(EchoRequest())
        await server.stop(grace=0)
    assert echo.notes == ["began", "ended"]


@pytest.mark.parametrize(
    ("text", "code", "details", "again"),
    [
        ("late", grpc.StatusCode.DEADLINE_EXCEEDED, "users did not answer in time", False),
        ("nobody", grpc.StatusCode.UNAVAILABLE, "users is not available", not NoInstances.final),
        ("lost", grpc.StatusCode.UNAVAILABLE, "the call to users failed", False),
        ("UNAVAILABLE", grpc.StatusCode.UNAVAILABLE, "a service is not available", False),
        ("RESOURCE_EXHAUSTED", grpc.StatusCode.UNAVAILABLE, "a service is not available", False),
        (
            "DEADLINE_EXCEEDED",
            grpc.StatusCode.DEADLINE_EXCEEDED,
            "a service did not answer in time",
            False,
        ),
    ],
)
async def test_a_handler_that_lets_a_failed_call_pass_says_so(
    stub: Any,
    text: str,
    code: grpc.StatusCode,
    details: str,
    *,
    again: bool,
) -> None:
    with pytest.raises(grpc.aio.AioRpcError) as unary:
        await stub.Say(EchoRequest(text=text))
    with pytest.raises(grpc.aio.AioRpcError) as streamed:
        async for _ in stub.Repeat(EchoRequest(text=text)):
            pass
    for error in (unary.value, streamed.value):
        assert (error.code(), error.details()) == (code, details)
        assert error.trailing_metadata().get(identity.INSTANCE) == "echo-1"
        # What had its retries below is not repeated above.
        assert (error.trailing_metadata().get(identity.NO_RETRY) is None) == again


async def test_what_a_handler_asked_wrongly_is_its_own_fault(stub: Any) -> None:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await stub.Say(EchoRequest(text="NOT_FOUND"))
    assert caught.value.code() is grpc.StatusCode.UNKNOWN


async def noted(echo: AsyncEcho, *notes: str) -> None:
    async def all_there() -> bool:
        return echo.notes == [*notes]

    began = time.monotonic()
    await aeventually(all_there)
    assert time.monotonic() - began < 15
