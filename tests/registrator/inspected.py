"""Containers as Docker describes them: recorded from a real engine (20.10), and made up from these.

Recorded with ``docker inspect``, cut down to what matters. What was run is told by each answer's
Config and HostConfig.
"""

import copy
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from meshkit.registrator.containers import records
from meshkit.registrator.options import Host, Options
from meshkit.registrator.record import Record

RECORDED = Path(__file__).parent / "recorded"
HOST = Host(name="host-1", ipv4="192.0.2.1", ipv6="2001:db8::1")


def recorded(name: str) -> dict[str, Any]:
    container: dict[str, Any] = json.loads((RECORDED / f"{name}.json").read_text())
    return container


def made(
    ports: Mapping[str, int | None],
    labels: Mapping[str, str] | None = None,
    *,
    env: Mapping[str, str] | None = None,
    image: str = "shop/web:1.2",
    name: str = "web",
) -> dict[str, Any]:
    """A running container with ports such as {"80/tcp": 8080}; None: exposed, not published."""
    container = copy.deepcopy(recorded("plain"))
    container["Name"] = f"/{name}"
    container["Config"] |= {
        "Image": image,
        "Labels": dict(labels or {}),
        "Env": [f"{key}={value}" for key, value in (env or {}).items()],
        "ExposedPorts": {port: {} for port in ports},
    }
    container["NetworkSettings"]["Ports"] = {
        port: None
        if number is None
        else [
            {"HostIp": "0.0.0.0", "HostPort": str(number)},
            {"HostIp": "::", "HostPort": str(number)},
        ]
        for port, number in ports.items()
    }
    return container


def read(
    container: Mapping[str, Any],
    *,
    host: Host = HOST,
    peer: Mapping[str, Any] | None = None,
    service: Mapping[str, Any] | None = None,
    warned: list[str] | None = None,
    **options: Any,
) -> tuple[Record, ...]:
    """The records of a container; it may warn only when ``warned`` is there to take it."""
    lines: list[str] = []
    found = records(
        container, Options(**options), host=host, peer=peer, service=service, warn=lines.append
    )
    if warned is None:
        assert lines == []
    else:
        warned.extend(lines)
    return found
