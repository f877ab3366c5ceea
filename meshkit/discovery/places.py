"""The datacenters that calls may fail over to: which of the configured ones there are."""

from __future__ import annotations

import logging
from collections.abc import Sequence

from meshkit.errors import ConfigError
from meshkit.registry import Datacenters, Registry

log = logging.getLogger("meshkit.discovery")


class Places:
    """What all services of one consumer share on failing over.

    Args:
        registry: the own datacenter's.
        failover: names of other datacenters in order; the own one may be among them, so that all
            datacenters can be configured alike.

    Raises:
        ConfigError: the registry knows no datacenters, or a name stands there twice.
    """

    def __init__(self, registry: Registry, failover: Sequence[str]) -> None:
        if failover and not isinstance(registry, Datacenters):
            raise ConfigError(
                f"{registry.url} has no datacenters: the setting failover needs a registry that "
                "has, as consul://"
            )
        if repeated := next((name for name in failover if failover.count(name) > 1), ""):
            raise ConfigError(f"failover names {repeated!r} twice")
        self.home = registry
        self.failover = tuple(failover)
        self._registries: dict[str, Registry] = {}
        self._warned: set[str] = set()

    async def found(self) -> tuple[tuple[str, ...], bool]:
        """Look which of the datacenters there are.

        Returns:
            The names of the others in order, and whether none is missing.

        Raises:
            RegistryError: the registry can't say.
        """
        if not isinstance(self.home, Datacenters):
            return (), True
        known = await self.home.datacenters()
        missing = [name for name in self.failover if name not in known]
        for name in missing:
            if name not in self._warned:
                self._warned.add(name)
                log.warning(
                    "failover: %s knows no datacenter %r, only %s; the others stay",
                    self.home.url,
                    name,
                    ", ".join(known),
                )
        others = tuple(name for name in self.failover if name in known[1:])
        return others, not missing

    def registry(self, name: str) -> Registry:
        """Return the registry of another datacenter, the same each time."""
        if name not in self._registries:
            assert isinstance(self.home, Datacenters)
            self._registries[name] = self.home.in_datacenter(name)
        return self._registries[name]
