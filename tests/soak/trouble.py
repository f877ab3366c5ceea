"""Random trouble for a small fleet: processes that die, hang and are replaced; a registry away."""

from __future__ import annotations

import asyncio
import collections
import random
import signal
import time
from collections.abc import Awaitable, Callable

from tests.faults.proxy import Proxy
from tests.servers.process import ServerProcess
from tests.support.processes import Processes, ServiceProcess

SPEC = "paced:Paced"
FLEET = 4
QUIET = (0.5, 3.0)  # seconds between two pieces of trouble
HUNG = (1.0, 4.0)
AWAY = (0.5, 5.0)


class Trouble:
    """Makes trouble until its time is over; at any moment three of four instances are well.

    Args:
        services: start the instances.
        registry: the registry's only server.
        proxy: stands between the consumer and the registry.
        seed: of all chance.

    Attributes:
        made: how often each kind was made.
        lost: instances that died or hung, for a bound on what calls may have met with them.
    """

    def __init__(
        self, services: Processes, registry: ServerProcess, proxy: Proxy, *, seed: int
    ) -> None:
        self.made: collections.Counter[str] = collections.Counter()
        self.fleet = services.start_all(SPEC, FLEET)
        self._services = services
        self._registry = registry
        self._proxy = proxy
        self._chance = random.Random(seed)
        self._kinds: list[Callable[[], Awaitable[None]]] = [
            self.kill,
            self.end,
            self.hang,
            self.restart_registry,
            self.cut_off,
        ]

    @property
    def lost(self) -> int:
        return self.made["kill"] + self.made["hang"]

    async def make(self, seconds: float) -> None:
        """Make one piece after the other for so long, each kind in a random order."""
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            kinds = self._kinds[:]
            self._chance.shuffle(kinds)
            for kind in kinds:
                await asyncio.sleep(self._chance.uniform(*QUIET))
                await kind()
                self.made[kind.__name__] += 1

    async def kill(self) -> None:
        """Kill an instance, and start another one."""
        victim = self._take()
        victim.send(signal.SIGKILL)
        await asyncio.to_thread(victim.wait)
        victim.close()
        await self._add()

    async def end(self) -> None:
        """Start an instance, and let another one end as it should."""
        await self._add()
        leaving = self._take()
        leaving.send(signal.SIGTERM)
        code = await asyncio.to_thread(leaving.wait)
        assert code == 0, leaving.output
        leaving.close()

    async def hang(self) -> None:
        """Stop an instance for a while: to its callers it is cut off without a word."""
        victim = self._chance.choice(self.fleet)
        victim.send(signal.SIGSTOP)
        await asyncio.sleep(self._chance.uniform(*HUNG))
        victim.send(signal.SIGCONT)

    async def restart_registry(self) -> None:
        """Kill the registry, and start it a while later, having forgotten everything."""
        await asyncio.to_thread(self._registry.kill)
        await asyncio.sleep(self._chance.uniform(*AWAY))
        await asyncio.to_thread(self._registry.start)

    async def cut_off(self) -> None:
        """Let nothing pass between the consumer and the registry for a while."""
        self._proxy.hang()
        await asyncio.sleep(self._chance.uniform(*AWAY))
        self._proxy.heal()

    def _take(self) -> ServiceProcess:
        return self.fleet.pop(self._chance.randrange(len(self.fleet)))

    async def _add(self) -> None:
        self.fleet.append(await asyncio.to_thread(self._services.start(SPEC).ready))
