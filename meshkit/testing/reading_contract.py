"""The promises that need no writing, and those of an engine that is only read.

    class TestHosts(ReadOnlyContract):
        @pytest.fixture
        def opener(self) -> Opener:
            return lambda: open_registry("hosts:///etc/fleet")

Any other engine inherits :class:`~meshkit.testing.registry_contract.RegistryContract`, which has
the first ones too. How a read-only engine sees changes is left to tests of your own, for which
:class:`~meshkit.testing.watched.Watched` waits.
"""

from __future__ import annotations

import pytest

from meshkit.errors import RegistryError
from meshkit.registry.base import Lease, Registry
from meshkit.testing.registry_fixtures import Opener, RegistryFixtures, make

__all__ = ["Opener", "ReadOnlyContract", "ReadingContract"]


@pytest.mark.anyio
class ReadingContract(RegistryFixtures):
    """What every engine promises to those who read."""

    async def test_unknown_service_is_empty_at_once(self, reader: Registry, service: str) -> None:
        """The first snapshot comes without any change, and nobody is no error."""
        async with self.watched(reader, service) as watched:
            snapshot = await watched.next()
        assert snapshot.service == service
        assert snapshot.instances == ()
        assert not snapshot.stale
        assert (await reader.instances(service)).instances == ()

    async def test_a_reader_is_closed_twice(self, opener: Opener, service: str) -> None:
        """With or without having been used."""
        await opener().aclose()
        async with opener() as registry:
            await registry.instances(service)
            await registry.aclose()
        await registry.aclose()

    async def test_closing_ends_what_is_pending(self, opener: Opener, service: str) -> None:
        """A watch that waits ends or fails, or can be cancelled; no file and no task stays."""
        await self.closing_leaves_nothing(opener, lambda registry: registry.watch(service))

    async def test_cancelled_watches_leave_nothing(self, reader: Registry, service: str) -> None:
        """Neither tasks nor files, over and over; an idle connection may be kept for reuse."""
        await self.cancelling_leaves_nothing(lambda: self.watched(reader, service))


@pytest.mark.anyio
class ReadOnlyContract(ReadingContract):
    """All of the contract that an engine with ``read_only = True`` can keep."""

    async def test_what_is_only_read_says_so(self, reader: Registry, service: str) -> None:
        """To write is an error in one line; to remove what was never there is none."""
        assert reader.read_only
        for write in (
            reader.register(make(service)),
            reader.renew(Lease(instance_id=service, ttl=10.0)),
        ):
            with pytest.raises(RegistryError, match=r"\A.*read-only.*\Z"):
                await write
        await reader.deregister(service)
