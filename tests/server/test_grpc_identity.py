"""Who answered a gRPC call: in the trailing metadata of every answer, whatever the handler does."""

# ruff: noqa: N802 - methods are named as in the proto

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator, Sequence
from typing import Any

import grpc
import grpc.aio
import pytest

from meshkit import identity, propagation
from meshkit.server.grpc import GrpcServer
from tests.protos import echo_pb2_grpc
from tests.protos.echo_pb2 import EchoReply, EchoRequest

OURS = {identity.SERVICE: "echo", identity.INSTANCE: "echo-1"}
OWN = (("x-own", "theirs"),)
KINDS = ("unary", "server stream", "client stream", "both streams")
Metadata = dict[str, str]


class AsyncEcho(echo_pb2_grpc.EchoServicer):
    """Handlers in all four forms, with async; the text says how they end."""

    async def Say(self, request: EchoRequest, context: Any) -> EchoReply:
        return await self._reply(request, context)

    async def Repeat(self, request: EchoRequest, context: Any) -> AsyncIterator[EchoReply]:
        for _ in range(request.count or 1):
            yield await self._reply(request, context)

    async def Join(self, requests: AsyncIterator[EchoRequest], context: Any) -> EchoReply:
        replies = [await self._reply(request, context) async for request in requests]
        return EchoReply(text="+".join(reply.text for reply in replies))

    async def Chat(
        self, requests: AsyncIterator[EchoRequest], context: Any
    ) -> AsyncIterator[EchoReply]:
        async for request in requests:
            yield await self._reply(request, context)

    async def _reply(self, request: EchoRequest, context: Any) -> EchoReply:
        match request.text:
            case "set":
                context.set_trailing_metadata(OWN)
            case "abort":
                await context.abort(grpc.StatusCode.NOT_FOUND, "nobody")
            case "set, abort":
                context.set_trailing_metadata(OWN)
                await context.abort(grpc.StatusCode.NOT_FOUND, "nobody")
            case "abort with metadata":
                await context.abort(grpc.StatusCode.NOT_FOUND, "nobody", OWN)
            case "raise":
                raise ValueError("a bug")
        return EchoReply(text=request.text)


class SyncEcho(echo_pb2_grpc.EchoServicer):
    """The same without async; gRPC runs these in threads."""

    def Say(self, request: EchoRequest, context: Any) -> EchoReply:
        return self._reply(request, context)

    def Repeat(self, request: EchoRequest, context: Any) -> Iterator[EchoReply]:
        for _ in range(request.count or 1):
            yield self._reply(request, context)

    def Join(self, requests: Iterator[EchoRequest], context: Any) -> EchoReply:
        replies = [self._reply(request, context) for request in requests]
        return EchoReply(text="+".join(reply.text for reply in replies))

    def Chat(self, requests: Iterator[EchoRequest], context: Any) -> Iterator[EchoReply]:
        for request in requests:
            yield self._reply(request, context)

    def _reply(self, request: EchoRequest, context: Any) -> EchoReply:
        match request.text:
            case "set":
                context.set_trailing_metadata(OWN)
            case "abort":
                context.abort(grpc.StatusCode.NOT_FOUND, "nobody")
            case "set, abort":
                context.set_trailing_metadata(OWN)
                context.abort(grpc.StatusCode.NOT_FOUND, "nobody")
            case "abort with metadata":
                context.abort(grpc.StatusCode.NOT_FOUND, "nobody", OWN)
            case "raise":
                raise ValueError("a bug")
        return EchoReply(text=request.text)


@pytest.fixture(params=[AsyncEcho, SyncEcho], ids=["async", "sync"])
async def server(request: pytest.FixtureRequest) -> AsyncIterator[GrpcServer]:
    made = GrpcServer("127.0.0.1", 0)
    made.add(request.param(), [echo_pb2_grpc.add_EchoServicer_to_server], reflection=False)
    await made.start()
    made.identify("echo", "echo-1")
    yield made
    await made.stop(grace=0)


@pytest.fixture
async def channel(server: GrpcServer) -> AsyncIterator[grpc.aio.Channel]:
    async with grpc.aio.insecure_channel(f"127.0.0.1:{server.port}") as opened:
        yield opened


async def call(
    channel: grpc.aio.Channel, kind: str, *texts: str, metadata: Sequence[tuple[str, str]] = ()
) -> tuple[grpc.StatusCode, Metadata, list[str]]:
    """Make a call of one kind; return its status, trailing metadata and the texts answered."""
    stub: Any = echo_pb2_grpc.EchoStub(channel)  # type: ignore[no-untyped-call]
    one, many = EchoRequest(text=texts[0]), iter([EchoRequest(text=text) for text in texts])
    options = {"metadata": metadata, "timeout": 10}
    replies: list[str] = []
    try:
        if kind in ("unary", "client stream"):
            made = stub.Say(one, **options) if kind == "unary" else stub.Join(many, **options)
            replies.append((await made).text)
        else:
            made = stub.Repeat(one, **options) if "both" not in kind else stub.Chat(many, **options)
            replies.extend([reply.text async for reply in made])
    except grpc.aio.AioRpcError:
        pass
    trailing = {key: str(value) for key, value in await made.trailing_metadata()}
    trailing.pop(propagation.REQUEST, None)
    return await made.code(), trailing, replies


@pytest.mark.parametrize("kind", KINDS)
async def test_every_answer_names_the_instance(channel: grpc.aio.Channel, kind: str) -> None:
    code, trailing, replies = await call(channel, kind, "hello")
    assert (code, replies) == (grpc.StatusCode.OK, ["hello"])
    assert trailing == OURS


@pytest.mark.parametrize("kind", KINDS)
async def test_the_users_own_metadata_is_kept(channel: grpc.aio.Channel, kind: str) -> None:
    code, trailing, replies = await call(channel, kind, "set")
    assert (code, replies) == (grpc.StatusCode.OK, ["set"])
    assert trailing == {**OURS, **dict(OWN)}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("text", ["abort", "set, abort", "abort with metadata"])
async def test_an_abort_names_the_instance_too(
    channel: grpc.aio.Channel, kind: str, text: str
) -> None:
    code, trailing, replies = await call(channel, kind, text)
    assert (code, replies) == (grpc.StatusCode.NOT_FOUND, [])
    assert trailing == (OURS if text == "abort" else {**OURS, **dict(OWN)})


@pytest.mark.parametrize("kind", KINDS)
async def test_a_failing_handler_names_the_instance_too(
    channel: grpc.aio.Channel, kind: str
) -> None:
    code, trailing, replies = await call(channel, kind, "raise")
    assert (code, replies) == (grpc.StatusCode.UNKNOWN, [])
    assert trailing == OURS


@pytest.mark.parametrize("kind", KINDS)
async def test_a_call_meant_for_somebody_else_is_refused_unhandled(
    channel: grpc.aio.Channel, kind: str
) -> None:
    meant = [(identity.TARGET, "echo-0")]
    code, trailing, replies = await call(channel, kind, "hello", metadata=meant)
    assert (code, replies) == (grpc.StatusCode.UNAVAILABLE, [])
    assert trailing == {**OURS, identity.MISDIRECTED: "1"}
    meant = [(identity.TARGET, "echo-1")]
    code, trailing, replies = await call(channel, kind, "hello", metadata=meant)
    assert (code, replies) == (grpc.StatusCode.OK, ["hello"])
    assert trailing == OURS


async def test_an_unknown_method_is_answered_by_name_without_waiting_for_requests(
    channel: grpc.aio.Channel,
) -> None:
    unary: Any = channel.unary_unary("/meshkit.tests.Echo/Nothing")
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await unary(b"", timeout=10)
    assert caught.value.code() is grpc.StatusCode.UNIMPLEMENTED
    assert dict(iter(caught.value.trailing_metadata())) == OURS

    streams: Any = channel.stream_stream("/meshkit.tests.Nobody/Nothing")
    call_without_requests = streams(timeout=10)
    assert await call_without_requests.code() is grpc.StatusCode.UNIMPLEMENTED


async def test_a_draining_instance_says_so_also_on_calls_already_under_way(
    server: GrpcServer, channel: grpc.aio.Channel
) -> None:
    stub: Any = echo_pb2_grpc.EchoStub(channel)  # type: ignore[no-untyped-call]
    chat = stub.Chat(timeout=10)
    await chat.write(EchoRequest(text="before"))
    assert (await chat.read()).text == "before"
    await server.drain()
    await chat.write(EchoRequest(text="after"))
    assert (await chat.read()).text == "after"
    await chat.done_writing()
    assert await chat.code() is grpc.StatusCode.OK
    draining = {**OURS, identity.DRAINING: OURS[identity.INSTANCE]}
    trailing = dict(iter(await chat.trailing_metadata()))
    assert trailing.pop(propagation.REQUEST)
    assert trailing == draining
    for kind in KINDS:
        code, trailing, _ = await call(channel, kind, "hello")
        assert (code, trailing) == (grpc.StatusCode.OK, draining)


async def test_before_it_is_identified_it_refuses_every_call() -> None:
    unnamed = GrpcServer("127.0.0.1", 0)
    unnamed.add(AsyncEcho(), [echo_pb2_grpc.add_EchoServicer_to_server], reflection=False)
    await unnamed.start()
    async with grpc.aio.insecure_channel(f"127.0.0.1:{unnamed.port}") as channel:
        code, trailing, _ = await call(channel, "unary", "hello")
        assert (code, trailing) == (grpc.StatusCode.UNAVAILABLE, {identity.MISDIRECTED: "1"})
        meant = [(identity.TARGET, "echo-0")]
        code, _, _ = await call(channel, "unary", "hello", metadata=meant)
        assert code is grpc.StatusCode.UNAVAILABLE
    await unnamed.stop(grace=0)
