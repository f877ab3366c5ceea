"""What servers offer to whoever traces the calls that they handle."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from meshkit.server.answer import ASGIApp

if TYPE_CHECKING:
    from meshkit.server.grpc_handlers import Behavior


class Traces(Protocol):
    """Traces calls; made by meshkit.telemetry."""

    def asgi(self, app: ASGIApp) -> ASGIApp:
        """Return the application with its HTTP requests traced."""

    def servicer(self, path: str, behavior: Behavior) -> Behavior:
        """Return the handler of a gRPC method, in the same form, with its calls traced.

        It gets a :class:`~meshkit.server.grpc_handlers.NamedContext`.
        """
