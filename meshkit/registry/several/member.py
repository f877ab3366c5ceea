"""One registry among several: whether it is registered in, and whether it works."""

from __future__ import annotations

import asyncio
import dataclasses
import logging
from collections.abc import Awaitable, Sequence
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
        """Note that ``what`` works; one line when nothing that is still asked for fails any more."""
        self._failing -= {what, READING}  # a single read that failed may never be tried again
        if self._warned and not self._failing:
            log.info("%s works again", self.registry.url)
            self._warned = False

    def forget(self, what: str) -> None:
        """Forget whether it worked: nobody asks any more."""
        self._failing.discard(what)

    async def read(self, service: str) -> Snapshot:
        """Read a service's list once; the last one, marked stale, when that fails.

        Raises:
            RegistryError: it fails and never had a list.
        """
        last = self.snapshots.get(service)
        old = dataclasses.replace(last, stale=True) if last is not None else None
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


def joined(errors: Sequence[RegistryError]) -> RegistryError:
    """Return the members' errors as one; its kind is theirs, where they agree."""
    kinds = {type(error) for error in errors}
    kind = kinds.pop() if len(kinds) == 1 else RegistryUnavailable
    return errors[0] if len(errors) == 1 else kind("; ".join(map(str, errors)))
