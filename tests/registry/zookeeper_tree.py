"""ZooKeeper's tree by another client, and paths of each test's own."""

import contextlib
import secrets
from collections.abc import Iterator
from typing import Any

from kazoo.client import KazooClient

from tests.servers import ZooKeeper


def fresh(server: ZooKeeper) -> str:
    """Return the URL of a path that nobody else uses."""
    return f"{server.url}/{secrets.token_hex(4)}"


def path_of(url: str) -> str:
    """Return the URL's path."""
    return "/" + url.partition("://")[2].partition("/")[2]


@contextlib.contextmanager
def tree(server: ZooKeeper, **options: Any) -> Iterator[Any]:
    """Yield a client of kazoo's own, connected."""
    client = KazooClient(hosts=server.address, **options)
    client.start(20)
    try:
        yield client
    finally:
        client.stop()
        client.close()
