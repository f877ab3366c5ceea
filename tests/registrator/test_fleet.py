"""What is read of containers, and when; with an engine that answers slowly, or not at all."""

import asyncio
from typing import Any, cast

import pytest

from meshkit.docker import Docker, DockerError, DockerNotFound, DockerUnavailable, JsonObject
from meshkit.model import Status
from meshkit.registrator.counters import Counters
from meshkit.registrator.fleet import Fleet
from meshkit.registrator.options import Host, Options


def running(number: int, **config: Any) -> JsonObject:
    return {
        "Id": f"{number}" * 64,
        "Name": f"/web{number}",
        "State": {"Running": True, "Status": "running", "ExitCode": 0},
        "Config": {
            "Image": "web",
            "Labels": {},
            "ExposedPorts": {"80/tcp": {}},
            **config,
        },
        "HostConfig": {"NetworkMode": "default", "PortBindings": {}},
        "NetworkSettings": {
            "Networks": {"bridge": {"IPAddress": "10.0.0.1"}},
            "Ports": {"80/tcp": [{"HostIp": "10.0.0.1", "HostPort": str(8000 + number)}]},
        },
    }


class Engine:
    """What the fleet asks of Docker; a container in ``stuck`` is answered for once it is out."""

    def __init__(self, *containers: JsonObject) -> None:
        self.containers_by_id = {each["Id"]: each for each in containers}
        self.stuck: dict[str, asyncio.Event] = {}
        self.broken: dict[str, DockerError] = {}
        self.inspected: list[str] = []

    async def containers(self, **_: Any) -> tuple[JsonObject, ...]:
        return tuple({"Id": each} for each in self.containers_by_id)

    async def inspect(self, container_id: str) -> JsonObject:
        self.inspected.append(container_id)
        if container_id in self.stuck:
            await self.stuck[container_id].wait()
        if container_id in self.broken:
            raise self.broken[container_id]
        if container_id not in self.containers_by_id:
            raise DockerNotFound("no such container")
        return self.containers_by_id[container_id]


def fleet_of(engine: Engine, wake: asyncio.Event, **options: Any) -> Fleet:
    host = Host(name="host", ipv4="10.0.0.1")
    return Fleet(cast("Docker", engine), Options(**options), host, Counters(), wake.set)


def ids(fleet: Fleet) -> list[str]:
    return sorted(each.container_name for each in fleet.records)


ONE, TWO = "1" * 64, "2" * 64


async def test_one_that_docker_is_busy_with_holds_up_no_other() -> None:
    engine, wake = Engine(running(1), running(2)), asyncio.Event()
    engine.stuck[ONE] = asyncio.Event()
    fleet = fleet_of(engine, wake)
    await fleet.refresh(patience=0.05)
    assert ids(fleet) == ["web2"]
    assert not fleet.complete, "what web1 has in the registry must not be removed"
    assert fleet.kept == {ONE[:12]}
    del engine.containers_by_id[TWO]
    fleet.changed(TWO)
    await fleet.refresh(patience=0.05)
    assert ids(fleet) == []
    # Something happens to it meanwhile: it is read once more when it can be, not twice at once.
    fleet.mark(ONE)
    await fleet.refresh(patience=0.05)
    assert engine.inspected.count(ONE) == 1
    assert not wake.is_set()
    engine.stuck.pop(ONE).set()
    await asyncio.wait_for(wake.wait(), 30)
    await fleet.refresh()
    assert engine.inspected.count(ONE) == 2
    assert ids(fleet) == ["web1"]
    assert fleet.complete


async def test_what_cannot_be_read_stays_as_it_was_and_is_tried_again() -> None:
    engine, wake = Engine(running(1)), asyncio.Event()
    fleet = fleet_of(engine, wake)
    await fleet.refresh()
    engine.broken[ONE] = DockerUnavailable("Docker does not answer")
    for _ in range(2):
        fleet.mark(ONE)
        with pytest.raises(DockerUnavailable):
            await fleet.refresh()
        assert ids(fleet) == ["web1"]
        assert not wake.is_set(), "or it would be tried again and again without a pause"
    engine.broken.clear()
    await fleet.refresh()
    assert ids(fleet) == ["web1"]


async def test_a_signal_to_end_means_draining_and_others_do_not() -> None:
    engine = Engine(running(1), running(2, StopSignal="SIGQUIT"))
    fleet = fleet_of(engine, asyncio.Event())

    async def statuses() -> list[Status]:
        await fleet.refresh()
        return [each.status for each in sorted(fleet.records, key=lambda each: each.id)]

    fleet.told(ONE, "1")  # SIGHUP
    fleet.told(TWO, "15")
    assert await statuses() == [Status.UP, Status.DRAINING]
    fleet.changed(TWO)  # it has started again
    fleet.told(ONE, "3")
    assert await statuses() == [Status.UP, Status.UP]
    fleet.told(ONE, "SIGKILL")
    fleet.told(TWO, "QUIT")  # what stops this one
    assert await statuses() == [Status.DRAINING, Status.DRAINING]


async def test_only_those_with_the_label() -> None:
    engine = Engine(running(1, Labels={"team": "a"}), running(2, Labels={"team": "b"}), running(3))
    for label, expected in (
        ("team", ["web1", "web2"]),
        ("team=b", ["web2"]),
        ("", ["web1", "web2", "web3"]),
    ):
        fleet = fleet_of(engine, asyncio.Event(), only_label=label)
        await fleet.refresh()
        assert ids(fleet) == expected


async def test_one_that_is_beyond_us_is_left_as_it_is(caplog: pytest.LogCaptureFixture) -> None:
    strange = running(1)
    del strange["State"]
    fleet = fleet_of(Engine(strange, running(2)), asyncio.Event())
    for _ in range(2):
        await fleet.refresh()
        fleet.mark_all()
    assert ids(fleet) == ["web2"]
    assert fleet.kept == {ONE[:12]}
    assert fleet.complete
    assert caplog.text.count("is left as it is") == 1


async def test_one_that_docker_fails_at_holds_up_no_other(caplog: pytest.LogCaptureFixture) -> None:
    engine = Engine(running(1), running(2))
    engine.broken[ONE] = DockerError("RWLayer is unexpectedly nil (500)")
    fleet = fleet_of(engine, asyncio.Event())
    for _ in range(2):
        await fleet.refresh()
        fleet.mark_all()
    assert ids(fleet) == ["web2"]
    assert fleet.kept == {ONE[:12]}
    assert fleet.complete
    assert caplog.text.count("is left as it is: RWLayer is unexpectedly nil") == 1
    engine.broken.clear()
    await fleet.refresh()
    assert ids(fleet) == ["web1", "web2"]
    assert fleet.kept == frozenset()
