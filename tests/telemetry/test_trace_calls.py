"""The calls of a program that is no service, traced when it says so."""

from __future__ import annotations

import json
import subprocess
import sys

from tests.support.processes import environment

# OpenTelemetry's providers are set once for each process.
PROGRAM = """
import asyncio, json
from opentelemetry import trace
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from meshkit import Mesh, MeshService, Runtime, context, get
from meshkit.telemetry.otel import trace_calls

exporter = InMemorySpanExporter()
provider = TracerProvider()
provider.add_span_processor(SimpleSpanProcessor(exporter))
trace.set_tracer_provider(provider)

class Users(MeshService):
    name = "users"

    @get("/parent")
    async def parent(self) -> str:
        return context.current().traceparent

def calls():
    "The others are FastAPI's own."
    return [each for each in exporter.get_finished_spans() if each.kind is trace.SpanKind.CLIENT]

async def main():
    async with Runtime(Users(), registry="memory://traced", otel="off"):
        async with Mesh("memory://traced") as mesh:
            await mesh.http("users").get("/parent")
            before = len(calls())
            trace_calls(mesh)
            answer = await mesh.http("users").get("/parent")
    spans = calls()
    print(json.dumps({
        "before": before,
        "carried": answer.json(),
        "ids": [f"{each.context.trace_id:032x}-{each.context.span_id:016x}" for each in spans],
    }))

asyncio.run(main())
"""


def test_a_program_that_is_no_service_traces_its_calls_when_it_says_so() -> None:
    ended = subprocess.run(
        [sys.executable, "-c", PROGRAM],
        env=environment(),
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert ended.returncode == 0, ended.stderr
    seen = json.loads(ended.stdout.splitlines()[-1])
    assert seen["before"] == 0
    (ids,) = seen["ids"]
    assert ids in seen["carried"]
