"""The limiter that the settings ask for."""

from __future__ import annotations

from meshkit.server.shedding.limiter import Limiter
from meshkit.server.shedding.run_delay import ThreadRunDelay
from meshkit.settings import MeshSettings


def new_limiter(settings: MeshSettings) -> Limiter | None:
    """Return a limiter for one event loop's requests of one kind; None when all is off.

    HTTP and gRPC have one each: they may run on loops of their own, and what waits for one of
    them says little of the other. Where they share a loop both see that it is late.
    """
    adaptive = settings.shedding == "auto"
    if not adaptive and settings.max_concurrency is None:
        return None
    delay = ThreadRunDelay() if adaptive else None
    return Limiter(adaptive=adaptive, ceiling=settings.max_concurrency, delay=delay)
