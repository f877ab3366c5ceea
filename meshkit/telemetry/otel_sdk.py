"""OpenTelemetry's SDK set up as its own variables say, for a service that has not done so.

https://opentelemetry.io/docs/specs/otel/configuration/sdk-environment-variables/. The sampler, the
limits and the batches are read by the SDK itself; here is chosen where it all goes.
"""

from __future__ import annotations

import os

from opentelemetry import metrics, trace
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import (
    ConsoleMetricExporter,
    MetricExporter,
    PeriodicExportingMetricReader,
)
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, ConsoleSpanExporter, SpanExporter

from meshkit.errors import ConfigError, MissingExtraError

KNOWN = ("otlp", "console", "none")
PROTOCOL = "http/protobuf"


def set_providers(service: str, version: str) -> None:
    """Set providers of tracers and meters that send to where the variables say.

    Raises:
        ConfigError: a variable names an exporter or a protocol that is not known.
        MissingExtraError: the OTLP exporter is not installed.
    """
    named = {"service.name": service} if "OTEL_SERVICE_NAME" not in os.environ else {}
    if version:
        named["service.version"] = version
    resource = Resource.create(named)
    tracers = TracerProvider(resource=resource)
    if (spans := _span_exporter()) is not None:
        tracers.add_span_processor(BatchSpanProcessor(spans))
    readers = []
    if (points := _metric_exporter()) is not None:
        readers.append(PeriodicExportingMetricReader(points))
    trace.set_tracer_provider(tracers)
    metrics.set_meter_provider(MeterProvider(readers, resource))


def _span_exporter() -> SpanExporter | None:
    kind = _kind("TRACES")
    if kind == "console":
        return ConsoleSpanExporter()
    if kind == "none":
        return None
    try:
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import (  # noqa: PLC0415
            OTLPSpanExporter,
        )
    except ImportError:
        raise MissingExtraError("OpenTelemetry's OTLP exporter", "otel") from None
    return OTLPSpanExporter()


def _metric_exporter() -> MetricExporter | None:
    kind = _kind("METRICS")
    if kind == "console":
        return ConsoleMetricExporter()
    if kind == "none":
        return None
    try:
        from opentelemetry.exporter.otlp.proto.http.metric_exporter import (  # noqa: PLC0415
            OTLPMetricExporter,
        )
    except ImportError:
        raise MissingExtraError("OpenTelemetry's OTLP exporter", "otel") from None
    return OTLPMetricExporter()


def _kind(signal: str) -> str:
    """Return the exporter's name for a signal, checked."""
    variable = f"OTEL_{signal}_EXPORTER"
    kind = os.environ.get(variable, "").strip().lower() or "otlp"
    if kind not in KNOWN:
        raise ConfigError(
            f"{variable}={kind} is not known here, only {', '.join(KNOWN)}; for another one set "
            "OpenTelemetry's providers yourself before the service runs"
        )
    protocol = os.environ.get("OTEL_EXPORTER_OTLP_PROTOCOL", "") or PROTOCOL
    if kind == "otlp" and protocol != PROTOCOL:
        raise ConfigError(
            f"OTEL_EXPORTER_OTLP_PROTOCOL={protocol} is not known here, only {PROTOCOL}; for "
            "another one set OpenTelemetry's providers yourself before the service runs"
        )
    return kind
