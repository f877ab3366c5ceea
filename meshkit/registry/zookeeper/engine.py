"""The registry on ZooKeeper: which nodes are written and read, and what is made of them."""

from __future__ import annotations

import contextlib
import functools
import logging
from collections.abc import AsyncGenerator
from typing import Any

from kazoo.exceptions import BadVersionError, NoNodeError, NotEmptyError

from meshkit.errors import ConfigError, LeaseLost, RegistryError
from meshkit.model import Endpoint, Instance, ServiceInfo, Snapshot
from meshkit.registry.base import Lease, Registry
from meshkit.registry.zookeeper import codec
from meshkit.registry.zookeeper.fleet import Fleet
from meshkit.registry.zookeeper.folder import Folder
from meshkit.registry.zookeeper.kv import ZooKeeperKeyValue
from meshkit.registry.zookeeper.nodes import write_own
from meshkit.registry.zookeeper.options import SESSION, ZooKeeperOptions
from meshkit.registry.zookeeper.session import Session
from meshkit.registry.zookeeper.sessions import Sessions

log = logging.getLogger("meshkit.zookeeper")


class ZooKeeperRegistry(Registry):
    """See the package. An instance is there for as long as the session of who registered it.

    That of a crashed process ends after its time (10 s by default, ``session=``) and up to one of
    the servers' ticks (2 s by default); that of a closed registry at once.
    """

    # A change reaches a watcher in some 5 ms, and through a follower that lags, later.
    propagation = 0.5
    # Who lost its session is back after at most a pause between two attempts, the runtime's (3 s)
    # or kazoo's (1.4 s), also on servers that were emptied; the rest is for busy machines. Where
    # servers don't answer `srvr` both who is registered and who watches keep a lost session for
    # as long as it lasts.
    settle = 6.0

    def __init__(self, url: str, options: ZooKeeperOptions) -> None:
        super().__init__(url)
        self._sessions = Sessions(options)
        self._services = f"{options.path}/services"
        self._place = options.place
        self._peer = options.servers[0]
        # Renewed at least as often as by default: it finds out that a session was lost.
        self._ttl = min(options.session, SESSION)
        self._paths: dict[str, str] = {}
        self._rivals: dict[str, int] = {}  # sessions that have taken over an id of ours
        self._kv = ZooKeeperKeyValue(self._sessions, f"{options.path}/kv")
        self._warned: set[str] = set()

    @property
    def peer(self) -> Endpoint | None:
        return self._peer

    @property
    def kv(self) -> ZooKeeperKeyValue:
        return self._kv

    async def register(self, instance: Instance) -> Lease:
        path = f"{self._folder(instance.service)}/{_name(instance.id)}"
        data = codec.encode(instance)
        async with self._sessions.within() as session:
            await self._refuse_rival(session, instance.id, path)
            former = self._paths.get(instance.id)
            self._paths[instance.id] = path  # also when the answer gets lost
            while not await self._write(session, path, data):
                pass
            if former not in (None, path):
                await self._remove(session, former)
        return Lease(instance_id=instance.id, ttl=self._ttl)

    async def renew(self, lease: Lease) -> None:
        path = self._paths.get(lease.instance_id)
        lost = f"ZooKeeper at {self._place} no longer knows {lease.instance_id}"
        if path is None:
            raise LeaseLost(lost)
        async with self._sessions.within() as session:
            facts = await session.call("exists", path)
            if facts is None:
                raise LeaseLost(lost)
            if facts.ephemeralOwner != session.id:
                if facts.ephemeralOwner and not self._sessions.is_ours(facts.ephemeralOwner):
                    self._rivals[lease.instance_id] = facts.ephemeralOwner
                raise LeaseLost(f"{lost} as of this session: another one has registered it")

    async def deregister(self, instance_id: str) -> None:
        self._rivals.pop(instance_id, None)
        path = self._paths.get(instance_id)
        if path is None:
            return
        async with self._sessions.within() as session:
            await self._remove(session, path)
        self._paths.pop(instance_id, None)

    async def watch(self, service: str) -> AsyncGenerator[Snapshot, None]:
        path, decode = self._folder(service), functools.partial(self._decode, service)
        seen: tuple[Instance, ...] | None = None
        revision = 0
        with Folder(await self._sessions.current(), path, decode) as folder:
            while True:
                folder.changed.clear()
                found = _sorted(await folder.read())
                if found != seen:
                    seen, revision = found, revision + 1
                    yield Snapshot(service=service, instances=found, revision=revision)
                await folder.news()

    async def instances(self, service: str) -> Snapshot:
        path, decode = self._folder(service), functools.partial(self._decode, service)
        folder = Folder(await self._sessions.current(), path, decode, watch=False)
        return Snapshot(service=service, instances=_sorted(await folder.read()))

    async def services(self) -> tuple[ServiceInfo, ...]:
        session = await self._sessions.current()
        with Fleet(session, self._services, self._decode, watch=False) as fleet:
            return await fleet.read()

    async def watch_services(self) -> AsyncGenerator[tuple[ServiceInfo, ...], None]:
        session = await self._sessions.current()
        seen: tuple[ServiceInfo, ...] | None = None
        with Fleet(session, self._services, self._decode) as fleet:
            while True:
                fleet.changed.clear()
                found = await fleet.read()
                if found != seen:
                    yield (seen := found)
                await fleet.changed.wait()

    async def aclose(self) -> None:
        await self._sessions.aclose()

    async def _refuse_rival(self, session: Session, instance_id: str, path: str) -> None:
        """Leave an id to the session that has taken it over, for as long as that lives.

        The last one to come wins, because it may be the same service, restarted; but two that
        both live would replace each other for ever.
        """
        if (rival := self._rivals.get(instance_id)) is None:
            return
        facts = await session.call("exists", path)
        if facts is not None and facts.ephemeralOwner == rival:
            raise RegistryError(
                f"{instance_id} was registered with ZooKeeper at {self._place} by another process "
                "that lives: each needs an id of its own"
            )
        del self._rivals[instance_id]

    def _folder(self, service: str) -> str:
        return f"{self._services}/{_name(service)}"

    async def _write(self, session: Session, path: str, data: bytes) -> bool:
        """Make the node ours with this content; False when another came in between."""
        try:
            return await write_own(session, path, data)
        except NotEmptyError:
            raise RegistryError(
                f"{path} in ZooKeeper at {self._place} is no instance: it has nodes below it; "
                "remove it, or choose another path in the URL"
            ) from None

    async def _remove(self, session: Session, path: str) -> None:
        """Remove the node if it is ours, of this session or an earlier one."""
        facts = await session.call("exists", path)
        if facts is not None and self._sessions.is_ours(facts.ephemeralOwner):
            with contextlib.suppress(NoNodeError, BadVersionError):
                await session.call("delete", path, version=facts.version)

    def _decode(self, service: str, name: str, data: bytes, facts: Any) -> Instance | None:  # noqa: ARG002
        try:
            return codec.decode(service, name, data)
        except ValueError as error:
            path = f"{self._folder(service)}/{name}"
            if path not in self._warned:
                self._warned.add(path)
                log.warning(
                    "%s in ZooKeeper at %s is no instance and left out: %s",
                    path,
                    self._place,
                    error,
                )
            return None


def _sorted(found: dict[str, Instance]) -> tuple[Instance, ...]:
    return tuple(sorted(found.values(), key=lambda each: each.id))


def _name(text: str) -> str:
    """Return the text as a node's name. Raises ConfigError when it can't be one."""
    if text in ("", ".", "..") or "/" in text or not text.isprintable():
        raise ConfigError(f"{text!r} can't be the name of a node in ZooKeeper")
    return text
