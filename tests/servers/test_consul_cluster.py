"""The Consul cluster that other tests stand on does what its words say."""

import time

import pytest

from tests.servers import ConsulCluster
from tests.servers.consul_cluster import HEALTH_LIMIT

pytestmark = [pytest.mark.consul, pytest.mark.slow]


def test_a_killed_leader_is_succeeded_and_comes_back_as_a_voter(
    consul_cluster: ConsulCluster,
) -> None:
    first = consul_cluster.leader()
    assert first in consul_cluster.servers
    first.kill()
    deadline = time.monotonic() + HEALTH_LIMIT
    while consul_cluster.leader_or_none() in (None, first):
        assert time.monotonic() < deadline
        time.sleep(0.1)
    first.start()
    consul_cluster.wait_healthy()
    assert consul_cluster.leader() is not first


def test_the_client_agent_keeps_its_services_unless_it_is_emptied(
    consul_cluster: ConsulCluster,
) -> None:
    client = consul_cluster.client
    client.put("/v1/agent/service/register", {"Name": "web"})
    client.restart()
    assert "web" in client.get("/v1/agent/services")
    client.kill()
    client.empty()
    client.start()
    assert "web" not in client.get("/v1/agent/services")


def test_datacenters_read_from_each_other(consul_datacenters: list[ConsulCluster]) -> None:
    for cluster in consul_datacenters:
        server = cluster.servers[0]
        assert sorted(server.get("/v1/catalog/datacenters")) == ["dc1", "dc2"]
        for name in ("dc1", "dc2"):
            (node,) = server.get(f"/v1/catalog/nodes?dc={name}")
            assert node["Datacenter"] == name
