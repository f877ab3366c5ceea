"""The promises of :mod:`meshkit.registry.base` as tests, to be inherited by each engine's own.

    from meshkit.testing.registry_contract import Opener, RegistryContract

    class TestRedis(RegistryContract):
        @pytest.fixture
        def opener(self, redis_port: int) -> Opener:
            return lambda: open_registry(f"redis://127.0.0.1:{redis_port}")

Each call of the opener returns another registry object on the same data, because the one that
registers and the one that watches are different processes in real life. The data may be shared
by all tests and hold other things: each test uses service names and ids of its own.

The tests are coroutines and run on anyio's pytest plugin; a ``conftest.py`` chooses asyncio by a
fixture ``anyio_backend`` that returns ``"asyncio"``.
"""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
from collections.abc import Iterable
from typing import Any

import pytest

from meshkit.errors import LeaseLost
from meshkit.model import Instance, ServiceInfo, Status
from meshkit.registry.base import Lease, Registry
from meshkit.testing.reading_contract import ReadingContract
from meshkit.testing.registry_fixtures import (
    FIELDS,
    Opener,
    has,
    make,
)
from meshkit.testing.watched import Watched

__all__ = ["Opener", "RegistryContract"]


@pytest.mark.anyio
class RegistryContract(ReadingContract):
    """See the module."""

    async def test_later_watch_starts_with_the_list(
        self, registrar: Registry, reader: Registry, connect: Opener, service: str
    ) -> None:
        """Whoever comes later gets what is there, by a watch or by reading once."""
        both = make(service, "a"), make(service, "b")
        async with self.watched(reader, service) as early:
            for instance in both:
                await registrar.register(instance)
            await early.until(has(*both))
        async with self.watched(connect(), service) as late:
            assert has(*both)(await late.next())
        assert has(*both)(await reader.instances(service))

    async def test_each_snapshot_is_the_full_list(
        self, registrar: Registry, reader: Registry, service: str
    ) -> None:
        """Never a difference: all that are there, sorted by id, under a growing revision."""
        one, two, three = (make(service, name) for name in "cab")
        revisions = []
        async with self.watched(reader, service) as watched:
            for present in ([one], [one, two], [one, two, three]):
                await registrar.register(present[-1])
                revisions.append((await watched.until(has(*present))).revision)
            await registrar.deregister(two.id)
            revisions.append((await watched.until(has(one, three))).revision)
        assert revisions == sorted(revisions)

    async def test_status_change_is_seen(
        self, registrar: Registry, reader: Registry, service: str
    ) -> None:
        """Every status is shown as it was registered; callers choose those that are up."""
        async with self.watched(reader, service) as watched:
            for status in (Status.STARTING, Status.UP, Status.DOWN, Status.UP, Status.DRAINING):
                instance = make(service, status=status)
                await registrar.register(instance)
                snapshot = await watched.until(has(instance))
                assert len(snapshot.up) == (status is Status.UP)

    async def test_same_id_replaces(
        self, registrar: Registry, reader: Registry, service: str
    ) -> None:
        """Registering again changes the instance and adds none."""
        old = make(service, tags=("old", "both"), metadata={"old": "1", "both": "1"})
        new = make(service, tags=("both", "new"), metadata={"both": "2", "new": "2"}, weight=7)
        async with self.watched(reader, service) as watched:
            await registrar.register(old)
            await watched.until(has(old))
            await registrar.register(new)
            found = (await watched.until(has(new))).instances[0]
        assert (found.tags, dict(found.metadata)) == (new.tags, new.metadata)

    async def test_all_watchers_see(
        self, registrar: Registry, connect: Opener, service: str
    ) -> None:
        """Several watches of one registry object, and those of others, see the same."""
        instance, shared = make(service), connect()
        async with contextlib.AsyncExitStack() as stack:
            watches = [
                await stack.enter_async_context(self.watched(registry, service))
                for registry in (shared, shared, connect(), registrar)
            ]
            await asyncio.gather(*(watched.next() for watched in watches))
            await registrar.register(instance)
            await asyncio.gather(*(watched.until(has(instance)) for watched in watches))
            await watches[0].aclose()  # the others go on
            await registrar.deregister(instance.id)
            await asyncio.gather(*(watched.until(has()) for watched in watches[1:]))

    async def test_services_do_not_mix(
        self, registrar: Registry, reader: Registry, service: str
    ) -> None:
        """Also when one's name begins with the other's."""
        ours, theirs = make(service), make(f"{service}-admin")
        async with (
            self.watched(reader, ours.service) as watched,
            self.watched(reader, theirs.service) as others,
        ):
            await registrar.register(theirs)
            await others.until(has(theirs))
            await registrar.register(ours)
            await watched.until(has(ours))
            await registrar.deregister(theirs.id)
            await others.until(has())
            assert has(ours)(await reader.instances(service))

    async def test_no_snapshot_without_a_change(
        self, registrar: Registry, reader: Registry, service: str
    ) -> None:
        """A renewal is none, nor is what happens to other services."""
        instance, other = make(service), make(f"{service}-admin")
        async with self.watched(reader, service) as watched:
            lease = await registrar.register(instance)
            await watched.until(has(instance))
            await registrar.renew(lease)
            await registrar.register(other)
            await registrar.renew(lease)
            await watched.nothing(seconds=self.calm)

    async def test_last_snapshot_is_the_truth(
        self, registrar: Registry, reader: Registry, service: str
    ) -> None:
        """Quick changes may be seen together, but the last ones are not lost."""
        truth: dict[str, Instance] = {}
        async with self.watched(reader, service) as watched:
            await watched.next()
            for step in range(1, 101):
                instance = make(service, f"i{step * 3 % 7}", weight=step)
                if instance.id in truth and step % 4 == 0:
                    await registrar.deregister(instance.id)
                    del truth[instance.id]
                else:
                    await registrar.register(instance)
                    truth[instance.id] = instance
            await watched.until(has(*truth.values()))
            await watched.nothing(seconds=self.calm)

    async def test_many_register_at_once(
        self, connect: Opener, reader: Registry, service: str
    ) -> None:
        """Nobody gets lost among others that come at the same moment."""
        registrars = [connect() for _ in range(3)]
        fleet = [make(service, f"i{n:02}") for n in range(18)]
        async with self.watched(reader, service) as watched:
            await asyncio.gather(
                *(registrars[n % 3].register(instance) for n, instance in enumerate(fleet))
            )
            await watched.until(has(*fleet))
            await asyncio.gather(
                *(registrars[n % 3].deregister(each.id) for n, each in enumerate(fleet))
            )
            await watched.until(has())

    @pytest.mark.parametrize("fields", FIELDS.values(), ids=FIELDS.keys())
    async def test_fields_survive(
        self, registrar: Registry, reader: Registry, service: str, fields: dict[str, Any]
    ) -> None:
        """What is read is what was registered; of the start time, to the millisecond."""
        instance = make(service, **fields)
        async with self.watched(reader, service) as watched:
            await registrar.register(instance)
            (found,) = (await watched.until(has(instance))).instances
        assert found.started_at == pytest.approx(instance.started_at, abs=0.001)
        assert dataclasses.replace(found, started_at=instance.started_at) == instance

    async def test_lease_tells_when_to_renew(
        self, registrar: Registry, reader: Registry, service: str
    ) -> None:
        """A living instance is renewed as often as one likes."""
        instance = make(service)
        lease = await registrar.register(instance)
        assert lease.instance_id == instance.id
        assert 0 < lease.interval < lease.ttl
        for _ in range(3):
            await registrar.renew(lease)
        async with self.watched(reader, service) as watched:
            await watched.until(has(instance))

    async def test_renewing_the_unknown_is_lease_lost(
        self, registrar: Registry, service: str
    ) -> None:
        """Never registered, or deregistered meanwhile: the answer is the same."""
        with pytest.raises(LeaseLost):
            await registrar.renew(Lease(instance_id=f"{service}-nobody", ttl=10.0))
        lease = await registrar.register(make(service))
        await registrar.deregister(lease.instance_id)
        with pytest.raises(LeaseLost):
            await registrar.renew(lease)

    async def test_registering_again_heals_a_lost_lease(
        self, registrar: Registry, reader: Registry, service: str
    ) -> None:
        """A registry that lost its content is filled again by those who live."""
        instance = make(service)
        async with self.watched(reader, service) as watched:
            for _ in range(2):
                lease = await registrar.register(instance)
                await watched.until(has(instance))
                await self.forget(registrar, instance)
                await watched.until(has())
                with pytest.raises(LeaseLost):
                    await registrar.renew(lease)
            await registrar.renew(await registrar.register(instance))
            await watched.until(has(instance))

    async def test_deregistering_twice_is_no_error(
        self, registrar: Registry, reader: Registry, service: str
    ) -> None:
        """Nor is an id that nobody knows."""
        gone, stays = make(service, "a"), make(service, "b")
        async with self.watched(reader, service) as watched:
            await registrar.register(gone)
            await registrar.register(stays)
            await watched.until(has(gone, stays))
            await registrar.deregister(gone.id)
            await registrar.deregister(gone.id)
            await registrar.deregister(f"{service}-nobody")
            await watched.until(has(stays))

    async def test_services_are_listed(
        self, registrar: Registry, reader: Registry, service: str
    ) -> None:
        """With all their instances' tags and number, sorted by name, while they have any."""
        names = service, f"{service}-admin"
        fleet = [
            make(names[1], "z", tags=("x",)),
            make(names[0], "a", tags=("b", "c")),
            make(names[0], "b", tags=("a", "b"), status=Status.DRAINING),
        ]
        listed = [
            ServiceInfo(name=names[0], tags=("a", "b", "c"), instances=2),
            ServiceInfo(name=names[1], tags=("x",), instances=1),
        ]
        watch = reader.watch_services()
        async with Watched(watch, patience=self.patience) as watched:
            assert not _named(names, await watched.next())
            for instance in fleet:
                await registrar.register(instance)
            await watched.until(lambda services: _named(names, services) == listed)
            assert _named(names, await reader.services()) == listed
            for instance in fleet[1:]:
                await registrar.deregister(instance.id)
            await watched.until(lambda services: _named(names, services) == listed[1:])

    async def test_closing_twice_is_safe(self, opener: Opener, service: str) -> None:
        """With or without having been used."""
        await opener().aclose()
        async with opener() as registry:
            await registry.register(make(service))
            await registry.deregister(f"{service}-a")
            await registry.aclose()
        await registry.aclose()


def _named(names: Iterable[str], services: Iterable[ServiceInfo]) -> list[ServiceInfo]:
    return [each for each in services if each.name in names]
