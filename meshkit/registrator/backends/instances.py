"""Any engine of meshkit's: one instance for each record, as services of meshkit's register."""

from __future__ import annotations

import asyncio
from typing import Any

from meshkit.errors import ConfigError, LeaseLost, RegistryError
from meshkit.model import Endpoint, Instance
from meshkit.registrator.backends.base import Backend, Held, Opener
from meshkit.registrator.naming import dns_label, dns_name
from meshkit.registrator.options import Options
from meshkit.registrator.record import Record
from meshkit.registry import Registry
from meshkit.registry.base import Lease
from meshkit.registry.url import RegistryUrl, find_engine

OWNER = "meshkit-registrator"
CONTAINER = "meshkit-container"
# Below a third of any engine's TTL.
RENEWAL = 3.0


class Instances(Backend):
    """Registers, renews and deregisters through the contract of registries.

    Nothing has to be marked: an entry lasts for as long as its lease is renewed, so that those of
    a registrator that died end by themselves, and the next one takes those over that are to stay.
    """

    lasting = False
    renewal = RENEWAL

    def __init__(self, registry: Registry, owner: str) -> None:
        super().__init__(registry.url, owner)
        self._registry = registry
        self._held: dict[str, Held] = {}
        self._leases: dict[str, Lease] = {}
        self._lost: RegistryError | None = None  # what the last renewal has failed with

    def id_of(self, record: Record) -> str:
        return dns_label(record.id)

    def state_of(self, record: Record) -> Any:
        return Instance(
            id=dns_label(record.id),
            service=dns_name(record.name),
            tags=record.tags,
            metadata={
                **record.attributes,
                OWNER: self.owner,
                CONTAINER: record.container_id[:12],
            },
            endpoints={transport_of(record): Endpoint(record.host, record.port)},
            status=record.status,
        )

    async def reach(self) -> None:
        await self._registry.services()

    async def owned(self) -> dict[str, Held]:
        if self._lost is not None:
            raise self._lost
        return dict(self._held)

    async def put(self, record: Record) -> None:
        instance: Instance = self.state_of(record)
        container = record.container_id[:12]
        # Before it is done: the answer may be lost.
        self._held[instance.id] = Held(None, container)
        self._leases[instance.id] = await self._registry.register(instance)
        self._held[instance.id] = Held(instance, container)

    async def remove(self, entry_id: str) -> None:
        await self._registry.deregister(entry_id)
        self._held.pop(entry_id, None)
        self._leases.pop(entry_id, None)

    async def renew(self) -> None:
        leases = list(self._leases.values())
        errors = [each for each in await asyncio.gather(*map(self._renew, leases)) if each]
        # One that was lost is to be written anew; while nothing can be, all is left as it is.
        self._lost = next((each for each in errors if not isinstance(each, LeaseLost)), None)
        for error in errors:
            raise error

    async def aclose(self) -> None:
        await self._registry.aclose()

    async def _renew(self, lease: Lease) -> RegistryError | None:
        try:
            await self._registry.renew(lease)
        except LeaseLost as error:
            # By the lease that it was lost with: the entry may have been written anew meanwhile.
            if self._leases.get(lease.instance_id) is lease:
                del self._leases[lease.instance_id]
                self._held.pop(lease.instance_id, None)
            return error
        except RegistryError as error:
            return error
        return None


def transport_of(record: Record) -> str:
    """Return what an endpoint is called: by the container's own word, its check, or its port."""
    if named := record.attributes.get("transport"):
        return named
    if record.check is not None and record.check.kind == "grpc":
        return "grpc"
    return "udp" if record.protocol == "udp" else "http"


def open_instances(url: RegistryUrl, options: Options) -> Opener:  # noqa: ARG001 - as the others
    """Open any registry that can be written to. Raises ConfigError for others."""
    registry = find_engine(url)(url)
    if registry.read_only:
        raise ConfigError(f"{url.text} can only be read: containers can't be registered there")
    return lambda owner: Instances(registry, owner)
