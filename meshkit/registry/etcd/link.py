"""The channel to one endpoint, and streams over it."""

from __future__ import annotations

import asyncio
from typing import Any

import grpc
import grpc.aio

from meshkit.errors import RegistryError
from meshkit.model import Endpoint
from meshkit.registry.etcd import failures
from meshkit.registry.etcd.messages import CLASSES, Rpc
from meshkit.registry.etcd.tls import Material

# etcd hangs up on who pings more often than every 5 s.
# https://etcd.io/docs/v3.5/op-guide/configuration/#command-line-flags (grpc-keepalive-min-time)
KEEPALIVE = 6.0
PING_TIMEOUT = 3.0
CONNECT_TIMEOUT = 1.0

OPTIONS: tuple[tuple[str, int], ...] = (
    # A server that hangs answers no ping; the last of these is what ends its connection, for
    # with the keepalive timeout alone a watch was still waiting after 45 s.
    ("grpc.keepalive_time_ms", int(KEEPALIVE * 1000)),
    ("grpc.keepalive_timeout_ms", int(PING_TIMEOUT * 1000)),
    ("grpc.keepalive_permit_without_calls", 0),
    ("grpc.http2.max_pings_without_data", 0),
    ("grpc.http2.ping_timeout_ms", int(PING_TIMEOUT * 1000)),
    # The first of these is also how long connecting may take.
    ("grpc.min_reconnect_backoff_ms", int(CONNECT_TIMEOUT * 1000)),
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.max_reconnect_backoff_ms", 1000),
    # Else a new channel would go on with the connection of an old one, and its certificate.
    ("grpc.use_local_subchannel_pool", 1),
    ("grpc.max_receive_message_length", -1),  # a list has no limit in etcd
    ("grpc.enable_retries", 0),  # whom to ask again, and when, is decided in the client
    ("grpc.enable_http_proxy", 0),  # meant for the outside world
)

Metadata = tuple[tuple[str, str], ...]


class Link:
    """One endpoint's channel; connects on use.

    Attributes:
        endpoint: whose it is.
        material: the certificates that it was made with, None without TLS.
    """

    def __init__(self, endpoint: Endpoint, material: Material | None) -> None:
        self.endpoint = endpoint
        self.material = material
        self.closed = False
        self._renewed = False
        target = f"dns:///{endpoint}"
        self._channel: grpc.aio.Channel | None = (
            grpc.aio.secure_channel(target, material.credentials(), options=OPTIONS)
            if material
            else grpc.aio.insecure_channel(target, options=OPTIONS)
        )
        self._methods: dict[Rpc, Any] = {}

    async def unary(self, rpc: Rpc, request: Any, metadata: Metadata, limit: float) -> Any:
        """Return the answer. Raises AioRpcError, or RegistryError when it was closed meanwhile."""
        method = self._method(rpc, "unary_unary")
        try:
            return await method(request, metadata=metadata, timeout=limit)
        except asyncio.CancelledError:
            if not self.ended_by_closing():
                raise
        raise self.closing()

    def stream(self, rpc: Rpc, metadata: Metadata) -> Stream:
        """Open a stream of requests and answers."""
        return Stream(self, rpc, self._method(rpc, "stream_stream")(metadata=metadata))

    def ended_by_closing(self) -> bool:
        """Whether a CancelledError means that this was closed: gRPC uses it for that as well."""
        task = asyncio.current_task()
        return self.closed and task is not None and not task.cancelling()

    def closing(self) -> RegistryError:
        """Return the error for what closing has ended."""
        if self._renewed:
            return failures.lost(self.endpoint, "its certificates were renewed")
        return failures.closed(self.endpoint)

    async def aclose(self, *, renewed: bool = False) -> None:
        """End all that is under way; ``renewed`` when another link takes its place."""
        self.closed, self._renewed = True, renewed
        channel, self._channel = self._channel, None
        self._methods.clear()
        if channel is not None:
            await channel.close()

    def _method(self, rpc: Rpc, kind: str) -> Any:
        if self.closed:
            raise self.closing()
        if rpc not in self._methods:
            self._methods[rpc] = getattr(self._channel, kind)(
                rpc.path,
                request_serializer=CLASSES[rpc.request].SerializeToString,
                response_deserializer=CLASSES[rpc.response].FromString,
            )
        return self._methods[rpc]


class Stream:
    """A call of many requests and answers. Every failure is an error of ours, and ends it.

    gRPC's objects hold the connection, and an error holds whatever was used where it was raised.
    So what has ended is let go of, and no error of gRPC's is the context of one of ours.
    """

    def __init__(self, link: Link, rpc: Rpc, call: Any) -> None:
        self.link = link
        self._rpc = rpc
        self._call = call

    async def send(self, request: Any) -> None:
        """Write a request."""
        await self._step("write", request)

    async def receive(self) -> Any:
        """Return the next answer; what ends the stream is raised, also a regular end."""
        answer = await self._step("read")
        if answer is grpc.aio.EOF:
            raise await self._ending()
        return answer

    def cancel(self) -> None:
        """End it. Twice is safe."""
        call, self._call = self._call, None
        if call is not None:
            call.cancel()

    async def _step(self, name: str, *arguments: Any) -> Any:
        if self._call is None:
            raise self.link.closing()
        try:
            return await getattr(self._call, name)(*arguments)
        except (grpc.aio.AioRpcError, asyncio.InvalidStateError, grpc.aio.UsageError):
            pass  # a stream that has ended answers a write without the reason
        except asyncio.CancelledError:
            if not self.link.ended_by_closing():
                raise
        raise await self._ending()

    async def _ending(self) -> RegistryError:
        """Return what has ended it."""
        endpoint, call, self._call = self.link.endpoint, self._call, None
        if self.link.closed or call is None:
            return self.link.closing()
        if not call.done():
            call.cancel()
            return failures.lost(endpoint, "it can't be written to")
        code, details = await call.code(), await call.details()
        if code is grpc.StatusCode.OK:
            return failures.lost(endpoint, "etcd has ended it")
        nothing = grpc.aio.Metadata()
        return failures.translate(
            grpc.aio.AioRpcError(code, nothing, nothing, details),
            endpoint,
            request=self._rpc.name,
            tls=self.link.material is not None,
        )
