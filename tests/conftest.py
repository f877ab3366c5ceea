"""Fixtures shared by all tests."""

import pytest

from tests.servers.fixtures import consul, consul_agent, consul_program, make_consul

__all__ = ["consul", "consul_agent", "consul_program", "make_consul"]


@pytest.fixture(scope="session")
def anyio_backend() -> str:
    return "asyncio"
