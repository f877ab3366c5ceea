"""Which address others are told, and that a wrong one is caught."""

import asyncio
import contextlib
import ipaddress
import socket
from pathlib import Path
from typing import Any

import pytest

from meshkit import ConfigError, Endpoint, Instance, MeshService, Runtime, StartError, get
from meshkit.registry import open_registry
from meshkit.registry.memory import store
from meshkit.runtime.advertise import (
    Advertised,
    advertised,
    choose_host,
    is_loopback,
    reachable,
)
from meshkit.runtime.identity import new_instance_id
from meshkit.runtime.interfaces import first_interface, own_addresses, route_towards
from meshkit.runtime.probe import probe
from meshkit.settings import MeshSettings
from tests.protos import echo_pb2_grpc
from tests.servers.ports import free_ports

REMOTE = Endpoint("192.0.2.1", 8500)  # TEST-NET-1, RFC 5737: nothing is sent there
NEAR = Endpoint("127.0.0.1", 8500)


def advertised_host(
    bound: str, explicit: str | None, registry: Endpoint | None, url: str
) -> Advertised:
    return reachable(choose_host(bound, explicit, registry), registry, url)


@pytest.mark.parametrize(
    ("bound", "explicit", "registry", "host", "rule"),
    [
        ("127.0.0.1", "10.1.2.3", REMOTE, "10.1.2.3", "set explicitly"),
        ("10.0.0.7", None, REMOTE, "10.0.0.7", "the address listened on"),
        ("127.0.0.1", None, None, "127.0.0.1", "the address listened on"),
        ("127.0.0.1", None, NEAR, "127.0.0.1", "the address listened on"),
        ("0.0.0.0", None, None, "127.0.0.1", "a registry of this machine"),
    ],
)
def test_rules_in_order(
    bound: str, explicit: str | None, registry: Endpoint | None, host: str, rule: str
) -> None:
    chosen = advertised_host(bound, explicit, registry, "consul://registry")
    assert (chosen.host, chosen.rule) == (host, rule)


def test_the_route_to_an_agent_on_loopback_is_no_address_for_others() -> None:
    chosen = advertised_host("0.0.0.0", None, NEAR, "consul://127.0.0.1:8500")
    assert chosen.host == (first_interface() or "127.0.0.1")
    laptop = advertised_host("127.0.0.1", None, NEAR, "consul://127.0.0.1:8500")
    assert "only this machine can call it" in laptop.caution


def test_loopback_is_refused_for_a_remote_registry() -> None:
    with pytest.raises(
        ConfigError, match=r"127.0.0.1 \(the address listened on\) can't be reached"
    ):
        advertised_host("127.0.0.1", None, REMOTE, "consul://192.0.2.1:8500")


async def test_a_registry_that_is_only_read_is_told_nothing() -> None:
    async with open_registry("static://users=192.0.2.1:1") as registry:
        chosen = await advertised(MeshSettings(host="0.0.0.0"), {"http": 0}, registry)
    said = "to ourselves alone, as static://users=192.0.2.1:1 is only read"
    assert (chosen.host, chosen.rule) == ("127.0.0.1", said)


def test_the_route_is_asked_of_the_kernel() -> None:
    assert route_towards(NEAR) == "127.0.0.1"
    assert route_towards(Endpoint("no-such-host.invalid", 1)) is None


def test_the_first_real_interface_is_not_loopback() -> None:
    host = first_interface()
    names = [name for _, name in socket.if_nameindex()]
    if host is None:
        assert all(name.startswith(("lo", "docker", "br-", "veth", "tun")) for name in names)
    else:
        assert not is_loopback(host)


def test_an_address_within_a_given_network() -> None:
    chosen = advertised_host("0.0.0.0", "127.0.0.0/8", None, "local://")
    assert (chosen.host, chosen.rule) == ("127.0.0.1", "our address in the network 127.0.0.0/8")
    # Whatever is not loopback comes first.
    others = any(each.version == 4 and not each.is_loopback for _, each in own_addresses())
    assert is_loopback(advertised_host("0.0.0.0", "0.0.0.0/0", None, "").host) != others
    with pytest.raises(ConfigError, match=r"198\.51\.100\.0/24: no address of this machine is in"):
        advertised_host("0.0.0.0", "198.51.100.0/24", REMOTE, "consul://192.0.2.1:8500")


def test_an_address_that_others_can_call_comes_first(monkeypatch: pytest.MonkeyPatch) -> None:
    own = [("eth0", "fe80::1"), ("lo", "::1"), ("eth1", "fe80::2"), ("eth1", "fd00::2")]
    found = [(name, ipaddress.ip_address(address)) for name, address in own]
    monkeypatch.setattr("meshkit.runtime.advertise.own_addresses", lambda: found)
    assert advertised_host("::", "::/0", None, "local://").host == "fd00::2"


def test_who_listens_on_ipv4_alone_advertises_no_ipv6(monkeypatch: pytest.MonkeyPatch) -> None:
    both = Endpoint("registry", 8500)
    real = socket.getaddrinfo

    def resolve(host: str, port: int, family: int = 0, kind: int = 0) -> object:
        found = [*real("::1", port, type=kind), *real("127.0.0.1", port, type=kind)]
        return [each for each in found if family in (0, each[0])]

    monkeypatch.setattr(socket, "getaddrinfo", resolve)
    assert route_towards(both) == "::1"
    assert route_towards(both, ipv6=False) == "127.0.0.1"


def test_own_addresses_are_those_of_both_families() -> None:
    found = own_addresses()
    assert ("lo", ipaddress.ip_address("127.0.0.1")) in found
    versions = [address.version for _, address in found]
    assert versions == sorted(versions)
    # Others come and go with the containers of other tests.
    told = Path("/proc/net/if_inet6").read_text()
    assert (("lo", ipaddress.ip_address("::1")) in found) == (f"{1:032x}" in told)


def test_an_interface_with_ipv6_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    own = [("docker0", "172.17.0.1"), ("lo", "::1"), ("eth0", "fe80::2"), ("eth0", "fd00::2")]
    found = [(name, ipaddress.ip_address(address)) for name, address in own]
    monkeypatch.setattr("meshkit.runtime.interfaces.own_addresses", lambda: found)
    chosen = advertised_host("::", None, NEAR, "consul://127.0.0.1:8500")
    assert (chosen.host, chosen.rule) == ("fd00::2", "the first real interface")
    # Nobody listens there for IPv6.
    assert advertised_host("0.0.0.0", None, NEAR, "").host == "127.0.0.1"
    found.insert(2, ("eth0", ipaddress.ip_address("10.0.0.2")))
    assert advertised_host("::", None, NEAR, "").host == "10.0.0.2"


def test_ids_are_dns_labels_unique_per_start() -> None:
    ids = {new_instance_id("a" * 63, "Some.Host_Name.example.com", 54321) for _ in range(100)}
    assert len(ids) == 100
    for each in ids:
        assert len(each) <= 63
        assert each.replace("-", "").isalnum()
        assert each == each.lower()


class Plain(MeshService):
    name = "plain"

    @get("/x")
    async def x(self) -> None: ...


async def test_an_address_that_somebody_else_answers_is_refused() -> None:
    async with Runtime(Plain(), registry="memory://probe") as runtime:
        assert runtime.instance
        other = Instance(id="another", service="plain", endpoints=dict(runtime.instance.endpoints))
        await probe(runtime.instance)
        with pytest.raises(StartError, match="is answered by somebody else"):
            await probe(other)


async def test_a_service_that_can_not_reach_itself_does_not_register() -> None:
    # 127.0.0.2 is ours, but nobody listens there.
    with pytest.raises(StartError, match=r"can't reach itself at 127.0.0.2:\d+, the http address"):
        await Runtime(Plain(), registry="memory://unreachable", advertise_host="127.0.0.2").start()
    assert not store("unreachable").instances
    async with Runtime(
        Plain(), registry="memory://unreachable", advertise_host="127.0.0.2", self_probe="warn"
    ) as runtime:
        assert runtime.http_url
        assert runtime.http_url.startswith("http://127.0.0.2:")


async def forward(listening: Endpoint) -> asyncio.Server:
    """Stand before a service, as a published port does."""

    async def copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(ConnectionError):
            while data := await reader.read(65536):
                writer.write(data)
        writer.close()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        there = await asyncio.open_connection(listening.host, listening.port)
        await asyncio.gather(copy(reader, there[1]), copy(there[0], writer))

    return await asyncio.start_server(serve, "127.0.0.1", 0)


class Both(Plain, echo_pb2_grpc.EchoServicer):
    name = "both"


@pytest.mark.parametrize("host", ["127.0.0.1", "::1"])
async def test_other_ports_are_advertised_for_each_transport(host: str) -> None:
    http, grpc = free_ports(2)
    before = await forward(Endpoint(host, http)), await forward(Endpoint(host, grpc))
    public = [each.sockets[0].getsockname()[1] for each in before]
    async with Runtime(
        Both(),
        registry="memory://ports",
        host=host,
        port=http,
        grpc_port=grpc,
        advertise_host="127.0.0.1",
        advertise_port=public[0],
        advertise_grpc_port=public[1],
    ) as runtime:
        assert runtime.http_url == f"http://127.0.0.1:{public[0]}"
        assert runtime.grpc_target == f"127.0.0.1:{public[1]}"
        assert runtime.listening == {"http": Endpoint(host, http), "grpc": Endpoint(host, grpc)}
    for each in before:
        each.close()


@pytest.mark.parametrize("crossed", [{"advertise_grpc_port": 0}, {"advertise_port": 1}])
async def test_ports_of_somebody_else_are_refused(crossed: dict[str, int]) -> None:
    async with Runtime(Both(), registry="memory://crossed") as other:
        assert other.instance
        ports = [endpoint.port for endpoint in other.instance.endpoints.values()]
        overrides: dict[str, Any] = {name: ports[which] for name, which in crossed.items()}
        with pytest.raises(StartError, match=r"is answered by somebody else \(without an identity"):
            await Runtime(Both(), registry="memory://crossed", **overrides).start()
        with pytest.raises(StartError, match=rf"answered by somebody else \({other.instance.id}\)"):
            await Runtime(Both(), registry="memory://crossed", advertise_grpc_port=ports[1]).start()


async def test_listening_on_every_address_includes_ipv6() -> None:
    async with (
        Runtime(Both(), registry="memory://six", host="::", advertise_host="::1") as runtime,
        asyncio.timeout(30),
    ):
        assert runtime.instance
        assert {each.host for each in runtime.instance.endpoints.values()} == {"::1"}
        for endpoint in runtime.instance.endpoints.values():  # and IPv4, on the same sockets
            (await asyncio.open_connection("127.0.0.1", endpoint.port))[1].close()


async def test_a_silent_address_is_given_up() -> None:
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        instance = Instance(
            id="x", service="x", endpoints={"http": Endpoint("127.0.0.1", silent.getsockname()[1])}
        )
        async with asyncio.timeout(30):
            with pytest.raises(StartError, match="no answer within 5 s"):
                await probe(instance)
