"""Fixtures shared by all tests."""

import asyncio
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from anyio._backends import _asyncio
from anyio._backends._asyncio import TestRunner

from tests.servers.fixtures import (
    consul,
    consul_agent,
    consul_client,
    consul_cluster,
    consul_datacenters,
    consul_program,
    docker,
    docker_program,
    etcd,
    etcd_members,
    etcd_program,
    make_consul,
    make_etcd,
    make_zookeeper,
    zookeeper,
    zookeeper_program,
    zookeeper_servers,
)
from tests.support.processes import Processes, processes

__all__ = [
    "consul",
    "consul_agent",
    "consul_client",
    "consul_cluster",
    "consul_datacenters",
    "consul_program",
    "docker",
    "docker_program",
    "etcd",
    "etcd_members",
    "etcd_program",
    "make_consul",
    "make_etcd",
    "make_zookeeper",
    "zookeeper",
    "zookeeper_program",
    "zookeeper_servers",
]

APPS = Path(__file__).parent / "support" / "apps"


@pytest.hookimpl(tryfirst=True)
class Runner(TestRunner):
    """Lets no test fail by the loop of another one.

    All loops of a process share gRPC's queue of events, and whoever reads it hands each to its
    loop, also to one that has been closed meanwhile.
    """

    def _exception_handler(self, loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        error = context.get("exception")
        if not (isinstance(error, RuntimeError) and str(error) == "Event loop is closed"):
            super()._exception_handler(loop, context)


def pytest_configure() -> None:
    _asyncio.TestRunner = Runner  # type: ignore[misc]


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Where tests run side by side, those of a file share a process, and so its servers."""
    for item in items:
        if item.get_closest_marker("xdist_group") is None:
            item.add_marker(pytest.mark.xdist_group(item.path.stem))


@pytest.fixture(scope="session")
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture(autouse=True)
def _own_state_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No test meets the machine's own services, settings, or another test's."""
    monkeypatch.setenv("MESHKIT_STATE_DIR", str(tmp_path / "state"))
    for name in ("CONSUL_HTTP_ADDR", "CONSUL_HTTP_TOKEN", "PORT", "MESHKIT_REGISTRY"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def services() -> Iterator[Processes]:
    """Starts services of tests/support/apps on the embedded registry of this test."""
    with processes(APPS, "local://") as running:
        yield running


@pytest.fixture(params=["local", pytest.param("consul", marks=pytest.mark.consul)])
def any_services(request: pytest.FixtureRequest) -> Iterator[Processes]:
    """The same on the embedded registry and on a real Consul, one test each."""
    url = "local://" if request.param == "local" else request.getfixturevalue("consul").url
    with processes(APPS, url) as running:
        yield running
