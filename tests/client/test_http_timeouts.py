"""How long a call may take."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest

from meshkit.client.http import HttpClient
from meshkit.client.http1 import Http1Transport
from meshkit.client.transport import RawResponse, Request
from meshkit.discovery.balancing import Outcome
from meshkit.discovery.subscription import Subscription
from meshkit.discovery.target import Target
from meshkit.errors import CallTimeout, RegistryUnavailable
from meshkit.model import Endpoint, Instance, ServiceInfo, Snapshot
from meshkit.registry import Registry
from tests.client.http_servers import Server, never_answer, raw_server, read_request, users


async def test_no_answer_in_time() -> None:
    async with raw_server(never_answer) as endpoint, users(endpoint, endpoint) as ours:
        with pytest.raises(CallTimeout) as caught:
            await ours.client.get("/x?token=hush", timeout=0.3)
        assert ours.outcomes == [("users-a", Outcome.TIMEOUT)]
        assert (ours.client.stats.failed, ours.client.stats.retried) == (1, 0)
        assert isinstance(caught.value, TimeoutError)
        assert str(caught.value) == (
            f"users: GET /x: no answer within 0.3 s: users-a ({endpoint}) did not answer in time"
        )
        with pytest.raises(CallTimeout, match=r"no answer within 0.3 s"):
            async with ours.client.stream("GET", "/x", timeout=0.3):
                pytest.fail("no answer, so no block")


class Timed(Http1Transport):
    """The transport, with a record of how long each attempt may take."""

    def __init__(self) -> None:
        super().__init__()
        self.timeouts: list[float] = []

    async def send(self, request: Request) -> RawResponse:
        self.timeouts.append(request.timeout)
        return await super().send(request)


async def test_the_time_is_for_all_attempts_together() -> None:
    async def slow_to_break(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await read_request(reader)
        await asyncio.sleep(1.0)

    transport = Timed()
    async with (
        raw_server(slow_to_break) as slow,
        raw_server(never_answer) as hung,
        users(slow, hung, timeout=4.0, transport=transport) as ours,
    ):
        with pytest.raises(CallTimeout, match=r"no answer within 4 s: users-a .*; users-b "):
            await ours.client.get("/x")
    first, second = transport.timeouts
    assert first > 3.9
    assert second < first - 0.9


class SilentRegistry(Registry):
    """A registry that does not answer until it is told to."""

    def __init__(self, endpoint: Endpoint) -> None:
        super().__init__("silent://")
        self.answers = asyncio.Event()
        self.endpoint = endpoint

    async def watch(self, service: str) -> AsyncIterator[Snapshot]:  # type: ignore[override]
        await self.answers.wait()
        instance = Instance(id="users-a", service=service, endpoints={"http": self.endpoint})
        yield Snapshot(service=service, instances=(instance,))
        await asyncio.Event().wait()

    async def services(self) -> tuple[ServiceInfo, ...]:
        raise RegistryUnavailable("silent")


async def test_the_first_call_waits_for_the_list() -> None:
    async with raw_server(Server()) as endpoint:
        registry = SilentRegistry(endpoint)
        target = Target(Subscription(registry, "users", None))
        transport = Http1Transport()
        client = HttpClient(target, transport, timeout=20)
        try:
            with pytest.raises(CallTimeout, match=r"users: GET /x: no list of instances within"):
                await client.get("/x", timeout=0.2)
            call = asyncio.create_task(client.get("/x"))
            await asyncio.sleep(0.2)
            assert not call.done()
            registry.answers.set()
            assert (await call).text == "ok"
        finally:
            await transport.aclose()
            await target.aclose()
