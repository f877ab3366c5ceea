"""``users = http_client("users")`` in the class body of a service. Declaration only; no I/O."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, Generic, Protocol, Self, TypeVar, Unpack, overload

from meshkit.client.policy import CallPolicy, PolicyOptions
from meshkit.discovery.routing import parse_name
from meshkit.errors import ConfigError
from meshkit.model import check_service_name

if TYPE_CHECKING:
    from grpc.aio import ClientInterceptor

    from meshkit.client.http import HttpClient
    from meshkit.client.mesh import Mesh

Stub = TypeVar("Stub")


class Caller(Protocol):
    """What declares a client: a service, which has a mesh while it runs."""

    @property
    def mesh(self) -> Mesh:
        """The way to other services."""
        ...


class HttpDependency:
    """``users = http_client("users")`` in a class body: an ``HttpClient`` on the instance."""

    def __init__(self, service: str, options: PolicyOptions) -> None:
        self.service = service
        self.options = options

    @overload
    def __get__(self, instance: None, owner: type) -> Self: ...
    @overload
    def __get__(self, instance: Caller, owner: type) -> HttpClient: ...
    def __get__(self, instance: Caller | None, owner: type) -> Self | HttpClient:
        if instance is None:
            return self
        mesh = instance.mesh
        client: HttpClient | None = mesh.declared.get(self)
        if client is None:
            client = mesh.declared[self] = mesh.http(self.service, **self.options)
        return client


class GrpcDependency(Generic[Stub]):
    """``ledger = grpc_client(LedgerStub, "ledger")`` in a class body: the stub on the instance."""

    def __init__(
        self,
        stub: Callable[[Any], Stub],
        service: str,
        idempotent: Sequence[str],
        interceptors: Sequence[ClientInterceptor],
        options: PolicyOptions,
    ) -> None:
        self.stub = stub
        self.service = service
        self.idempotent = tuple(idempotent)
        self.interceptors = tuple(interceptors)
        self.options = options

    @overload
    def __get__(self, instance: None, owner: type) -> Self: ...
    @overload
    def __get__(self, instance: Caller, owner: type) -> Stub: ...
    def __get__(self, instance: Caller | None, owner: type) -> Self | Stub:
        if instance is None:
            return self
        mesh = instance.mesh
        stub: Stub | None = mesh.declared.get(self)
        if stub is None:
            stub = mesh.declared[self] = mesh.grpc(
                self.stub,
                self.service,
                idempotent=self.idempotent,
                interceptors=self.interceptors,
                **self.options,
            )
        return stub


def http_client(service: str, **options: Unpack[PolicyOptions]) -> HttpDependency:
    """Declare that this service calls ``service`` over HTTP.

    Args:
        service: the name it is registered under; ``"users@v2"``: those with this tag.
        options: see :class:`~meshkit.client.policy.PolicyOptions`.
    """
    checked = _checked(service, "http_client", options)
    return HttpDependency(checked, options)


def grpc_client(
    stub: Callable[[Any], Stub],
    service: str,
    *,
    idempotent: Sequence[str] = (),
    interceptors: Sequence[ClientInterceptor] = (),
    **options: Unpack[PolicyOptions],
) -> GrpcDependency[Stub]:
    """Declare that this service calls ``service`` over gRPC.

    Args:
        stub: a generated stub class.
        service: the name it is registered under; ``"users@v2"``: those with this tag.
        idempotent: methods that may run twice, so that a call lost with its connection goes to
            another instance. Methods whose proto sets ``idempotency_level`` need not be named.
        interceptors: gRPC's own client interceptors, the outermost first.
        options: see :class:`~meshkit.client.policy.PolicyOptions`.
    """
    checked = _checked(service, "grpc_client", options)
    check_stub(stub, service)
    return GrpcDependency(stub, checked, idempotent, interceptors, options)


def check_stub(stub: object, service: str) -> None:
    """Raise ConfigError for what is no generated stub class, such as its module or servicer."""
    name = getattr(stub, "__name__", repr(stub))
    if not callable(stub) or name.endswith("Servicer"):
        raise ConfigError(
            f"{name} is no generated stub: give its class, as in (pb2_grpc.LedgerStub, {service!r})"
        )


def _checked(service: str, where: str, options: PolicyOptions) -> str:
    """Return the name, or raise for what would fail on first use otherwise."""
    try:
        check_service_name(parse_name(service)[0])
        CallPolicy.of(options)
    except (ValueError, ConfigError) as error:
        reason = str(error).removeprefix("CallPolicy: ")
        raise ConfigError(f"{where}({service!r}): {reason}") from None
    return service


def dependencies(cls: type) -> list[HttpDependency | GrpcDependency[Any]]:
    """Return the declared clients, base classes first."""
    return [
        value
        for base in reversed(cls.__mro__)
        for value in vars(base).values()
        if isinstance(value, HttpDependency | GrpcDependency)
    ]
