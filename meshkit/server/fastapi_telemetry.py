"""Sparing FastAPI the question, for each request, whether somebody traces it.

FastAPI asks for OpenTelemetry's global providers, which look into the environment as long as
nobody has set one: 4 % of a small request.
"""

from __future__ import annotations

import sys

# FastAPI does not ask when it finds this in a request's scope: somebody above it has decided.
KEY = "fastapi.telemetry"
SDK = "opentelemetry.sdk"  # once it is loaded there may be a provider, given to whomever
KINDS = {
    "opentelemetry.trace": "TracerProvider",
    "opentelemetry.metrics": "MeterProvider",
    "opentelemetry._logs": "LoggerProvider",
}


def has_vendor() -> bool:
    """Whether this process has providers that are not of the SDK, such as a vendor's own."""
    kinds = [getattr(sys.modules.get(module), name, None) for module, name in KINDS.items()]
    return any(
        not provider.__module__.startswith("opentelemetry.")
        for kind in kinds
        if kind is not None
        for provider in kind.__subclasses__()
    )
