"""Each flag and each variable of Registrator, and ours: what it comes to."""

from typing import Any

import pytest

from meshkit.errors import ConfigError
from meshkit.registrator.options import Host, Options
from meshkit.registrator.record import Check
from tests.registrator.inspected import made, read

ONE = {"80/tcp": 8080}
TWO = {"80/tcp": 8080, "443/tcp": 8443}
DNS = {"53/tcp": 5353, "53/udp": 5353}


@pytest.mark.parametrize(
    ("options", "labels", "expected"),
    [
        ({}, {}, ("host-1:web:80", "web", "192.0.2.1", 8080)),
        ({"ip": "10.9.9.9"}, {}, ("host-1:web:80", "web", "10.9.9.9", 8080)),
        ({"internal": True}, {}, ("host-1:web:80", "web", "172.17.0.5", 80)),
        ({"internal": True, "ip": "10.9.9.9"}, {}, ("host-1:web:80", "web", "172.17.0.5", 80)),
        ({"explicit": True}, {}, None),
        ({"explicit": True}, {"SERVICE_NAME": "a"}, ("host-1:web:80", "a", "192.0.2.1", 8080)),
        ({"explicit": True}, {"SERVICE_80_NAME": "a"}, ("host-1:web:80", "a", "192.0.2.1", 8080)),
        ({"use_ip_from_label": "at"}, {}, ("host-1:web:80", "web", "192.0.2.1", 8080)),
        (
            {"use_ip_from_label": "at"},
            {"at": "10.1.1.1/24"},
            ("host-1:web:80", "web", "10.1.1.1", 8080),
        ),
        ({"use_ip_from_label": "at"}, {"at": "fd00::7"}, ("host-1:web:80", "web", "fd00::7", 8080)),
        (
            {"use_ip_from_label": "at", "internal": True},
            {"at": "10.1.1.1"},
            ("host-1:web:80", "web", "10.1.1.1", 80),
        ),
        ({"hostname": "other"}, {}, ("other:web:80", "web", "192.0.2.1", 8080)),
        ({}, {"SERVICE_NAME": "User_API"}, ("host-1:web:80", "User_API", "192.0.2.1", 8080)),
        ({}, {"SERVICE_ID": "mine"}, ("mine", "web", "192.0.2.1", 8080)),
        ({}, {"SERVICE_80_ID": "mine"}, ("mine", "web", "192.0.2.1", 8080)),
        ({}, {"SERVICE_IGNORE": "false"}, None),  # any text but the empty
        ({}, {"SERVICE_IGNORE": ""}, ("host-1:web:80", "web", "192.0.2.1", 8080)),
        ({}, {"SERVICE_80_IGNORE": "1"}, None),
        ({}, {"service_name": "a"}, ("host-1:web:80", "web", "192.0.2.1", 8080)),
        ({}, {"SERVICE_name": "a"}, ("host-1:web:80", "a", "192.0.2.1", 8080)),
        ({}, {"SERVICE_NETWORK": "bridge"}, ("host-1:web:80", "web", "172.17.0.5", 80)),
        ({}, {"SERVICE_80_NETWORK": "bridge"}, ("host-1:web:80", "web", "172.17.0.5", 80)),
        (
            {"network_label": "traefik.docker.network"},
            {"traefik.docker.network": "bridge"},
            ("host-1:web:80", "web", "172.17.0.5", 80),
        ),
    ],
)
def test_flags_and_labels(
    options: dict[str, Any], labels: dict[str, str], expected: tuple[str, str, str, int] | None
) -> None:
    container = made(ONE, labels)
    container["NetworkSettings"]["Networks"]["bridge"]["IPAddress"] = "172.17.0.5"
    found = [(each.id, each.name, each.host, each.port) for each in read(container, **options)]
    assert found == ([expected] if expected else [])


@pytest.mark.parametrize(
    ("image", "name"),
    [
        ("redis", "redis"),
        ("redis:7", "redis"),
        ("gliderlabs/foobar:v1", "foobar"),
        ("localhost:5000/team/api", "api"),
        ("localhost:5000/team/api:2@sha256:" + "0" * 64, "api"),
        ("api@sha256:" + "0" * 64, "api"),
        ("sha256:" + "0" * 64, "web"),  # an image's id has no name: the container has
        ("0123456789ab", "web"),
    ],
)
def test_names_from_images(image: str, name: str) -> None:
    (record,) = read(made(ONE, image=image))
    assert record.name == name


@pytest.mark.parametrize(
    ("labels", "names"),
    [
        ({}, ["web-443", "web-80"]),
        ({"SERVICE_NAME": "a"}, ["a-443", "a-80"]),
        ({"SERVICE_80_NAME": "a"}, ["a", "web-443"]),
        ({"SERVICE_80_NAME": "a", "SERVICE_NAME": "b"}, ["a", "b-443"]),
        ({"SERVICE_443_IGNORE": "x"}, ["web-80"]),
    ],
)
def test_names_of_several_ports(labels: dict[str, str], names: list[str]) -> None:
    assert sorted(each.name for each in read(made(TWO, labels))) == names


def test_only_published_ports_count_as_several() -> None:
    (record,) = read(made({"80/tcp": 8080, "443/tcp": None}))
    assert record.name == "web"


def test_labels_win_over_variables_and_ports_over_containers() -> None:
    env = {"SERVICE_NAME": "env", "SERVICE_80_REGION": "env-80", "SERVICE_ZONE": "env"}
    labels = {"SERVICE_NAME": "label", "SERVICE_REGION": "label", "SERVICE_ZONE": "label"}
    (record,) = read(made(ONE, labels, env=env))
    assert record.name == "label"
    assert record.attributes == {"region": "env-80", "zone": "label"}


def test_tcp_and_udp_of_one_port_can_be_told_apart() -> None:
    labels = {
        "SERVICE_53_NAME": "dns",
        "SERVICE_53_UDP_NAME": "dns-fast",
        "SERVICE_53_UDP_TAGS": "cache",
        "SERVICE_53_TCP_ZONE": "a",
        "SERVICE_53_CHECK_TCP": "true",
    }
    tcp, udp = read(made(DNS, labels))
    assert (tcp.id, tcp.name, tcp.tags) == ("host-1:web:53", "dns", ())
    assert (udp.id, udp.name, udp.tags) == ("host-1:web:53:udp", "dns-fast", ("cache", "udp"))
    assert (tcp.protocol, udp.protocol) == ("tcp", "udp")
    assert (tcp.attributes, udp.attributes) == ({"zone": "a"}, {})
    assert tcp.check == Check(kind="tcp")
    assert udp.check is None


@pytest.mark.parametrize(
    ("tags", "forced", "expected"),
    [
        ("", "", ()),
        ("a,b,c", "", ("a", "b", "c")),
        ("a", "x,y", ("a", "x", "y")),
        ("a,,b,", "a", ("a", "b")),
        (r"a\,b,c", "", ("a,b", "c")),
        (r"/(;\,:-_)/", "", ("/(;,:-_)/",)),
        (" a , b ", "", ("a", "b")),
        ("a", "{{.Config.Hostname}},{{.Name}}", ("a", "80ce76b804c6", "/web")),
    ],
)
def test_tags_in_the_order_they_are_written(
    tags: str, forced: str, expected: tuple[str, ...]
) -> None:
    (record,) = read(made(ONE, {"SERVICE_TAGS": tags}), tags=forced)
    assert record.tags == expected


def test_a_template_that_does_not_fit_a_container_costs_its_tags_alone() -> None:
    warned: list[str] = []
    (record,) = read(
        made(ONE, {"SERVICE_TAGS": "a"}), tags="{{.Config.Missing.Deeper}}", warned=warned
    )
    assert record.tags == ("a",)
    assert warned == ["-tags: there is no field .Deeper in ''; it goes without these tags"]


@pytest.mark.parametrize(
    ("labels", "check"),
    [
        ({"HTTP": "/h"}, Check(kind="http", path="/h")),
        ({"HTTP": "h"}, Check(kind="http", path="/h")),
        ({"HTTP": "/h", "HTTP_METHOD": "head"}, Check(kind="http", path="/h", method="HEAD")),
        ({"HTTP": "/h", "HTTPS_METHOD": "HEAD"}, Check(kind="http", path="/h")),
        ({"HTTPS": "/h", "HTTPS_METHOD": "PUT"}, Check(kind="https", path="/h", method="PUT")),
        (
            {"HTTPS": "/h", "TLS_SKIP_VERIFY": "true"},
            Check(kind="https", path="/h", skip_verify=True),
        ),
        ({"TCP": "true"}, Check(kind="tcp")),
        ({"TCP": "false"}, None),
        ({"GRPC": "true"}, Check(kind="grpc")),
        ({"GRPC": "true", "GRPC_USE_TLS": "true"}, Check(kind="grpc", use_tls=True)),
        ({"GRPC": "true", "GRPC_USE_TLS": "false"}, Check(kind="grpc")),
        ({"GRPC": "true", "TLS_SKIP_VERIFY": "true"}, Check(kind="grpc")),
        (
            {"GRPC": "true", "GRPC_USE_TLS": "true", "TLS_SKIP_VERIFY": "1"},
            Check(kind="grpc", use_tls=True, skip_verify=True),
        ),
        ({"CMD": "/check me"}, Check(kind="cmd", command="/check me")),
        (
            {"SCRIPT": "nc $SERVICE_IP $SERVICE_PORT"},
            Check(kind="script", command="nc 192.0.2.1 8080"),
        ),
        ({"TTL": "30s"}, Check(kind="ttl", ttl=30)),
        ({"TTL": "1m30s", "INTERVAL": "5s"}, Check(kind="ttl", ttl=90, interval=5)),
        ({"TCP": "1", "INTERVAL": "15s"}, Check(kind="tcp", interval=15)),
        ({"TCP": "1", "TIMEOUT": "500ms"}, Check(kind="tcp", timeout=0.5)),
        ({"TCP": "1", "INITIAL_STATUS": "passing"}, Check(kind="tcp", initial_status="passing")),
        ({"TCP": "1", "DEREGISTER_AFTER": "10m"}, Check(kind="tcp", deregister_after=600)),
        ({"INTERVAL": "15s"}, None),
        # Several kinds: the first in the order that Registrator looks for them.
        ({"GRPC": "1", "TCP": "1", "TTL": "9s"}, Check(kind="ttl", ttl=9)),
        ({"TTL": "9s", "SCRIPT": "x", "CMD": "y"}, Check(kind="cmd", command="y")),
        ({"CMD": "y", "HTTPS": "/s", "HTTP": "/h"}, Check(kind="http", path="/h")),
    ],
)
def test_checks(labels: dict[str, str], check: Check | None) -> None:
    container = made(ONE, {f"SERVICE_CHECK_{key}": value for key, value in labels.items()})
    (record,) = read(container)
    assert record.check == check
    assert record.attributes == {}


def test_the_check_of_a_port_wins_over_that_of_the_container() -> None:
    labels = {"SERVICE_CHECK_HTTP": "/h", "SERVICE_443_CHECK_HTTPS": "/s"}
    secure, plain = read(made(TWO, labels))
    assert plain.check == Check(kind="http", path="/h")
    assert secure.check == Check(kind="https", path="/s")


def test_one_id_for_several_ports_is_told_apart() -> None:
    warned: list[str] = []
    found = read(made(TWO | DNS, {"SERVICE_ID": "mine"}), warned=warned)
    assert [each.id for each in found] == ["mine-443", "mine-53", "mine-53-udp", "mine-80"]
    assert warned == ["the id 'mine' is of 4 addresses; told apart by the port"]


def test_the_zeros_of_registrator_s_defaults_are_understood() -> None:
    assert Options(ttl=0, ttl_refresh=0, resync=0) == Options()


def test_ttl_is_passed_on() -> None:
    (record,) = read(made(ONE), ttl=30, ttl_refresh=10)
    assert record.ttl == 30


def test_a_host_without_address_is_said() -> None:
    warned: list[str] = []
    assert read(made(ONE), host=Host(name="host-1"), warned=warned) == ()
    assert warned == ["port 8080 is not registered: give the host's address with -ip"]


def test_more_attributes_than_consul_takes() -> None:
    warned: list[str] = []
    labels = {f"SERVICE_A{number}": "x" for number in range(60)}
    (record,) = read(made(ONE, labels), warned=warned)
    assert len(record.attributes) == 48
    assert len(warned) == 12
    assert "more than 48 attributes" in warned[0]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"deregister": "never"}, '-deregister \'never\': use "always" or "on-success"'),
        ({"ttl": 30}, "-ttl and -ttl-refresh go together: give both, or neither"),
        ({"ttl_refresh": 30}, "-ttl and -ttl-refresh go together: give both, or neither"),
        ({"ttl": 10, "ttl_refresh": 10}, "-ttl 10 must be greater than -ttl-refresh"),
        ({"resync": -1}, "-resync -1: use a number greater than 0"),
        ({"retry_interval": -5}, "-retry-interval -5: use a number greater than 0"),
        ({"retry_attempts": -2}, "-retry-attempts -2: use -1 (for ever) or more"),
        ({"ip": "10.0.0.256"}, "-ip '10.0.0.256' is not an IP address"),
        ({"tags": "{{nope}}"}, "-tags: {{nope}}: unknown function 'nope'; known are and, eq, "),
    ],
)
def test_options_that_cannot_be(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError) as raised:
        Options(**options)
    assert str(raised.value).startswith(message)
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize("text", ["a//b", "/a", "a/", "..", "a/../b", ".", "a\nb", "a\x00", "\x7f"])
def test_what_no_registry_can_keep_is_no_name_and_no_id(text: str) -> None:
    warned: list[str] = []
    (record,) = read(made(ONE, {"SERVICE_NAME": text, "SERVICE_80_ID": text}), warned=warned)
    assert (record.name, record.id) == ("web", "host-1:web:80")
    assert sorted(warned) == [
        f"SERVICE_80_ID: {text!r} can't be used in a path; left out",
        f"SERVICE_NAME: {text!r} can't be used in a path; left out",
    ]
    (record,) = read(made(ONE, {"SERVICE_NAME": "team/web 1", "SERVICE_ID": "a/b?c#d%"}))
    assert (record.name, record.id) == ("team/web 1", "a/b?c#d%")


def test_nobody_is_looked_at_all_the_time() -> None:
    warned: list[str] = []
    labels = {"SERVICE_CHECK_TCP": "true", "SERVICE_CHECK_INTERVAL": "1ns"}
    (record,) = read(made(ONE, labels), warned=warned)
    assert record.check == Check(kind="tcp", interval=1.0)
    assert warned == ["SERVICE_CHECK_INTERVAL: too short; using 1s"]
