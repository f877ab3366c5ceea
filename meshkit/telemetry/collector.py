"""A service's state as metric families of Prometheus' library; imported when first asked for."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Mapping

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import REGISTRY, Collector

from meshkit.telemetry.calls import called
from meshkit.telemetry.counts import BOUNDS, Series
from meshkit.telemetry.state import State

UPPER = (*map(str, BOUNDS), "+Inf")
Labels = tuple[str, ...]


def page(state: State) -> bytes:
    """Return the text that Prometheus reads: ours, and what others keep in its default registry."""
    registry = CollectorRegistry(auto_describe=False)
    registry.register(StateCollector(state))
    return generate_latest(registry) + generate_latest(REGISTRY)


class StateCollector(Collector):
    """Collects from a state that was taken."""

    def __init__(self, state: State) -> None:
        self._state = state

    def collect(self) -> Iterable[Metric]:
        """See prometheus_client."""
        yield from service(self._state)
        yield from served(self._state)
        yield from called(self._state.explanations)


def service(state: State) -> Iterator[Metric]:
    """Yield how the service itself is."""
    sources = state.sources
    instance = sources.instance()
    if instance is not None:
        family = GaugeMetricFamily(
            "meshkit_info", "Which instance this is.", labels=("service", "instance", "version")
        )
        family.add_metric((instance.service, instance.id, instance.version), 1)
        yield family
    for name, text, value in (
        ("meshkit_ready", "1 while calls should come here.", sources.ready()),
        ("meshkit_registered", "1 while the instance is registered.", state.registered),
        ("meshkit_registry_reachable", "1 while the registry answers.", state.registry_reachable),
        ("meshkit_event_loop_lag_seconds", "One round of the event loop.", state.lag),
    ):
        yield GaugeMetricFamily(name, text, value=value)
    shed = CounterMetricFamily(
        "meshkit_shed", "Requests refused as too many.", labels=("transport",)
    )
    limit = GaugeMetricFamily(
        "meshkit_shedding_limit", "Requests at once that are let in now.", labels=("transport",)
    )
    for transport, limiter in sources.limiters.items():
        shed.add_metric((transport,), limiter.refused)
        limit.add_metric((transport,), limiter.limit)
    yield shed
    yield limit


def served(state: State) -> Iterator[Metric]:
    """Yield what was asked of the service."""
    http, grpc = state.sources.http, state.sources.grpc
    if http is not None:
        yield from _requests(
            "meshkit_http_requests",
            "meshkit_http_request_duration_seconds",
            ("method", "route"),
            "status",
            {(method, route): each for (method, route), each in http.series.copy().items()},
        )
    if state.sources.http_in_flight is not None:
        yield GaugeMetricFamily(
            "meshkit_http_in_flight",
            "HTTP requests being handled.",
            value=state.sources.http_in_flight(),
        )
    if grpc is not None:
        yield from _requests(
            "meshkit_grpc_calls",
            "meshkit_grpc_call_duration_seconds",
            ("method",),
            "code",
            {(path,): series for path, series in grpc.series.copy().items()},
        )
        yield GaugeMetricFamily(
            "meshkit_grpc_in_flight", "gRPC calls being handled.", value=grpc.in_flight
        )


def _requests(
    name: str, timed: str, names: Labels, status_name: str, series: Mapping[Labels, Series]
) -> Iterator[Metric]:
    requests = CounterMetricFamily(name, "Answered, by outcome.", labels=(*names, status_name))
    durations = HistogramMetricFamily(timed, "Until the answer was complete.", labels=names)
    for labels, each in series.items():
        for status, count in each.statuses.copy().items():
            requests.add_metric((*labels, str(status)), count)
        cumulated = itertools.accumulate(each.buckets)
        durations.add_metric(labels, list(zip(UPPER, cumulated, strict=True)), each.seconds)
    yield requests
    yield durations
