"""What a service in a container registers, on the real engine: others reach it there by its name.

Each is called over HTTP and gRPC; the answer says which container has given it.
"""

from __future__ import annotations

import re

import pytest

from tests.docker.conftest import SOCKET, World
from tests.servers.ports import free_ports

pytestmark = [pytest.mark.docker, pytest.mark.slow]

OPEN = ("--host", "0.0.0.0")
FIXED = (*OPEN, "--port", "8000", "--grpc-port", "9000")
MOUNTED = ("--volume", f"{SOCKET}:{SOCKET}")
PUBLISHED = (*MOUNTED, "--publish", "8000", "--publish", "9000")


def both(container: str) -> tuple[str, str]:
    """Who answers over HTTP and gRPC, when it is this container."""
    return container[:12], container[:12]


def test_a_bridge_network(world: World) -> None:
    container = world.follow("bridged", "One network")
    told = world.advertised("bridged")
    address = world.address("bridged", world.front)
    assert told.startswith(f"http {address}:")
    assert told.endswith(": the route to the registry at consul:8500")
    assert world.call("bridged") == both(container)


def test_the_network_of_the_registry_among_several(world: World) -> None:
    container = world.start("several", *OPEN, network=world.back, also=world.front)
    assert f"http {world.address('several', world.front)}:" in world.advertised("several")
    assert world.call("several") == both(container)


def test_a_network_that_is_chosen(world: World) -> None:
    choice = "{{(index .IPAM.Config 0).Subnet}}"
    subnet = world.docker("network", "inspect", "--format", choice, world.back)
    instead = {"10.20.0.0/16": subnet}
    container = world.follow("chosen", "Several networks", also=world.back, instead=instead)
    told = world.advertised("chosen")
    assert f"http {world.address('chosen', world.back)}:" in told
    assert told.endswith(f": our address in the network {subnet}")
    assert world.call("chosen") == both(container)


def test_a_network_with_ipv6(world: World) -> None:
    registry = f"consul://[{world.address('consul', world.front, 'GlobalIPv6Address')}]:8500"
    container = world.follow("six", "IPv6", instead={"consul://[fd00::5]:8500": registry})
    address = world.address("six", world.front, "GlobalIPv6Address")
    told = world.advertised("six")
    assert re.match(rf"http \[{address}\]:\d+, grpc \[{address}\]:\d+: the route to the", told)
    assert world.call("six") == both(container)


async def test_the_hosts_network(world: World) -> None:
    host = world.docker("info", "--format", "{{.Name}}")
    world.follow("hosted", "The host's network")
    told = world.advertised("hosted")
    assert "172.17.0.1" not in told  # the bridge is no address for others
    assert world.call("hosted") == (host, host)
    assert await world.call_from_outside("hosted") == (host, host)
    # Nothing is published there: the same rules go for it.
    ask = ("--advertise", "docker")
    world.start("hosted-too", *OPEN, *ask, run=MOUNTED, network="host", registry=world.outside)
    assert world.advertised("hosted-too").partition(": ")[2] == told.partition(": ")[2]


async def test_published_random_ports(world: World) -> None:
    container = world.follow("published", "Published ports, found through Docker")
    told = world.advertised("published")
    ports = [
        world.docker("port", container, f"{port}/tcp").splitlines()[0].rpartition(":")[2]
        for port in (8000, 9000)
    ]
    gateway = world.address("published", world.front, "Gateway")
    assert told.startswith(f"http {gateway}:{ports[0]}, grpc {gateway}:{ports[1]}: published by")
    assert await world.call_from_outside("published") == both(container)
    assert world.call("published") == both(container)


def test_published_ports_with_a_named_host(world: World) -> None:
    named = ("--advertise", "docker", "--advertise-host", "host.test")
    hosts = ("--add-host", "host.test:host-gateway")
    container = world.start("named", *FIXED, *named, run=(*PUBLISHED, *hosts))
    told = world.advertised("named")
    assert told.startswith("http host.test:")
    assert told.endswith(": published by Docker, the host set explicitly")
    assert world.call("named") == both(container)


async def test_ports_that_are_set_by_hand(world: World) -> None:
    http, grpc = map(str, free_ports(2))
    instead = {
        "10.0.0.5": world.address("caller", world.front, "Gateway"),
        "8080:8000": f"{http}:8000",
        "9090:9000": f"{grpc}:9000",
        "8080": http,
        "9090": grpc,
    }
    container = world.follow("mapped", "Published ports, set by hand", instead=instead)
    host = instead["10.0.0.5"]
    told = world.advertised("mapped")
    assert told == f"http {host}:{http}, grpc {host}:{grpc}: set explicitly"
    assert await world.call_from_outside("mapped") == both(container)
    assert world.call("mapped") == both(container)


async def test_ports_of_the_container_whose_network_is_shared(world: World) -> None:
    holder = world.start("holder", *OPEN, "--port", "8001", run=PUBLISHED)
    world.advertised("holder")
    shared = f"container:{holder}"
    world.start("sidecar", *FIXED, "--advertise", "docker", network=shared, run=MOUNTED)
    assert ": published by Docker, the gateway to the host" in world.advertised("sidecar")
    assert await world.call_from_outside("sidecar") == both(holder)


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("wrong-host", ("--advertise-host", "consul", "--advertise-port", "8500"), "consul:8500"),
        ("wrong-port", ("--advertise-grpc-port", "8000"), r"[\d.]+:8000"),
    ],
)
def test_an_address_of_somebody_else_is_not_registered(
    world: World, name: str, options: tuple[str, ...], message: str
) -> None:
    world.start(name, *FIXED, *options)
    code, error = world.refused(name)
    assert code == 3
    assert re.match(rf"the advertised \w+ address {message} is answered by somebody else", error)


def test_an_address_that_nobody_has_is_not_registered(world: World) -> None:
    world.start("nobody", *OPEN, "--advertise-host", "127.0.0.1")
    code, error = world.refused("nobody")
    assert (code, "can't be reached by the users of consul://consul:8500" in error) == (1, True)
    address = ("--advertise-host", world.address("consul", world.front))
    world.start("closed", *FIXED, *address)
    code, error = world.refused("closed")
    assert (code, "this service can't reach itself at" in error) == (3, True)


def test_docker_says_what_is_missing(world: World) -> None:
    ask = ("--advertise", "docker")
    world.start("unpublished", *FIXED, *ask, run=(*MOUNTED, "--publish", "8000"))
    code, error = world.refused("unpublished")
    assert (code, "port 9000 (grpc) of this container is not published" in error) == (1, True)
    world.start("stranger", *FIXED, *ask, run=(*PUBLISHED, "--user", "4242"))
    code, error = world.refused("stranger")
    assert (code, "no permission to use Docker at" in error) == (4, True)
