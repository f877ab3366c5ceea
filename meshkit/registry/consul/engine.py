"""The registry on a Consul agent: registering with it, and the datacenters it knows."""

from __future__ import annotations

import functools
import json
import os
from urllib.parse import quote

from meshkit.errors import LeaseLost, RegistryDenied
from meshkit.model import Instance, Status
from meshkit.registry.base import Datacenters, Lease, Registry
from meshkit.registry.consul import checks, codec, doubts, failures
from meshkit.registry.consul.options import ConsulOptions
from meshkit.registry.consul.reader import ConsulReader
from meshkit.registry.consul.settings import read_options
from meshkit.registry.consul.transport import Answer, Transport
from meshkit.registry.consul.turns import Turns
from meshkit.registry.url import RegistryUrl

REGISTER = "/v1/agent/service/register"
DEREGISTER = "/v1/agent/service/deregister"
# The answer of an agent with ACLs to a deregistration: 500 from 1.8, 404 from later versions.
UNKNOWN = "Unknown service"


class ConsulRegistry(ConsulReader, Datacenters):
    """See the package. An instance is healthy while its TTL check is passed by ``renew``.

    A crashed one is down after the TTL of 10 s; Consul removes it a minute or two later.
    """

    read_only = False

    def __init__(self, url: str, options: ConsulOptions) -> None:
        super().__init__(url, Transport(options), dc=options.dc)
        self._statuses: dict[str, Status] = {}
        self._turns = Turns(lambda: failures.closed(self._address))

    async def register(self, instance: Instance) -> Lease:
        # The library knows neither weights nor tagged addresses. Without the parameter a check
        # of an earlier registration would stay and could hold the instance critical.
        options = self._transport.options
        wanted = checks.checks_of(instance, kinds=options.checks, interval=options.check_interval)
        body = json.dumps(codec.encode(instance, wanted)).encode()
        replace = (("replace-existing-checks", "true"),)

        async def write() -> None:
            async with self._transport.within():
                answer = await self._transport.write(REGISTER, replace, body=body)
                self._expect_success(answer, f"PUT {REGISTER}")
                self._statuses[instance.id] = instance.status
                # A check that is known already keeps its old status until the next heartbeat.
                self._expect_success(await self._beat(instance.id), "the first heartbeat")

        await self._turns.take(instance.id, write)
        return Lease(instance_id=instance.id, ttl=checks.TTL)

    async def renew(self, lease: Lease) -> None:
        await self._turns.take(lease.instance_id, functools.partial(self._renew, lease))

    async def deregister(self, instance_id: str) -> None:
        async def write() -> None:
            self._statuses.pop(instance_id, None)
            path = f"{DEREGISTER}/{instance_id}"
            answer = await self._transport.write(path)
            if answer.status not in (200, 404) and UNKNOWN not in answer.body:
                raise self._transport.error(answer, f"PUT {path}")

        await self._turns.take(instance_id, write)

    async def why_unlisted(self) -> str:
        return await doubts.why_unlisted(self._transport)

    async def datacenters(self) -> tuple[str, ...]:
        found = await self._api.catalog.datacenters()
        if not isinstance(found, list) or not all(isinstance(name, str) for name in found):
            raise failures.not_consul(self._address, request="the list of datacenters")
        # Consul sorts them by distance from the agent; we may read from another one.
        return tuple(sorted(found, key=lambda name: name != self._dc)) if self._dc else tuple(found)

    def in_datacenter(self, name: str) -> Registry:
        url = f"{self._transport.options.url}?dc={quote(name)}"
        return ConsulReader(url, self._transport, dc=name)

    async def aclose(self) -> None:
        await self._transport.aclose()
        await self._turns.aclose()

    async def _renew(self, lease: Lease) -> None:
        async with self._transport.within():
            answer = await self._beat(lease.instance_id)
            if answer.status == 200:
                return
            error = self._transport.error(answer, f"the heartbeat of {lease.instance_id}")
            if isinstance(error, RegistryDenied) or await self._knows(lease.instance_id, answer):
                raise error
        raise LeaseLost(f"Consul at {self._address} no longer knows {lease.instance_id}")

    async def _beat(self, instance_id: str) -> Answer:
        up = self._statuses.get(instance_id, Status.UP) is Status.UP
        verb = "pass" if up else "fail"
        check = checks.heartbeat_id(instance_id)
        return await self._transport.write(f"/v1/agent/check/{verb}/{check}")

    async def _knows(self, instance_id: str, refusal: Answer) -> bool:
        """Tell a failing agent from one that has lost the registration or its check."""
        # 1.8 answers 500 with this text for an unknown check, later versions 404.
        if refusal.status == 404 or "does not have associated TTL" in refusal.body:
            return False
        answer = await self._transport.read(f"/v1/agent/service/{instance_id}")
        return answer.status != 404

    def _expect_success(self, answer: Answer, request: str) -> None:
        if answer.status != 200:
            raise self._transport.error(answer, request)


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
