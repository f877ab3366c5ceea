"""gRPC on an event loop of its own, so that HTTP that takes all of one leaves it its share.

In one loop a call of gRPC's takes several turns, and each waits for all requests of HTTP that are
ready: saturated by HTTP, the loop serves hardly any gRPC. Two loops in two threads share the
interpreter's time, which it passes on after a while (its switch interval).
"""

from __future__ import annotations

import asyncio
import sys
import threading
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, TypeVar

from meshkit.client.explanation import Explanation
from meshkit.client.mesh import Mesh
from meshkit.client.tracing import Tracing
from meshkit.server.grpc import Add, GrpcServer
from meshkit.server.tracing import Traces
from meshkit.service import MeshService

T = TypeVar("T")
# Seconds; Python's own is 0.005, which gRPC would wait for several times in each call: with it two
# loops serve 0.7 of the calls that two processes do, and 0.95 with this.
SWITCH_INTERVAL = 0.0002
JOIN_LIMIT = 2.0  # seconds; a handler that blocks the loop must not hold up the process


class GrpcThread:
    """A :class:`~meshkit.server.grpc.GrpcServer` in a thread, with the same steps.

    Its methods are called in the loop that owns it, and do their work in the thread's.

    Args:
        make: makes the server; called in the thread.

    Attributes:
        port: as the server has it.
        ident: the thread's, by which the service tells where it is called.
        loop: the thread's.
    """

    def __init__(self, make: Callable[[], GrpcServer]) -> None:
        self.loop = type(asyncio.get_running_loop())()  # uvloop's, where that is in use
        self._interval = sys.getswitchinterval()
        sys.setswitchinterval(min(SWITCH_INTERVAL, self._interval))
        self._thread = threading.Thread(target=self._run, name="meshkit-grpc", daemon=True)
        self._thread.start()
        assert self._thread.ident is not None
        self.ident = self._thread.ident
        try:
            self._server = self._now(make)
        except BaseException:
            self._end()
            raise
        self.port = self._server.port
        self._clients: Mesh | None = None
        self._service: MeshService | None = None

    @property
    def calls(self) -> int:
        """How many calls have come so far."""
        return self._server.calls

    def add(self, service: Any, adders: Sequence[Add], *, reflection: bool) -> None:
        """See GrpcServer."""
        self._now(lambda: self._server.add(service, adders, reflection=reflection))

    def identify(self, service: str, instance_id: str) -> None:
        """See GrpcServer."""
        self._now(lambda: self._server.identify(service, instance_id))

    async def start(self) -> None:
        """See GrpcServer."""
        await self.do(self._server.start)

    def trace(self, telemetry: Traces) -> None:
        """See GrpcServer."""
        self._server.trace(telemetry)

    async def show(self, *, ready: bool) -> None:
        """See GrpcServer."""
        await self.do(lambda: self._server.show(ready=ready))

    async def drain(self) -> None:
        """See GrpcServer."""
        await self.do(self._server.drain)

    async def stop(self, *, grace: float) -> None:
        """See GrpcServer; the loop goes on, for what still has to be closed in it."""
        await self.do(lambda: self._server.stop(grace=grace))

    async def lend(self, service: MeshService, make: Callable[[], Mesh]) -> None:
        """Give the service clients for this loop: those of another one can't be used in it."""

        async def made() -> Mesh:
            return make()

        self._clients = await self.do(made)
        self._service = service
        service.lend(self._clients, self.ident)

    async def explain(self) -> list[Explanation]:
        """Explain what this loop's clients go by."""
        if self._clients is None:
            return []
        clients = self._clients

        async def explained() -> list[Explanation]:
            return clients.explain_all()

        return await self.do(explained)

    def trace_clients(self, tracing: Tracing) -> None:
        """Let the calls of the clients that were lent be traced."""
        assert self._clients is not None
        self._clients.trace(tracing)

    async def do(self, make: Callable[[], Awaitable[T]]) -> T:
        """Await in the thread's loop what ``make`` returns there."""

        async def there() -> T:
            return await make()

        return await asyncio.wrap_future(asyncio.run_coroutine_threadsafe(there(), self.loop))

    async def aclose(self) -> None:
        """Close the clients, end the loop and the thread. Closing twice is safe."""
        if self._service is not None and self._clients is not None:
            self._service.lend(None, self.ident)
            await self.do(self._clients.aclose)
            self._clients = None
        if self._thread.is_alive():
            await asyncio.to_thread(self._end)

    def _now(self, function: Callable[[], T]) -> T:
        """Call a function that does not wait in the thread, and wait for it here."""

        async def there() -> T:
            return function()

        return asyncio.run_coroutine_threadsafe(there(), self.loop).result()

    def _run(self) -> None:
        asyncio.set_event_loop(self.loop)
        try:
            self.loop.run_forever()
            tasks = asyncio.all_tasks(self.loop)
            for task in tasks:
                task.cancel()
            self.loop.run_until_complete(asyncio.gather(*tasks, return_exceptions=True))
            self.loop.run_until_complete(self.loop.shutdown_asyncgens())
            self.loop.run_until_complete(self.loop.shutdown_default_executor())
        finally:
            self.loop.close()

    def _end(self) -> None:
        sys.setswitchinterval(self._interval)
        self.loop.call_soon_threadsafe(self.loop.stop)
        self._thread.join(JOIN_LIMIT)
