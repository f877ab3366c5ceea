"""Which address others are told, and that a wrong one is caught."""

import asyncio
import socket

import pytest

from meshkit import ConfigError, Endpoint, Instance, MeshService, Runtime, StartError, get
from meshkit.registry.memory import store
from meshkit.runtime.advertise import advertised_host, first_interface, is_loopback, route_towards
from meshkit.runtime.identity import new_instance_id
from meshkit.runtime.probe import probe

REMOTE = Endpoint("192.0.2.1", 8500)  # TEST-NET-1, RFC 5737: nothing is sent there
NEAR = Endpoint("127.0.0.1", 8500)


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


async def test_a_silent_address_is_given_up() -> None:
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        instance = Instance(
            id="x", service="x", endpoints={"http": Endpoint("127.0.0.1", silent.getsockname()[1])}
        )
        async with asyncio.timeout(10):
            with pytest.raises(StartError, match="no answer within 2 s"):
                await probe(instance)
