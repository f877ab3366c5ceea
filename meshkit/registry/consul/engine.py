"""The registry on a Consul agent: what is asked, when, and what the answers mean."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import json
import logging
import os
from collections.abc import AsyncGenerator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from meshkit.errors import LeaseLost, RegistryDenied
from meshkit.model import Endpoint, Instance, ServiceInfo, Snapshot, Status
from meshkit.registry.base import SERVICES_POLL, Lease, Registry
from meshkit.registry.consul import checks, codec, failures
from meshkit.registry.consul.options import ConsulOptions
from meshkit.registry.consul.polling import follow
from meshkit.registry.consul.settings import read_options
from meshkit.registry.consul.transport import Answer, Transport
from meshkit.registry.url import RegistryUrl

if TYPE_CHECKING:
    from meshkit.registry.consul.builders import Builders

REGISTER = "/v1/agent/service/register"
CONSUL_ITSELF = "consul"
COUNTS_AT_ONCE = 8

log = logging.getLogger("meshkit.consul")


class ConsulRegistry(Registry):
    """See the package. An instance is healthy while its TTL check is passed by ``renew``.

    A crashed one is down after the TTL of 10 s; Consul removes it a minute or two later.
    """

    propagation = 0.5
    # An emptied Consul has its instances back within one heartbeat.
    settle = 6.0

    def __init__(self, url: str, options: ConsulOptions) -> None:
        super().__init__(url)
        self._address = options.address
        self._may_lack_permission = options.has_token
        self._transport = Transport(options)
        self._statuses: dict[str, Status] = {}

    @property
    def peer(self) -> Endpoint | None:
        # Behind a Unix socket is an agent of this machine.
        return self._transport.options.endpoint

    @functools.cached_property
    def _api(self) -> Builders:
        from meshkit.registry.consul.builders import Builders  # noqa: PLC0415 - takes over 0.1 s

        return Builders(self._transport)

    async def register(self, instance: Instance) -> Lease:
        # The library knows neither weights nor tagged addresses. Without the parameter a check
        # of an earlier registration would stay and could hold the instance critical.
        options = self._transport.options
        wanted = checks.checks_of(instance, kinds=options.checks, interval=options.check_interval)
        body = json.dumps(codec.encode(instance, wanted)).encode()
        replace = (("replace-existing-checks", "true"),)
        async with self._transport.within():
            answer = await self._transport.write(REGISTER, replace, body=body)
            self._expect_success(answer, f"PUT {REGISTER}")
            self._statuses[instance.id] = instance.status
            # A check that is known already keeps its old status until the next heartbeat.
            self._expect_success(await self._beat(instance.id), "the first heartbeat")
        return Lease(instance_id=instance.id, ttl=checks.TTL)

    async def renew(self, lease: Lease) -> None:
        async with self._transport.within():
            answer = await self._beat(lease.instance_id)
            if answer.status == 200:
                return
            error = self._transport.error(answer, f"the heartbeat of {lease.instance_id}")
            if isinstance(error, RegistryDenied) or await self._knows(lease.instance_id, answer):
                raise error
        raise LeaseLost(f"Consul at {self._address} no longer knows {lease.instance_id}")

    async def deregister(self, instance_id: str) -> None:
        self._statuses.pop(instance_id, None)
        await self._api.agent.service.deregister(instance_id)

    async def watch(self, service: str) -> AsyncGenerator[Snapshot, None]:
        query = functools.partial(self._read_health, service)
        seen: tuple[Instance, ...] | None = None
        revision = 0
        async with contextlib.aclosing(follow(query)) as lists:
            async for found in lists:
                if found != seen:
                    self._hint_at_permission(service, found)
                    seen, revision = found, revision + 1
                    yield Snapshot(service=service, instances=found, revision=revision)

    async def services(self) -> tuple[ServiceInfo, ...]:
        _, found = await self._read_catalog(None, "")
        return found

    async def watch_services(self) -> AsyncGenerator[tuple[ServiceInfo, ...], None]:
        seen: tuple[ServiceInfo, ...] | None = None
        # Each look costs a request for each service.
        async with contextlib.aclosing(follow(self._read_catalog, rate=1 / SERVICES_POLL)) as lists:
            async for found in lists:
                if found != seen:
                    yield (seen := found)

    async def aclose(self) -> None:
        await self._transport.aclose()

    async def _beat(self, instance_id: str) -> Answer:
        up = self._statuses.get(instance_id, Status.UP) is Status.UP
        verb = "pass" if up else "fail"
        return await self._transport.write(
            f"/v1/agent/check/{verb}/{checks.heartbeat_id(instance_id)}"
        )

    async def _knows(self, instance_id: str, refusal: Answer) -> bool:
        """Tell a failing agent from one that has lost the registration or its check."""
        # 1.8 answers 500 with this text for an unknown check, later versions 404.
        if refusal.status == 404 or "does not have associated TTL" in refusal.body:
            return False
        answer = await self._transport.read(f"/v1/agent/service/{instance_id}")
        return answer.status != 404

    async def _read_health(
        self, service: str, index: int | None, wait: str
    ) -> tuple[str, tuple[Instance, ...]]:
        answered, entries = await self._api.health.service(service, index=index, wait=wait)
        try:
            return answered, codec.decode(entries)
        except (AttributeError, KeyError, TypeError, ValueError):
            raise failures.not_consul(self._address, request=f"health of {service}") from None

    async def _read_catalog(
        self, index: int | None, wait: str
    ) -> tuple[str, tuple[ServiceInfo, ...]]:
        answered, tags = await self._api.catalog.services(index=index, wait=wait)
        if not isinstance(tags, Mapping):
            raise failures.not_consul(self._address, request="the list of services")
        names = sorted(name for name in tags if name != CONSUL_ITSELF)
        counts = await self._count(names)
        return answered, tuple(
            ServiceInfo(name=name, tags=tuple(sorted(tags[name] or ())), instances=counts[name])
            for name in names
            if counts[name]  # else the last one has gone between the two reads
        )

    async def _count(self, names: Sequence[str]) -> dict[str, int]:
        """Count instances with and without checks; only the catalog of each service has both."""
        turns = asyncio.Semaphore(COUNTS_AT_ONCE)

        async def count(name: str) -> int:
            async with turns:
                _, entries = await self._api.catalog.service(name)
                return len(entries or ())

        tasks = [asyncio.create_task(count(name)) for name in names]
        try:
            return dict(zip(names, await asyncio.gather(*tasks), strict=True))
        finally:
            for task in tasks:
                task.cancel()

    def _expect_success(self, answer: Answer, request: str) -> None:
        if answer.status != 200:
            raise self._transport.error(answer, request)

    def _hint_at_permission(self, service: str, found: Sequence[Any]) -> None:
        """Say once that a list may be empty because the token may not read it."""
        if found or not self._may_lack_permission:
            return
        self._may_lack_permission = False
        log.info(
            "Consul at %s lists no instance of %s; should there be one, check that the token has "
            "service:read and node:read, because Consul hides what it may not read",
            self._address,
            service,
        )


def open_consul(url: RegistryUrl) -> ConsulRegistry:
    """Open ``consul://[HOST[:PORT]]``, ``consul+tls://`` or ``consul+unix:///SOCKET``.

    See ``read_options``.


    Raises:
        RegistryUrlError: the URL, one of Consul's variables, or a file they name is not usable.
    """
    options = read_options(url, os.environ)
    place, question, query = url.text.partition("?")
    if not url.host:
        place = options.url
    shown = f"{place}{question}{query}"
    return ConsulRegistry(shown, options)
