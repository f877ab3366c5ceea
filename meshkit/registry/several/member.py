"""One registry among several: whether it is registered in, and whether it works."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import logging
import time
from collections.abc import AsyncGenerator, Awaitable, Sequence
from typing import TypeVar

from meshkit.errors import RegistryError, RegistryUnavailable
from meshkit.model import ServiceInfo, Snapshot
from meshkit.registry.base import Registry

READ_LIMIT = 3.0  # seconds for one read
READING = "reading"

log = logging.getLogger("meshkit.registry")

Value = TypeVar("Value")


class Member:
    """A registry with what was last read from it, for as long as it is away.

    Attributes:
        registers: whether services register in it, or it is only read.
        snapshots: the last list of each service that was asked for.
        services: the last list of services, None when it was never read.
    """

    def __init__(self, registry: Registry, *, registers: bool) -> None:
        self.registry = registry
        self.registers = registers and not registry.read_only
        self.snapshots: dict[str, Snapshot] = {}
        self.services: tuple[ServiceInfo, ...] | None = None
        self._followed: set[str] = set()  # services whose list is current
        self._failing: set[str] = set()
        self._warned = False

    def failed(self, what: str, error: RegistryError) -> None:
        """Note that ``what`` fails: one warning until it works, however much fails and how often.

        A watch of all that ends because none works, and is begun anew, is no news either.
        """
        if not self._warned:
            log.warning("%s, one of several registries, fails: %s", self.registry.url, error)
        self._warned = True
        self._failing.add(what)

    def works(self, what: str) -> None:
        """Note that ``what`` works; one line when nothing that is asked for fails any more."""
        self._failing -= {what, READING}  # a single read that failed may never be tried again
        if self._warned and not self._failing:
            log.info("%s works again", self.registry.url)
            self._warned = False

    def forget(self, what: str) -> None:
        """Forget whether it worked: nobody asks any more."""
        self._failing.discard(what)

    async def watch(self, service: str) -> AsyncGenerator[Snapshot, None]:
        """Watch a service's list, noting it for the time that the registry is away."""
        seen: Snapshot | None = None
        try:
            async with contextlib.aclosing(self.registry.watch(service)) as watch:
                async for snapshot in watch:
                    self.snapshots[service] = seen = snapshot
                    self._followed.add(service)
                    yield snapshot
        finally:
            self._followed.discard(service)
            if seen is not None:
                self.snapshots[service] = _confirmed(seen)

    async def read(self, service: str) -> Snapshot:
        """Read a service's list once; the last one, marked stale, when that fails.

        Raises:
            RegistryError: it fails and never had a list.
        """
        old = self.snapshots.get(service)
        if old is not None:
            current = _confirmed(old) if service in self._followed else old
            old = dataclasses.replace(current, stale=True)
        snapshot = await self._read(self.registry.instances(service), old)
        if not snapshot.stale:
            self.snapshots[service] = snapshot
        return snapshot

    async def read_services(self) -> tuple[ServiceInfo, ...]:
        """Read the list of services once; the last one when that fails, as :meth:`read` does."""
        reading = self._read(self.registry.services(), self.services)
        self.services = await reading
        return self.services

    async def _read(self, reading: Awaitable[Value], last: Value | None) -> Value:
        try:
            async with asyncio.timeout(READ_LIMIT):
                value = await reading
        except (RegistryError, TimeoutError) as error:
            if not isinstance(error, RegistryError):
                reason = f"{self.registry.url}: no answer within {READ_LIMIT:.0f} s"
                error = RegistryUnavailable(reason)
            self.failed(READING, error)
            if last is None:
                raise error from None
            return last
        self.works(READING)
        return value


def _confirmed(snapshot: Snapshot) -> Snapshot:
    """Return a list that a watch has confirmed until now by its silence."""
    return dataclasses.replace(snapshot, read_at=time.time())


def joined(errors: Sequence[RegistryError]) -> RegistryError:
    """Return the members' errors as one; its kind is theirs, where they agree."""
    kinds = {type(error) for error in errors}
    kind = kinds.pop() if len(kinds) == 1 else RegistryUnavailable
    if len(errors) == 1:
        return errors[0]
    return kind("; ".join(map(str, errors)), undone=all(error.undone for error in errors))
