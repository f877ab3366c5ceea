"""What a server counts, in plain numbers: a call costs a few additions, reading them the rest."""

from __future__ import annotations

import bisect
from typing import Any

# Upper bounds in seconds, the classic ones of Prometheus' clients with one finer.
BOUNDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
METHODS = frozenset(
    {"CONNECT", "DELETE", "GET", "HEAD", "OPTIONS", "PATCH", "POST", "PUT", "TRACE"}
)
OTHER_METHOD = "OTHER"  # anybody may send any word
ABORTED = "aborted"  # the status of a request without an answer
NO_ROUTE = "(none)"  # no route of the application: not found, refused before it, or mounted


class Series:
    """Calls of one kind.

    Attributes:
        statuses: how many ended with each.
        buckets: how many took at most each of the bounds (and no less), and more than all.
        seconds: how long they took together.
    """

    __slots__ = ("buckets", "seconds", "statuses")

    def __init__(self) -> None:
        self.statuses: dict[int | str, int] = {}
        self.buckets = [0] * (len(BOUNDS) + 1)
        self.seconds = 0.0

    def add(self, status: int | str, seconds: float) -> None:
        """Count a call."""
        try:
            self.statuses[status] += 1
        except KeyError:
            self.statuses[status] = 1
        self.buckets[bisect.bisect_left(BOUNDS, seconds)] += 1
        self.seconds += seconds


class HttpCounts:
    """The requests of an HTTP server.

    Attributes:
        series: by method and route template.
    """

    def __init__(self) -> None:
        self.series: dict[tuple[str, str], Series] = {}

    def ended(self, scope: Any, status: int, seconds: float) -> None:
        """Count a request; see :data:`meshkit.server.http_call.Observe`."""
        route = scope.get("route")
        key = (scope["method"], NO_ROUTE if route is None else getattr(route, "path", NO_ROUTE))
        series = self.series.get(key)
        if series is None:
            series = self._begin(key)
        series.add(status or ABORTED, seconds)

    def _begin(self, key: tuple[str, str]) -> Series:
        method, route = key
        if method not in METHODS:
            key = (OTHER_METHOD, route)
        return self.series.setdefault(key, Series())


class GrpcCounts:
    """The calls of a gRPC server.

    Attributes:
        series: by the method's path.
        in_flight: calls that have not ended.
    """

    def __init__(self) -> None:
        self.series: dict[str, Series] = {}
        self.in_flight = 0

    def began(self) -> None:
        """See :class:`meshkit.server.grpc_access_log.Watcher`."""
        self.in_flight += 1

    def ended(self, path: str, status: str, seconds: float) -> None:
        """See :class:`meshkit.server.grpc_access_log.Watcher`."""
        self.in_flight -= 1
        series = self.series.get(path)
        if series is None:
            series = self.series.setdefault(path, Series())
        series.add(status, seconds)
