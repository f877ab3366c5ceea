"""A canary grows while calls run, on real registries: nothing fails, and the shares follow."""

from __future__ import annotations

import asyncio
import itertools
import secrets
import statistics
import time
from collections import Counter
from collections.abc import Awaitable, Callable
from typing import Self

import pytest

from meshkit import Mesh
from meshkit.discovery.routing import follow
from meshkit.registry import open_registry
from tests.protos import echo_pb2, echo_pb2_grpc
from tests.routing.fleet import SERVICE, Said, called, canary, put_rules, running, until_called
from tests.support.waiting import aeventually

REGISTRIES = [
    "memory",
    "local",
    pytest.param("consul", marks=pytest.mark.consul),
    pytest.param("etcd", marks=pytest.mark.etcd),
]
SERVERS = [
    pytest.param("make_consul", marks=pytest.mark.consul),
    pytest.param("make_etcd", marks=pytest.mark.etcd),
]


@pytest.fixture(params=REGISTRIES)
def url(request: pytest.FixtureRequest) -> str:
    """The URL of a registry that is this test's own."""
    name = secrets.token_hex(4)
    urls: dict[str, Callable[[], str]] = {
        "memory": lambda: f"memory://{name}",
        "local": lambda: "local://",
        "consul": lambda: request.getfixturevalue("consul").url,
        "etcd": lambda: f"{request.getfixturevalue('etcd').url}/test-{name}",
    }
    return urls[request.param]()


class Load:
    """Calls over HTTP and gRPC, side by side and without a pause, until the end of the block.

    Attributes:
        answers: when, over what, and by whom each call was answered.
        failures: what calls raised.
    """

    def __init__(self, mesh: Mesh) -> None:
        http = mesh.http(SERVICE)
        stub = mesh.grpc(echo_pb2_grpc.EchoStub, SERVICE)
        self.answers: list[tuple[float, str, str]] = []
        self.failures: list[Exception] = []
        self._tasks: list[asyncio.Task[None]] = []

        async def get() -> str:
            return (await http.post("/", content=b"x")).instance.id

        async def say() -> str:
            return str((await stub.Say(echo_pb2.EchoRequest(text="x"))).instance)

        self._calls = {"http": get, "grpc": say}

    async def __aenter__(self) -> Self:
        for name, call in self._calls.items():
            self._tasks.append(asyncio.create_task(self._run(name, call)))
        return self

    async def __aexit__(self, *_: object) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _run(self, name: str, call: Callable[[], Awaitable[str]]) -> None:
        while True:
            try:
                self.answers.append((time.monotonic(), name, await call()))
            except Exception as error:
                self.failures.append(error)
            await asyncio.sleep(0.001)

    async def share(self, calls: int = 200) -> float:
        """Return the canary's percentage of the next so many calls."""
        start = len(self.answers)
        while len(self.answers) < start + calls:
            await asyncio.sleep(0.01)
        window = self.answers[start : start + calls]
        return 100 * sum(who == "canary" for _, _, who in window) / calls


async def test_a_canary_grows_and_goes_while_calls_run(url: str) -> None:
    """Neither transport fails a call, idempotent or not; changes are in use within a second."""
    async with (
        open_registry(url) as registry,
        running(registry, "one"),
        running(registry, "two"),
        running(registry, "canary", ["canary"]),
    ):
        await put_rules(registry, canary(0))
        try:
            await follow_changes(url)
        finally:
            await registry.kv.delete("meshkit/routes/users")


async def follow_changes(url: str) -> None:
    async with open_registry(url) as writer, Mesh(url) as mesh, Load(mesh) as load:
        assert await load.share() == 0
        rules, delays = mesh._rules.of(SERVICE), []
        for percent in (5, 50, 100, 25, 0):
            await put_rules(writer, canary(percent))
            delays.append(await passing(lambda: rules.current and rules.current.shares, percent))
            # The two transports share the count, so a window may begin and end within a call.
            assert abs(await load.share() - percent) <= 1
        assert statistics.median(delays) < 1
        await writer.kv.delete("meshkit/routes/users")
        await passing(lambda: rules.current, None)
        assert 5 < await load.share() < 80  # anybody's turn again
    assert load.failures == []
    spread = Counter((name, who) for _, name, who in load.answers)
    everywhere = itertools.product(("http", "grpc"), ("one", "two", "canary"))
    assert all(spread[each] for each in everywhere), spread


async def passing(look: Callable[[], object], percent: int | None) -> float:
    """Return the seconds until the rules are those of this percentage."""
    began = time.monotonic()
    wanted = None if percent is None else canary(percent)["split"]
    await aeventually(lambda: asyncio.sleep(0, look() == wanted))
    return time.monotonic() - began


@pytest.mark.parametrize("maker", SERVERS)
async def test_a_registry_that_is_lost_leaves_the_last_rules(
    request: pytest.FixtureRequest, maker: str, said: Said, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(follow, "RETRY_CAP", 0.5)
    server = request.getfixturevalue(maker)()
    async with (
        open_registry(server.url) as registry,
        running(registry, "one"),
        running(registry, "canary", ["canary"]),
        Mesh(server.url) as mesh,
    ):
        await put_rules(registry, canary(0))

        async def call() -> str:
            return (await mesh.http(SERVICE).get("/")).instance.id

        await until_called(call, lambda found: not found["canary"])
        await asyncio.to_thread(server.stop)
        try:
            lost = "meshkit/routes/ can't be followed: "
            await until_called(call, lambda _: any(lost in line for line in said.lines))
            assert await called(call, 40) == {"one": 40}
        finally:
            await asyncio.to_thread(server.start)
        async with open_registry(server.url) as writer:
            await put_rules(writer, canary(100))
        await until_called(call, lambda found: found["canary"] == 20, within=30)
    mine = [line for line in said.lines if "meshkit/routes/" in line]
    assert len(mine) == 2, mine
    assert mine[0].endswith("; the last rules stay")
    assert "following" in mine[1]
