from collections.abc import AsyncIterator

import pytest
from meshkit import Mesh, Runtime

from users.service import Users
from users.settings import Settings

REGISTRY = "memory://users-tests"


@pytest.fixture(scope="session")
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture
async def mesh() -> AsyncIterator[Mesh]:
    """Call a running service with five users, as other services call it."""
    service = Users(Settings(seed=5))
    async with Runtime(service, registry=REGISTRY), Mesh(REGISTRY) as mesh:
        yield mesh
