"""The channel that generated stubs are made with."""

# ruff: noqa: FBT001, FBT002 - the signatures are gRPC's

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from types import TracebackType
from typing import Self

import grpc
import grpc.aio

from meshkit.client.breaker import BreakerPolicy
from meshkit.client.bulkhead import BulkheadPolicy
from meshkit.client.explanation import Explanation, explain
from meshkit.client.grpc.attempts import Attempts
from meshkit.client.grpc.callables import StreamStream, StreamUnary, UnaryStream, UnaryUnary
from meshkit.client.grpc.errors import RpcFailure
from meshkit.client.grpc.interception import checked
from meshkit.client.grpc.method import Codec
from meshkit.client.grpc.plan import Plan
from meshkit.client.grpc.pool import ChannelPool
from meshkit.client.grpc.probe import grpc_probe
from meshkit.client.grpc.search import TRANSPORT
from meshkit.client.guards import Guards
from meshkit.client.hedge import HedgePolicy
from meshkit.client.retry import CallStats, RetryPolicy
from meshkit.client.tracing import Tracing
from meshkit.discovery.routing import Router
from meshkit.discovery.target import Target
from meshkit.errors import ConfigError


class MeshChannel(grpc.aio.Channel):
    """A gRPC channel to a service instead of an address; any generated stub works on it.

    ::

        users = UsersStub(MeshChannel(target, timeout=5.0))
        user = await users.GetUser(GetUserRequest(id=1))

    Each call goes to an instance that the balancer picks. It goes on to another one when the
    first can't have had it (no connection could be made, or the address is somebody else's by
    now), and for idempotent methods also when the connection broke or the instance said
    UNAVAILABLE. A call whose answer is a stream stays where it is from the first message on, one
    whose request is a stream from its connection on.

    Errors are ``grpc.aio.AioRpcError``. Those that no server sent are also
    :class:`~meshkit.CallError` (see its subclasses).

    Args:
        target: the service, as discovery sees it.
        timeout: seconds for a whole call, retries included, where the caller gives none;
            ``math.inf``, here or in a call, means no limit.
        retry, hedge, breaker, bulkhead: see :class:`~meshkit.client.policy.PolicyOptions`.
        guards: the service's budget, breakers and bulkheads; the channel's own if None.
        idempotent: methods that may run twice: ``Method``, ``Service/Method`` or
            ``package.Service/Method``. Those whose proto sets ``idempotency_level`` need not be
            named.
        interceptors: gRPC's own client interceptors of any kind, around each whole call; the
            first is the outermost.
        router: aims the calls; all go to the target when None.
        pool: connections to share with other channels to the same service; closed by whoever
            made it. Without one the channel has its own.

    Attributes:
        service: the name it is registered under.
        stats: counters since the channel was made.
        guards: the retry budget, breakers and bulkheads of the service.
    """

    transport = TRANSPORT

    def __init__(
        self,
        target: Target,
        *,
        timeout: float,
        retry: RetryPolicy | None = None,
        hedge: HedgePolicy | None = None,
        breaker: BreakerPolicy | None = None,
        bulkhead: BulkheadPolicy | None = None,
        guards: Guards | None = None,
        idempotent: Sequence[str] = (),
        interceptors: Sequence[grpc.aio.ClientInterceptor] = (),
        router: Router | None = None,
        pool: ChannelPool | None = None,
    ) -> None:
        if not timeout > 0:
            raise ConfigError(f"{target.service}: timeout must be more than 0 s, not {timeout:g}")
        self.service = target.service
        self.target = target
        self.router = router or Router(target)
        self.timeout = float(timeout)
        guards = Guards(self.service) if guards is None else guards
        self.guards = guards
        self.plan = Plan(guards, retry or RetryPolicy(), hedge, breaker, bulkhead)
        self._deposit = guards.budget.deposit
        self.stats = CallStats()
        self._tracing: Tracing | None = None
        self.interceptors = checked(self.service, interceptors)
        self.pool = pool or ChannelPool()
        self.pool.follow(target)
        target.probe_with(TRANSPORT, grpc_probe(self.pool))
        self._own_pool = pool is None
        self._idempotent = tuple(name.lstrip("/") for name in idempotent)
        self._unmatched = set(self._idempotent)
        self._calls: set[Attempts] = set()
        self._changed = asyncio.Event()
        self._stop = target.on_change(lambda _instances: self._changed.set())
        self._closed = False

    def trace(self, tracing: Tracing) -> None:
        """Let the calls from now on be traced."""
        self._tracing = tracing

    # Names and order of the parameters are what generated code and interceptors rely on.

    def unary_unary(
        self,
        method: str,
        request_serializer: Codec = None,
        response_deserializer: Codec = None,
        _registered_method: bool | None = False,
    ) -> UnaryUnary:
        """See grpc.aio.Channel."""
        codecs = request_serializer, response_deserializer
        return UnaryUnary(self, method, *codecs, known=bool(_registered_method))

    def unary_stream(
        self,
        method: str,
        request_serializer: Codec = None,
        response_deserializer: Codec = None,
        _registered_method: bool | None = False,
    ) -> UnaryStream:
        """See grpc.aio.Channel."""
        codecs = request_serializer, response_deserializer
        return UnaryStream(self, method, *codecs, known=bool(_registered_method))

    def stream_unary(
        self,
        method: str,
        request_serializer: Codec = None,
        response_deserializer: Codec = None,
        _registered_method: bool | None = False,
    ) -> StreamUnary:
        """See grpc.aio.Channel."""
        codecs = request_serializer, response_deserializer
        return StreamUnary(self, method, *codecs, known=bool(_registered_method))

    def stream_stream(
        self,
        method: str,
        request_serializer: Codec = None,
        response_deserializer: Codec = None,
        _registered_method: bool | None = False,
    ) -> StreamStream:
        """See grpc.aio.Channel."""
        codecs = request_serializer, response_deserializer
        return StreamStream(self, method, *codecs, known=bool(_registered_method))

    def explain(self) -> Explanation:
        """Return what calls go by now; see :meth:`HttpClient.explain`."""
        return explain([self])

    def get_state(self, try_to_connect: bool = False) -> grpc.ChannelConnectivity:  # noqa: ARG002
        """Tell what discovery knows: READY when somebody can be called.

        CONNECTING while no list is known yet, TRANSIENT_FAILURE when nobody is there, SHUTDOWN
        when the channel is closed. Connections are made by calls.
        """
        if self._closed:
            return grpc.ChannelConnectivity.SHUTDOWN
        snapshot = self.target.subscription.snapshot
        if snapshot is None:
            return grpc.ChannelConnectivity.CONNECTING
        if any(TRANSPORT in instance.endpoints for instance in snapshot.up):
            return grpc.ChannelConnectivity.READY
        return grpc.ChannelConnectivity.TRANSIENT_FAILURE

    async def wait_for_state_change(self, last_observed_state: grpc.ChannelConnectivity) -> None:
        """Return as soon as :meth:`get_state` gives another state than this."""
        while self.get_state() is last_observed_state:
            self._changed.clear()
            await self._changed.wait()

    async def channel_ready(self) -> None:
        """Return as soon as somebody can be called.

        Raises:
            grpc.aio.UsageError: the channel is closed.
        """
        while (state := self.get_state()) is not grpc.ChannelConnectivity.READY:
            if self._closed:
                raise self._closed_error()
            await self.wait_for_state_change(state)

    async def close(self, grace: float | None = None) -> None:
        """Take no more calls, give those under way ``grace`` seconds, and cancel them then.

        Closing twice is safe.
        """
        self._closed = True
        self._stop()
        self._changed.set()
        if grace and self._calls:
            ends = [asyncio.ensure_future(call.over()) for call in self._calls]
            await asyncio.wait(ends, timeout=grace)
        for call in tuple(self._calls):
            call.cancel()
        if self._own_pool:
            await self.pool.close()

    @property
    def unmatched(self) -> frozenset[str]:
        """Names given as ``idempotent`` that no method of a stub has had so far: typing errors."""
        return frozenset(self._unmatched)

    def names_idempotent(self, path: str) -> bool:
        """Whether the method at ``/package.Service/Method`` was named as idempotent."""
        service, _, method = path.lstrip("/").partition("/")
        short = service.rpartition(".")[2]
        names = {f"{service}/{method}", f"{short}/{method}", method}
        self._unmatched -= names
        return not names.isdisjoint(self._idempotent)

    def opened(self, call: Attempts) -> None:
        """Note that a call begins. Raises grpc.aio.UsageError when the channel is closed."""
        if self._closed:
            raise self._closed_error()
        self.stats.calls += 1
        self._deposit()
        self._calls.add(call)
        if self._tracing is not None:
            self._tracing.began(call)

    def ended(self, call: Attempts, error: Exception | None) -> None:
        """Note that a call ended, and whether no instance answered it."""
        self._calls.discard(call)
        if isinstance(error, RpcFailure):
            self.stats.failed += 1
        if self._tracing is not None:
            self._tracing.ended(call, error)

    def _closed_error(self) -> grpc.aio.UsageError:
        return grpc.aio.UsageError(f"{self.service}: the channel is closed")

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc_val: BaseException | None,
        exc_tb: TracebackType | None,
    ) -> None:
        await self.close()
