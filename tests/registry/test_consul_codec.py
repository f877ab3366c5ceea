"""Reading what Consul answers: our own instances and those that somebody else registered."""

from typing import Any

import pytest

from meshkit.model import INSTANCE_ID, Endpoint, Instance, Status
from meshkit.registry.consul import codec


def entry(*, node: str = "node-1", checks: tuple[str, ...] = (), **service: Any) -> dict[str, Any]:
    """One entry of /v1/health/service, as Consul answers for the least that one can register."""
    return {
        "Node": {"Node": node, "Address": "10.0.0.9"},
        "Service": {
            "ID": "web",
            "Service": "web",
            "Tags": None,
            "Address": "",
            "Meta": None,
            "Port": 80,
            "Weights": {"Passing": 1, "Warning": 1},
        }
        | service,
        "Checks": [{"CheckID": f"c{n}", "Status": status} for n, status in enumerate(checks)],
    }


def decode(entries: Any) -> tuple[Instance, ...]:
    found, corrupt = codec.decode(entries)
    assert not corrupt
    return found


def test_least_registration() -> None:
    (found,) = decode([entry()])
    assert (found.id, found.service, found.version, found.tags) == ("web", "web", "", ())
    assert found.endpoints == {"http": Endpoint("10.0.0.9", 80)}
    assert (found.weight, found.started_at, found.zone) == (1, 0.0, "")
    assert found.up


def test_own_address_goes_before_the_nodes() -> None:
    (found,) = decode([entry(Address="10.1.1.1")])
    assert found.endpoints == {"http": Endpoint("10.1.1.1", 80)}


def test_without_a_port_there_is_no_endpoint() -> None:
    assert decode([entry(Port=0)])[0].endpoints == {}


def test_consuls_own_addresses_are_no_endpoints() -> None:
    own = ("lan", "lan_ipv4", "lan_ipv6", "wan", "wan_ipv4", "wan_ipv6", "consul-virtual")
    address = {"Address": "10.1.1.1", "Port": 81}
    tagged = dict.fromkeys(own, address) | {"grpc": {"Address": "10.1.1.1", "Port": 90}}
    (found,) = decode([entry(TaggedAddresses=tagged)])
    assert found.endpoints == {
        "http": Endpoint("10.0.0.9", 80),
        "grpc": Endpoint("10.1.1.1", 90),
    }


def test_version_of_the_meta() -> None:
    (found,) = decode([entry(Meta={"version": "2.0", "team": "a"})])
    assert (found.version, found.metadata) == ("2.0", {"team": "a"})


@pytest.mark.parametrize(
    ("checks", "status"),
    [
        ((), Status.UP),
        (("passing",), Status.UP),
        (("passing", "warning"), Status.UP),
        (("passing", "critical", "warning"), Status.DOWN),
    ],
)
def test_status_from_checks(checks: tuple[str, ...], status: Status) -> None:
    assert decode([entry(checks=checks)])[0].status is status


@pytest.mark.parametrize(
    ("declared", "check", "status"),
    [
        ("up", "passing", Status.UP),
        ("up", "critical", Status.DOWN),
        ("starting", "critical", Status.STARTING),
        ("draining", "critical", Status.DRAINING),
        # Between a registration and its heartbeat the check may still be the old one.
        ("draining", "passing", Status.DRAINING),
        ("down", "passing", Status.DOWN),
        ("nonsense", "passing", Status.UP),
    ],
)
def test_status_from_meta_and_check(declared: str, check: str, status: Status) -> None:
    (found,) = decode([entry(Meta={"meshkit-status": declared}, checks=(check,))])
    assert found.status is status
    assert "meshkit-status" not in found.metadata


@pytest.mark.parametrize(
    ("name", "lapsed"), [("meshkit heartbeat", True), ("Service 'web' check", False)]
)
def test_only_a_heartbeat_lapses(name: str, lapsed: bool) -> None:  # noqa: FBT001
    # The only check of a service that somebody else registered has the same id.
    found = entry()
    found["Checks"] = [{"CheckID": "service:web", "Name": name, "Status": "critical"}]
    (instance,) = decode([found])
    assert (instance.status, instance.lapsed) == (Status.DOWN, lapsed)


def test_an_agent_that_is_away_says_nothing_of_its_services() -> None:
    agent = {"CheckID": "serfHealth", "Name": "Serf Health Status", "Status": "critical"}
    beat = {"CheckID": "service:web", "Name": "meshkit heartbeat", "Status": "critical"}
    own = {"CheckID": "service:web:http", "Name": "http", "Status": "critical"}
    for checks, lapsed in (([agent], True), ([agent, beat], True), ([agent, own], False)):
        (instance,) = decode([{**entry(), "Checks": checks}])
        assert (instance.status, instance.lapsed) == (Status.DOWN, lapsed)


def test_ids_of_any_text_become_labels() -> None:
    ids = ["10.0.0.1:8000/web", "web_1", "Web 1", "web-1", "x" * 100, "日本", "web-1-"]
    found = decode([entry(ID=each) for each in ids])
    assert len({each.id for each in found}) == len(ids)
    assert all(INSTANCE_ID.fullmatch(each.id) for each in found)
    assert "web-1" in {each.id for each in found}
    assert any(each.id.startswith("10-0-0-1-8000-web-") for each in found)


def test_one_id_on_two_nodes_are_two_instances() -> None:
    one, two = entry(node="a", Port=1), entry(node="b", Port=2)
    found = decode([one, two])
    assert [each.endpoints["http"].port for each in found] == [1, 2]
    assert found[0].id == "web"
    assert found == decode([two, one])


@pytest.mark.parametrize("content", [None, {"a": 1}, [1], [{}], [{"Node": {}, "Service": {}}]])
def test_other_answers_are_refused(content: Any) -> None:
    with pytest.raises((AttributeError, KeyError, TypeError, ValueError)):
        decode(content)


@pytest.mark.parametrize(
    ("corruption", "reason"),
    [
        ({"Port": 70000}, "'10.0.0.9' and 70000 are no address and port"),
        ({"Port": -1}, "-1 are no"),
        ({"Port": "80"}, "not supported between"),
        ({"Meta": ["x"]}, "sequence element"),
        ({"TaggedAddresses": {"grpc": {"Address": "", "Port": 9000}}}, "'' and 9000 are no"),
        ({"TaggedAddresses": {"grpc": {}}}, "Port"),
        ({"Service": None, "Meta": 7}, "not iterable"),
    ],
)
def test_a_corrupt_entry_is_named_and_the_others_stand(
    corruption: dict[str, Any], reason: str
) -> None:
    found, corrupt = codec.decode([entry(ID="bad/one", **corruption), entry()])
    assert [each.id for each in found] == ["web"]
    assert list(corrupt) == ["bad/one"]
    assert reason in corrupt["bad/one"]


@pytest.mark.parametrize("text", ["nan", "inf", "soon", ""])
def test_a_start_that_is_no_time(text: str) -> None:
    """Not a number would never equal itself: each look would be a change."""
    assert decode([entry(Meta={"meshkit-started-at": text})])[0].started_at == 0.0
