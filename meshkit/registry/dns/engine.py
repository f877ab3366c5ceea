"""The registry on DNS servers: whom to ask, how often, and what no answer means."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncGenerator, AsyncIterator

from meshkit.errors import ConfigError, RegistryError, RegistryUnavailable, Unsupported
from meshkit.model import Endpoint, Instance, ServiceInfo, Snapshot, check_service_name
from meshkit.registry.base import Registry
from meshkit.registry.dns.instances import to_instances
from meshkit.registry.dns.options import DnsOptions
from meshkit.registry.dns.records import Server

LIMIT = 3.0  # seconds for all that one list takes from one server
# Consul's TTL is 0 unless set: to take it at its word would be one query after the other. A long
# one is cut, because callers should not wait for minutes.
SHORTEST, LONGEST = 1.0, 30.0


class DnsRegistry(Registry):
    """See the package. A list is asked for again when the smallest TTL in it has run out."""

    propagation = LONGEST
    # An emptied Consul has its instances back within one heartbeat.
    settle = 6.0
    read_only = True

    def __init__(self, url: str, options: DnsOptions) -> None:
        super().__init__(url)
        self._options = options
        self._waits: set[asyncio.Timeout] = set()
        self._closed = False

    @property
    def peer(self) -> Endpoint | None:
        return self._options.current_servers()[0]

    async def watch(self, service: str) -> AsyncGenerator[Snapshot, None]:
        seen: tuple[Instance, ...] | None = None
        revision = 0
        while True:
            found, ttl = await self._read(service)
            if found != seen:
                seen, revision = found, revision + 1
                yield Snapshot(service=service, instances=found, revision=revision)
            with contextlib.suppress(TimeoutError):
                async with self._within(min(max(ttl, SHORTEST), LONGEST)):
                    await asyncio.Event().wait()

    async def services(self) -> tuple[ServiceInfo, ...]:
        raise Unsupported(
            f"{self.url} can't list its services, because DNS has no question for that: "
            "name the one you mean"
        )

    async def aclose(self) -> None:
        """End what is under way. Closing twice is safe."""
        self._closed = True
        for wait in self._waits:
            if not wait.expired():
                wait.reschedule(asyncio.get_running_loop().time())

    async def _read(self, service: str) -> tuple[tuple[Instance, ...], float]:
        """Ask the servers in turn; return the list and its TTL from the first that knows."""
        names = self._options.names(_checked(service))
        failures: list[str] = []
        for server in self._options.current_servers():
            try:
                async with self._within(LIMIT):
                    return await _read_from(server, service, names)
            except TimeoutError:
                self._refuse_when_closed()
                failures.append(f"the DNS server at {server} did not answer within {LIMIT:.0f} s")
            except RegistryUnavailable as error:
                failures.append(str(error))
        raise RegistryUnavailable("; ".join(failures))

    @contextlib.asynccontextmanager
    async def _within(self, seconds: float) -> AsyncIterator[None]:
        """Bound what is awaited inside, by time and by the registry's end. Raises TimeoutError."""
        self._refuse_when_closed()
        async with asyncio.timeout(seconds) as wait:
            self._waits.add(wait)
            try:
                yield
            finally:
                self._waits.discard(wait)

    def _refuse_when_closed(self) -> None:
        if self._closed:
            raise RegistryError(f"the registry {self.url} is closed")


async def _read_from(
    endpoint: Endpoint, service: str, names: dict[str, str]
) -> tuple[tuple[Instance, ...], float]:
    server = Server(endpoint)
    answers = {transport: await server.services(name) for transport, name in names.items()}
    found = to_instances(service, {each: answer.records for each, answer in answers.items()})
    return found, min(answer.ttl for answer in answers.values())


def _checked(service: str) -> str:
    try:
        return check_service_name(service)
    except ValueError as error:
        raise ConfigError(str(error)) from None
