"""Two registry objects that do what they are told, and the model of what ought to come of it."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import secrets
from collections.abc import AsyncGenerator, Callable, Coroutine
from typing import Any, TypeVar

from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
)

from meshkit.errors import LeaseLost, RegistryError
from meshkit.model import Endpoint, Instance, Snapshot, Status
from meshkit.registry import Lease, Registry, open_registry

T = TypeVar("T")
PATIENCE = 20.0
OWNERS = st.sampled_from((0, 1))
SERVICES = st.sampled_from((0, 1))
NAMES = st.sampled_from("ab")
OWN_SERVICE = {"a": 0, "b": 1}


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Engine:
    """The engine under test.

    Attributes:
        url: of an empty registry, or one in which nobody minds us.
        forget: make the registry lose an instance, given service and id, behind our back.
        ends: a registry that is closed takes its instances along; else they first leave.
        moves: watchers of a service are told when an id is registered as another service's.
    """

    url: str
    forget: Callable[[str, str], None]
    ends: bool
    moves: bool = True


class Follower:
    """A watch that is kept open, and the last list it has shown."""

    def __init__(self, watch: AsyncGenerator[Snapshot, None]) -> None:
        self.last: Snapshot | None = None
        self.revision = -1
        self._watch = watch
        self.task = asyncio.create_task(self._follow())

    async def _follow(self) -> None:
        async with contextlib.aclosing(self._watch) as snapshots:
            async for snapshot in snapshots:
                assert snapshot.revision > self.revision, "a revision that does not grow"
                self.last, self.revision = snapshot, snapshot.revision

    async def aclose(self) -> None:
        self.task.cancel()
        await asyncio.wait({self.task})


class RegistryMachine(RuleBasedStateMachine):
    """Two registry objects that register, one that reads, and what ought to be registered."""

    def __init__(self, engine: Engine) -> None:
        super().__init__()
        self.engine = engine
        self.loop = asyncio.new_event_loop()
        self.services: list[str] = []
        self.reader: Registry
        self.open: dict[int, Registry] = {}
        self.followers: dict[tuple[int, int], Follower] = {}
        self.model: dict[str, Instance] = {}
        self.owner: dict[str, int] = {}

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        async def bounded() -> T:
            async with asyncio.timeout(PATIENCE):
                return await work

        return self.loop.run_until_complete(bounded())

    @initialize()
    def begin(self) -> None:
        token = secrets.token_hex(4)
        self.services = [f"users-{token}", f"orders-{token}"]
        self.run(self._begin())

    async def _begin(self) -> None:
        self.reader = open_registry(self.engine.url)
        for service in range(2):
            self.followers[-1, service] = Follower(self.reader.watch(self.services[service]))

    def registry(self, owner: int) -> Registry:
        """Return the owner's registry object, opened anew if it was closed."""
        if owner not in self.open:
            self.open[owner] = open_registry(self.engine.url)
        return self.open[owner]

    def id_of(self, owner: int, name: str) -> str:
        return f"{self.services[0]}-{owner}{name}"

    @rule(
        owner=OWNERS,
        name=NAMES,
        service=SERVICES,
        status=st.sampled_from(Status),
        weight=st.integers(1, 65535),
        tags=st.lists(st.sampled_from(("x", "y", "z")), unique=True),
    )
    def register(  # noqa: PLR0917 - hypothesis gives names
        self, owner: int, name: str, service: int, status: Status, weight: int, tags: list[str]
    ) -> None:
        """Add an instance, or change it; also into one of another service."""
        if not self.engine.moves:
            service = OWN_SERVICE[name]
        instance = Instance(
            id=self.id_of(owner, name),
            service=self.services[service],
            endpoints={"http": Endpoint("127.0.0.1", 8000)},
            status=status,
            weight=weight,
            tags=tuple(tags),
        )
        lease = self.run(self._register(owner, instance))
        assert lease.instance_id == instance.id
        self.model[instance.id] = instance
        self.owner[instance.id] = owner

    async def _register(self, owner: int, instance: Instance) -> Lease:
        return await self.registry(owner).register(instance)

    @rule(owner=OWNERS, name=NAMES)
    def renew(self, owner: int, name: str) -> None:
        """What is registered is renewed; of anything else the lease is lost."""
        instance_id = self.id_of(owner, name)
        renewed = self.run(self._renew(owner, Lease(instance_id=instance_id, ttl=10.0)))
        assert renewed == (instance_id in self.model)

    async def _renew(self, owner: int, lease: Lease) -> bool:
        try:
            await self.registry(owner).renew(lease)
        except LeaseLost:
            return False
        return True

    @rule(owner=OWNERS, name=NAMES)
    def deregister(self, owner: int, name: str) -> None:
        """Remove it; when it is not there, that is no error."""
        self.run(self._deregister(owner, self.id_of(owner, name)))
        self._gone(self.id_of(owner, name))

    async def _deregister(self, owner: int, instance_id: str) -> None:
        await self.registry(owner).deregister(instance_id)

    @precondition(lambda self: bool(self.model))
    @rule(data=st.data())
    def forget(self, data: st.DataObject) -> None:
        """The registry loses an instance, as one that was restarted empty has."""
        instance_id = data.draw(st.sampled_from(sorted(self.model)))
        self.engine.forget(self.model[instance_id].service, instance_id)
        self._gone(instance_id)

    @rule(owner=OWNERS, service=SERVICES)
    def open_watch(self, owner: int, service: int) -> None:
        """Watch with a registry that registers as well."""
        if (owner, service) not in self.followers:
            self.followers[owner, service] = self.run(self._follow(owner, service))

    async def _follow(self, owner: int, service: int) -> Follower:
        return Follower(self.registry(owner).watch(self.services[service]))

    @rule(owner=st.sampled_from((-1, 0, 1)), service=SERVICES)
    def close_watch(self, owner: int, service: int) -> None:
        """End a watch; the others go on."""
        if follower := self.followers.pop((owner, service), None):
            self.run(follower.aclose())

    @precondition(lambda self: bool(self.open))
    @rule(data=st.data(), times=st.sampled_from((1, 2)))
    def close(self, data: st.DataObject, times: int) -> None:
        """Close a registry object, once or twice, with its watches open; it is opened on use."""
        owner = data.draw(st.sampled_from(sorted(self.open)))
        self.run(self._close(owner, times))
        for instance_id in [each for each in self.model if self.owner[each] == owner]:
            self._gone(instance_id)

    async def _close(self, owner: int, times: int) -> None:
        registry = self.open.pop(owner)
        if not self.engine.ends:
            for instance_id in [each for each in self.model if self.owner[each] == owner]:
                await registry.deregister(instance_id)
        for _ in range(times):
            await registry.aclose()
        for service in range(2):
            if follower := self.followers.pop((owner, service), None):
                # It ends, or fails as one of a closed registry; it does not hang.
                with contextlib.suppress(RegistryError):
                    await follower.task

    def _gone(self, instance_id: str) -> None:
        self.model.pop(instance_id, None)
        self.owner.pop(instance_id, None)

    @invariant()
    def all_views_are_right(self) -> None:
        """A read and all open watches come to show the model; none has failed meanwhile."""
        if self.services:
            self.run(self._settle())

    async def _settle(self) -> None:
        for service, name in enumerate(self.services):
            expected = sorted(
                (each for each in self.model.values() if each.service == name),
                key=lambda each: each.id,
            )
            watches = [each for key, each in self.followers.items() if key[1] == service]
            last: object = None
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(PATIENCE / 2):
                    while True:
                        read = await self.reader.instances(name)
                        last = [_values(read), *(_values(each.last) for each in watches)]
                        if all(each == [*map(_fields, expected)] for each in last):
                            break
                        assert not [each for each in watches if each.task.done()]
                        await asyncio.sleep(0.005)
            assert last == [[*map(_fields, expected)]] * (1 + len(watches))

    def teardown(self) -> None:
        try:
            if self.services:
                self.run(self._end())
                left = asyncio.all_tasks(self.loop)
                assert not left, f"tasks are left: {left}"
        finally:
            self.loop.run_until_complete(self.loop.shutdown_asyncgens())
            self.loop.run_until_complete(self.loop.shutdown_default_executor())
            self.loop.close()

    async def _end(self) -> None:
        for follower in self.followers.values():
            await follower.aclose()
        for owner, registry in self.open.items():
            for instance_id in [each for each in self.model if self.owner[each] == owner]:
                await registry.deregister(instance_id)
            await registry.aclose()
        await self.reader.aclose()
        for _ in range(100):  # what was cancelled ends in a few turns of the loop
            if len(asyncio.all_tasks()) == 1:
                return
            await asyncio.sleep(0.01)


def _fields(instance: Instance) -> tuple[object, ...]:
    return instance.id, instance.status, instance.weight, instance.tags


def _values(snapshot: Snapshot | None) -> list[tuple[object, ...]] | None:
    return [*map(_fields, snapshot.instances)] if snapshot is not None else None
