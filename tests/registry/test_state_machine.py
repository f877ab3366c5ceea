"""Any order of registering, renewing, losing, leaving, watching and closing, against a model.

hypothesis chooses the order and, when one fails, finds the shortest that does.
"""

from __future__ import annotations

import base64
import shutil
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings
from hypothesis.stateful import run_state_machine_as_test

from tests.faults.backends.etcd import Gateway
from tests.registry.registry_machine import Engine, RegistryMachine
from tests.registry.zookeeper_tree import fresh, path_of, tree


def run(engine: Engine, *, examples: int) -> None:
    """Try so many orders of at most 30 steps."""
    run_state_machine_as_test(
        lambda: RegistryMachine(engine),  # type: ignore[arg-type]
        settings=settings(
            max_examples=examples,
            stateful_step_count=30,
            deadline=None,
            suppress_health_check=list(HealthCheck),
        ),
    )


def test_local(tmp_path: Path) -> None:
    def forget(service: str, instance_id: str) -> None:
        for suffix in (".json", ".lock"):
            (tmp_path / "default" / service / (instance_id + suffix)).unlink()

    run(Engine(url=f"local://?dir={tmp_path}", forget=forget, ends=True), examples=100)
    shutil.rmtree(tmp_path / "default")


@pytest.mark.consul
def test_consul(request: pytest.FixtureRequest) -> None:
    agent = request.getfixturevalue("consul")

    def forget(service: str, instance_id: str) -> None:
        agent.put(f"/v1/agent/service/deregister/{instance_id}")

    # Consul 1.8 does not wake a blocking query for a service whose instance became another's.
    run(Engine(url=agent.url, forget=forget, ends=False, moves=False), examples=25)


@pytest.mark.etcd
def test_etcd(request: pytest.FixtureRequest) -> None:
    server = request.getfixturevalue("etcd")

    def forget(service: str, instance_id: str) -> None:
        key = base64.b64encode(f"/meshkit/services/{service}/{instance_id}".encode()).decode()
        answer = Gateway(server).ask("kv/deleterange", {"key": key})
        assert answer["deleted"] == "1"

    run(Engine(url=server.url, forget=forget, ends=False), examples=25)


@pytest.mark.zookeeper
def test_zookeeper(request: pytest.FixtureRequest) -> None:
    server = request.getfixturevalue("zookeeper")
    url = fresh(server)
    with tree(server) as client:

        def forget(service: str, instance_id: str) -> None:
            client.delete(f"{path_of(url)}/services/{service}/{instance_id}")

        run(Engine(url=url, forget=forget, ends=True), examples=25)
