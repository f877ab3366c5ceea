"""The engines under test, each behind the same few verbs."""

from tests.faults.backends.base import Backend
from tests.faults.backends.consul import ConsulBackend
from tests.faults.backends.etcd import EtcdBackend
from tests.faults.backends.local import LocalBackend
from tests.faults.backends.zookeeper import ZooKeeperBackend

BACKENDS: dict[str, type[Backend]] = {
    backend.name: backend
    for backend in (LocalBackend, ConsulBackend, EtcdBackend, ZooKeeperBackend)
}

__all__ = ["BACKENDS", "Backend"]
