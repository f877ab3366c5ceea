"""One method of a service, and whether it may run twice."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, ClassVar, Self, TypedDict, TypeVar, Unpack

import grpc
import grpc.aio

from meshkit.client.breaker import BreakerPolicy
from meshkit.client.bulkhead import BulkheadPolicy
from meshkit.client.grpc.call import MeshCall
from meshkit.client.grpc.interception import Intercepted, chain, of_kind
from meshkit.client.grpc.plan import Plan
from meshkit.client.grpc.pool import Link
from meshkit.client.hedge import HedgePolicy
from meshkit.client.retry import RetryPolicy
from meshkit.discovery.target import Pick

if TYPE_CHECKING:
    from meshkit.client.grpc.channel import MeshChannel

Codec = Callable[[Any], Any] | None
Intercepting = TypeVar("Intercepting", bound=Intercepted)


class MethodOptions(TypedDict, total=False):
    """What single methods can have of their own.

    Keys:
        retry, hedge, breaker, bulkhead: see :class:`~meshkit.client.policy.PolicyOptions`.
        idempotent: it may run twice, whatever its proto says.
        key: what the calls are about, for balancers that keep calls with one key together.
    """

    retry: RetryPolicy
    hedge: HedgePolicy | None
    breaker: BreakerPolicy | None
    bulkhead: BulkheadPolicy | None
    idempotent: bool
    key: str | None


class Method:
    """What a stub keeps for each method; calling it makes a call (see the subclasses).

    Attributes:
        channel: to the service.
        path: ``/package.Service/Method``.
        idempotent: it may run twice.
        plan: what its calls may do when an attempt fails or does not answer.
        patient: its calls ask another instance when one does not answer in time.
        key: what its calls are about; None to go by what the channel is sticky to.
    """

    kind: ClassVar[str] = ""
    call: ClassVar[type[MeshCall]] = MeshCall
    key: str | None = None

    def __init__(
        self,
        channel: MeshChannel,
        path: str,
        serialize: Codec,
        deserialize: Codec,
        *,
        known: bool,
        plan: Plan | None = None,
    ) -> None:
        self.channel = channel
        self.path = path
        self.idempotent = channel.names_idempotent(path) or declares_idempotent(path)
        self.plan = channel.plan if plan is None else plan
        self.patient = self.idempotent and self.kind == "unary_unary"
        self._codecs = (serialize, deserialize)
        self._known = known  # to the generated code, which lets gRPC look it up in advance
        self.interceptors = of_kind(channel.interceptors, self.kind)
        self._bound: dict[str, tuple[Link, Callable[..., Any]]] = {}

    def bind(self, pick: Pick) -> tuple[Link, Callable[..., Any]]:
        """Return the link to the picked instance, and gRPC's own form of the method on it."""
        instance = pick.instance
        bound = self._bound.get(instance.id)
        if bound is not None and bound[0].endpoint is pick.endpoint and not bound[0].retired:
            return bound  # nearly always
        link = self.channel.pool.link(instance, pick.endpoint)
        if bound is None or bound[0] is not link:
            # Those of closed channels would keep them in memory. In place: `using` shares it.
            for name in [name for name, each in self._bound.items() if each[0].retired]:
                del self._bound[name]
            make: Callable[..., Any] = getattr(link.channel, self.kind)
            bound = link, make(self.path, *self._codecs, _registered_method=self._known)
            self._bound[instance.id] = bound
        return bound

    def intercepted(
        self,
        kind: type[Intercepting],
        request: Any,
        *,
        timeout: float | None = None,
        metadata: Any = None,
        credentials: grpc.CallCredentials | None = None,
        wait_for_ready: bool | None = None,
        compression: grpc.Compression | None = None,
    ) -> Intercepting:
        """Begin a call at the outermost interceptor."""
        path: Any = self.path.encode()  # as gRPC's own channel has it, whatever its types say
        details = grpc.aio.ClientCallDetails(
            path,
            timeout,
            grpc.aio.Metadata(*(metadata or ())),
            credentials,
            wait_for_ready,
        )
        invoke = functools.partial(self._invoke, compression)
        return kind(chain(self.interceptors, self.kind, invoke), details, request)

    def _invoke(
        self,
        compression: grpc.Compression | None,
        details: grpc.aio.ClientCallDetails,
        request: Any,
    ) -> MeshCall:
        """Begin the call that the interceptors let through, as they want it."""
        path: Any = details.method
        path = path.decode() if isinstance(path, bytes) else path
        method = self if path == self.path else self._at(path)
        return method.call(
            method,
            request,
            timeout=details.timeout,
            metadata=details.metadata,
            credentials=details.credentials,
            wait_for_ready=details.wait_for_ready,
            compression=compression,
        )

    def _at(self, path: str) -> Self:
        made = type(self)(self.channel, path, *self._codecs, known=False, plan=self.plan)
        made.key = self.key
        return made

    def using(self, **options: Unpack[MethodOptions]) -> Self:
        """Return this method with policies of its own, for some calls or for all.

        ::

            read = stub.GetUser.using(retry=RetryPolicy(attempts=2), hedge=HedgePolicy())
            user = await read(GetUserRequest(id=1))

        Make it once and keep it. What is not given stays as the channel has it. With a ``key``
        it is made for each: ``stub.GetCart.using(key=cart_id)(request)``.

        Args:
            options: see :class:`MethodOptions`.
        """
        retry, hedge, breaker, bulkhead = self.plan.policies
        retry, hedge = options.get("retry", retry), options.get("hedge", hedge)
        breaker = options.get("breaker", breaker)
        bulkhead = options.get("bulkhead", bulkhead)
        plan = Plan(self.plan.guards, retry, hedge, breaker, bulkhead)
        made = type(self)(self.channel, self.path, *self._codecs, known=self._known, plan=plan)
        made.idempotent = options.get("idempotent", self.idempotent)
        made.patient = made.idempotent and made.kind == "unary_unary"
        made.key = options.get("key", self.key)
        made._bound = self._bound  # noqa: SLF001 - a key's few calls would all bind anew
        return made


@functools.cache
def declares_idempotent(path: str) -> bool:
    """Whether the method's proto sets ``idempotency_level`` to anything but unknown.

    Looked up in the default descriptor pool, where generated code registers; a method that is
    not there declares nothing.
    """
    from google.protobuf import descriptor_pb2, descriptor_pool  # noqa: PLC0415 - slow to import

    service, _, name = path.lstrip("/").rpartition("/")
    try:
        methods = descriptor_pool.Default().FindServiceByName(service).methods_by_name
        level = methods[name].GetOptions().idempotency_level
    except KeyError:
        return False
    return bool(level != descriptor_pb2.MethodOptions.IDEMPOTENCY_UNKNOWN)
