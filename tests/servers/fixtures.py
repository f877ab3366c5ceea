"""Fixtures that hand out servers. Where a server can't be had, its tests say how to get it."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.servers.consul import HOW_TO_GET, Consul, find_consul

REQUIRE = "TEST_REQUIRE_SERVERS"

# Takes the options of Consul; returns a started one.
MakeConsul = Callable[..., Consul]


@pytest.fixture(scope="session")
def consul_program() -> Path:
    """The consul program; without one the test is skipped, or fails if servers are required."""
    program = find_consul()
    if program is not None:
        return program
    if os.environ.get(REQUIRE) == "1":
        pytest.fail(HOW_TO_GET, pytrace=False)
    pytest.skip(HOW_TO_GET)


@pytest.fixture(scope="session")
def consul_agent(
    consul_program: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Consul]:
    """One agent for all tests that leave it as it is.

    Consul holds the connection of a watch that was killed or cancelled until its wait ends. Those
    of a whole test run, all from one address, would use up its usual limit.
    """
    agent = Consul(consul_program, tmp_path_factory.mktemp("consul"), connections=2000)
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
    agents: list[Consul] = []

    def make(**options: Any) -> Consul:
        agent = Consul(consul_program, tmp_path / f"consul-{len(agents)}", **options)
        agents.append(agent)
        return agent.start()

    yield make
    for agent in agents:
        agent.stop()
