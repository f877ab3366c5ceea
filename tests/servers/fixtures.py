"""Fixtures that hand out servers. Where a server can't be had, its tests say how to get it."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TypeVar

import pytest

from tests.servers.consul import Consul
from tests.servers.consul_cluster import (
    ConsulCluster,
    make_consul_cluster,
    make_consul_datacenters,
)
from tests.servers.docker_engine import DockerEngine, require_docker
from tests.servers.etcd import Etcd, etcd_cluster
from tests.servers.process import ServerProcess
from tests.servers.programs import require_program
from tests.servers.zookeeper import ZooKeeper, zookeeper_ensemble

# Each takes the options of its server; returns a started one.
MakeConsul = Callable[..., Consul]
MakeEtcd = Callable[..., Etcd]
MakeZooKeeper = Callable[..., ZooKeeper]

Server = TypeVar("Server", bound=ServerProcess)


@pytest.fixture(scope="session")
def consul_program() -> Path:
    return require_program("consul")


@pytest.fixture(scope="session")
def etcd_program() -> Path:
    return require_program("etcd")


@pytest.fixture(scope="session")
def zookeeper_program() -> Path:
    return require_program("zookeeper")


@pytest.fixture(scope="session")
def docker_program() -> Path:
    return require_docker()


@pytest.fixture
def docker(docker_program: Path) -> Iterator[DockerEngine]:
    """The real engine; what the test makes there ends with it."""
    engine = DockerEngine(docker_program)
    try:
        yield engine
    finally:
        engine.clear()


@contextlib.contextmanager
def making(
    kind: Callable[..., Server], program: Path, folder: Path
) -> Iterator[Callable[..., Server]]:
    """Yield a function that starts servers of this kind, which end with the block."""
    servers: list[Server] = []

    def make(**options: Any) -> Server:
        server = kind(program, folder / str(len(servers)), **options)
        servers.append(server)
        return server.start()

    try:
        yield make
    finally:
        for server in servers:
            server.stop()


@contextlib.contextmanager
def together(servers: list[Server]) -> Iterator[list[Server]]:
    """Start the members of a cluster side by side, and end them with the block."""
    try:
        for server in servers:
            server.launch()
        for server in servers:
            server.wait_ready()
        yield servers
    finally:
        for server in servers:
            server.stop()


@pytest.fixture(scope="session")
def consul_agent(
    consul_program: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Consul]:
    """One agent for all tests that leave it as it is.

    Consul holds the connection of a watch that was killed or cancelled until its wait ends. Those
    of a whole test run, all from one address, would use up its usual limit.
    """
    # What a container asks for, whoever has started it, is not to be refused to the registrator.
    settings = {"enable_script_checks": True}
    folder = tmp_path_factory.mktemp("consul")
    agent = Consul(consul_program, folder, connections=2000, settings=settings)
    try:
        yield agent.start()
    finally:
        agent.stop()


@pytest.fixture
def consul(consul_agent: Consul) -> Consul:
    """The common agent without any service. Tests that restart or pause start their own."""
    consul_agent.clear()
    return consul_agent


@pytest.fixture
def make_consul(consul_program: Path, tmp_path: Path) -> Iterator[MakeConsul]:
    """Start agents of the test's own, by the options of :class:`Consul`; ended with the test."""
    with making(Consul, consul_program, tmp_path / "consul") as make:
        yield make


@pytest.fixture
def consul_cluster(consul_program: Path, tmp_path: Path) -> Iterator[ConsulCluster]:
    """Three servers and a client agent of the test's own, quick to find a new leader."""
    cluster = make_consul_cluster(consul_program, tmp_path / "consul-cluster")
    with together(cluster.members):
        cluster.wait_healthy()
        yield cluster


@pytest.fixture(scope="module")
def consul_client(
    consul_program: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[ConsulCluster]:
    """The same for all tests of a module, that leave it as it is."""
    cluster = make_consul_cluster(consul_program, tmp_path_factory.mktemp("consul-client"))
    with together(cluster.members):
        cluster.wait_healthy()
        yield cluster


@pytest.fixture
def consul_datacenters(consul_program: Path, tmp_path: Path) -> Iterator[list[ConsulCluster]]:
    """Datacenters ``dc1`` and ``dc2`` of one server each, that know each other."""
    found = make_consul_datacenters(consul_program, tmp_path / "datacenters", "dc1", "dc2")
    with together([member for each in found for member in each.members]):
        for each in found:
            each.wait_datacenters(len(found))
        yield found


@pytest.fixture(scope="session")
def etcd(etcd_program: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Etcd]:
    """One etcd for all tests that leave it running; each works under keys of its own."""
    with making(Etcd, etcd_program, tmp_path_factory.mktemp("etcd")) as make:
        yield make()


@pytest.fixture
def make_etcd(etcd_program: Path, tmp_path: Path) -> Iterator[MakeEtcd]:
    """Start etcds of the test's own, by the options of :class:`Etcd`; ended with the test."""
    with making(Etcd, etcd_program, tmp_path / "etcd") as make:
        yield make


@pytest.fixture
def etcd_members(etcd_program: Path, tmp_path: Path) -> Iterator[list[Etcd]]:
    """A cluster of three of the test's own."""
    with together(etcd_cluster(etcd_program, tmp_path / "etcd-cluster")) as members:
        yield members


@pytest.fixture(scope="session")
def zookeeper(
    zookeeper_program: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[ZooKeeper]:
    """One ZooKeeper for all tests that leave it running; each works under a path of its own."""
    with making(ZooKeeper, zookeeper_program, tmp_path_factory.mktemp("zookeeper")) as make:
        yield make()


@pytest.fixture
def make_zookeeper(zookeeper_program: Path, tmp_path: Path) -> Iterator[MakeZooKeeper]:
    """Start servers of the test's own, by the options of :class:`ZooKeeper`."""
    with making(ZooKeeper, zookeeper_program, tmp_path / "zookeeper") as make:
        yield make


@pytest.fixture
def zookeeper_servers(zookeeper_program: Path, tmp_path: Path) -> Iterator[list[ZooKeeper]]:
    """An ensemble of three of the test's own."""
    with together(zookeeper_ensemble(zookeeper_program, tmp_path / "ensemble")) as servers:
        yield servers
