"""Whether a service is traced with OpenTelemetry, and with what.

Imports nothing of OpenTelemetry unless it is used: most of it is in the other ``otel_`` files.
"""

from __future__ import annotations

import importlib.util
import logging
import sys
from typing import TYPE_CHECKING, Literal

from meshkit.client.mesh import Mesh
from meshkit.errors import MissingExtraError

if TYPE_CHECKING:
    from meshkit.telemetry.otel_spans import Telemetry

Mode = Literal["auto", "on", "off"]

# Of OpenTelemetry: what stands in for a provider that nobody has set. There is no public question.
UNSET = frozenset({"ProxyTracerProvider", "_ProxyMeterProvider"})

log = logging.getLogger("meshkit")


def telemetry(mode: Mode, service: str, version: str = "") -> Telemetry | None:
    """Return what makes spans and metrics; None when there are none.

    To be asked when the service's own start is over, for it may set the providers.

    Args:
        mode: ``auto``: if there is a provider of tracers or meters by now; ``on``: if there is
            none, one is made as the variables ``OTEL_*`` say; ``off``: no.
        service: its name, where it is us who make the provider.
        version: likewise.

    Raises:
        MissingExtraError: ``on``, and OpenTelemetry is not installed.
    """
    if mode == "off":
        return None
    if mode == "on":
        _require()
    elif "opentelemetry.trace" not in sys.modules and "opentelemetry.metrics" not in sys.modules:
        return None  # whoever has set a provider has imported it
    if not is_set():
        if mode == "auto":
            return None
        from meshkit.telemetry.otel_sdk import set_providers  # noqa: PLC0415 - an extra

        set_providers(service, version)
    from meshkit.telemetry.otel_spans import Telemetry  # noqa: PLC0415 - an extra

    log.info("OpenTelemetry is on (otel = %r)", mode)
    return Telemetry()


def trace_calls(mesh: Mesh) -> None:
    """Trace the calls of a mesh that belongs to no service, as of a job or a script.

    Raises:
        MissingExtraError: OpenTelemetry is not installed.
    """
    _require()
    from meshkit.telemetry.otel_spans import Telemetry  # noqa: PLC0415 - an extra

    mesh.trace(Telemetry())


def is_set() -> bool:
    """Whether somebody has set a provider of tracers or of meters."""
    from opentelemetry import metrics, trace  # noqa: PLC0415 - an extra

    providers = trace.get_tracer_provider(), metrics.get_meter_provider()
    return any(type(provider).__name__ not in UNSET for provider in providers)


def _require() -> None:
    for name in ("opentelemetry.sdk", "opentelemetry.trace"):
        try:
            found = importlib.util.find_spec(name)
        except ModuleNotFoundError:
            found = None
        if found is None:
            raise MissingExtraError("OpenTelemetry (otel = on)", "otel")
