"""One connection per instance, shared by all stubs that call the service."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence

import grpc
import grpc.aio

from meshkit import identity
from meshkit.discovery.target import Target
from meshkit.model import Endpoint, Instance

CONNECT_TIMEOUT = 1.0
KEEPALIVE = 10.0
# Servers that did not agree to more allow a ping in 5 minutes, and hang up on callers who do not
# keep to it: https://grpc.io/docs/guides/keepalive/
STRANGERS_KEEPALIVE = 310.0
PING_TIMEOUT = 3.0

OPTIONS: tuple[tuple[str, int], ...] = (
    # A peer that hangs answers no ping. The last option is what ends its connection: with the
    # keepalive timeout alone, calls without a deadline waited for ever.
    ("grpc.keepalive_timeout_ms", int(PING_TIMEOUT * 1000)),
    ("grpc.keepalive_permit_without_calls", 0),
    ("grpc.http2.max_pings_without_data", 0),
    ("grpc.http2.ping_timeout_ms", int(PING_TIMEOUT * 1000)),
    # Whether to call an instance again, and when, is decided in discovery; gRPC only has to be
    # able to when asked. The first of these is also how long connecting may take.
    ("grpc.min_reconnect_backoff_ms", int(CONNECT_TIMEOUT * 1000)),
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.max_reconnect_backoff_ms", 1000),
    # http_proxy in the environment is meant for the outside world.
    ("grpc.enable_http_proxy", 0),
)


class Link:
    """The channel to one instance.

    Attributes:
        instance: to whom.
        endpoint: where the instance listens.
        names: how it names itself on each answer, as a list of one, or of none.
        channel: to this instance and nobody else.
        metadata: what tells it that it is meant.
        retired: it gets no more calls, and closes after the last one.
    """

    __slots__ = (
        "_calls",
        "_pool",
        "channel",
        "endpoint",
        "instance",
        "metadata",
        "names",
        "retired",
    )

    def __init__(self, pool: ChannelPool, instance: Instance, endpoint: Endpoint) -> None:
        self.instance = instance
        self.endpoint = endpoint
        self.names: list[str] = []
        self.channel = connect(instance, endpoint)
        self.metadata = grpc.aio.Metadata()
        self.retired = False
        self._pool = pool
        self._calls = 0
        if identity.proves_identity(instance.metadata):
            # Only then: an engine may know an instance by an id that it does not have itself.
            self.metadata.add(identity.TARGET, instance.id)
            self.names = [instance.id]

    def acquire(self) -> None:
        """Note that a call begins."""
        self._calls += 1

    def release(self) -> None:
        """Note that a call ended."""
        self._calls -= 1
        if self.retired and not self._calls:
            self._pool.discard(self)

    def retire(self) -> None:
        """Close once no call is left."""
        self.retired = True
        if not self._calls:
            self._pool.discard(self)


class ChannelPool:
    """The connections to the instances of one service, made on first use.

    A connection is closed when its instance has left the list and the calls on it have ended.
    """

    def __init__(self) -> None:
        self._links: dict[str, Link] = {}
        self._open: set[Link] = set()
        self._closing: set[asyncio.Task[None]] = set()
        self._stop: Callable[[], None] | None = None
        self._target: Target | None = None
        self._closed = False

    def follow(self, target: Target) -> None:
        """Close connections as instances leave the list of ``target``."""
        if self._target is None:
            self._target = target
            self._stop = target.on_change(self._changed)
        # Targets of one service differ in how they balance; their lists are the same.
        assert self._target.service == target.service, "a pool serves one service"

    def link(self, instance: Instance, endpoint: Endpoint) -> Link:
        """Return the connection to this instance.

        Raises:
            grpc.aio.UsageError: the pool is closed.
        """
        link = self._links.get(instance.id)
        if link is not None and (link.endpoint is endpoint or link.endpoint == endpoint):
            return link
        if self._closed:
            raise grpc.aio.UsageError("the channel is closed")
        if link is not None:
            link.retire()
        link = self._links[instance.id] = Link(self, instance, endpoint)
        self._open.add(link)
        return link

    def discard(self, link: Link) -> None:
        """Close a link on which there are no calls. In the background: grpc wants to be awaited."""
        self._open.discard(link)
        task = asyncio.get_running_loop().create_task(link.channel.close())
        self._closing.add(task)
        task.add_done_callback(self._closing.discard)

    async def close(self) -> None:
        """Close all connections, which cancels the calls on them. Closing twice is safe."""
        self._closed = True
        if self._stop is not None:
            self._stop()
        self._links.clear()
        while self._open:
            link = self._open.pop()
            await link.channel.close()
        await asyncio.gather(*self._closing)

    def _changed(self, instances: Sequence[Instance]) -> None:
        for gone in self._links.keys() - {instance.id for instance in instances}:
            self._links.pop(gone).retire()


def connect(instance: Instance, endpoint: Endpoint) -> grpc.aio.Channel:
    """Return a channel to this instance. Connects with the first call."""
    known = identity.proves_identity(instance.metadata)
    keepalive = KEEPALIVE if known else STRANGERS_KEEPALIVE
    options = (
        *OPTIONS,
        ("grpc.keepalive_time_ms", int(keepalive * 1000)),
        # Channels whose options are equal share a connection, in the whole process: those of
        # other meshes, in other event loops. With the id among them nobody inherits one, or its
        # back-off, from an instance that was at the same address before.
        ("meshkit.instance", instance.id),
    )
    # With its scheme, or a host named like one (unix, xds) would be taken for it.
    return grpc.aio.insecure_channel(f"dns:///{endpoint}", options=options)
