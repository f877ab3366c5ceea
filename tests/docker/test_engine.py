"""The engine's API as we read it, on the real engine."""

import asyncio
from collections.abc import AsyncIterator

import pytest

from meshkit.docker import Docker, DockerNotFound, Events, JsonObject
from tests.servers.docker_engine import DockerEngine

pytestmark = pytest.mark.docker

IMAGE = "python:3.13-slim"


@pytest.fixture
async def engine(docker: DockerEngine) -> AsyncIterator[Docker]:
    async with Docker() as engine, asyncio.timeout(120):
        yield engine


def actions_of(name: str) -> dict[str, list[str]]:
    return {"type": ["container"], "container": [name], "event": ["start", "kill", "die"]}


async def take(events: Events, action: str) -> JsonObject:
    async for event in events:
        if event["Action"] == action:
            return event
    raise AssertionError


async def test_containers_are_listed_and_inspected(docker: DockerEngine, engine: Docker) -> None:
    options = ("--label", f"own={docker.prefix}", "--env", "SERVICE_NAME=users", "--expose", "80")
    own_id = docker.run("listed", *options, IMAGE, "sleep", "300")
    own = {"label": [f"own={docker.prefix}"]}
    (listed,) = await engine.containers(filters=own)
    assert (listed["Id"], listed["State"]) == (own_id, "running")
    assert listed["NetworkSettings"]["Networks"]["bridge"]["IPAddress"]
    for name in (own_id, own_id[:12], docker.named("listed")):
        assert (await engine.inspect(name))["Id"] == own_id
    inspected = await engine.inspect(own_id)
    assert "SERVICE_NAME=users" in inspected["Config"]["Env"]
    docker("kill", own_id)
    assert await engine.containers(filters=own) == ()
    (dead,) = await engine.containers(all=True, filters=own)
    assert dead["State"] == "exited"


async def test_no_such_container(engine: Docker) -> None:
    with pytest.raises(DockerNotFound, match="No such container: nobody/else"):
        await engine.inspect("nobody/else")


async def test_the_engine_says_who_it_is(docker: DockerEngine, engine: Docker) -> None:
    assert (await engine.info())["ID"] == docker("info", "--format", "{{.ID}}")
    major, minor = map(int, (await engine.version()).split("."))
    assert (major, minor) >= (1, 24)


async def test_events_come_as_they_happen(docker: DockerEngine, engine: Docker) -> None:
    async with engine.events(filters=actions_of(docker.named("short"))) as events:
        with pytest.raises(TimeoutError):  # nothing has happened; we may look again later
            async with asyncio.timeout(0.1):
                await anext(events)
        own_id = docker.run("short", IMAGE, "sleep", "300")
        started = await take(events, "start")
        assert started["Actor"]["ID"] == own_id
        docker("kill", own_id)
        died = await take(events, "die")
        assert died["Actor"]["Attributes"]["exitCode"] == "137"
    since = f"{started['timeNano'] // 10**9}.{started['timeNano'] % 10**9:09}"
    async with engine.events(since=since, filters=actions_of(docker.named("short"))) as events:
        assert [(await anext(events))["Action"] for _ in range(3)] == ["start", "kill", "die"]


async def test_what_a_swarm_has_is_none_without_one(engine: Docker) -> None:
    if (await engine.info())["Swarm"]["ControlAvailable"]:
        pytest.skip("this engine manages a Swarm")
    assert (await engine.services(), await engine.tasks(), await engine.nodes()) == ((), (), ())
