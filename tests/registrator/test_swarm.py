"""Swarm services: what a real manager (20.10) said of two services, and their tasks' records.

``web``: two replicas, 80/tcp and 53/udp through the routing mesh, 81/tcp in mode "host", and a
network of its own; labels on the service (SERVICE_NAME=swarmshop, SERVICE_81_NAME=swarmhost) and on
its containers. ``plain``: nothing published, SERVICE_NETWORK=net on its container.
"""

import copy
import json
from typing import Any

from meshkit.registrator.record import Record
from meshkit.registrator.swarm import ingress_ports, service_id_of
from tests.registrator.inspected import RECORDED, read

FOUND: dict[str, Any] = json.loads((RECORDED / "swarm.json").read_text())
SERVICES = {each["ID"]: each for each in FOUND["services"]}


def tasks(service: str) -> list[dict[str, Any]]:
    found = (each for each in FOUND["containers"] if each["Name"].startswith(f"/{service}."))
    return sorted(copy.deepcopy(list(found)), key=lambda each: each["Name"])


def records(container: dict[str, Any], **options: Any) -> tuple[Record, ...]:
    return read(container, service=SERVICES[service_id_of(container)], **options)


def test_each_task_is_at_the_ports_of_its_service() -> None:
    one, other = (records(each) for each in tasks("web"))
    assert [(each.name, each.host, each.port) for each in one] == [
        ("swarmshop-53", "192.0.2.1", 18801),
        ("swarmshop-80", "192.0.2.1", 18800),
        ("swarmhost", "192.0.2.1", 32838),
    ]
    assert [(each.name, each.port) for each in other] == [
        ("swarmshop-53", 18801),
        ("swarmshop-80", 18800),
        ("swarmhost", 32837),
    ]
    assert not {each.id for each in one} & {each.id for each in other}
    assert one[0].id.endswith(":53:udp")
    assert one[0].tags == ("x", "y", "udp")
    assert one[1].tags == ("x", "y")
    assert one[1].attributes == {"region": "eu"}
    assert one[1].private_port == 80


def test_inside_it_is_the_network_s_address_never_the_mesh_s() -> None:
    (container, _) = tasks("web")
    assert {(each.host, each.port) for each in records(container, internal=True)} == {
        ("10.231.21.3", 53),
        ("10.231.21.3", 80),
        ("10.231.21.3", 81),
    }


def test_labels_of_the_container_win_over_those_of_its_service() -> None:
    (container, _) = tasks("web")
    container["Config"]["Labels"]["SERVICE_NAME"] = "own"
    assert {each.name for each in records(container)} == {"own-53", "own-80", "swarmhost"}


def test_a_worker_that_is_told_nothing_of_services_registers_the_host_s_ports() -> None:
    (container, _) = tasks("web")
    (record,) = read(container)
    assert (record.name, record.port) == ("python", 32838)


def test_a_port_that_nobody_published_can_be_named() -> None:
    (container,) = tasks("plain")
    assert records(container) == ()
    container["Config"]["Labels"]["SERVICE_6379_NAME"] = "store"
    (record,) = records(container)
    assert (record.name, record.host, record.port) == ("store", "10.231.21.7", 6379)
    del container["Config"]["Labels"]["SERVICE_NETWORK"]
    assert records(container) == ()


def test_what_is_no_service_has_no_ports() -> None:
    assert ingress_ports(None) == {}
    assert ingress_ports({"ID": "x", "Endpoint": {"Spec": {}}}) == {}
    assert service_id_of({"Config": {"Labels": None}}) == ""
