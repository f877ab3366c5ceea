"""Real servers for tests: started on free ports of loopback, ended by their process id."""

from tests.servers.consul import Consul
from tests.servers.consul_cluster import ConsulCluster, ConsulMember
from tests.servers.etcd import Etcd, etcd_cluster
from tests.servers.zookeeper import ZooKeeper, zookeeper_ensemble

__all__ = [
    "Consul",
    "ConsulCluster",
    "ConsulMember",
    "Etcd",
    "ZooKeeper",
    "etcd_cluster",
    "zookeeper_ensemble",
]
