"""A list that was kept on disk, and a registry that works: the registry is asked first."""

import pytest

from meshkit import Mesh, NoInstances
from tests.servers import Consul
from tests.support.processes import Processes

pytestmark = pytest.mark.consul


async def test_the_first_call_knows_who_came_since_the_last_run(
    services: Processes, consul: Consul
) -> None:
    """As in a script that runs every minute, and was there before the service."""
    async with Mesh(consul.url) as mesh:
        with pytest.raises(NoInstances):
            await mesh.http("echo").get("/who")
    services.registry = consul.url
    service = services.start("echo:Echo").ready()
    async with Mesh(consul.url) as mesh:
        assert (await mesh.http("echo").get("/who")).json()["pid"] == service.pid
