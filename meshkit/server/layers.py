"""What stands between our health answers and the application, as the settings have it."""

from __future__ import annotations

from collections.abc import Callable

from meshkit.server.answer import ASGIApp
from meshkit.server.body_limit import BodyLimit
from meshkit.server.shedding import Limiter
from meshkit.server.shedding.http import Shedding
from meshkit.settings import MeshSettings


def http_layers(
    app: ASGIApp,
    settings: MeshSettings,
    instance_id: Callable[[], str],
    limiter: Limiter | None,
) -> ASGIApp:
    """Return the application behind its limits; a layer that is off is not there."""
    if settings.max_body:
        app = BodyLimit(app, settings.max_body)
    if limiter is not None:
        app = Shedding(app, limiter, instance_id)
    return app


def new_limiter(settings: MeshSettings) -> Limiter | None:
    """Return a limiter for one event loop's requests of one kind; None when all is off.

    HTTP and gRPC have one each: they may run on loops of their own, and what waits for one of
    them says little of the other. Where they share a loop both see that it is late.
    """
    adaptive = settings.shedding == "auto"
    if not adaptive and settings.max_concurrency is None:
        return None
    return Limiter(adaptive=adaptive, ceiling=settings.max_concurrency)
