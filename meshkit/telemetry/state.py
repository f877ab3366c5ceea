"""A service's state at one moment, taken for whoever asks: metrics and the debug page."""

from __future__ import annotations

import asyncio
import dataclasses
import time
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, Protocol

from meshkit.client.explanation import Explanation
from meshkit.client.mesh import Mesh
from meshkit.model import Instance
from meshkit.server.shedding import Limiter
from meshkit.telemetry.counts import GrpcCounts, HttpCounts

OTHER_LOOP_LIMIT = 1.0  # seconds that a busy second loop may keep whoever asks


class Registered(Protocol):
    """The registration, as far as it is shown.

    Attributes:
        state: "registered", or what keeps it from being so.
        lag: seconds that the event loop has been stuck.
    """

    state: str
    lag: float


@dataclasses.dataclass(slots=True, kw_only=True)
class Sources:
    """Where the state is found; filled in as the service starts.

    Attributes:
        instance: of the service, None before it has one.
        registry: its URL, without secrets.
        registration: None when there is none.
        ready: whether calls should come here.
        mesh: the way to other services, None before there is one.
        elsewhere: takes the explanations of what belongs to a second event loop.
        limiters: by transport.
        http: what is counted; None when HTTP is not served, or nothing is counted.
        http_in_flight: how many requests are being handled.
        grpc: likewise.
    """

    instance: Callable[[], Instance | None]
    registry: Callable[[], str]
    registration: Callable[[], Registered | None]
    ready: Callable[[], bool]
    mesh: Callable[[], Mesh | None]
    elsewhere: Callable[[], Awaitable[list[Explanation]]] | None = None
    limiters: dict[str, Limiter] = dataclasses.field(default_factory=dict)
    http: HttpCounts | None = None
    http_in_flight: Callable[[], int] | None = None
    grpc: GrpcCounts | None = None


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class State:
    """What the sources say at one moment.

    Attributes:
        sources: where the counters are.
        explanations: of each service that is called; one called from two loops has two.
        lag: seconds that the event loop takes to come round.
    """

    sources: Sources
    explanations: Sequence[Explanation]
    lag: float

    @property
    def registered(self) -> bool:
        """Whether the instance is registered."""
        registration = self.sources.registration()
        return registration is not None and registration.state == "registered"

    @property
    def registry_reachable(self) -> bool:
        """Whether the registry answers, for all that is known here."""
        registration = self.sources.registration()
        retrying = registration is not None and registration.state.startswith("retrying")
        return not retrying and not any(each.error for each in self.explanations)


async def take(sources: Sources) -> State:
    """Look at everything now; to be awaited on the service's loop."""
    began = time.perf_counter()
    await asyncio.sleep(0)  # one round of the loop, with all that is ready before us
    lag = time.perf_counter() - began
    registration, mesh = sources.registration(), sources.mesh()
    if registration is not None:
        lag = max(lag, registration.lag)
    explanations = [] if mesh is None else mesh.explain_all()
    if sources.elsewhere is not None:
        try:
            async with asyncio.timeout(OTHER_LOOP_LIMIT):
                explanations += await sources.elsewhere()
        except TimeoutError:
            pass  # it is stuck; what is known of this loop is still worth telling
    return State(sources=sources, explanations=explanations, lag=lag)


def to_dict(state: State) -> dict[str, Any]:
    """Return the state for the debug page, ready for JSON."""
    sources, registration = state.sources, state.sources.registration()
    instance = sources.instance()
    return {
        "instance": None if instance is None else instance.to_dict(),
        "ready": sources.ready(),
        "registry": {
            "url": sources.registry(),
            "reachable": state.registry_reachable,
            "registration": "not registered" if registration is None else registration.state,
        },
        "loop_lag_s": round(state.lag, 6),
        "shedding": {
            transport: {
                "in_flight": each.in_flight,
                "limit": None if each.limit == float("inf") else each.limit,
                "refused": each.refused,
            }
            for transport, each in sources.limiters.items()
        },
        "targets": [each.to_dict() for each in state.explanations],
    }
