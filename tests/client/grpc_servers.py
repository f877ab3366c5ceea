"""Real gRPC servers, here and in processes of their own, and channels to them."""

# ruff: noqa: N802 - the proto names the methods

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import os
import signal
import subprocess
import sys
import uuid
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import grpc
import grpc.aio

from meshkit import identity
from meshkit.client.grpc import ChannelPool, MeshChannel
from meshkit.client.retry import RetryPolicy
from meshkit.discovery.balancing import Balancer, Outcome
from meshkit.discovery.subscription import Subscription
from meshkit.discovery.target import Target
from meshkit.model import Endpoint, Instance
from meshkit.registry import Registry, open_registry
from meshkit.server.grpc import GrpcServer
from tests.client.http_servers import Handler, InOrder, raw_server
from tests.protos import echo_pb2_grpc
from tests.protos.echo_pb2 import EchoReply, EchoRequest

ROOT = Path(__file__).parents[2]
HOST = "127.0.0.1"


class Echo(echo_pb2_grpc.EchoServicer):
    """Answers with the text, or does what it says: ``sleep 0.5``, ``abort NOT_FOUND``, ``die``.

    ``if echo-a sleep 0.5`` is for echo-a alone, ``abort ABORTED key=value`` adds metadata, and for
    ``then abort ABORTED`` echo-a takes a second, while others do what it says.
    """

    def __init__(self, name: str) -> None:
        self.name = name
        self.texts: list[str] = []
        self.peers: set[str] = set()
        self.metadata: list[list[tuple[str, str | bytes]]] = []
        self.time_remaining: list[float] = []
        self.cancelled = 0

    async def Say(self, request: EchoRequest, context: Any) -> EchoReply:
        return await self._reply(request, context)

    async def Look(self, request: EchoRequest, context: Any) -> EchoReply:
        return await self._reply(request, context)

    async def Put(self, request: EchoRequest, context: Any) -> EchoReply:
        return await self._reply(request, context)

    async def Repeat(self, request: EchoRequest, context: Any) -> AsyncIterator[EchoReply]:
        reply = await self._reply(request, context)
        for number in range(request.count or 1):
            if request.text == "break" and number == 1:
                await context.abort(grpc.StatusCode.UNAVAILABLE, "broken off")
            yield reply

    async def Join(self, requests: AsyncIterator[EchoRequest], context: Any) -> EchoReply:
        texts = [(await self._reply(request, context)).text async for request in requests]
        return EchoReply(text="+".join(texts), instance=self.name)

    async def Chat(
        self, requests: AsyncIterator[EchoRequest], context: Any
    ) -> AsyncIterator[EchoReply]:
        async for request in requests:
            yield await self._reply(request, context)

    async def _reply(self, request: EchoRequest, context: Any) -> EchoReply:
        self.texts.append(request.text)
        self.peers.add(context.peer())
        self.metadata.append(list(context.invocation_metadata()))
        self.time_remaining.append(context.time_remaining())
        verb, _, argument = request.text.partition(" ")
        if verb == "if":
            name, _, text = argument.partition(" ")
            verb, _, argument = (text if name == self.name else "").partition(" ")
        if verb == "then":
            text = "sleep 1" if self.name == "echo-a" else argument
            verb, _, argument = text.partition(" ")
        if verb == "die":
            os._exit(1)
        elif verb == "greet":
            await context.send_initial_metadata((("x-greeting", self.name),))
        elif verb == "sleep":
            try:
                await asyncio.sleep(float(argument))
            except asyncio.CancelledError:
                self.cancelled += 1
                raise
        elif verb == "abort":
            code, *pairs = argument.split()
            metadata = tuple(
                (key, value) for key, _, value in (pair.partition("=") for pair in pairs)
            )
            await context.abort(grpc.StatusCode[code], "the handler's own words", metadata)
        elif verb == "relay":
            await context.abort(grpc.StatusCode.UNAVAILABLE, argument)
        return EchoReply(text=request.text, instance=self.name)


@dataclasses.dataclass
class Running:
    """A server of this process, and how it is registered."""

    instance: Instance
    echo: Echo
    server: Any


def describe(name: str, endpoint: Endpoint, *, named: bool = True) -> Instance:
    """Return the instance as a meshkit service (``named``) or somebody else registers it."""
    return Instance(
        id=name,
        service="echo",
        metadata={identity.MARK: "0"} if named else {},
        endpoints={"grpc": endpoint},
    )


@contextlib.asynccontextmanager
async def serving(name: str, *, port: int = 0) -> AsyncIterator[Running]:
    """Run a server as meshkit does: it names itself, and refuses what is meant for others."""
    echo, server = Echo(name), GrpcServer(HOST, port)
    server.add(echo, [echo_pb2_grpc.add_EchoServicer_to_server], reflection=False)
    server.identify("echo", name)
    await server.start()
    await server.show(ready=True)
    try:
        yield Running(describe(name, Endpoint(HOST, server.port)), echo, server)
    finally:
        await server.stop(grace=0)


@contextlib.asynccontextmanager
async def plain_serving(name: str, *handlers: Any, **options: Any) -> AsyncIterator[Running]:
    """Run a server that knows nothing of meshkit; without handlers it echoes."""
    echo, server = Echo(name), grpc.aio.server(handlers=handlers, **options)
    if not handlers:
        echo_pb2_grpc.add_EchoServicer_to_server(echo, server)  # type: ignore[no-untyped-call]
    port = server.add_insecure_port(f"{HOST}:0")
    await server.start()
    try:
        yield Running(describe(name, Endpoint(HOST, port), named=False), echo, server)
    finally:
        await server.stop(None)


class ServerProcess:
    """A server in a process of its own."""

    def __init__(self, name: str) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.client.grpc_servers", name],
            cwd=ROOT,
            stdout=subprocess.PIPE,
            text=True,
        )
        assert self._process.stdout is not None
        self.instance = describe(name, Endpoint(HOST, int(self._process.stdout.readline())))

    def send(self, number: signal.Signals) -> None:
        """Send a signal."""
        self._process.send_signal(number)

    def end(self) -> None:
        """Kill it, also when it was stopped. Doing it twice is safe."""
        self._process.kill()
        self._process.wait()
        assert self._process.stdout is not None
        self._process.stdout.close()


@contextlib.contextmanager
def server_processes(*names: str) -> Iterator[list[ServerProcess]]:
    """Run servers in processes of their own."""
    with contextlib.ExitStack() as stack:
        running = []
        for name in names:
            running.append(ServerProcess(name))
            stack.callback(running[-1].end)
        yield running


@contextlib.asynccontextmanager
async def bad_server(handler: Handler) -> AsyncIterator[Endpoint]:
    """Run a server that speaks no gRPC."""
    async with raw_server(handler) as endpoint:
        yield endpoint
        # gRPC connects again by itself: what it began last must have come to the handler.
        await asyncio.sleep(0.2)


@contextlib.asynccontextmanager
async def relay(to: Endpoint) -> AsyncIterator[tuple[Endpoint, list[int]]]:
    """Give an address that passes connections on, and the sizes of what callers send there."""
    sent: list[int] = []

    async def copy(
        reader: asyncio.StreamReader, writer: asyncio.StreamWriter, sizes: list[int]
    ) -> None:
        try:
            while data := await reader.read(65536):
                sizes.append(len(data))
                writer.write(data)
        finally:
            writer.close()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        back, onward = await asyncio.open_connection(to.host, to.port)
        await asyncio.gather(copy(reader, onward, sent), copy(back, writer, []))

    async with bad_server(serve) as endpoint:
        yield endpoint, sent


@dataclasses.dataclass
class Callers:
    """A stub for the service "echo", and what surrounds it."""

    stub: Any
    channel: MeshChannel
    target: Target
    registry: Registry
    outcomes: list[tuple[str, Outcome]]


@contextlib.asynccontextmanager
async def calling(
    *instances: Instance,
    timeout: float = 10.0,
    attempts: int = 3,
    idempotent: Sequence[str] = (),
    interceptors: Sequence[grpc.aio.ClientInterceptor] = (),
    balancer: Callable[[], Balancer] | None = None,
    pool: ChannelPool | None = None,
    **policies: Any,
) -> AsyncIterator[Callers]:
    """Register these instances and call them in the order of their ids.

    Args:
        instances: of the service "echo".
        timeout, attempts, idempotent, interceptors, pool: of the channel.
        balancer: instead of the one that keeps to the order.
        policies: of the channel, too.
    """
    outcomes: list[tuple[str, Outcome]] = []
    async with (
        open_registry(f"memory://{uuid.uuid4()}") as registry,
        contextlib.AsyncExitStack() as stack,
    ):
        for instance in instances:
            await registry.register(instance)
        target = Target(
            Subscription(registry, "echo", None),
            balancer=balancer or (lambda: InOrder(outcomes)),
        )
        stack.push_async_callback(target.aclose)
        channel = await stack.enter_async_context(
            MeshChannel(
                target,
                timeout=timeout,
                idempotent=idempotent,
                interceptors=interceptors,
                pool=pool,
                **{"retry": RetryPolicy(attempts=attempts), **policies},
            )
        )
        yield Callers(new_stub(channel), channel, target, registry, outcomes)


def new_stub(channel: grpc.aio.Channel) -> Any:
    """Return the generated stub on this channel."""
    return echo_pb2_grpc.EchoStub(channel)  # type: ignore[no-untyped-call]


async def _run(name: str) -> None:
    async with serving(name) as running:
        print(running.instance.endpoints["grpc"].port, flush=True)
        await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(_run(sys.argv[1]))
