"""The live configuration of a service: known before its hooks run, followed until it stops."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

from meshkit.config.declared import live_settings
from meshkit.registry import Registry
from meshkit.service import MeshService

if TYPE_CHECKING:
    from meshkit.config.live import LiveConfig


class Configuration:
    """All ``live_config`` of one service, over one registry, which stays open."""

    def __init__(self, service: MeshService, registry: Registry) -> None:
        self._service = service
        self._registry = registry
        self._configs: list[LiveConfig[Any]] = []

    async def start(self) -> None:
        """Make the models known. Raises ConfigError when one can't be made."""
        for setting in live_settings(type(self._service)):
            from meshkit.config.live import LiveConfig  # noqa: PLC0415 - most services have none

            name = setting.name(self._service.name)
            config = LiveConfig(setting.model, self._registry, name)
            self._configs.append(config)
            setting.attach(self._service, config)
        await asyncio.gather(*(config.start() for config in self._configs))

    def announce(self) -> None:
        """Tell the service's methods of changes since the start."""
        for config in self._configs:
            config.announce()

    async def aclose(self) -> None:
        """Stop following; the values stay. Closing twice is safe."""
        await asyncio.gather(*(config.aclose() for config in self._configs))
