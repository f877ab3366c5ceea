"""The chain with OpenTelemetry's SDK; each service appends its spans and metrics to a file.

``TRACE_FILE`` is the file, a line of JSON for each span. Spans of FastAPI's or of anybody else's
are written too, so that doubled ones would be seen.
"""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from typing import Any

from opentelemetry import baggage, metrics, trace
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor, SpanExporter, SpanExportResult

from meshkit import MeshService, get, grpc_client
from tests.protos.echo_pb2_grpc import EchoStub
from tests.support.apps.chain import Ledger, Link, Orders, Users


class ToFile(SpanExporter):
    def __init__(self, service: str) -> None:
        self._service = service

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        with open(os.environ["TRACE_FILE"], "a", encoding="utf-8") as file:  # noqa: PTH123
            file.writelines(json.dumps(as_dict(self._service, span)) + "\n" for span in spans)
        return SpanExportResult.SUCCESS


def as_dict(service: str, span: ReadableSpan) -> dict[str, Any]:
    found = span.get_span_context()
    assert found is not None
    return {
        "service": service,
        "scope": span.instrumentation_scope.name if span.instrumentation_scope else "",
        "name": span.name,
        "kind": span.kind.name,
        "trace": f"{found.trace_id:032x}",
        "id": f"{found.span_id:016x}",
        "parent": f"{span.parent.span_id:016x}" if span.parent else None,
        "remote": bool(span.parent and span.parent.is_remote),
        "status": span.status.status_code.name,
        "attributes": dict(span.attributes or {}),
        "events": [{"name": each.name, **(each.attributes or {})} for each in span.events],
        "seconds": ((span.end_time or 0) - (span.start_time or 0)) / 1e9,
    }


class Set(MeshService):
    """Sets the providers at its start, as users do."""

    async def on_start(self) -> None:
        provider = TracerProvider()
        provider.add_span_processor(SimpleSpanProcessor(ToFile(self.name)))
        trace.set_tracer_provider(provider)
        self.reader = InMemoryMetricReader()
        metrics.set_meter_provider(MeterProvider([self.reader]))

    @get("/points")
    async def points(self) -> list[dict[str, Any]]:
        data = self.reader.get_metrics_data()
        found = []
        for resource in data.resource_metrics if data else ():
            for scope in resource.scope_metrics:
                for metric in scope.metrics:
                    for point in metric.data.data_points:
                        known = json.loads(point.to_json())
                        found.append({"scope": scope.scope.name, "name": metric.name, **known})
        return found


class Own(Link):
    """Has a span of its own in its handlers."""

    async def _noted(self, hops: str, mode: str) -> dict[str, Any]:
        with trace.get_tracer("own").start_as_current_span(f"work in {self.name}"):
            return {
                "seen": dict(baggage.get_all()),
                **await super()._noted(hops, mode),
            }


class TracedLedger(Set, Own, Ledger):
    @get("/broken/{number}")
    async def broken(self, number: int) -> None:
        raise RuntimeError("on purpose")


class TracedUsers(Set, Own, Users):
    onward_grpc = grpc_client(EchoStub, "ledger", timeout=30, idempotent=("Say",))


class TracedOrders(Set, Own, Orders):
    pass
