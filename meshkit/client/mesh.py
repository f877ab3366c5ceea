"""The way to other services: clients by name over one registry."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import functools
from collections.abc import Callable, Sequence
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self, TypeVar, Unpack

from meshkit.client.declared import check_stub
from meshkit.client.explanation import Explanation, explain
from meshkit.client.guards import Guards
from meshkit.client.http import HttpClient
from meshkit.client.policy import CallPolicy, PolicyOptions
from meshkit.client.tracing import Tracing
from meshkit.context import OUTSIDE, use
from meshkit.discovery.balancing import DEFAULT, BalancerFactory, balancer_factory
from meshkit.discovery.balancing.slow_start import SLOW_START
from meshkit.discovery.ejection import EjectionPolicy
from meshkit.discovery.routing import Router, RulesFollower, narrowed, parse_name
from meshkit.discovery.target import Target
from meshkit.discovery.targets import Targets
from meshkit.errors import ConfigError
from meshkit.model import ServiceInfo, Snapshot, check_service_name
from meshkit.registry import Registry, open_registry

if TYPE_CHECKING:
    from grpc.aio import ClientInterceptor

    from meshkit.client.grpc import ChannelPool, MeshChannel
    from meshkit.client.transport import HttpTransport
    from meshkit.settings import MeshSettings

Stub = TypeVar("Stub")

CALL_TIMEOUT = 10.0


class Mesh:
    """Finds services and calls them, inside a service or outside of one.

    ::

        async with Mesh("consul://127.0.0.1:8500") as mesh:
            users = mesh.http("users")
            answer = await users.get("/users/1")

    Clients are made once per name and options; ask for them as often as you like.

    Args:
        registry: a registry URL or an open registry (which is closed along); when None, the
            setting ``registry`` as services use it.
        timeout: seconds for a whole call, retries included, where a client sets none.
        balancer: how an instance is chosen for a call, where a client does not say: a name, as in
            :class:`~meshkit.client.policy.PolicyOptions`, or what makes one; likewise.
        ejection: when instances are set aside for failing or lagging, where a client does not say.
        zone: the own zone, whose instances are called first; the setting when ``registry`` is None.
        failover: other datacenters to call, in order, when the own one does not suffice; likewise.
        failover_share: of a datacenter's instances that have to be up for it to suffice; likewise.

    Attributes:
        registry: the registry.
        timeout: see above.
        declared: clients and stubs by their declaration in a class body, found without comparing
            options.

    Raises:
        RegistryUrlError: the URL is malformed or its scheme unknown.
        ConfigError: ``failover`` with a registry that knows no datacenters, an unknown balancer.
    """

    def __init__(
        self,
        registry: str | Registry | None = None,
        *,
        timeout: float = CALL_TIMEOUT,
        balancer: str | BalancerFactory | None = None,
        ejection: EjectionPolicy | None = None,
        zone: str | None = None,
        failover: Sequence[str] | None = None,
        failover_share: float | None = None,
    ) -> None:
        if registry is None:
            settings = _configured()
            registry = settings.registry
            balancer = settings.balancer if balancer is None else balancer
            zone = settings.zone if zone is None else zone
            failover = settings.failover if failover is None else failover
            failover_share = settings.failover_share if failover_share is None else failover_share
        self.registry = open_registry(registry) if isinstance(registry, str) else registry
        self.timeout = timeout
        if failover_share is not None and not 0 < failover_share <= 1:
            raise ConfigError(f"failover_share is {failover_share:g}, not between 0 and 1")
        self._balancer = balancer_factory(DEFAULT if balancer is None else balancer)
        self._ejection = ejection or EjectionPolicy()
        self._targets = Targets(
            self.registry, zone=zone or "", failover=failover or (), share=failover_share
        )
        self._guards: dict[str, Guards] = {}
        self._http: dict[tuple[str, CallPolicy], HttpClient] = {}
        self._channels: dict[tuple[object, ...], MeshChannel] = {}
        self._stubs: dict[tuple[object, MeshChannel], Any] = {}
        self._pools: dict[str, ChannelPool] = {}
        self.declared: dict[object, Any] = {}
        self._rules = RulesFollower(self.registry)
        self._tracing: Tracing | None = None
        self._closed = False

    def http(self, service: str, **options: Unpack[PolicyOptions]) -> HttpClient:
        """Return the HTTP client of ``service``; it reads like httpx.

        Args:
            service: the name it is registered under; ``"users@v2"``: those with this tag.
            options: see :class:`~meshkit.client.policy.PolicyOptions`.
        """
        service, policy = _aimed(service, options)
        key = (service, policy)
        if (client := self._http.get(key)) is None:
            timeout = self.timeout if policy.timeout is None else policy.timeout
            target = self._target(service, policy)
            client = HttpClient(
                target,
                self._transport,
                timeout=timeout,
                policy=policy,
                guards=self.guards(service),
                router=self._router(target, policy),
            )
            if self._tracing is not None:
                client.trace(self._tracing)
            self._http[key] = client
        return client

    def grpc(
        self,
        stub: Callable[[Any], Stub],
        service: str,
        *,
        idempotent: Sequence[str] = (),
        interceptors: Sequence[ClientInterceptor] = (),
        **options: Unpack[PolicyOptions],
    ) -> Stub:
        """Return a generated stub whose calls go to instances of ``service``.

        Args:
            stub: the generated stub class.
            service: the name it is registered under.
            idempotent: names of methods that may run twice, beside those whose proto says so.
            interceptors: gRPC's own client interceptors, the outermost first.
            options: see :class:`~meshkit.client.policy.PolicyOptions`.
        """
        check_stub(stub, service)
        channel = self.channel(service, idempotent=idempotent, interceptors=interceptors, **options)
        key = (stub, channel)
        if key not in self._stubs:
            self._stubs[key] = stub(channel)
        made: Stub = self._stubs[key]
        return made

    def channel(
        self,
        service: str,
        *,
        idempotent: Sequence[str] = (),
        interceptors: Sequence[ClientInterceptor] = (),
        **options: Unpack[PolicyOptions],
    ) -> MeshChannel:
        """Return the gRPC channel of ``service``, for several stubs over one set of connections."""
        from meshkit.client.grpc import ChannelPool, MeshChannel  # noqa: PLC0415 - HTTP needs no gRPC

        service, policy = _aimed(service, options)
        key = (service, policy, tuple(idempotent), tuple(map(id, interceptors)))
        if (channel := self._channels.get(key)) is None:
            timeout = self.timeout if policy.timeout is None else policy.timeout
            target = self._target(service, policy)
            pool = self._pools.setdefault(service, ChannelPool())
            channel = MeshChannel(
                target,
                timeout=timeout,
                retry=policy.retry,
                hedge=policy.hedge,
                breaker=policy.breaker,
                bulkhead=policy.bulkhead,
                guards=self.guards(service),
                idempotent=idempotent,
                interceptors=interceptors,
                router=self._router(target, policy),
                pool=pool,
            )
            if self._tracing is not None:
                channel.trace(self._tracing)
            self._channels[key] = channel
        return channel

    def trace(self, tracing: Tracing) -> None:
        """Let all calls from now on be traced; see meshkit.telemetry."""
        self._tracing = tracing
        for client in self._http.values():
            client.trace(tracing)
        for channel in self._channels.values():
            channel.trace(tracing)

    async def instances(self, service: str) -> Snapshot:
        """Read the instances of ``service`` from the registry, whatever their status.

        Raises:
            RegistryError: the registry can't be read.
        """
        return await self.registry.instances(_checked(service))

    async def services(self) -> tuple[ServiceInfo, ...]:
        """Read the names of all services from the registry."""
        return await self.registry.services()

    def target(
        self,
        service: str,
        *,
        balancer: str | BalancerFactory | None = None,
        slow_start: float = SLOW_START,
        subset: int | None = None,
        ejection: EjectionPolicy | None = None,
    ) -> Target:
        """Return what picks instances of ``service``; it follows the registry from now on.

        Clients that differ in how they balance or eject have targets of their own, over one list
        of instances. For the options see :class:`~meshkit.client.policy.PolicyOptions`.
        """
        if self._closed:
            raise ConfigError(f"the mesh is closed: {service} can't be called any more")
        if not in_event_loop():
            raise ConfigError(
                f"the client of {service} needs a running event loop: make it in async code"
            )
        with use(OUTSIDE):  # following goes on after the call that has asked for it first
            return self._targets.of(
                _checked(service),
                balancer=self._balancer if balancer is None else balancer_factory(balancer),
                ejection=self._ejection if ejection is None else ejection,
                slow_start=slow_start,
                subset=subset,
            )

    def explain(self, service: str) -> Explanation:
        """Return what calls to ``service`` go by now, over all of its clients together.

        See :meth:`HttpClient.explain`.

        Raises:
            ConfigError: nobody has asked for a client of it.
        """
        asked = [each for each in self._clients() if each.service == service]
        if not asked:
            raise ConfigError(f"{service}: nothing to explain, as no client of it was asked for")
        return explain(asked)

    def explain_all(self) -> list[Explanation]:
        """Explain each service that clients were asked for, by name."""
        return [self.explain(name) for name in sorted({each.service for each in self._clients()})]

    def _clients(self) -> list[HttpClient | MeshChannel]:
        return [*self._http.values(), *self._channels.values()]

    def _router(self, target: Target, policy: CallPolicy) -> Router:
        return Router(target, self._rules, route=policy.route, sticky=policy.sticky)

    def _target(self, service: str, policy: CallPolicy) -> Target:
        keeps = None if policy.sticky is None else "hash"
        return self.target(
            service,
            balancer=policy.balancer or keeps,
            slow_start=policy.slow_start,
            subset=policy.subset,
            ejection=policy.ejection,
        )

    def guards(self, service: str) -> Guards:
        """Return the retry budget, breakers and bulkheads that all clients of ``service`` share."""
        if (guards := self._guards.get(service)) is None:
            guards = self._guards[service] = Guards(service)
        return guards

    async def aclose(self) -> None:
        """Close all clients and the registry. Closing twice is safe."""
        if self._closed:
            return
        self._closed = True
        async with contextlib.AsyncExitStack() as closing:  # last in, first out; all of them
            closing.push_async_callback(self.registry.aclose)
            closing.push_async_callback(self._rules.aclose)
            closing.push_async_callback(self._targets.aclose)
            if "_transport" in vars(self):
                closing.push_async_callback(self._transport.aclose)
            for pool in self._pools.values():
                closing.push_async_callback(pool.close)
            for channel in self._channels.values():
                closing.push_async_callback(channel.close)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.aclose()

    @functools.cached_property
    def _transport(self) -> HttpTransport:
        from meshkit.client.http1 import Http1Transport  # noqa: PLC0415 - on use

        return Http1Transport()


def _configured() -> MeshSettings:
    from meshkit.settings import load_settings  # noqa: PLC0415 - scripts often name the registry

    return load_settings()


def _aimed(service: str, options: PolicyOptions) -> tuple[str, CallPolicy]:
    """Return the service's name, and the policy with the tag that may follow the name."""
    name, tag = parse_name(service)
    policy = CallPolicy.of(options)
    if tag is not None:
        policy = dataclasses.replace(policy, route=narrowed(policy.route, tag))
    return name, policy


def _checked(service: str) -> str:
    try:
        return check_service_name(service)
    except ValueError as error:
        raise ConfigError(str(error)) from None


def in_event_loop() -> bool:
    """Whether this code runs in an event loop."""
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return False
    return True
