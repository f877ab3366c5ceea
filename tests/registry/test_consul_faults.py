"""A Consul that is down, hung, emptied, full, without a leader, or not a Consul at all."""

import asyncio
import contextlib
import dataclasses
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import pytest

from meshkit.errors import LeaseLost, RegistryError, RegistryUnavailable
from meshkit.model import Endpoint, Instance
from meshkit.registry import Lease, Registry, open_registry
from meshkit.testing.unreachable_contract import Opener, UnreachableContract
from meshkit.testing.watched import Watched
from tests.servers import Consul, Etcd
from tests.servers.fixtures import MakeConsul
from tests.servers.ports import free_ports

USERS = Instance(id="users-1a2b", service="users", endpoints={"http": Endpoint("127.0.0.1", 8000)})
LEASE = Lease(instance_id=USERS.id, ttl=10.0)

Operation = Callable[[Registry], Awaitable[Any]]
OPERATIONS: dict[str, Operation] = {
    "register": lambda registry: registry.register(USERS),
    "renew": lambda registry: registry.renew(LEASE),
    "deregister": lambda registry: registry.deregister(USERS.id),
    "instances": lambda registry: registry.instances("users"),
    "services": lambda registry: registry.services(),
}
operations = pytest.mark.parametrize("operation", OPERATIONS.values(), ids=OPERATIONS.keys())

Scripted = Callable[..., Awaitable[str]]


@pytest.fixture
async def scripted() -> AsyncIterator[Scripted]:
    """Serve fixed answers on a socket, for what no Consul here does; return its URL.

    One answer is for all requests, unless those that write get another.
    """
    async with contextlib.AsyncExitStack() as stack:

        async def serve(answer: bytes, *, to_put: bytes | None = None) -> str:
            async def answer_all(
                reader: asyncio.StreamReader, writer: asyncio.StreamWriter
            ) -> None:
                with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError):
                    while answer:
                        head = await reader.readuntil(b"\r\n\r\n")
                        length = head.lower().partition(b"content-length: ")[2].split(b"\r")[0]
                        await reader.readexactly(int(length))
                        writer.write(to_put if to_put and head.startswith(b"PUT") else answer)
                        await writer.drain()
                writer.close()

            server = await asyncio.start_server(answer_all, "127.0.0.1", 0)
            stack.callback(server.close)
            return f"consul://127.0.0.1:{server.sockets[0].getsockname()[1]}"

        yield serve


def http(status: str, body: str, *headers: str) -> bytes:
    lines = [f"HTTP/1.1 {status}", f"Content-Length: {len(body)}", *headers, "", body]
    return "\r\n".join(lines).encode()


async def failure(operation: Operation, registry: Registry) -> RegistryError:
    """Return what an operation raises: one line of text, and nothing of a library underneath."""
    with pytest.raises(RegistryError) as caught:
        await operation(registry)
    assert "\n" not in str(caught.value)
    assert caught.value.__cause__ is None
    return caught.value


class TestConsulIsDown(UnreachableContract):
    @pytest.fixture
    def opener(self) -> Opener:
        (port,) = free_ports(1)
        return lambda: open_registry(f"consul://127.0.0.1:{port}")


# --- nobody there ---------------------------------------------------------------------------------


@operations
async def test_down(operation: Operation) -> None:
    (port,) = free_ports(1)
    started = time.monotonic()
    async with open_registry(f"consul://127.0.0.1:{port}") as registry:
        error = await failure(operation, registry)
    assert type(error) is RegistryUnavailable
    assert str(error) == f"Consul at 127.0.0.1:{port} can't be reached: Connection refused"
    assert time.monotonic() - started < 5


async def test_unknown_host() -> None:
    async with open_registry("consul://no-such-host.invalid") as registry:
        error = await failure(OPERATIONS["renew"], registry)
    assert type(error) is RegistryUnavailable
    assert str(error).startswith("Consul at no-such-host.invalid:8500 can't be reached: ")


@pytest.mark.consul
async def test_down_at_start_and_then_up(make_consul: MakeConsul) -> None:
    consul = make_consul()
    consul.kill()
    async with open_registry(consul.url) as registry:
        await failure(OPERATIONS["register"], registry)
        await failure(OPERATIONS["instances"], registry)
        await asyncio.to_thread(consul.start)
        await registry.register(USERS)
        assert (await registry.instances("users")).up


@pytest.mark.consul
@pytest.mark.slow
async def test_hung(make_consul: MakeConsul) -> None:
    consul = make_consul()
    async with open_registry(consul.url) as used, open_registry(consul.url) as fresh:
        await used.register(USERS)
        consul.pause()
        try:
            started = time.monotonic()
            errors = await asyncio.gather(
                *(
                    failure(OPERATIONS[name], registry)
                    for registry in (used, fresh)
                    for name in ("register", "renew", "deregister", "instances")
                )
            )
            assert time.monotonic() - started < 15
        finally:
            consul.resume()
        assert {type(error) for error in errors} == {RegistryUnavailable}
        assert {str(error) for error in errors} == {
            f"Consul at {consul.address} did not answer within 10 s"
        }
        assert (await fresh.instances("users")).service == "users"


# --- restarted empty ------------------------------------------------------------------------------


@pytest.mark.consul
async def test_a_restart_loses_the_lease_and_registering_heals(make_consul: MakeConsul) -> None:
    consul = make_consul()
    async with open_registry(consul.url) as registry:
        lease = await registry.register(USERS)
        await asyncio.to_thread(consul.restart)
        # At the first try, though the connection that was kept is a dead one.
        with pytest.raises(LeaseLost, match="no longer knows users-1a2b"):
            await registry.renew(lease)
        assert (await registry.instances("users")).instances == ()
        await registry.renew(await registry.register(USERS))
        assert [each.id for each in (await registry.instances("users")).up] == [USERS.id]


@pytest.mark.consul
async def test_a_watch_is_not_blind_after_a_restart(make_consul: MakeConsul) -> None:
    """The new server's index is far below the old one's."""
    consul = make_consul()
    async with open_registry(consul.url) as registry:
        for port in range(1, 200):
            await registry.register(
                dataclasses.replace(USERS, endpoints={"http": Endpoint("127.0.0.1", port)})
            )
        async with Watched(registry.watch("users")) as watched:
            await watched.next()
            waiting = asyncio.ensure_future(watched.next())
            await asyncio.sleep(0.2)
            await asyncio.to_thread(consul.restart)
            with pytest.raises(RegistryUnavailable):
                await waiting
        async with Watched(registry.watch("users"), patience=5) as watched:
            assert (await watched.next()).instances == ()
            await registry.register(USERS)
            await watched.until(lambda snapshot: len(snapshot.up) == 1)


# --- limits and leaders ---------------------------------------------------------------------------


@pytest.mark.consul
async def test_connections_used_up_are_named_and_spare_the_lease(
    make_consul: MakeConsul,
) -> None:
    consul = make_consul(connections=6)
    async with (
        contextlib.AsyncExitStack() as stack,
        open_registry(consul.url) as registry,
        open_registry(consul.url) as late,
    ):
        lease = await registry.register(USERS)
        errors: list[RegistryError] = []
        for n in range(8):
            watched = await stack.enter_async_context(Watched(registry.watch(f"service-{n}")))
            try:
                await watched.next()
                await watched.nothing(seconds=0.05)
            except RegistryUnavailable as error:
                errors.append(error)
        assert errors
        errors.append(await failure(OPERATIONS["register"], late))
        assert all("limits.http_max_conns_per_client" in str(error) for error in errors)
        await registry.renew(lease)
        await registry.deregister(USERS.id)


@pytest.mark.consul
@pytest.mark.slow
async def test_without_a_leader_the_list_is_unknown_not_empty(make_consul: MakeConsul) -> None:
    consul = make_consul(alone=True)
    async with open_registry(consul.url) as registry:
        error = await failure(OPERATIONS["instances"], registry)
    assert type(error) is RegistryUnavailable
    assert "No cluster leader" in str(error)


@pytest.mark.consul
async def test_what_consul_does_not_accept(consul: Consul) -> None:
    async with open_registry(consul.url) as registry:
        with pytest.raises(RegistryError) as caught:
            await registry.register(dataclasses.replace(USERS, metadata={"a key": "x"}))
        assert "did not accept PUT /v1/agent/service/register" in str(caught.value)
        assert "a key" in str(caught.value)
        with pytest.raises(RegistryError, match="Value is too long") as caught:
            await registry.register(dataclasses.replace(USERS, metadata={"long": "x" * 600}))
        assert len(str(caught.value)) < 400


# --- other answers --------------------------------------------------------------------------------


async def test_later_versions_answer_404_for_what_they_do_not_know(scripted: Scripted) -> None:
    """Ours here is 1.8, which answers 500 to a heartbeat and 200 to a deregistration."""
    url = await scripted(http("404 Not Found", 'Unknown check ID "service:users-1a2b"'))
    async with open_registry(url) as registry:
        with pytest.raises(LeaseLost):
            await registry.renew(LEASE)
        await registry.deregister(USERS.id)


async def test_any_refusal_of_an_unknown_instance_is_a_lost_lease(scripted: Scripted) -> None:
    """Versions differ in what they answer to a heartbeat, but not in this."""
    unknown = http("404 Not Found", "unknown service ID: users-1a2b")
    url = await scripted(unknown, to_put=http("500 Internal Server Error", "in other words"))
    async with open_registry(url) as registry:
        with pytest.raises(LeaseLost):
            await registry.renew(LEASE)


async def test_an_agent_that_fails_has_not_lost_the_lease(scripted: Scripted) -> None:
    url = await scripted(http("500 Internal Server Error", "rpc error:\nNo cluster leader"))
    async with open_registry(url) as registry:
        for operation in OPERATIONS.values():
            error = await failure(operation, registry)
            assert type(error) is RegistryUnavailable
            assert "rpc error: No cluster leader (500)" in str(error)


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        (http("200 OK", "<html>hello</html>"), "is not Consul"),
        (http("200 OK", "[]"), "is not Consul"),
        (http("200 OK", '{"a": 1}', "X-Consul-Index: 7"), "is not Consul"),
        (http("200 OK", "[[]]", "X-Consul-Index: 7"), "is not Consul"),
        (http("404 Not Found", "nothing here"), "is not Consul"),
        (http("302 Found", "", "Location: http://elsewhere"), "did not accept"),
        (b"SSH-2.0-OpenSSH_9.2\r\n", "does not speak HTTP"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 99\r\nConnection: close\r\n\r\n[", "did not answer"),
        (b"", "closed the connection; if many watches"),
    ],
)
async def test_answers_that_are_no_consuls(
    scripted: Scripted, monkeypatch: pytest.MonkeyPatch, answer: bytes, reason: str
) -> None:
    monkeypatch.setattr("meshkit.registry.consul.transport.LIMIT", 1.0)
    async with open_registry(await scripted(answer)) as registry:
        assert reason in str(await failure(OPERATIONS["instances"], registry))


@pytest.mark.etcd
async def test_the_port_of_another_registry(etcd: Etcd) -> None:
    async with open_registry(f"consul://{etcd.address}") as registry:
        error = await failure(OPERATIONS["register"], registry)
    assert str(error) == (
        f"what answers at {etcd.address} is not Consul: "
        "PUT /v1/agent/service/register was answered with 404"
    )


@operations
async def test_after_closing(operation: Operation) -> None:
    registry = open_registry("consul://127.0.0.1:1")
    await registry.aclose()
    assert str(await failure(operation, registry)) == "the registry at 127.0.0.1:1 is closed"
