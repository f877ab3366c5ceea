"""``zookeeper://`` against a real server: the contract, and what others read of us."""

from collections.abc import Iterator
from typing import Any

import pytest

from meshkit.model import Instance
from meshkit.registry import Registry, open_registry
from meshkit.testing.registry_contract import Opener, RegistryContract
from tests.registry.zookeeper_tree import fresh, tree
from tests.servers import ZooKeeper

pytestmark = pytest.mark.zookeeper


@pytest.fixture(scope="module")
def other(zookeeper: ZooKeeper) -> Iterator[Any]:
    with tree(zookeeper) as client:
        yield client


class TestZooKeeper(RegistryContract):
    @pytest.fixture
    def opener(self, zookeeper: ZooKeeper, other: Any) -> Opener:
        url = fresh(zookeeper)
        self.path = "/" + url.rpartition("/")[2]
        self.other = other
        return lambda: open_registry(url)

    async def forget(self, registrar: Registry, instance: Instance) -> None:
        self.other.delete(f"{self.path}/services/{instance.service}/{instance.id}")
