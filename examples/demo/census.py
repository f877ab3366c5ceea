"""Who is registered, looked up many times a second."""

from __future__ import annotations

import asyncio
import time

from meshkit import Instance, Mesh

PAUSE = 0.01  # seconds between looks: how exactly a disappearance is timed


class Census:
    """The demo's instances as the registry shows them to callers.

    Attributes:
        instances: by label, each as it was last seen; those that left stay in here.
        up: the labels of those that may be called now.
        left_at: label to the time.monotonic() at which it was no longer among them.
    """

    def __init__(self, mesh: Mesh, *services: str) -> None:
        self.instances: dict[str, Instance] = {}
        self.up: set[str] = set()
        self.left_at: dict[str, float] = {}
        self._mesh = mesh
        self._services = services

    async def run(self) -> None:
        """Keep looking, until cancelled."""
        while True:
            await self.look()
            await asyncio.sleep(PAUSE)

    async def look(self) -> None:
        """Look once."""
        up: set[str] = set()
        for service in self._services:
            for instance in (await self._mesh.instances(service)).up:
                label = self._label(instance)
                up.add(label)
                self.instances[label] = instance
        for label in self.up - up:
            self.left_at[label] = time.monotonic()
        self.up = up

    def instance_id(self, label: str) -> str:
        """Return the id of a labelled instance; empty when it was never seen."""
        instance = self.instances.get(label)
        return instance.id if instance else ""

    @staticmethod
    def _label(instance: Instance) -> str:
        # The demo starts each process with its label as a tag. On a registry that is shared
        # there may be others, which go by their ids.
        own = (tag for tag in instance.tags if tag.startswith(f"{instance.service}-"))
        return next(own, instance.id)
