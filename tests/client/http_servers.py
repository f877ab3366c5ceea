"""Real servers and a real target for the tests of the HTTP client."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import functools
import socket
import struct
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Iterator, Sequence
from typing import Any

from meshkit import identity
from meshkit.client.http import HttpClient
from meshkit.client.http1 import Http1Transport
from meshkit.client.policy import CallPolicy
from meshkit.client.retry import RetryPolicy
from meshkit.client.transport import Content, HttpTransport, RawResponse, Request
from meshkit.discovery.balancing import Candidate, Done, Outcome
from meshkit.discovery.subscription import Subscription
from meshkit.discovery.target import Target
from meshkit.model import Endpoint, Instance
from meshkit.registry import open_registry

Handler = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


@contextlib.asynccontextmanager
async def raw_server(handler: Handler) -> AsyncIterator[Endpoint]:
    """Run a TCP server whose connections are ``handler``'s; end them all at the end."""
    connections: set[asyncio.Task[None]] = set()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.ensure_future(handler(reader, writer))
        assert isinstance(task, asyncio.Task)
        connections.add(task)
        with contextlib.suppress(asyncio.CancelledError, OSError, asyncio.IncompleteReadError):
            await task
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    host, port = server.sockets[0].getsockname()
    try:
        yield Endpoint(host, port)
    finally:
        server.close()
        for task in connections:
            task.cancel()
        await asyncio.gather(*connections, return_exceptions=True)


@contextlib.contextmanager
def refusing() -> Iterator[Endpoint]:
    """Give an address that nobody listens on, kept from being taken by anybody else."""
    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))
        yield Endpoint(*held.getsockname())


def request_to(
    endpoint: Endpoint, method: str = "GET", content: Content = None, timeout: float = 5.0
) -> Request:
    return Request(method, f"http://{endpoint}/x?token=hush", [], content, timeout)


async def whole(transport: HttpTransport, request: Request) -> RawResponse:
    return await transport.send(request)


async def streamed(transport: HttpTransport, request: Request) -> RawResponse:
    stream = await transport.stream(request)
    try:
        body = b""
        while piece := await stream.read():
            body += piece
    finally:
        await stream.aclose()
    return RawResponse(stream.status_code, stream.headers, stream.http_version, body)


@dataclasses.dataclass
class Received:
    method: str
    target: str
    headers: list[tuple[str, str]]
    body: bytes

    def header(self, name: str) -> str | None:
        return next((value for each, value in self.headers if each == name), None)


async def read_request(reader: asyncio.StreamReader) -> Received:
    """Read one request with its body. Raises IncompleteReadError when the peer is gone."""
    head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
    first, *lines = head.removesuffix("\r\n\r\n").split("\r\n")
    method, target, _ = first.split(" ")
    pairs = [line.split(": ", 1) for line in lines]
    received = Received(method, target, [(name.lower(), value) for name, value in pairs], b"")
    if length := received.header("content-length"):
        received.body = await reader.readexactly(int(length))
    elif received.header("transfer-encoding") == "chunked":
        while size := int(await reader.readline(), 16):
            received.body += await reader.readexactly(size)
            await reader.readline()
        await reader.readline()
    return received


def http_answer(status: int = 200, body: bytes = b"", *headers: tuple[str, str]) -> bytes:
    lines = [f"HTTP/1.1 {status} X", f"content-length: {len(body)}"]
    lines += [f"{name}: {value}" for name, value in headers]
    return "\r\n".join([*lines, "", ""]).encode("latin-1") + body


class Server:
    """Answers every request with ``answer`` (bytes, or made from the request), and records it."""

    def __init__(self, answer: bytes | Callable[[Received], bytes] = b"") -> None:
        self.answer = answer or http_answer(200, b"ok")
        self.received: list[Received] = []
        self.connections = 0

    async def __call__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        while True:
            request = await read_request(reader)
            self.received.append(request)
            answer = self.answer if isinstance(self.answer, bytes) else self.answer(request)
            if not answer:
                return
            writer.write(answer)
            await writer.drain()


async def close_after_reading(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    await read_request(reader)


async def reset_after_reading(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    await read_request(reader)
    reset(writer)


def reset(writer: asyncio.StreamWriter) -> None:
    """Close with an RST."""
    linger = struct.pack("ii", 1, 0)
    writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
    writer.transport.abort()


async def never_answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    await reader.read()


class InOrder:
    """A balancer that takes the first that is not excluded, and records the outcomes."""

    def __init__(self, outcomes: list[tuple[str, Outcome]]) -> None:
        self._outcomes = outcomes
        self._instances: tuple[Instance, ...] = ()

    def update(self, candidates: Sequence[Candidate]) -> None:
        self._instances = tuple(each.instance for each in candidates)

    def pick(self, exclude: Collection[str], key: str | None) -> tuple[Instance, Done] | None:
        for each in self._instances:
            if each.id not in exclude:
                return each, functools.partial(self._note, each.id)
        return None

    def _note(self, instance_id: str, outcome: Outcome, _seconds: float) -> None:
        self._outcomes.append((instance_id, outcome))


@dataclasses.dataclass
class Users:
    """A client of the service "users", and what its balancer was told."""

    client: HttpClient
    outcomes: list[tuple[str, Outcome]]


@contextlib.asynccontextmanager
async def users(
    *endpoints: Endpoint,
    named: bool = False,
    timeout: float = 20.0,
    attempts: int = 3,
    headers: dict[str, str] | None = None,
    transport: HttpTransport | None = None,
    retry: RetryPolicy | None = None,
    **policy: Any,
) -> AsyncIterator[Users]:
    """Register users-a, users-b... at these addresses, and call them in this order.

    Args:
        endpoints: one instance each.
        named: they are meshkit's, which name themselves on every answer.
        timeout, attempts, headers, transport: of the client.
        retry: likewise; without one, nobody else is asked for want of an answer.
        policy: what else it is made with.
    """
    outcomes: list[tuple[str, Outcome]] = []
    async with (
        open_registry(f"memory://{uuid.uuid4()}") as registry,
        contextlib.AsyncExitStack() as stack,
    ):
        for letter, endpoint in zip("abcdefghijkl", endpoints, strict=False):
            await registry.register(
                Instance(
                    id=f"users-{letter}",
                    service="users",
                    metadata={identity.MARK: "0"} if named else {},
                    endpoints={"http": endpoint},
                )
            )
        target = Target(Subscription(registry, "users", None), balancer=lambda: InOrder(outcomes))
        stack.push_async_callback(target.aclose)
        transport = transport or Http1Transport()
        if retry is None:
            retry = RetryPolicy(attempts=attempts, try_timeout=None)
        stack.push_async_callback(transport.aclose)
        client = HttpClient(
            target,
            transport,
            timeout=timeout,
            policy=CallPolicy(retry=retry, **policy),
            headers=headers,
        )
        yield Users(client, outcomes)
