"""The registry that is several: each operation in all of them, none held up by another."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import functools
import ipaddress
from collections import defaultdict
from collections.abc import AsyncGenerator, Sequence
from typing import TypeVar

from meshkit.errors import LeaseLost, RegistryError
from meshkit.model import Endpoint, Instance, ServiceInfo, Snapshot
from meshkit.registry.base import Lease, Registry
from meshkit.registry.kv import KeyValue
from meshkit.registry.several.departures import Departures
from meshkit.registry.several.follower import Follower, following
from meshkit.registry.several.member import Member, joined
from meshkit.registry.several.union import add_up, merge, shared
from meshkit.registry.several.upkeep import Upkeep
from meshkit.registry.url import REGISTER, RegistryUrl, find_engine

Value = TypeVar("Value")


class Several(Registry):
    """See the package.

    Args:
        members: in the order in which they are believed.
    """

    def __init__(self, members: Sequence[Member]) -> None:
        super().__init__(" ".join(each.registry.url for each in members))
        self._members = tuple(members)
        self._registering = tuple(each for each in members if each.registers)
        self._upkeeps: dict[str, Upkeep] = {}
        self._following: set[asyncio.Task[None]] = set()
        self._departures: defaultdict[str, Departures] = defaultdict(Departures)
        self.propagation = max(each.registry.propagation for each in members)
        self.settle = max(each.registry.settle for each in members)
        self.read_only = not self._registering
        self.listed_by_others = any(each.registry.listed_by_others for each in members)

    @property
    def peer(self) -> Endpoint | None:
        # Those who read where we register must reach us; and a remote registry says more about
        # our address than an agent beside us.
        members = self._registering or self._members
        peers = [peer for each in members if (peer := each.registry.peer) is not None]
        return next((peer for peer in peers if not is_here(peer)), peers[0] if peers else None)

    @property
    def kv(self) -> KeyValue:
        for each in self._members:
            with contextlib.suppress(RegistryError):
                return each.registry.kv
        return super().kv

    async def register(self, instance: Instance) -> Lease:
        if self.read_only:
            return await super().register(instance)
        if (upkeep := self._upkeeps.get(instance.id)) is None:
            upkeep = self._upkeeps[instance.id] = Upkeep(instance.id, self._registering)
        return await upkeep.register(instance)

    async def renew(self, lease: Lease) -> None:
        if (upkeep := self._upkeeps.get(lease.instance_id)) is None:
            raise LeaseLost(f"{lease.instance_id} is not registered in {self.url}")
        await upkeep.renew()

    async def deregister(self, instance_id: str) -> None:
        known = self._upkeeps.pop(instance_id, None)
        await (known or Upkeep(instance_id, self._registering)).leave()

    async def why_unlisted(self) -> str:
        for each in self._registering:
            if reason := await each.registry.why_unlisted():
                return f"{each.registry.url}: {reason}"
        return ""

    async def watch(self, service: str) -> AsyncGenerator[Snapshot, None]:
        changed = asyncio.Event()
        followers = [
            Follower(
                member,
                f"following {service}",
                functools.partial(self._noted, member, service),
                last=member.snapshots.get(service),
                changed=changed,
            )
            for member in self._members
        ]
        revision, seen = 0, None
        async with contextlib.aclosing(following(followers, changed, self._following)) as changes:
            async for _ in changes:
                lists = [_listed(each, service) for each in followers]
                snapshot = self._union(service, lists, revision=revision + 1)
                if (snapshot.instances, snapshot.stale) != seen:
                    seen, revision = (snapshot.instances, snapshot.stale), revision + 1
                    yield snapshot

    async def instances(self, service: str) -> Snapshot:
        reads = [each.read(service) for each in self._members]
        results = await asyncio.gather(*reads, return_exceptions=True)
        good = _good(results)
        unknown = [None] * (len(results) - len(good))
        return self._union(service, [*good, *unknown], revision=0)

    async def services(self) -> tuple[ServiceInfo, ...]:
        reads = [each.read_services() for each in self._members]
        return await self._sum(_good(await asyncio.gather(*reads, return_exceptions=True)))

    async def watch_services(self) -> AsyncGenerator[tuple[ServiceInfo, ...], None]:
        changed = asyncio.Event()
        followers = [
            Follower(
                member,
                "following the services",
                member.registry.watch_services,
                last=member.services,
                changed=changed,
            )
            for member in self._members
        ]
        seen = None
        async with contextlib.aclosing(following(followers, changed, self._following)) as changes:
            async for _ in changes:
                now = await self._sum([each.value for each in followers if each.value is not None])
                if now != seen:
                    yield (seen := now)

    async def aclose(self) -> None:
        for task in tuple(self._following):
            task.cancel()
        await asyncio.gather(*self._following, return_exceptions=True)
        upkeeps = list(self._upkeeps.values())
        self._upkeeps.clear()
        async with contextlib.AsyncExitStack() as closing:
            for member in self._members:
                closing.push_async_callback(member.registry.aclose)
            for upkeep in upkeeps:
                closing.push_async_callback(upkeep.aclose)

    async def _noted(self, member: Member, service: str) -> AsyncGenerator[Snapshot, None]:
        """Watch one member, noting who leaves it."""
        before: Snapshot | None = None
        async with contextlib.aclosing(member.watch(service)) as watch:
            async for snapshot in watch:
                self._departures[service].note(before, snapshot)
                before = snapshot
                yield snapshot

    def _union(self, service: str, lists: Sequence[Snapshot | None], *, revision: int) -> Snapshot:
        departures = self._departures[service]
        departures.keep({one.id for each in lists if each is not None for one in each.instances})
        current = [each and departures.without(each) for each in lists]
        return merge(service, current, revision=revision)

    async def _sum(self, lists: Sequence[tuple[ServiceInfo, ...]]) -> tuple[ServiceInfo, ...]:
        names = sorted(shared(lists))
        snapshots = await asyncio.gather(*map(self.instances, names))
        counts = [len(snapshot.instances) for snapshot in snapshots]
        return add_up(lists, dict(zip(names, counts, strict=True)))


def _listed(follower: Follower[Snapshot], service: str) -> Snapshot | None:
    """Return a member's list, marked stale while the member is away."""
    value = follower.member.snapshots.get(service)
    return value if value is None or follower.live else dataclasses.replace(value, stale=True)


def _good(results: Sequence[Value | BaseException]) -> list[Value]:
    """Return what could be read. Raises when nothing could be, or for a bug."""
    errors = [each for each in results if isinstance(each, RegistryError)]
    for each in results:
        if isinstance(each, BaseException) and not isinstance(each, RegistryError):
            raise each
    if len(errors) == len(results):
        raise joined(errors)
    return [each for each in results if not isinstance(each, BaseException)]


def is_here(peer: Endpoint) -> bool:
    """Whether the server is on this machine."""
    try:
        return ipaddress.ip_address(peer.host).is_loopback
    except ValueError:
        return peer.host == "localhost"


def open_several(urls: Sequence[RegistryUrl]) -> Several:
    """Open these as one; the parameter ``register=false`` is ours, the others the engines'.

    Raises:
        RegistryUrlError: one of them is malformed, or stands there twice.
    """
    if repeated := next((each for each in urls if urls.count(each) > 1), None):
        raise repeated.error("it stands there twice")
    return Several([_open(url) for url in urls])


def _open(url: RegistryUrl) -> Member:
    params = dict(url.params)
    register = params.pop(REGISTER, "true").lower()
    if register not in ("true", "false"):
        raise url.error(f"register is true or false, not {register!r}")
    own = dataclasses.replace(url, params=params)
    return Member(find_engine(own)(own), registers=register == "true")
