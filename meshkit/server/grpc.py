"""grpc.aio: the service's servicers, the standard health service, and identity on every call."""

from __future__ import annotations

import importlib.util
import logging
from collections.abc import Callable, Collection, Sequence
from typing import Any

import grpc
import grpc.aio
from grpc_health.v1 import health as grpc_health, health_pb2, health_pb2_grpc

from meshkit import identity
from meshkit.errors import BindError
from meshkit.model import Endpoint
from meshkit.server.bind import bind, bind_message
from meshkit.server.grpc_access_log import GrpcAccessLog, Watcher
from meshkit.server.grpc_identity import IdentityInterceptor
from meshkit.server.shedding import Limiter
from meshkit.server.shedding.grpc import Shedding
from meshkit.server.tracing import Traces

Add = Callable[[Any, Any], None]

# A port of ours is ours alone (no so_reuseport: a busy one must fail), and callers may ping every
# 5 s to notice a hung connection; the default of 5 minutes would make us hang up on them.
OPTIONS: tuple[tuple[str, int], ...] = (
    ("grpc.so_reuseport", 0),
    ("grpc.http2.min_recv_ping_interval_without_data_ms", 5000),
    ("grpc.keepalive_permit_without_calls", 1),
    # Pings that a busy machine held up arrive together; hanging up on them would cost calls.
    ("grpc.http2.max_ping_strikes", 0),
)

log = logging.getLogger("meshkit.server")


class GrpcServer:
    """A bound gRPC server in steps: start, identify, drain, stop.

    Args:
        host: to listen on.
        port: 0 for any free one.
        baggage: keys of baggage that travel on.
        limiter: how many calls at once are let in; None for all.
        max_message: bytes of a request message; 0 for any size.
        access_log: whether each call is logged.
        watcher: told of each call.
    """

    def __init__(
        self,
        host: str,
        port: int,
        *,
        baggage: Collection[str] = (),
        limiter: Limiter | None = None,
        max_message: int = 0,
        access_log: bool = False,
        watcher: Watcher | None = None,
    ) -> None:
        log = shedding = None
        if access_log or watcher is not None:
            log = GrpcAccessLog(lines=access_log, watcher=watcher)
        if limiter is not None:
            shedding = Shedding(limiter, lambda: self._identity.instance_id)
        self._identity = IdentityInterceptor(baggage, log=log, shedding=shedding)
        options = (*OPTIONS, ("grpc.max_receive_message_length", max_message or -1))
        self._server = grpc.aio.server(interceptors=[self._identity], options=options)
        self._health = grpc_health.aio.HealthServicer()
        self._names: list[str] = []
        self.port = self._bind(host, port)

    def add(self, service: Any, adders: Sequence[Add], *, reflection: bool) -> None:
        """Serve ``service`` through each generated ``add_XServicer_to_server`` function."""
        for add in adders:
            add(service, self._server)
            add(service, _NameCollector(self._names))
        health_pb2_grpc.add_HealthServicer_to_server(self._health, self._server)
        if reflection:
            self._reflect()

    async def start(self) -> None:
        """Accept connections; the health service says NOT_SERVING."""
        await self.show(ready=False)
        await self._server.start()

    async def show(self, *, ready: bool) -> None:
        """Set the status of every service, and of the server as a whole."""
        answer = health_pb2.HealthCheckResponse
        status = answer.SERVING if ready else answer.NOT_SERVING
        for name in ("", *self._names):
            await self._health.set(name, status)

    @property
    def calls(self) -> int:
        """How many calls have come so far."""
        return self._identity.calls

    def identify(self, service: str, instance_id: str) -> None:
        """Name ourselves on every answer from now on, and refuse what is meant for others."""
        self._identity.instance_id = instance_id
        self._identity.add((identity.SERVICE, service), (identity.INSTANCE, instance_id))

    def trace(self, telemetry: Traces) -> None:
        """Let calls be traced; to be said before the doors open."""
        self._identity.traces = telemetry

    async def drain(self) -> None:
        """Go on answering, tell each caller to move on; health is NOT_SERVING for good."""
        self._identity.add((identity.DRAINING, self._identity.instance_id))
        await self._health.enter_graceful_shutdown()

    async def stop(self, *, grace: float) -> None:
        """Refuse new calls, wait up to ``grace`` seconds for those in flight, cancel the rest."""
        await self._server.stop(max(0.0, grace))

    def _bind(self, host: str, port: int) -> int:
        if port:
            # gRPC says only "failed to bind"; an ordinary socket knows why.
            bind(host, port, flag="--grpc-port").close()
        try:
            return self._server.add_insecure_port(str(Endpoint(host, port)))
        except RuntimeError as error:
            raise BindError(bind_message(host, port, error, flag="--grpc-port")) from None

    def _reflect(self) -> None:
        if importlib.util.find_spec("grpc_reflection") is None:
            log.info("gRPC reflection is off: pip install 'meshkit[reflection]' turns it on")
            return
        from grpc_reflection.v1alpha import reflection  # noqa: PLC0415 - an extra

        health_name = health_pb2.DESCRIPTOR.services_by_name["Health"].full_name
        names = (*self._names, health_name, reflection.SERVICE_NAME)
        reflection.enable_server_reflection(names, self._server)


class _NameCollector:
    """Stands in for a server, to learn a servicer's full name from the generated code."""

    def __init__(self, names: list[str]) -> None:
        self._names = names

    def add_generic_rpc_handlers(self, handlers: Sequence[grpc.GenericRpcHandler]) -> None:
        for handler in handlers:
            if isinstance(handler, grpc.ServiceRpcHandler):
                self._names.append(handler.service_name())

    def add_registered_method_handlers(self, _service: str, _handlers: object) -> None:
        """Newer generated code registers both ways; one is enough."""
