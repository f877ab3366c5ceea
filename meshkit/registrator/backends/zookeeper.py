"""Nodes in ZooKeeper in Registrator's form: ephemeral ones, ours are those of our session."""

from __future__ import annotations

import contextlib
import dataclasses
from typing import Any

from kazoo.exceptions import BadVersionError, NoNodeError, NotEmptyError

from meshkit.errors import LeaseLost, RegistryError
from meshkit.model import Status
from meshkit.registrator.backends.base import Backend, Held
from meshkit.registrator.backends.layouts import Layout
from meshkit.registrator.record import Record
from meshkit.registry.zookeeper.nodes import write_own
from meshkit.registry.zookeeper.options import ZooKeeperOptions
from meshkit.registry.zookeeper.session import Session
from meshkit.registry.zookeeper.sessions import Sessions

RENEWAL = 3.0
ATTEMPTS = 10


@dataclasses.dataclass(frozen=True, slots=True)
class Written:
    """A node as we wrote it, and in which session."""

    data: bytes
    session: int


class ZooKeeperNodes(Backend):
    """Writes what is up, removes what is not.

    Nodes end with our session; those of a registrator that died, when its session has run out.
    Until then they are taken over.

    Args:
        url: without secrets.
        owner: our host.
        options: where, and as whom.
        layout: of paths and data.
    """

    lasting = False
    renewal = RENEWAL

    def __init__(self, url: str, owner: str, options: ZooKeeperOptions, layout: Layout) -> None:
        super().__init__(url, owner)
        self._layout = layout
        self._sessions = Sessions(options)
        self._written: dict[str, Written] = {}

    def id_of(self, record: Record) -> str:
        return self._layout.key(record)

    def state_of(self, record: Record) -> Any:
        return self._layout.value(record) if record.status is Status.UP else None

    async def owned(self) -> dict[str, Held]:
        async with self._sessions.within() as session:
            self._written = {
                path: written
                for path, written in self._written.items()
                if written.session == session.id
            }
        return {path: Held(written.data) for path, written in self._written.items()}

    async def put(self, record: Record) -> None:
        path, data = self._layout.key(record), self._layout.value(record)
        async with self._sessions.within() as session:
            # Before it is done: the answer may be lost.
            self._written[path] = Written(b"", session.id)
            for _ in range(ATTEMPTS):
                if await self._write(session, path, data):
                    self._written[path] = Written(data, session.id)
                    return
        raise RegistryError(f"{path} in {self.url} is changed again and again by somebody else")

    async def remove(self, entry_id: str) -> None:
        async with self._sessions.within() as session:
            facts = await session.call("exists", entry_id)
            if facts is not None and self._sessions.is_ours(facts.ephemeralOwner):
                with contextlib.suppress(NoNodeError, BadVersionError):
                    await session.call("delete", entry_id, version=facts.version)
                # A service that is gone has no folder that its readers would list.
                with contextlib.suppress(NoNodeError, NotEmptyError):
                    await session.call("delete", entry_id.rpartition("/")[0])
        self._written.pop(entry_id, None)

    async def renew(self) -> None:
        """See that all nodes are there; somebody may have removed one."""
        async with self._sessions.within() as session:
            for path, written in tuple(self._written.items()):
                facts = await session.call("exists", path)
                if facts is None or facts.ephemeralOwner != session.id:
                    if self._written.get(path) is written:
                        del self._written[path]
                    raise LeaseLost(f"{path} in {self.url} is gone")

    async def aclose(self) -> None:
        await self._sessions.aclose()

    async def _write(self, session: Session, path: str, data: bytes) -> bool:
        """Make the node ours with this content; False when another came in between."""
        try:
            return await write_own(session, path, data)
        except NotEmptyError:
            raise RegistryError(
                f"{path} in {self.url} is no entry: it has nodes below it"
            ) from None
