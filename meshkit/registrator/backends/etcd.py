"""Keys in etcd in Registrator's form, or SkyDNS's: ours are those of our lease.

Nothing can stand beside the keys, for their readers take everything there for a service. But each
key may belong to a lease, and whoever makes a lease chooses its number: so it can be a mark, which
the next registrator of this host finds again. Where nothing is to expire, it lasts for years.
"""

from __future__ import annotations

import math
import re
from typing import Any

from meshkit.errors import LeaseLost, RegistryError
from meshkit.model import Status
from meshkit.registrator.backends.base import Backend, Held, Opener, digest
from meshkit.registrator.backends.layouts import Addresses, DnsRecords, Layout
from meshkit.registrator.options import TTL_BITS, Options
from meshkit.registrator.record import Record
from meshkit.registry.etcd import transactions, watching
from meshkit.registry.etcd.client import Client
from meshkit.registry.etcd.leases import Leases
from meshkit.registry.etcd.messages import GRANT, RANGE, TXN, make
from meshkit.registry.etcd.options import EtcdOptions, read_options, read_prefix
from meshkit.registry.url import RegistryUrl

# A lease's number: a mark of 39 bits, and its seconds; 0 of them where it is to last.
MARK_BITS = 63 - TTL_BITS
LASTING = 10 * 365 * 24 * 3600
EXISTS = "already exists"


class EtcdKeys(Backend):
    """Writes what is up, removes what is not.

    Args:
        url: without secrets.
        owner: our host.
        etcd: where, and as whom.
        layout: of keys and values.
        options: for how long entries last, and whether those that nobody owns are ours.
    """

    expires = True

    def __init__(
        self, url: str, owner: str, etcd: EtcdOptions, layout: Layout, options: Options
    ) -> None:
        super().__init__(url, owner)
        self._layout = layout
        self._client = Client(etcd)
        self._leases = Leases(self._client)
        self._ttl = math.ceil(options.ttl or 0)
        if options.ttl_refresh is not None:
            self.renewal = options.ttl_refresh
        self._mark = digest(f"{owner} {layout.folder}", bits=MARK_BITS)
        self._lease = self._mark << TTL_BITS | self._ttl
        self._granted = False
        self._adopted = (
            re.compile(rf".*/{re.escape(self.host)}:[^:/]+:\d+(:udp)?") if options.cleanup else None
        )

    def id_of(self, record: Record) -> str:
        return self._layout.key(record)

    def state_of(self, record: Record) -> Any:
        return (self._layout.value(record), self._lease) if record.status is Status.UP else None

    async def owned(self) -> dict[str, Held]:
        contents = await watching.read(self._client, self._layout.folder.encode())
        return {
            key.decode(errors="replace"): Held((entry.value, entry.lease))
            for key, entry in contents.entries.items()
            if self._is_ours(key, entry)
        }

    async def put(self, record: Record) -> None:
        await self._grant()
        key = self._layout.key(record).encode()
        try:
            await self._write(key, self._layout.value(record), record)
        except LeaseLost:  # with all data, or it has run out
            self._granted = False
            await self._grant()
            await self._write(key, self._layout.value(record), record)

    async def remove(self, entry_id: str) -> None:
        key = entry_id.encode()
        look = make(RANGE.request, key=key, keys_only=True)
        found = (await self._client.call(RANGE, look)).kvs
        if found and self._is_ours(key, found[0]):
            condition = transactions.as_seen(key, found)
            request = transactions.transaction(
                conditions=[condition], then=[transactions.delete(key)]
            )
            await self._client.call(TXN, request)

    async def renew(self) -> None:
        if self._ttl and self._granted and not await self._leases.renew(self._lease):
            self._granted = False
            raise LeaseLost(f"{self.url} has ended the lease of this host's entries")

    async def aclose(self) -> None:
        self._leases.close()
        await self._client.aclose()

    def _is_ours(self, key: bytes, entry: Any) -> bool:
        if entry.lease:
            return bool(entry.lease >> TTL_BITS == self._mark)
        return self._adopted is not None and bool(self._adopted.fullmatch(key.decode("latin-1")))

    async def _grant(self) -> None:
        """Make the lease, or take it over from the registrator that was here before us."""
        if self._granted:
            return
        request = make(GRANT.request, TTL=self._ttl or LASTING, ID=self._lease)
        try:
            await self._client.call(GRANT, request)
        except RegistryError as error:
            if EXISTS not in str(error):
                raise
            if not await self._leases.renew(self._lease):
                raise LeaseLost(f"{self.url} is just ending the lease of this host") from None
        self._granted = True

    async def _write(self, key: bytes, value: bytes, record: Record) -> None:
        """Write it unless another registrator's is there, or something has come in between."""
        look = make(RANGE.request, key=key, keys_only=True)
        found = (await self._client.call(RANGE, look)).kvs
        if found and found[0].lease and not self._is_ours(key, found[0]):
            raise RegistryError(
                f"{key.decode()} of container {record.container_name} in {self.url} belongs to "
                "another registrator: give each a SERVICE_ID of its own"
            )
        request = transactions.transaction(
            conditions=[transactions.as_seen(key, found)],
            then=[transactions.put(key, value, self._lease)],
        )
        if not (await self._client.call(TXN, request)).succeeded:
            raise RegistryError(f"{key.decode()} in {self.url} was changed by somebody else")


def open_keys(url: RegistryUrl, options: Options) -> Opener:
    """Open ``etcdkv://HOST[:PORT],.../PREFIX``."""
    etcd, prefix = _read(url), url.path.rstrip("/")
    if prefix:
        read_prefix(url, prefix)
    return lambda owner: EtcdKeys(url.text, owner, etcd, Addresses(prefix), options)


def open_skydns(url: RegistryUrl, options: Options) -> Opener:
    """Open ``skydns2://HOST[:PORT],.../DOMAIN``."""
    domain = url.path.strip("/").lower()
    if not re.fullmatch(r"[a-z0-9-]+(\.[a-z0-9-]+)*", domain):
        raise url.error(f"name the domain, as in {url.scheme}://HOST/cluster.local")
    etcd = _read(url)
    return lambda owner: EtcdKeys(url.text, owner, etcd, DnsRecords(domain), options)


def _read(url: RegistryUrl) -> EtcdOptions:
    url.only("password_file", "ca", "cert", "key")
    return read_options(url, prefix="/unused")
