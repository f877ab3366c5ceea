"""What callers need of a service's list, whoever keeps it: the list now, and news of it."""

from __future__ import annotations

import abc
import asyncio
import contextlib
from collections.abc import Callable, Mapping

from meshkit.errors import RegistryError
from meshkit.model import Instance, Snapshot

Listener = Callable[[Snapshot], None]


class Followed(abc.ABC):
    """One service's list, kept current; belongs to one event loop.

    Attributes:
        service: the service's name.
        snapshot: the list to use now, or None while none is known. None is not "empty".
        error: why the registry can't be followed at the moment, or None.
        reserve: instances of the next place, for a call that has failed twice near.
        shares: by instance id, what its weight is multiplied with for the place where it is; 0
            for nothing, 1 for those that are not named.
    """

    def __init__(self, service: str) -> None:
        self.service = service
        self.snapshot: Snapshot | None = None
        self.error: RegistryError | None = None
        self.reserve: tuple[Instance, ...] = ()
        self.shares: Mapping[str, float] = {}
        self._listeners: list[Listener] = []
        self._loss_listeners: list[Callable[[], None]] = []
        self._known = asyncio.Event()

    async def known(self) -> Snapshot:
        """Return the list, waiting for the first one; bound it by your own timeout."""
        while self.snapshot is None:
            await self._known.wait()
        return self.snapshot

    def on_change(self, listener: Listener) -> Callable[[], None]:
        """Call ``listener`` with each list from now on; the returned function ends that."""
        self._listeners.append(listener)

        def stop() -> None:
            with contextlib.suppress(ValueError):
                self._listeners.remove(listener)

        return stop

    def on_loss(self, listener: Callable[[], None]) -> None:
        """Call ``listener`` when following fails, also before there was any list."""
        self._loss_listeners.append(listener)

    @abc.abstractmethod
    async def aclose(self) -> None:
        """Stop following. Closing twice is safe."""

    def _publish(self, snapshot: Snapshot) -> None:
        self.snapshot = snapshot
        self._known.set()
        for listener in tuple(self._listeners):
            listener(snapshot)
