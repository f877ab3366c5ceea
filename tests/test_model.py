"""The values: what they accept, and that they survive the way through JSON."""

import dataclasses
import json
import time
from typing import Any

import pytest
from hypothesis import given, settings, strategies as st

from meshkit import Endpoint, Instance, ServiceInfo, Snapshot, Status
from meshkit.model import INSTANCE_ID, check_metadata, check_service_name

INSTANCE = Instance(
    id="users-host-8000-abc123",
    service="users",
    version="1.2.3",
    tags=("v1", "blue"),
    metadata={"team": "a"},
    endpoints={"http": Endpoint("10.0.0.1", 8000), "grpc": Endpoint("::1", 9000)},
    weight=5,
    zone="eu-1",
    status=Status.DRAINING,
    started_at=1_700_000_000.125,
)

text = st.text(max_size=20)
hosts = st.from_regex(r"[a-z][a-z0-9.-]{0,20}", fullmatch=True) | st.ip_addresses().map(str)
endpoints = st.builds(Endpoint, hosts, st.integers(1, 65535))
instances = st.builds(
    Instance,
    id=text,
    service=text,
    version=text,
    tags=st.lists(text, max_size=3).map(tuple),
    metadata=st.dictionaries(text, text, max_size=3),
    endpoints=st.dictionaries(st.sampled_from(["http", "grpc"]), endpoints),
    weight=st.integers(1, 65535),
    zone=text,
    status=st.sampled_from(Status),
    started_at=st.floats(0, 4e9),
)


@pytest.mark.parametrize(
    ("given_text", "host", "port"),
    [
        ("localhost:80", "localhost", 80),
        ("10.0.0.1:65535", "10.0.0.1", 65535),
        ("[::1]:8000", "::1", 8000),
        ("[fe80::1%eth0]:1", "fe80::1%eth0", 1),
    ],
)
def test_an_endpoint_is_read_and_written_the_same(given_text: str, host: str, port: int) -> None:
    endpoint = Endpoint.parse(given_text)
    assert (endpoint.host, endpoint.port) == (host, port)
    assert str(endpoint) == given_text


@pytest.mark.parametrize(
    ("given_text", "message"),
    [
        ("localhost", "'localhost' is not host:port"),
        (":80", "':80' is not host:port"),
        ("[]:80", r"'\[\]:80' is not host:port"),
        ("host:", "'host:' is not host:port"),
        ("host:-1", "'host:-1' is not host:port"),
        ("host:٣", "is not host:port"),
        ("", "'' is not host:port"),
        ("::1:8000", r"'::1:8000': an IPv6 address needs brackets, as in \[::1\]:8000"),
        ("host:0", "'host:0': the port must be between 1 and 65535"),
        ("host:65536", "the port must be between 1 and 65535"),
    ],
)
def test_what_is_no_endpoint_is_refused_by_name(given_text: str, message: str) -> None:
    with pytest.raises(ValueError, match=f"^.*{message}$"):
        Endpoint.parse(given_text)


@settings(deadline=None, max_examples=50)
@given(endpoints)
def test_every_endpoint_can_be_read_back(endpoint: Endpoint) -> None:
    assert Endpoint.parse(str(endpoint)) == endpoint


@settings(deadline=None, max_examples=50)
@given(instances)
def test_every_instance_survives_json(instance: Instance) -> None:
    assert Instance.from_dict(json.loads(json.dumps(instance.to_dict()))) == instance


def test_the_written_form_is_plain() -> None:
    assert INSTANCE.to_dict() == {
        "id": "users-host-8000-abc123",
        "service": "users",
        "version": "1.2.3",
        "tags": ["v1", "blue"],
        "metadata": {"team": "a"},
        "endpoints": {"http": "10.0.0.1:8000", "grpc": "[::1]:9000"},
        "weight": 5,
        "zone": "eu-1",
        "status": "draining",
        "started_at": 1_700_000_000.125,
    }


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("status", "asleep"),
        ("endpoints", {"http": "nowhere"}),
        ("endpoints", {"http": 8000}),
        ("endpoints", ["127.0.0.1:8000"]),
        ("endpoints", None),
        ("weight", "heavy"),
        ("started_at", None),
        ("started_at", "nan"),
        ("started_at", float("inf")),
        ("tags", None),
    ],
)
def test_what_is_no_instance_is_refused(field: str, value: Any) -> None:
    data = {**INSTANCE.to_dict(), field: value}
    with pytest.raises((ValueError, TypeError)):
        Instance.from_dict(data)


# What a reader adds is not written.
WRITTEN = [each.name for each in dataclasses.fields(Instance) if each.name != "lapsed"]


@pytest.mark.parametrize("field", WRITTEN)
def test_every_field_is_required_in_the_written_form(field: str) -> None:
    data = INSTANCE.to_dict()
    del data[field]
    with pytest.raises(KeyError, match=field):
        Instance.from_dict(data)


@pytest.mark.parametrize(
    "value",
    [
        INSTANCE,
        Endpoint("a", 1),
        Snapshot(service="a", instances=()),
        ServiceInfo(name="a"),
    ],
    ids=lambda value: type(value).__name__,
)
def test_values_are_frozen_and_slotted(value: Any) -> None:
    field = dataclasses.fields(value)[0].name
    with pytest.raises(dataclasses.FrozenInstanceError):
        setattr(value, field, "other")
    assert not hasattr(value, "__dict__")


@pytest.mark.parametrize("status", Status)
def test_only_up_instances_may_be_called(status: Status) -> None:
    instance = dataclasses.replace(INSTANCE, status=status)
    assert instance.up == (status is Status.UP)
    snapshot = Snapshot(service="users", instances=(instance,))
    assert snapshot.up == ((instance,) if status is Status.UP else ())


def test_a_snapshot_knows_its_age() -> None:
    assert Snapshot(service="a", instances=()).age < 60
    assert 60 <= Snapshot(service="a", instances=(), read_at=time.time() - 60).age < 120
    # A clock that was set back makes it young, never of negative age.
    assert Snapshot(service="a", instances=(), read_at=time.time() + 60).age == 0


@pytest.mark.parametrize("name", ["a", "users", "user-accounts-2", "a" * 63])
def test_service_names_are_dns_labels(name: str) -> None:
    assert check_service_name(name) == name


@pytest.mark.parametrize(
    "name", ["", "Users", "1users", "-a", "a-", "a_b", "a.b", "a" * 64, "ü", "a\n", "a b", None, 7]
)
def test_other_service_names_are_refused(name: Any) -> None:
    with pytest.raises(ValueError, match=r"invalid service name .*: use lower-case letters"):
        check_service_name(name)


def test_metadata_within_consuls_limits_is_accepted() -> None:
    check_metadata({})
    check_metadata({"A-z_9" + "k" * 123: "v" * 512, "b": "ü" * 256})
    check_metadata({f"key-{number}": "" for number in range(48)})


@pytest.mark.parametrize(
    ("metadata", "message"),
    [
        ({f"key-{number}": "" for number in range(49)}, "49 metadata pairs, at most 48"),
        ({"a.b": ""}, "metadata key 'a.b': use letters"),
        ({"": ""}, "metadata key '': use letters"),
        ({"k" * 129: ""}, "at most 128 characters"),
        ({"a": "v" * 513}, "metadata 'a': the value must be text of at most 512 bytes in UTF-8"),
        ({"a": "ü" * 257}, "metadata 'a': the value must be text of at most 512 bytes"),
        ({"a": 1}, "metadata 'a': the value must be text"),
    ],
)
def test_metadata_that_consul_would_refuse_is_refused(metadata: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        check_metadata(metadata)


@settings(deadline=None, max_examples=50)
@given(st.text(max_size=70))
def test_every_service_name_may_begin_an_instance_id(name: str) -> None:
    try:
        check_service_name(name)
    except ValueError:
        return
    assert INSTANCE_ID.fullmatch(name)
