"""What clients offer to whoever traces their calls; none of it costs anything when nobody does."""

from __future__ import annotations

from collections.abc import Coroutine
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from meshkit.client.call import Answer, Call, Raw
    from meshkit.client.exchange import Exchange, Send
    from meshkit.client.grpc.attempts import Attempts


class Carries(Protocol):
    """What an HTTP client makes its calls with: an :class:`~meshkit.client.exchange.Exchange`."""

    def run(self, call: Call, send: Send[Raw]) -> Coroutine[Any, Any, Answer[Raw]]:
        """See Exchange."""

    def failed(self, call: Call, error: BaseException) -> bool | None:
        """See Exchange."""


class Tracing(Protocol):
    """Traces calls; made by meshkit.telemetry."""

    def http(self, exchange: Exchange, service: str) -> Carries:
        """Return what makes the calls to a service as the exchange does, and traces them."""

    def began(self, call: Attempts) -> None:
        """Learn that a gRPC call begins; its metadata can still be changed."""

    def ended(self, call: Attempts, error: Exception | None) -> None:
        """Learn that a gRPC call has ended, and of the error that its caller gets if it is ours."""
