"""What one cell of the matrix stands on: service processes, consumers, and two views of them."""

from __future__ import annotations

import asyncio
import contextlib
import secrets
from collections.abc import AsyncIterator, Iterable, Mapping, Sequence

from meshkit import Mesh
from meshkit.model import Snapshot
from tests.faults.backends import Backend
from tests.faults.proxy import Proxy
from tests.faults.report import Stopwatch
from tests.support.load import Load
from tests.support.processes import Processes, ServiceProcess
from tests.support.waiting import aeventually

APP = "faulty:Faulty"
# For what has no published limit: a busy machine may take its time.
PATIENCE = 60.0
EVERY = 0.1
LONGER_THAN_A_LEASE = 14.0  # of any engine with a server


class Consumer:
    """A mesh that follows one service and remembers all it has been shown.

    Attributes:
        emptied: whether it was shown an empty list after a full one.
        doubled: ids that were in one list twice.
        ever, lost: ids that were up at some time; those of them that were missing later.
    """

    def __init__(self, mesh: Mesh, service: str) -> None:
        self.mesh = mesh
        self.client = mesh.http(service)
        self.target = mesh.target(service)
        self.subscription = self.target.subscription
        self.emptied = False
        self.doubled: set[str] = set()
        self.ever: set[str] = set()
        self.lost: set[str] = set()
        self.subscription.on_change(self._shown)

    @property
    def up(self) -> set[str]:
        """Ids of the instances it would call."""
        snapshot = self.subscription.snapshot
        return {each.id for each in snapshot.up} if snapshot else set()

    async def sees(self, *processes: ServiceProcess, within: float = PATIENCE) -> float:
        """Wait until exactly these are up for it; return the seconds that took."""
        return await self.sees_ids({each.instance for each in processes}, within=within)

    async def sees_ids(self, ids: set[str], *, within: float = PATIENCE) -> float:
        """The same for instance ids."""
        watch = Stopwatch()

        async def seen() -> bool:
            return self.up == ids

        await aeventually(seen, within=within)
        return watch.seconds

    async def misses(self, process: ServiceProcess, *, within: float = PATIENCE) -> float:
        """Wait until it no longer sees this one; return the seconds that took."""
        watch = Stopwatch()

        async def missed() -> bool:
            return process.instance not in self.up

        await aeventually(missed, within=within)
        return watch.seconds

    def load(self, rate: float, *, idempotent: bool = True) -> Load:
        """Return steady calls, whose answers are the process ids of those who answered."""

        async def call() -> str:
            answer = await (self.client.get("/who") if idempotent else self.client.post("/count"))
            return str(answer.raise_for_status().json()["pid"])

        return Load(call, rate=rate)

    def _shown(self, snapshot: Snapshot) -> None:
        ids = [each.id for each in snapshot.instances]
        self.emptied = self.emptied or (bool(self.ever) and not snapshot.up)
        up = {each.id for each in snapshot.up}
        self.ever |= up
        self.lost |= self.ever - up
        self.doubled |= {each for each in ids if ids.count(each) > 1}


class World:
    """Service processes under a name of their own, on one engine.

    Attributes:
        service: the name; no other cell has it.
    """

    def __init__(self, backend: Backend, processes: Processes) -> None:
        self.backend = backend
        self.service = f"faulty-{secrets.token_hex(3)}"
        self.processes = processes

    async def start(
        self,
        count: int = 1,
        *arguments: str,
        url: str = "",
        service: str = "",
        env: Mapping[str, str] | None = None,
    ) -> list[ServiceProcess]:
        """Start so many side by side and wait until all are up.

        Args:
            count: how many.
            arguments: more of ``meshkit run``.
            url: the registry as they are to see it; the backend's own unless given.
            service: their name, the world's unless given.
            env: more variables.
        """
        given = {"FAULTY_NAME": service or self.service, **(env or {})}
        self.processes.registry = url or self.backend.url()
        started = [self.processes.start(APP, *arguments, env=given) for _ in range(count)]
        for process in started:
            await asyncio.to_thread(process.ready)
        return started

    @contextlib.asynccontextmanager
    async def consumer(self, *, url: str = "") -> AsyncIterator[Consumer]:
        """A consumer of the world's service."""
        async with Mesh(url or self.backend.url()) as mesh:
            yield Consumer(mesh, self.service)

    @contextlib.asynccontextmanager
    async def proxies(self) -> AsyncIterator[list[Proxy]]:
        """One proxy for each of the registry's nodes, for a party that is to be cut off."""
        async with contextlib.AsyncExitStack() as stack:
            yield [
                await stack.enter_async_context(Proxy(address))
                for address in self.backend.addresses
            ]

    async def lists(self, *processes: ServiceProcess, within: float = PATIENCE) -> float:
        """Wait until the registry itself shows exactly these, each once; return the seconds."""
        return await self.lists_ids((each.instance for each in processes), within=within)

    async def lists_ids(self, ids: Iterable[str], *, within: float = PATIENCE) -> float:
        """The same for instance ids."""
        watch, expected = Stopwatch(), sorted(ids)

        async def listed() -> bool:
            return await self.registered() == expected

        await aeventually(listed, within=within, every=EVERY)
        return watch.seconds

    async def forgets(self, process: ServiceProcess, *, within: float) -> float:
        """Wait until the registry itself no longer shows this one; return the seconds."""
        watch = Stopwatch()

        async def gone() -> bool:
            shown = await self.registered()
            return shown is not None and process.instance not in shown

        await aeventually(gone, within=within, every=EVERY)
        return watch.seconds

    async def registered(self) -> list[str] | None:
        """Ids that the registry itself shows; None while it can't say."""
        try:
            return await asyncio.to_thread(self.backend.registered, self.service)
        except OSError:
            return None


def url_through(backend: Backend, proxies: Sequence[Proxy]) -> str:
    """Return the registry's URL as one who has only these proxies is given it."""
    return backend.url([proxy.address for proxy in proxies])
