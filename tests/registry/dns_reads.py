"""Reading ``users`` by ``dns://`` from a server of the test's own."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable

import pytest

from meshkit.errors import RegistryUnavailable
from meshkit.model import Instance
from meshkit.registry import Registry, open_registry
from meshkit.testing.registry_fixtures import open_files
from tests.registry.dns_server import DnsServer

# Takes zone-file lines; returns a server that serves them until the test ends.
Serve = Callable[..., Awaitable[DnsServer]]

FORTY = [
    *(f"users.test. 5 IN SRV 1 1 {8000 + n} host-{n}.test." for n in range(40)),
    *(f"host-{n}.test. 5 IN A 10.0.0.{n}" for n in range(40)),
]


@contextlib.asynccontextmanager
async def opened(server: DnsServer, rest: str = "test") -> AsyncIterator[Registry]:
    async with open_registry(f"dns://{server.address}/{rest}") as registry:
        yield registry


async def listed(server: DnsServer, rest: str = "test") -> tuple[Instance, ...]:
    async with opened(server, rest) as registry:
        return (await registry.instances("users")).instances


async def failure(server: DnsServer) -> str:
    """Return the one line that a read fails with; it is never an empty list."""
    with pytest.raises(RegistryUnavailable) as caught:
        await listed(server)
    assert "\n" not in str(caught.value)
    assert caught.value.__cause__ is None
    return str(caught.value).replace(server.address, "SERVER")


async def nothing_left(files: int, tasks: int) -> None:
    async with asyncio.timeout(10):
        while open_files() > files or len(asyncio.all_tasks()) > tasks:
            await asyncio.sleep(0.01)
