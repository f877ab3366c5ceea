"""grpc.aio: the service's servicers, the standard health service, and identity on every call."""

from __future__ import annotations

import importlib.util
import inspect
import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from typing import Any

import grpc
import grpc.aio
from grpc_health.v1 import health as grpc_health, health_pb2, health_pb2_grpc

from meshkit import identity
from meshkit.errors import BindError
from meshkit.model import Endpoint
from meshkit.server.bind import bind, bind_message

Handler = grpc.RpcMethodHandler[Any, Any]
Add = Callable[[Any, Any], None]
Metadata = tuple[tuple[str, str], ...]

# A port of ours is ours alone (no so_reuseport: a busy one must fail), and callers may ping every
# 5 s to notice a hung connection; the default of 5 minutes would make us hang up on them.
OPTIONS: tuple[tuple[str, int], ...] = (
    ("grpc.so_reuseport", 0),
    ("grpc.http2.min_recv_ping_interval_without_data_ms", 5000),
    ("grpc.keepalive_permit_without_calls", 1),
)

log = logging.getLogger("meshkit.server")


class GrpcServer:
    """A bound gRPC server in steps: start, identify, drain, stop."""

    def __init__(self, host: str, port: int) -> None:
        self._identity = IdentityInterceptor()
        self._server = grpc.aio.server(interceptors=[self._identity], options=OPTIONS)
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

    def identify(self, service: str, instance_id: str) -> None:
        """Name ourselves on every answer from now on, and refuse what is meant for others."""
        self._identity.instance_id = instance_id
        self._identity.add((identity.SERVICE, service), (identity.INSTANCE, instance_id))

    async def drain(self) -> None:
        """Go on answering, tell each caller to move on; health is NOT_SERVING for good."""
        self._identity.add((identity.DRAINING, "1"))
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


class IdentityInterceptor(grpc.aio.ServerInterceptor):
    """Adds our identity to every answer's trailing metadata and refuses misdirected calls.

    A refused call has surely not been handled, so that the caller may go elsewhere with it.
    """

    def __init__(self) -> None:
        self.instance_id = ""
        self.metadata: Metadata = ()
        self._wrapped: dict[str, tuple[object, Handler]] = {}
        self._refusal: Handler = grpc.unary_unary_rpc_method_handler(self._refuse)

    def add(self, *pairs: tuple[str, str]) -> None:
        """Send these with every answer from now on."""
        self.metadata = (*self.metadata, *pairs)

    async def intercept_service(
        self,
        continuation: Callable[[grpc.HandlerCallDetails], Awaitable[Handler | None]],
        handler_call_details: grpc.HandlerCallDetails,
    ) -> Handler | None:
        """See grpc.aio.ServerInterceptor."""
        for key, value in handler_call_details.invocation_metadata:
            if key == identity.TARGET and value != self.instance_id:
                return self._refusal
        handler = await continuation(handler_call_details)
        if handler is None:
            return None  # gRPC answers UNIMPLEMENTED
        method = str(handler_call_details.method)
        known = self._wrapped.get(method)
        if known is None or known[0] is not handler:
            known = self._wrapped[method] = (handler, self._wrap(handler))
        return known[1]

    async def _refuse(self, _request: bytes, context: grpc.aio.ServicerContext[Any, Any]) -> None:
        metadata = (*self.metadata, (identity.MISDIRECTED, "1"))
        message = f"this is {self.instance_id}, another instance was meant"
        await context.abort(grpc.StatusCode.UNAVAILABLE, message, metadata)

    def _wrap(self, handler: Handler) -> Handler:
        codecs: dict[str, Any] = {
            "request_deserializer": handler.request_deserializer,
            "response_serializer": handler.response_serializer,
        }
        for kind in ("unary_unary", "unary_stream", "stream_unary", "stream_stream"):
            behavior = getattr(handler, kind)
            if behavior is not None:
                make = getattr(grpc, f"{kind}_rpc_method_handler")
                wrapped: Handler = make(self._with_identity(behavior), **codecs)
                return wrapped
        return handler

    def _with_identity(self, behavior: Callable[..., Any]) -> Callable[..., Any]:
        """Wrap a handler of any of the four forms, async or not, without changing its form."""
        if inspect.isasyncgenfunction(behavior):

            async def async_generator(request: Any, context: Any) -> AsyncIterator[Any]:
                self._before(context)
                async for response in behavior(request, context):
                    yield response
                self._after(context)

            return async_generator
        if inspect.iscoroutinefunction(behavior):

            async def coroutine(request: Any, context: Any) -> Any:
                self._before(context)
                response = await behavior(request, context)
                self._after(context)
                return response

            return coroutine
        if inspect.isgeneratorfunction(behavior):

            def generator(request: Any, context: Any) -> Iterator[Any]:
                self._before(context)
                yield from behavior(request, context)
                self._after(context)

            return generator

        def function(request: Any, context: Any) -> Any:
            self._before(context)
            response = behavior(request, context)
            self._after(context)
            return response

        return function

    def _before(self, context: Any) -> None:
        # Set first, so that an abort carries it too.
        context.set_trailing_metadata(self.metadata)

    def _after(self, context: Any) -> None:
        # The handler may have set its own trailing metadata over ours; the answer carries both.
        # (The context of handlers without async can't be asked.)
        ask = getattr(context, "trailing_metadata", None)
        if ask is None:
            return
        current = tuple(ask() or ())
        if current != self.metadata:
            theirs = tuple(pair for pair in current if pair not in self.metadata)
            context.set_trailing_metadata((*theirs, *self.metadata))
