"""The routing rules of all services, kept current for one consumer."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Sequence

from meshkit.backoff import Backoff
from meshkit.discovery.routing.rules import FOLDER, Rules, parse_rules
from meshkit.errors import ConfigError, RegistryError
from meshkit.model import Instance
from meshkit.registry import Entry, KeyValue, Registry

RETRY_CAP = 5.0
FIRST_READ = 1.0  # seconds that a first call waits for rules, beside the first list

log = logging.getLogger("meshkit.discovery")


class ServiceRules:
    """The rules of one service as they are now.

    Attributes:
        current: None while there are none, which is nearly always.
    """

    def __init__(self, service: str) -> None:
        self.service = service
        self.current: Rules | None = None
        self._value: bytes | None = None
        self._instances: Sequence[Instance] | None = None
        self._empty: set[str] = set()

    def take(self, value: bytes | None) -> None:
        """Replace the rules by what the registry has; bad ones are refused, and the old stay."""
        if value == self._value:
            return
        self._value = value
        try:
            self.current = None if value is None else parse_rules(self.service, value)
        except ConfigError as error:
            stays = "no rules apply" if self.current is None else "the rules before stay"
            log.warning("%s%s is refused: %s; %s", FOLDER, self.service, error, stays)
            return
        self._empty.clear()
        self._look()

    def see(self, instances: Sequence[Instance]) -> None:
        """Learn of a new list."""
        self._instances = instances
        if self.current is not None:
            self._look()

    def _look(self) -> None:
        """Say so, once, when a group that is to get calls has nobody, and when that ends."""
        if self._instances is None or self.current is None:
            return
        empty = set(self.current.empty([each for each in self._instances if each.up]))
        for name in sorted(empty - self._empty):
            log.warning("%s: nobody is up in %s: the others get its calls", self.service, name)
        for name in sorted(self._empty - empty):
            log.info("%s: %s has instances again, and gets its calls", self.service, name)
        self._empty = empty


class RulesFollower:
    """Follows the rules of all services through one watch of the registry's key-value store.

    A registry without one has no rules; one that is lost leaves those that were read last.
    Belongs to one event loop.

    Args:
        registry: where the rules are; stays open.

    Attributes:
        error: why the rules can't be followed at the moment, or None.
    """

    def __init__(self, registry: Registry) -> None:
        self._registry = registry
        self._services: dict[str, ServiceRules] = {}
        self._values: dict[str, bytes] = {}
        self._read = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self._begun = False
        self._closed = False
        self.error: RegistryError | None = None

    def of(self, service: str) -> ServiceRules:
        """Return the rules of a service, the same object each time; begins to follow."""
        if service not in self._services:
            rules = self._services[service] = ServiceRules(service)
            rules.take(self._values.get(service))
        self._begin()
        return self._services[service]

    @property
    def known(self) -> bool:
        """Whether the rules have been read, or can't be for now."""
        return self._read.is_set()

    async def first(self) -> None:
        """Wait, up to a second, for the first read."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(FIRST_READ):
                await self._read.wait()
        self._read.set()

    async def aclose(self) -> None:
        """Stop following. Closing twice is safe."""
        self._closed = True
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    def _begin(self) -> None:
        if self._begun:
            return
        self._begun = True
        try:
            kv = self._registry.kv
        except RegistryError:  # an engine without one
            self._read.set()
        else:
            self._task = asyncio.create_task(self._follow(kv), name="meshkit-routes")

    async def _follow(self, kv: KeyValue) -> None:
        backoff = Backoff(cap=RETRY_CAP)
        while not self._closed:  # cancelling may end in an engine's error instead
            try:
                async with contextlib.aclosing(kv.watch(FOLDER)) as watch:
                    async for entries in watch:
                        backoff.reset()
                        self._found(entries)
            except RegistryError as error:
                self._lost(error)
            except Exception as error:
                log.exception("following %s failed unexpectedly", FOLDER)
                self._lost(RegistryError(f"{self._registry.url}: {error!r}"))
            await asyncio.sleep(backoff.next())

    def _found(self, entries: tuple[Entry, ...]) -> None:
        if self.error is not None and self._values:
            log.info("%s: following %s again", FOLDER, self._registry.url)
        self.error = None
        self._values = {each.key.removeprefix(FOLDER): each.value for each in entries}
        for service, rules in self._services.items():
            rules.take(self._values.get(service))
        self._read.set()

    def _lost(self, error: RegistryError) -> None:
        if self.error is None and self._values:  # else nobody misses anything
            log.warning("%s can't be followed: %s; the last rules stay", FOLDER, error)
        self.error = error
        self._read.set()
