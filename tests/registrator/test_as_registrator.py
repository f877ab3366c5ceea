"""Registrator itself, beside ours: what its own code made of the same containers.

``recorded/registrator.json`` holds 15 containers of a real engine, and what gliderlabs/registrator
(its last commit, built with Go 1.19) registered of them under each set of flags.
"""

import json
from typing import Any

import pytest

from meshkit.registrator.containers import records
from meshkit.registrator.options import Host, Options
from tests.registrator.inspected import RECORDED

FOUND: dict[str, Any] = json.loads((RECORDED / "registrator.json").read_text())
HOST = Host(name="host-1", ipv4="192.0.2.1")

# One id for two ports: there the second overwrote the first.
IDS_THERE = {("mine-2", "python-8000"), ("mine-2", "python-9000")}
IDS_HERE = {("mine-2-8000", "python-8000"), ("mine-2-9000", "python-9000")}
# Two bindings of one port: there one of them, whichever Docker named first.
BINDINGS_THERE = {("host-1:multi:8443", "192.0.2.1", 18444)}
BINDINGS_HERE = {
    ("host-1:multi:8443", "192.0.2.1", 18443),
    ("host-1:multi:8443:18444", "192.0.2.1", 18444),
}
# In the network of a container that is in a network of its own: there no address at all.
PEER_THERE = {("host-1:peer:6100", "", 6100), ("host-1:peer:6200", "", 6200)}
PEER_HERE = {
    ("host-1:peer:6100", "192.0.2.1", 32796),
    ("host-1:peer:6200", "10.231.11.2", 6200),
}
CASES: list[tuple[str, dict[str, Any], set[Any], set[Any]]] = [
    (
        "-ip 192.0.2.1",
        {"ip": "192.0.2.1"},
        BINDINGS_THERE | PEER_THERE,
        BINDINGS_HERE | PEER_HERE,
    ),
    (
        "-ip 192.0.2.1 -useIpFromLabel addr",
        {"ip": "192.0.2.1", "use_ip_from_label": "addr"},
        BINDINGS_THERE | PEER_THERE,
        BINDINGS_HERE | PEER_HERE,
    ),
    ("-explicit -ip 192.0.2.1", {"explicit": True, "ip": "192.0.2.1"}, set(), set()),
    (
        "-internal",
        {"internal": True},
        {
            ("host-1:peer:6100", "", 6100),
            ("host-1:peer:6200", "", 6200),
            # In the host's network, too.
            ("host-1:host:7001", "", 7001),
            # In two networks: there the address of either, as chance has it.
            ("host-1:nets:6000", "10.231.12.2", 6000),
            ("host-1:nets:6100", "10.231.12.2", 6100),
        },
        {
            ("host-1:peer:6100", "10.231.11.2", 6100),
            ("host-1:peer:6200", "10.231.11.2", 6200),
            ("host-1:host:7001", "192.0.2.1", 7001),
            ("host-1:nets:6000", "10.231.11.2", 6000),
            ("host-1:nets:6100", "10.231.11.2", 6100),
        },
    ),
]


def ours(options: dict[str, Any]) -> list[dict[str, Any]]:
    by_id = {each["Id"]: each for each in FOUND["containers"]}
    return [
        {
            "id": record.id,
            "name": record.name,
            "host": record.host,
            "port": record.port,
            "tags": list(record.tags),
            "attributes": dict(record.attributes),
        }
        for container in FOUND["containers"]
        for record in records(
            container,
            Options(**options),
            host=HOST,
            peer=by_id.get(container["HostConfig"]["NetworkMode"].removeprefix("container:")),
            warn=lambda _: None,
        )
    ]


def mended(theirs: dict[str, Any]) -> dict[str, Any]:
    """Without what was a fault in every entry: tags reversed, checks among the attributes."""
    attributes = {
        name: value for name, value in theirs["attributes"].items() if not name.startswith("check_")
    }
    return {**theirs, "tags": theirs["tags"][::-1], "attributes": attributes}


@pytest.mark.parametrize(("flags", "options", "there", "here"), CASES, ids=[c[0] for c in CASES])
def test_what_registrator_registered(
    flags: str, options: dict[str, Any], there: set[Any], here: set[Any]
) -> None:
    theirs = [mended(each) for each in FOUND["registered"][flags]]
    found = ours(options)
    only_there = [each for each in theirs if each not in found]
    only_here = [each for each in found if each not in theirs]
    ids = "explicit" not in options  # it has no name
    assert {(each["id"], each["name"]) for each in only_there if "mine" in each["id"]} == (
        IDS_THERE if ids else set()
    )
    assert {(each["id"], each["name"]) for each in only_here if "mine" in each["id"]} == (
        IDS_HERE if ids else set()
    )
    assert {
        (each["id"], each["host"], each["port"]) for each in only_there if "mine" not in each["id"]
    } == there
    assert {
        (each["id"], each["host"], each["port"]) for each in only_here if "mine" not in each["id"]
    } == here
    assert len(theirs) - len(only_there) >= (5 if "explicit" in options else 12)
