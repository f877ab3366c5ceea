"""Calls that have nobody to call now, and wait: the only ones that cost a task."""

from __future__ import annotations

import asyncio
import functools
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from meshkit.backoff import Backoff
from meshkit.client.grpc.awaited import Awaited
from meshkit.client.grpc.explained import SHOWN, Explained
from meshkit.discovery.target import Pick
from meshkit.errors import NoInstances

if TYPE_CHECKING:
    from meshkit.client.grpc.channel import MeshChannel
    from meshkit.discovery.routing import Picker

TRANSPORT = "grpc"
# Between two looks for somebody who can be called (wait_for_ready).
FIRST_PAUSE = 0.05
LONGEST_PAUSE = 1.0


class Search(Awaited, Explained):
    """The waiting of a call: for the first list, for somebody who is up, for a server's leave."""

    _channel: MeshChannel
    _picker: Picker
    _deadline: float | None
    _wait_for_ready: bool | None
    _search: asyncio.Task[None] | None = None
    _backoff: Backoff | None = None
    _pauses = 0
    _tried: tuple[str, ...] = ()

    def _advance(self) -> None:
        raise NotImplementedError

    def _begin(self, pick: Pick, *, further: bool = False) -> Any:
        raise NotImplementedError

    def _end(self, error: Exception | None) -> None:
        raise NotImplementedError

    def _go_on(self, step: Callable[[], None]) -> None:
        """Take a step that nobody waits for, so that its error has to be kept."""
        try:
            step()
        except Exception as error:  # noqa: BLE001 - raised where the call is awaited
            self._end(error)

    def _pause(self, seconds: float) -> None:
        """Go on after a pause, unless the call's time would be over by then."""
        left = self._left()
        if left is not None and left <= seconds:
            assert self._verdict is not None
            self._end(self._final(self._verdict))
            return
        self._pauses += 1
        self._held, self._inner = self._inner, None
        self._search = self._loop.create_task(self._after(seconds))

    async def _after(self, seconds: float) -> None:
        await asyncio.sleep(seconds)
        self._go_on(self._advance)

    def _look(self) -> None:
        self._inner = None
        self._search = self._loop.create_task(self._find())

    async def _find(self) -> None:
        """Wait for the first list or, with wait_for_ready, for somebody who can be called."""
        try:
            async with asyncio.timeout_at(self._deadline):
                pick = await self._pick()
        except TimeoutError:
            self._end(self._too_late())
        except NoInstances as error:
            self._end(self._nobody(error))
        else:
            self._go_on(functools.partial(self._begin, pick))

    async def _pick(self) -> Pick:
        while True:
            try:
                return await self._picker.pick(TRANSPORT, self._tried)
            except NoInstances as error:
                if not self._wait_for_ready:
                    raise
                self._absence = str(error)
            self._tried = ()  # all of them may have recovered
            self._failures = self._failures[-SHOWN:]
            self._backoff = self._backoff or Backoff(first=FIRST_PAUSE, cap=LONGEST_PAUSE)
            await asyncio.sleep(self._backoff.next())

    def _left(self) -> float | None:
        return None if self._deadline is None else self._deadline - self._loop.time()
