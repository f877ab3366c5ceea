"""The registry on etcd: which keys there are, and to whom they belong."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import AsyncGenerator, Mapping, Sequence
from typing import Any

from meshkit.errors import LeaseLost, RegistryError, RegistryUnavailable
from meshkit.model import Endpoint, Instance, ServiceInfo, Snapshot
from meshkit.registry.base import Lease, Registry, summarize
from meshkit.registry.etcd import transactions, watching
from meshkit.registry.etcd.client import Client
from meshkit.registry.etcd.codec import Reader, Records, encode
from meshkit.registry.etcd.keyvalue import EtcdKeyValue
from meshkit.registry.etcd.leases import TTL, Leases
from meshkit.registry.etcd.messages import RANGE, TXN, make
from meshkit.registry.etcd.options import PARAMETERS, PREFIX, EtcdOptions, read_options
from meshkit.registry.kv import KeyValue
from meshkit.registry.url import RegistryUrl


@dataclasses.dataclass(slots=True)
class Held:
    """What we have registered under one id.

    Attributes:
        key: of the instance's record.
        keys: all that are bound to its lease, that of the record among them.
        lease: 0 once it has ended.
    """

    key: bytes
    keys: frozenset[bytes] = frozenset()
    lease: int = 0


class EtcdRegistry(Registry):
    """See the package. An instance lasts as long as its lease, 10 s after the last renewal.

    Each instance has a lease of its own, because a lease says of one instance that it lives: a
    process with one instance has one lease. To revoke it removes exactly what it registered.
    """

    # A watcher is told within milliseconds; the rest is for a busy one.
    propagation = 0.5
    # An emptied etcd has its instances back within one renewal (a third of 10 s) and a retry.
    settle = 6.0

    def __init__(self, url: str, options: EtcdOptions) -> None:
        super().__init__(url)
        self._endpoint = options.endpoints[0]
        self._client = Client(options)
        self._leases = Leases(self._client)
        self._records = Records(options.prefix, ",".join(map(str, options.endpoints)))
        self._kv = EtcdKeyValue(self._client, options.prefix)
        self._held: dict[str, Held] = {}
        self._left: set[str] = set()

    @property
    def peer(self) -> Endpoint | None:
        return self._endpoint

    @property
    def kv(self) -> KeyValue:
        return self._kv

    async def register(self, instance: Instance) -> Lease:
        key = self._records.key(instance.service, instance.id)
        known = instance.id in self._held
        held = self._held.get(instance.id) or Held(key)
        # Who registers has no renewal due for a while, whatever was left of the lease.
        if not held.lease or not await self._lasts(held.lease):
            held.lease = await self._leases.grant()
        self._held[instance.id] = held  # before the write, whose answer may be lost
        self._left.discard(instance.id)
        try:
            await self._write(instance, held, guarded=known)
        except LeaseLost:
            held.lease = await self._leases.grant()
            await self._write(instance, held, guarded=known)
        held.key = key  # another one than before, when it is another service's now
        return Lease(instance_id=instance.id, ttl=TTL)

    async def renew(self, lease: Lease) -> None:
        held = self._held.get(lease.instance_id)
        if held is None or not held.lease:
            raise LeaseLost(f"{lease.instance_id} is not registered with {self.url}")
        # First that the keys are ours: a lease that lives says nothing of them, and they may be
        # deleted or written by somebody else since.
        request = transactions.transaction(
            conditions=[transactions.owned(key, held.lease) for key in sorted(held.keys)],
            otherwise=[transactions.read(held.key)],
        )
        answer = await self._client.call(TXN, request)
        if not answer.succeeded:
            found = answer.responses[0].response_range.kvs
            raise LeaseLost(self._loss(lease.instance_id, held, found))
        if not await self._leases.renew(held.lease):
            held.lease = 0
            raise LeaseLost(f"etcd has ended the lease of {lease.instance_id}")

    async def deregister(self, instance_id: str) -> None:
        held = self._held.get(instance_id)
        if held is not None:
            if held.lease:
                # Only our own keys: what another process has written since is bound to its lease.
                # And a write of ours that is still on its way finds no lease any more.
                with contextlib.suppress(LeaseLost):
                    await self._leases.revoke(held.lease)
            self._held.pop(instance_id, None)
            self._left.add(instance_id)
        elif instance_id not in self._left:
            await self._remove(instance_id)

    async def watch(self, service: str) -> AsyncGenerator[Snapshot, None]:
        folder = self._records.service_folder(service)
        reader = Reader(self._records)
        seen: tuple[Instance, ...] | None = None
        async with contextlib.aclosing(watching.follow(self._client, folder)) as changes:
            async for contents in changes:
                found = reader.read(contents.entries)
                if found != seen:
                    seen = found
                    yield Snapshot(service=service, instances=found, revision=contents.revision)

    async def services(self) -> tuple[ServiceInfo, ...]:
        contents = await watching.read(self._client, self._records.folder)
        return summarize(Reader(self._records).read(contents.entries))

    async def watch_services(self) -> AsyncGenerator[tuple[ServiceInfo, ...], None]:
        seen: tuple[ServiceInfo, ...] | None = None
        reader, folder = Reader(self._records), self._records.folder
        async with contextlib.aclosing(watching.follow(self._client, folder)) as changes:
            async for contents in changes:
                found = summarize(reader.read(contents.entries))
                if found != seen:
                    yield (seen := found)

    async def aclose(self) -> None:
        self._leases.close()
        await self._client.aclose()

    def entries(self, instance: Instance) -> Mapping[bytes, bytes]:
        """Return all that is stored for the instance, by key."""
        return {self._records.key(instance.service, instance.id): encode(instance)}

    def keys(self, service: str, instance_id: str) -> tuple[bytes, ...]:
        """Return the keys under which something may be stored for an instance."""
        return (self._records.key(service, instance_id),)

    async def _lasts(self, lease: int) -> bool:
        """Renew the lease; False when it has ended. A stream that broke says nothing of it."""
        try:
            return await self._leases.renew(lease)
        except RegistryUnavailable:
            return True  # the write will tell

    async def _write(self, instance: Instance, held: Held, *, guarded: bool) -> None:
        """Write the instance's entries in one transaction.

        What was registered here before is taken back only when nobody else has it: two processes
        with one id would replace each other for ever. At first the newcomer wins, because it may
        be the same service, restarted.

        A member that hangs may carry out what it was asked for when it goes on, long after another
        one has. So each write depends on what was there before: one that comes too late does
        nothing.
        """
        entries = self.entries(instance)
        gone = (held.keys | set(self.keys(instance.service, instance.id))) - entries.keys()
        writes = [
            *(transactions.put(key, value, held.lease) for key, value in entries.items()),
            *(transactions.delete(key) for key in sorted(gone)),
        ]
        held.keys = frozenset(entries)
        while True:
            look = make(RANGE.request, key=held.key, keys_only=True)
            found = (await self._client.call(RANGE, look)).kvs
            if guarded and found and found[0].lease != held.lease:
                raise RegistryError(self._loss(instance.id, held, found))
            condition = transactions.as_seen(held.key, found)
            request = transactions.transaction(conditions=[condition], then=writes)
            if (await self._client.call(TXN, request)).succeeded:
                return

    async def _remove(self, instance_id: str) -> None:
        """Remove an instance that another process has registered; its id does not tell where."""
        contents = await watching.read(self._client, self._records.folder, keys_only=True)
        found: list[bytes] = []
        for key in contents.entries:
            with contextlib.suppress(ValueError):
                service, owner = self._records.split(key)
                if owner == instance_id:
                    found += self.keys(service, instance_id)
        if found:
            writes = [transactions.delete(key) for key in found]
            await self._client.call(TXN, transactions.transaction(then=writes))

    def _loss(self, instance_id: str, held: Held, found: Sequence[Any]) -> str:
        """Say what has become of the instance; ``found`` is its entry, if there is one."""
        if found and found[0].lease not in (0, held.lease):
            return (
                f"{instance_id} was registered with {self.url} by another process that lives: "
                "each needs an id of its own"
            )
        return f"{self.url} no longer knows {instance_id}"


def open_etcd(url: RegistryUrl) -> EtcdRegistry:
    """Open ``etcd://[USER:PASSWORD@]HOST[:PORT][,HOST...][/PREFIX]`` or ``etcd+tls://``.

    Raises:
        RegistryUrlError: the URL, or a file that it names, is not usable.
    """
    url.only(*PARAMETERS)
    prefix = url.path if url.path.strip("/") else PREFIX
    return EtcdRegistry(url.text, read_options(url, prefix=prefix))
