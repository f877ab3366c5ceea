"""The pages that a service shows of itself, in front of its application."""

from __future__ import annotations

import asyncio
import importlib
import importlib.util
from collections.abc import Collection

from meshkit.errors import MissingExtraError
from meshkit.server.answer import Scope, Send, answer, answer_with
from meshkit.server.asgi import Page
from meshkit.settings import MeshSettings
from meshkit.telemetry.state import Sources, take, to_dict

METRICS = "/metrics"
DEBUG = "/debug/mesh"
# https://prometheus.io/docs/instrumenting/exposition_formats/
TEXT = b"text/plain; version=0.0.4; charset=utf-8"


def wants_metrics(settings: MeshSettings, taken: Collection[str] = ()) -> bool:
    """Whether metrics are to be counted and shown.

    Args:
        settings: auto leaves the path to an application that has it.
        taken: paths of the application.

    Raises:
        MissingExtraError: they are on, and the library is not there.
    """
    if settings.metrics == "off":
        return False
    installed = importlib.util.find_spec("prometheus_client") is not None
    if settings.metrics == "on":
        if not installed:
            raise MissingExtraError("MESHKIT_METRICS=on", "metrics")
        return True
    return installed and METRICS not in taken


def wants_debug(settings: MeshSettings) -> bool:
    """Whether the debug page is to be shown."""
    if settings.debug_endpoint is None:
        return settings.env == "development"
    return settings.debug_endpoint


def pages(sources: Sources, *, metrics: bool, debug: bool) -> dict[str, Page]:
    """Return the pages by path."""

    async def show_metrics(scope: Scope, send: Send) -> None:
        # It takes tens of milliseconds to import: not at the start, and not on the event loop.
        collector = await asyncio.to_thread(importlib.import_module, "meshkit.telemetry.collector")
        page = collector.page(await take(sources))
        await answer_with(scope, send, 200, page, [(b"content-type", TEXT)])

    async def show_state(scope: Scope, send: Send) -> None:
        await answer(scope, send, 200, to_dict(await take(sources)))

    shown: dict[str, Page] = {}
    if metrics:
        shown[METRICS] = show_metrics
    if debug:
        shown[DEBUG] = show_state
    return shown
