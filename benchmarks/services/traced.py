"""The two sides with OpenTelemetry's SDK: ``TRACE_RATIO`` of the traces are kept in memory.

``meshkit run traced:Users`` has meshkit's spans, ``uvicorn traced:app`` those of FastAPI.
"""

from __future__ import annotations

import os

import mesh
import plain
from opentelemetry import metrics, trace
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter, SpanExportResult
from opentelemetry.sdk.trace.sampling import ParentBased, TraceIdRatioBased


class Nowhere(SpanExporter):
    def export(self, spans: object) -> SpanExportResult:
        return SpanExportResult.SUCCESS


ratio = float(os.environ.get("TRACE_RATIO", "1"))
provider = TracerProvider(sampler=ParentBased(TraceIdRatioBased(ratio)))
provider.add_span_processor(BatchSpanProcessor(Nowhere()))
trace.set_tracer_provider(provider)
metrics.set_meter_provider(MeterProvider([InMemoryMetricReader()]))

app = plain.app
Users = mesh.Users
__all__ = ["Users", "app"]
