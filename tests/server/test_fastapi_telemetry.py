"""FastAPI is spared a question whose answer is no, and traces for whoever gives it a provider."""

from __future__ import annotations

import subprocess
import sys

import pytest

# In an interpreter of its own: what it has loaded is the point.
BEGIN = """
import asyncio
from typing import Any

from fastapi import FastAPI, Request

from meshkit.server.asgi import MeshApp
from meshkit.server.health import Health, Phase
from opentelemetry import trace

health = Health((), timeout=1.0, interval=1.0)
health.phase = Phase.SERVING


def application(**options: Any) -> Any:
    app = FastAPI(**options)

    @app.get("/users/{user_id}")
    async def read_user(request: Request, user_id: int) -> None:
        seen.append(request.scope.get("fastapi.telemetry", "asked"))

    return MeshApp(app, health, dict)


async def receive() -> Any:
    return {"type": "http.request", "body": b"", "more_body": False}


async def send(message: Any) -> None:
    assert message.get("status", 200) == 200, message


def ask(app: Any) -> Any:
    scope = {"type": "http", "method": "GET", "path": "/users/7", "query_string": b"",
             "headers": [], "app": None, "root_path": ""}
    asyncio.run(app(scope, receive, send))
    return seen.pop()


seen: list[Any] = []
"""
LATER = """
app = application()
assert ask(app) is None, "FastAPI was to be spared"
from opentelemetry.sdk.trace import TracerProvider
assert ask(app) == "asked"
trace.set_tracer_provider(TracerProvider())
assert ask(app).route == "/users/{user_id}"
"""
GIVEN = """
from opentelemetry.sdk.trace import TracerProvider
app = application(telemetry={"tracer_provider": TracerProvider()})
assert ask(app).route == "/users/{user_id}"
"""
VENDOR = """
class Vendor(trace.TracerProvider):
    def get_tracer(self, *_: Any, **__: Any) -> trace.Tracer:
        return trace.NoOpTracer()

app = application()
assert ask(app) == "asked"
trace.set_tracer_provider(Vendor())
assert ask(app).route == "/users/{user_id}"
"""


@pytest.mark.parametrize("steps", [LATER, GIVEN, VENDOR], ids=["later", "given", "vendor"])
def test_fastapi_traces_with_any_provider(steps: str) -> None:
    pytest.importorskip("fastapi.telemetry")
    run = subprocess.run(
        [sys.executable, "-c", BEGIN + steps],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert run.returncode == 0, run.stderr
