"""A running service for each test, found through a registry in memory."""

from collections.abc import AsyncIterator

import pytest
from meshkit import Mesh, Runtime

{{ import_line(package ~ ".service", [class_name]) }}

REGISTRY = "memory://tests"


@pytest.fixture(scope="session")
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture
async def mesh() -> AsyncIterator[Mesh]:
    service = {{ class_name }}()
    async with Runtime(service, registry=REGISTRY), Mesh(REGISTRY) as mesh:
        yield mesh
