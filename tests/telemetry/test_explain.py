"""``explain()``: what calls go by, as people and programs read it."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import AsyncIterator, Collection, Sequence
from typing import Any

import pytest

from meshkit import (
    BreakerPolicy,
    BulkheadPolicy,
    Candidate,
    ConfigError,
    EjectionPolicy,
    Endpoint,
    HttpClient,
    Instance,
    Mesh,
    MeshService,
    Outcome,
    Route,
    Runtime,
    Status,
    get,
)
from meshkit.discovery.balancing.base import Done, forget
from meshkit.discovery.balancing.names import BALANCERS
from meshkit.discovery.ejection.record import Reason
from meshkit.discovery.view import InstanceView
from meshkit.registry import open_registry
from tests.protos import echo_pb2_grpc

REGISTRY = "memory://explain"


class Echo(MeshService):
    name = "echo"

    @get("/items")
    async def items(self) -> str:
        return "items"


def instance(number: int, **values: object) -> Instance:
    made = Instance(
        id=f"echo-{number}",
        service="echo",
        endpoints={"http": Endpoint("127.0.0.1", 4000 + number)},
    )
    return dataclasses.replace(made, **values)  # type: ignore[arg-type]


@pytest.fixture
async def mesh() -> AsyncIterator[Mesh]:
    registry = open_registry(REGISTRY)
    listed = [
        instance(1, zone="a", weight=3),
        instance(2, tags=("canary",)),
        instance(3, status=Status.DOWN),
        instance(4, endpoints={"grpc": Endpoint("127.0.0.1", 5004)}),
    ]
    for each in listed:
        await registry.register(each)
    async with Mesh(registry) as made:
        await made.target("echo").subscription.known()
        yield made
        for each in listed:
            await registry.deregister(each.id)


async def client_of(mesh: Mesh, service: str = "echo", **options: Any) -> HttpClient:
    """A client whose list is there; those that differ in their options follow it on their own."""
    client = mesh.http(service, **options)
    await client.target.subscription.known()
    return client


def by_id(seen: Sequence[InstanceView]) -> dict[str, InstanceView]:
    return {each.id: each for each in seen}


async def test_each_instance_says_why_it_is_called_or_not(mesh: Mesh) -> None:
    (view,) = (await client_of(mesh)).explain().views
    seen = by_id(view.instances)
    assert (view.transport, view.balancer, view.route) == ("http", "PowerOfTwo", "")
    assert [seen[f"echo-{number}"].why for number in (1, 2, 3, 4)] == [
        "",
        "",
        "its status is down",
        "it does not serve http",
    ]
    assert [seen[f"echo-{number}"].called for number in (1, 2, 3, 4)] == [True, True, False, False]
    assert (seen["echo-1"].share, seen["echo-2"].share) == (0.75, 0.25)
    assert (seen["echo-1"].zone, seen["echo-1"].endpoint) == ("a", "127.0.0.1:4001")


async def test_who_is_aside_says_why_and_for_how_long(mesh: Mesh) -> None:
    client = await client_of(mesh, ejection=EjectionPolicy(pause=20))
    client.target.ejections.eject("echo-1", Reason.REFUSED)
    told = client.explain()
    one = by_id(told.views[0].instances)["echo-1"]
    assert (one.called, one.aside) == (False, "refused")
    assert one.why == "it refused a connection"
    assert 0 < one.until <= 20
    assert told.ejected == {"refused": 1}
    assert "it refused a connection, for " in str(told)
    client.target.ejections.eject("echo-2", Reason.REFUSED)
    one = by_id(client.explain().views[0].instances)["echo-1"]
    assert one.called
    assert one.why == "it refused a connection, called as there is nobody better"


async def test_a_route_and_a_subset_are_reasons_too(mesh: Mesh) -> None:
    (view,) = (await client_of(mesh, "echo@canary")).explain().views
    assert view.route == "tag canary"
    assert by_id(view.instances)["echo-1"].why == "it is not on the route"
    (view,) = (await client_of(mesh, subset=1)).explain().views
    left_out = [each.why for each in view.instances if each.why and each.status == "up"]
    assert sorted(left_out) == ["it does not serve http", "it is not in this client's subset"]


async def test_the_route_of_a_single_call_is_shown(mesh: Mesh) -> None:
    client = await client_of(mesh)
    client.target.try_pick("http", route=Route(tags=("canary",)))
    assert [view.route for view in client.explain().views] == ["", "tag canary"]


async def test_the_calls_of_an_instance_are_shown_once(mesh: Mesh) -> None:
    client = await client_of(mesh, "echo@canary")
    await client_of(mesh)
    for _ in range(3):
        pick = client.target.try_pick("http", route=Route(tags=("canary",)))
        assert pick
        pick.done(Outcome.OK)
    told = mesh.explain("echo")
    (canary,) = [each.id for each in told.views[0].instances if each.recent]
    assert [by_id(view.instances)[canary].recent for view in told.views] == [3, 3]
    rows = [line.split() for line in str(told).splitlines() if line.split()[0] == canary]
    assert [row[5] for row in rows] == ["3", '"']
    elsewhere = [line.split() for line in str(told).splitlines() if line.split()[0] == "echo-1"]
    assert [row[5] for row in elsewhere] == ['"', "0"], "where it is called"


@pytest.mark.parametrize("balancer", BALANCERS)
async def test_every_balancer_can_be_explained(mesh: Mesh, balancer: str) -> None:
    client = await client_of(mesh, balancer=balancer)
    picks = [client.target.try_pick("http", key="a key") for _ in range(8)]
    told = client.explain()
    seen = by_id(told.views[0].instances)
    busy = [seen["echo-1"].outstanding, seen["echo-2"].outstanding]
    if balancer in {"p2c", "least", "hash"}:
        assert sum(each or 0 for each in busy) == 8
    else:
        assert busy == [None, None]
    for pick in picks:
        assert pick
        pick.done(Outcome.OK)
    seen = by_id(client.explain().views[0].instances)
    assert seen["echo-1"].recent + seen["echo-2"].recent == 8
    assert "echo-1" in str(told)


class First:
    """A balancer that somebody has written, who knows of no ``describe``."""

    def update(self, candidates: Sequence[Candidate]) -> None:
        self.instances = [each.instance for each in candidates]

    def pick(self, exclude: Collection[str], key: str | None) -> tuple[Instance, Done] | None:
        left = [each for each in self.instances if each.id not in exclude]
        return (left[0], forget) if left else None


async def test_so_can_one_that_describes_nothing(mesh: Mesh) -> None:
    (view,) = (await client_of(mesh, balancer=First)).explain().views
    assert view.balancer == "First"
    assert by_id(view.instances)["echo-1"].latency is None


async def test_a_service_is_explained_over_all_of_its_clients(mesh: Mesh) -> None:
    with pytest.raises(ConfigError, match="echo: nothing to explain"):
        mesh.explain("echo")
    await client_of(mesh, breaker=BreakerPolicy(), bulkhead=BulkheadPolicy(concurrent=3))
    channel = mesh.channel("echo")
    mesh.grpc(echo_pb2_grpc.EchoStub, "echo")
    told = mesh.explain("echo")
    assert {view.transport for view in told.views} == {"http", "grpc"}
    assert told.breakers == ("closed",)
    assert told.bulkheads == ((0, 0, 0),)
    (grpc_view,) = channel.explain().views
    assert [each.id for each in grpc_view.instances if each.called] == ["echo-4"]
    assert json.loads(json.dumps(told.to_dict()))["service"] == "echo"
    for line in ("circuit breaker: closed", "bulkhead: 0 under way", "retry budget: 100.0 left"):
        assert line in str(told)


async def test_before_there_is_a_list_it_says_so() -> None:
    async with Mesh("consul://127.0.0.1:9") as mesh:
        told = mesh.http("echo").explain()
    assert (told.known, told.views[0].instances) == (False, ())
    assert "no list of instances yet" in str(told)


async def test_calls_are_counted_for_real() -> None:
    async with Runtime(Echo(), registry=REGISTRY, drain_delay=0), Mesh(REGISTRY) as mesh:
        client = mesh.http("echo")
        for _ in range(4):
            await client.get("/items")
        told = client.explain()
    (one,) = told.views[0].instances
    assert (told.stats["http"].calls, one.recent, one.outstanding) == (4, 4, 0)
    assert one.latency is not None
    assert 0 < one.latency < 60
    assert "http: 4 calls, 0 failed" in str(told)
