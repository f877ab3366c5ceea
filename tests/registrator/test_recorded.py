"""What real containers come to: the answers of a Docker engine, and the records of each."""

from typing import Any

import pytest

from meshkit.model import Status
from meshkit.registrator.options import Host
from meshkit.registrator.record import Check
from tests.registrator.inspected import read, recorded

MALFORMED = """\
SERVICE_8081_NAME: it has no port 8081; its ports: 80, 81
SERVICE_80_CHECK_HTTP_METHOD: 'G ET' is not an HTTP method; using GET
SERVICE_80_CHECK_INITIAL_STATUS: 'great' is none of passing, warning, \
critical; left out
SERVICE_80_CHECK_INTERVAL: 'often' is not a duration such as 10s, 500ms or \
1m30s; using 10s
SERVICE_81_CHECK_PING: unknown check; known are CHECK_HTTP, CHECK_HTTPS, \
CHECK_CMD, CHECK_SCRIPT, CHECK_TTL, CHECK_TCP, CHECK_GRPC
SERVICE_81_CHECK_TTL: '10' is not a duration such as 10s, 500ms or 1m30s; \
no check is made
SERVICE_LONG: longer than 512 bytes; left out
SERVICE_a.b: use letters, digits, '-' and '_'; left out
""".splitlines()

CASES: list[tuple[str, dict[str, Any], list[tuple[str, str, str, int]]]] = [
    (
        "labels",
        {},
        [
            ("host-1:labels:8000", "web", "127.0.0.1", 32768),
            ("host-1:labels:8443", "label-name-8443", "192.0.2.1", 18443),
            ("host-1:labels:8443:18444", "label-name-8443", "192.0.2.1", 18444),
        ],
    ),
    (
        "labels",
        {"internal": True},
        [
            ("host-1:labels:8000", "web", "172.17.0.2", 8000),
            ("host-1:labels:8443", "label-name-8443", "172.17.0.2", 8443),
            ("host-1:labels:9999", "label-name-9999", "172.17.0.2", 9999),
        ],
    ),
    ("host", {}, [("host-1:host:7001", "on-host", "192.0.2.1", 7001)]),
    ("host", {"internal": True}, [("host-1:host:7001", "on-host", "192.0.2.1", 7001)]),
    ("plain", {}, [("host-1:plain:8080", "python", "192.0.2.1", 32771)]),
    (
        "nets",  # in two networks, started in "front"; its label names "back"
        {},
        [
            ("host-1:nets:6000", "python-6000", "10.231.2.2", 6000),
            ("host-1:nets:6100", "python-6100", "10.231.2.2", 6100),
        ],
    ),
    (
        "nets",
        {"network_label": "another"},
        [("host-1:nets:6100", "python", "192.0.2.1", 32770)],
    ),
    (
        "nets",
        {"network_label": "another", "internal": True},
        [
            ("host-1:nets:6000", "python-6000", "10.231.1.2", 6000),
            ("host-1:nets:6100", "python-6100", "10.231.1.2", 6100),
        ],
    ),
    (
        "six",
        {},
        [
            ("host-1:six:80", "python-80", "2001:db8::1", 18600),
            ("host-1:six:81", "python-81", "127.0.0.1", 18601),
            ("host-1:six:82", "python-82", "::1", 18602),
        ],
    ),
    ("compose", {}, [("host-1:shop-web-1:8000", "shop", "172.19.0.2", 8000)]),
    ("exited", {}, []),
]


@pytest.mark.parametrize(("name", "options", "expected"), CASES)
def test_addresses_of_real_containers(
    name: str, options: dict[str, Any], expected: list[tuple[str, str, str, int]]
) -> None:
    found = read(recorded(name), **options)
    assert [(each.id, each.name, each.host, each.port) for each in found] == expected


def test_labels_of_every_kind() -> None:
    web, secure, second = read(recorded("labels"))
    assert web.tags == ("a", "b,c", "d")
    assert secure.tags == ("secure",)
    assert web.attributes == secure.attributes == {"region": "us-east"}
    assert web.check == Check(
        kind="http", path="/health", initial_status="passing", deregister_after=600
    )
    assert secure.check == Check(
        kind="https", path="/h", method="HEAD", skip_verify=True, interval=15, timeout=1.5
    )
    assert second.check == secure.check
    assert web.container_name == "labels"
    assert len(web.container_id) == 64
    assert (web.private_port, second.private_port) == (8000, 8443)


@pytest.mark.parametrize(
    ("name", "status"),
    [
        ("plain", Status.UP),
        ("starting", Status.STARTING),
        ("healthy", Status.UP),
        ("unhealthy", Status.DOWN),
        ("paused", Status.DOWN),
    ],
)
def test_the_state_of_a_container_is_the_status_of_its_services(name: str, status: Status) -> None:
    (record,) = read(recorded(name))
    assert record.status is status


@pytest.mark.parametrize("flags", [{"Restarting": True}, {"Dead": True}, {"Running": False}])
def test_a_container_that_does_not_run_offers_nothing(flags: dict[str, bool]) -> None:
    container = recorded("plain")
    container["State"] |= flags
    assert read(container) == ()


def test_one_port_on_ipv4_and_ipv6_is_one_record_of_the_host_s_family() -> None:
    container = recorded("nets")  # Docker gave two numbers: 32770 on IPv4, 32769 on IPv6
    only_six = Host(name="host-1", ipv6="2001:db8::1")
    (four,) = read(container, network_label="another")
    (six,) = read(container, network_label="another", host=only_six)
    (forced,) = read(container, network_label="another", ip="2001:db8::99")
    assert (four.host, four.port) == ("192.0.2.1", 32770)
    assert (six.host, six.port) == ("2001:db8::1", 32769)
    assert (forced.host, forced.port) == ("2001:db8::99", 32769)


def test_a_container_in_the_network_of_another() -> None:
    published, hidden = read(recorded("peer"), peer=recorded("nets"))  # EXPOSE 6100 6200
    assert (published.id, published.name) == ("host-1:peer:6100", "exposed-6100")
    assert (published.host, published.port) == ("192.0.2.1", 32770)
    assert (hidden.host, hidden.port) == ("10.231.1.2", 6200)
    inside = read(recorded("peer"), peer=recorded("nets"), internal=True)
    assert {(each.host, each.port) for each in inside} == {
        ("10.231.1.2", 6100),
        ("10.231.1.2", 6200),
    }


def test_a_port_in_a_shared_network_can_be_named_by_a_label() -> None:
    (record,) = read(recorded("peer-named"), peer=recorded("nets"))  # SERVICE_6300_NAME=side
    assert (record.name, record.host, record.port) == ("side", "10.231.1.2", 6300)


def test_a_container_whose_network_s_owner_is_gone_is_said() -> None:
    warned: list[str] = []
    assert read(recorded("peer-named"), warned=warned) == ()
    assert warned == ["port 6300 is not registered: the container has no address for it"]


def test_a_network_that_it_is_not_in_is_said_not_guessed() -> None:
    warned: list[str] = []
    assert read(recorded("lost"), warned=warned) == ()
    assert warned[0] == (
        "SERVICE_NETWORK: the container has no address in network 'elsewhere'; it is in front"
    )


def test_malformed_labels_cost_a_line_each_and_nothing_else() -> None:
    warned: list[str] = []
    first, second = read(recorded("malformed"), warned=warned)
    assert first.check == Check(kind="http", path="/health", interval=10)
    assert second.check is None
    assert (first.name, first.attributes) == ("odd-80", {})
    assert sorted(warned) == MALFORMED


def test_a_number_that_is_no_port_is_said() -> None:
    container = recorded("peer-named")
    container["Config"]["Labels"] = {"SERVICE_99999_NAME": "side"}
    warned: list[str] = []
    assert read(container, peer=recorded("nets"), warned=warned) == ()
    assert warned == ["SERVICE_99999_NAME: it has no port 99999; its ports: 6100"]
