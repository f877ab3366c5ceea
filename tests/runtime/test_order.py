"""The order of start and stop (docs/design, life cycle), seen from inside and outside."""

import asyncio
import json
import urllib.error
import urllib.request
from typing import Any

import pytest

from meshkit import (
    ConfigError,
    Mesh,
    MeshService,
    Runtime,
    StartError,
    get,
    health_check,
    http_client,
)
from meshkit.registry.memory import store
from meshkit.server.health import Phase
from tests.support.waiting import aeventually

REGISTRY = "memory://order"


def fetch(url: str) -> tuple[int, dict[str, str], Any]:
    try:
        with urllib.request.urlopen(url, timeout=5) as answer:
            return answer.status, dict(answer.headers), json.load(answer)
    except urllib.error.HTTPError as error:
        with error:
            return error.code, dict(error.headers), json.load(error)


async def aget(url: str) -> tuple[int, dict[str, str], Any]:
    return await asyncio.to_thread(fetch, url)


def registered() -> list[str]:
    return [each.id for each in store("order").snapshot("witness").instances]


class Witness(MeshService):
    """Notes what the world looks like at each step."""

    name = "witness"
    itself = http_client("witness")

    def __init__(self) -> None:
        self.notes: list[tuple[str, Any]] = []
        self.runtime: Runtime | None = None

    async def on_start(self) -> None:
        assert self.runtime
        assert self.runtime._servers.http
        url = f"http://127.0.0.1:{self.runtime._servers.http.port}"
        self.notes.append(("live", (await aget(f"{url}/health/live"))[0]))
        self.notes.append(("ready", (await aget(f"{url}/health/ready"))[0]))
        self.notes.append(("route", (await aget(f"{url}/hello"))[0]))
        self.notes.append(("registered", registered()))

    async def on_stop(self) -> None:
        assert self.runtime
        self.notes.append(("registered at the end", registered()))
        self.notes.append(("mesh usable", self.mesh is not None))

    @get("/hello")
    async def hello(self) -> dict[str, str]:
        return {"hello": "world"}

    @get("/slow")
    async def slow(self) -> dict[str, bool]:
        await asyncio.sleep(0.6)
        self.notes.append(("slow call ended", True))
        return {"done": True}


async def test_start_serves_before_it_registers_and_is_ready_before_it_is_found() -> None:
    witness = Witness()
    witness.runtime = runtime = Runtime(witness, registry=REGISTRY)
    async with runtime:
        assert witness.notes == [("live", 200), ("ready", 503), ("route", 503), ("registered", [])]
        assert runtime.instance
        assert registered() == [runtime.instance.id]
        status, headers, body = await aget(f"{runtime.http_url}/health/ready")
        assert (status, body["status"], body["registry"]) == (200, "ready", "registered")
        assert headers["x-meshkit-instance"] == runtime.instance.id
        assert (await aget(f"{runtime.http_url}/hello"))[0] == 200


async def test_stop_leaves_the_registry_first_and_keeps_answering_while_callers_learn_of_it() -> (
    None
):
    witness = Witness()
    witness.runtime = runtime = Runtime(witness, registry=REGISTRY, drain_delay=0.5)
    await runtime.start()
    url = runtime.http_url
    slow = asyncio.create_task(aget(f"{url}/slow"))
    await asyncio.sleep(0.1)
    stopping = asyncio.create_task(runtime.stop())

    async def gone() -> bool:
        return not registered()

    await aeventually(gone)
    assert not stopping.done()
    await asyncio.sleep(0.1)
    status, headers, _ = await aget(f"{url}/hello")
    assert (status, headers["connection"]) == (200, "close")
    assert headers["x-meshkit-draining"] == headers["x-meshkit-instance"]
    assert (await aget(f"{url}/health/live"))[0] == 200
    assert (await aget(f"{url}/health/ready"))[0] == 503
    assert (await slow)[0] == 200
    await stopping
    assert witness.notes[-3:] == [
        ("slow call ended", True),
        ("registered at the end", []),
        ("mesh usable", True),
    ]
    with pytest.raises(OSError):
        await aget(f"{url}/hello")
    await runtime.stop()  # twice is safe


async def test_stop_cancels_what_does_not_end_within_the_limit() -> None:
    class Endless(MeshService):
        name = "endless"
        cancelled = False

        @get("/endless")
        async def endless(self) -> None:
            try:
                await asyncio.sleep(60)
            except asyncio.CancelledError:
                Endless.cancelled = True
                raise

    runtime = Runtime(Endless(), registry=REGISTRY, drain_delay=0, shutdown_timeout=3)
    await runtime.start()
    call = asyncio.create_task(aget(f"{runtime.http_url}/endless"))
    await asyncio.sleep(0.2)
    async with asyncio.timeout(10):
        await runtime.stop()
    assert Endless.cancelled
    await asyncio.gather(call, return_exceptions=True)


async def test_a_failing_on_start_undoes_the_start() -> None:
    class Failing(MeshService):
        name = "failing"

        @get("/x")
        async def x(self) -> None: ...

        async def on_start(self) -> None:
            raise OSError("no database")

    runtime = Runtime(Failing(), registry=REGISTRY)
    with pytest.raises(
        StartError, match=r"^on_start of Failing failed: OSError: no data.*\(.*:\d+\)$"
    ):
        await runtime.start()
    assert runtime._servers.http
    with pytest.raises(OSError):
        await aget(f"http://127.0.0.1:{runtime._servers.http.port}/health/live")


async def test_a_service_whose_check_fails_is_registered_as_down_until_it_passes() -> None:
    class Fragile(MeshService):
        name = "fragile"
        broken = True

        @get("/x")
        async def x(self) -> None: ...

        @health_check
        async def database(self) -> None:
            if Fragile.broken:
                raise ConnectionError("refused")

    async with (
        Runtime(Fragile(), registry=REGISTRY, check_interval=0.1) as runtime,
        Mesh(REGISTRY) as mesh,
    ):
        status, _, body = await aget(f"{runtime.http_url}/health/ready")
        assert status == 503
        assert body["checks"]["database"]["error"] == "ConnectionError: refused"

        async def up() -> int:
            return len((await mesh.instances("fragile")).up)

        assert await up() == 0
        Fragile.broken = False
        await aeventually(up)
        Fragile.broken = True

        async def down() -> bool:
            return await up() == 0

        await aeventually(down)
        assert runtime.health.phase is Phase.SERVING


async def test_a_mounted_fastapi_app_keeps_its_lifespan_state_and_routes() -> None:
    from collections.abc import AsyncIterator
    from contextlib import asynccontextmanager

    from fastapi import FastAPI, Request

    steps = []

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[dict[str, int]]:
        steps.append("begun")
        yield {"answer": 42}
        steps.append("ended")

    app = FastAPI(lifespan=lifespan, version="3.2.1")

    @app.get("/answer")
    async def answer(request: Request) -> int:
        return int(request.state.answer)

    service = MeshService.from_app(app, name="plain")
    async with Runtime(service, registry=REGISTRY) as runtime:
        assert runtime.instance
        assert runtime.instance.version == "3.2.1"
        assert (await aget(f"{runtime.http_url}/answer"))[2] == 42
        assert steps == ["begun"]
    assert steps == ["begun", "ended"]


async def test_a_failing_lifespan_is_one_line() -> None:
    from collections.abc import AsyncIterator
    from contextlib import asynccontextmanager

    from fastapi import FastAPI

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        if app.version:
            raise RuntimeError("no cache")
        yield

    service = MeshService.from_app(FastAPI(lifespan=lifespan), name="plain")
    words = r"^the application's lifespan failed: RuntimeError: no cache \(\S+test_order.py:\d+\)$"
    with pytest.raises(StartError, match=words):
        await Runtime(service, registry=REGISTRY).start()


async def test_clients_are_there_from_on_start_to_on_stop_and_not_outside() -> None:
    class Caller(MeshService):
        name = "caller"
        witness = http_client("witness")
        answered: list[int] = []  # noqa: RUF012

        @get("/x")
        async def x(self) -> None: ...

        async def on_start(self) -> None:
            self.answered.append((await self.witness.get("/hello")).status_code)

        on_stop = on_start

    witness = Witness()
    witness.runtime = Runtime(witness, registry=REGISTRY)
    caller = Caller()
    with pytest.raises(ConfigError, match="Caller is not running"):
        _ = caller.witness
    async with witness.runtime, Runtime(caller, registry=REGISTRY):
        pass
    assert Caller.answered == [200, 200]
    with pytest.raises(ConfigError, match="is not running"):
        _ = caller.witness


async def test_an_outgoing_call_that_fails_is_not_our_own_failure() -> None:
    class Gateway(MeshService):
        name = "gateway"
        nobody = http_client("nobody")
        witness = http_client("witness", timeout=0.2)

        @get("/absent")
        async def absent(self) -> None:
            await self.nobody.get("/x")

        @get("/late")
        async def late(self) -> None:
            await self.witness.get("/slow")

        @get("/bad")
        async def bad(self) -> None:
            (await self.witness.get("/nothing-there")).raise_for_status()

    witness = Witness()
    witness.runtime = Runtime(witness, registry=REGISTRY)
    async with witness.runtime, Runtime(Gateway(), registry=REGISTRY) as gateway:
        status, headers, body = await aget(f"{gateway.http_url}/absent")
        assert (status, body) == (503, {"detail": "nobody is not available"})
        assert headers["retry-after"] == "1"
        status, _, body = await aget(f"{gateway.http_url}/late")
        assert (status, body) == (504, {"detail": "witness did not answer in time"})
        status, _, body = await aget(f"{gateway.http_url}/bad")
        assert (status, body) == (502, {"detail": "the call to witness failed"})


async def test_a_service_without_a_name_is_refused() -> None:
    class Nameless(MeshService):
        @get("/x")
        async def x(self) -> None: ...

    with pytest.raises(ConfigError, match="Nameless has no name"):
        Runtime(Nameless())


async def test_not_registering_is_a_choice() -> None:
    witness = Witness()
    witness.runtime = runtime = Runtime(witness, registry=REGISTRY, registration=False)
    async with runtime:
        assert registered() == []
        assert (await aget(f"{runtime.http_url}/hello"))[0] == 200


async def test_an_unregistered_service_drains_as_long_as_it_is_told_to() -> None:
    witness = Witness()
    witness.runtime = runtime = Runtime(
        witness, registry=REGISTRY, registration=False, drain_delay=0.6
    )
    await runtime.start()
    stopping = asyncio.create_task(runtime.stop())
    await asyncio.sleep(0.3)
    assert (await aget(f"{runtime.http_url}/hello"))[0] == 200
    await stopping


async def test_a_stop_that_is_cancelled_goes_on() -> None:
    witness = Witness()
    witness.runtime = runtime = Runtime(witness, registry=REGISTRY, drain_delay=0.3)
    await runtime.start()
    url = runtime.http_url
    stopping = asyncio.create_task(runtime.stop())
    await asyncio.sleep(0.1)
    stopping.cancel()
    await asyncio.gather(stopping, return_exceptions=True)
    await runtime.stop()
    with pytest.raises(OSError):
        await aget(f"{url}/hello")


async def test_a_failing_on_stop_does_not_keep_the_lifespan_from_ending() -> None:
    from collections.abc import AsyncIterator
    from contextlib import asynccontextmanager

    from fastapi import FastAPI

    ended = []

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        yield
        ended.append("lifespan")

    class Careless(MeshService):
        name = "careless"

        def __init__(self) -> None:
            self.app.router.lifespan_context = lifespan

        @get("/x")
        async def x(self) -> None: ...

        async def on_stop(self) -> None:
            raise RuntimeError("already gone")

    async with Runtime(Careless(), registry=REGISTRY):
        pass
    assert ended == ["lifespan"]
