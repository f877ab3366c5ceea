"""A record's checks as Consul's: the one it asks for, and the state of its container.

https://developer.hashicorp.com/consul/api-docs/agent/check#register-check
"""

from __future__ import annotations

from typing import Any

from meshkit.model import Endpoint, Status
from meshkit.registrator.record import Check, Record

CONTAINER = "container"
# Nobody has to say again and again that a container runs: Docker says when it does no longer. A
# registrator that is down takes no service with it.
ENDLESS = "87600h"


def check_id(entry_id: str) -> str:
    """Return the id that Consul itself gives to a service's only check; for CHECK_TTL's owner."""
    return f"service:{entry_id}"


def container_check_id(entry_id: str) -> str:
    """Return the id of the check that shows the container's state."""
    return f"{check_id(entry_id)}:{CONTAINER}"


def checks_of(record: Record) -> list[dict[str, Any]]:
    """Return what a service is registered with."""
    container = {
        "CheckID": container_check_id(record.id),
        "Name": f"container {record.container_name}",
        "TTL": ENDLESS,
        "Status": "passing" if record.status is Status.UP else "critical",
    }
    if record.check is None:
        return [container]
    return [_asked_for(record, record.check), container]


def _asked_for(record: Record, check: Check) -> dict[str, Any]:
    found: dict[str, Any] = {
        "CheckID": check_id(record.id),
        "Name": f"Service '{record.name}' check",
        **_probe(record, check),
    }
    if check.kind == "ttl":
        found["TTL"] = _duration(check.ttl or 0.0)
    else:
        found["Interval"] = _duration(check.interval)
    if check.timeout is not None:
        found["Timeout"] = _duration(check.timeout)
    if check.initial_status:
        found["Status"] = check.initial_status
    if check.deregister_after is not None:
        found["DeregisterCriticalServiceAfter"] = _duration(check.deregister_after)
    return found


def _probe(record: Record, check: Check) -> dict[str, Any]:
    """Return what is done to find out."""
    address = Endpoint(record.host, record.port)
    if check.kind in ("http", "https"):
        probe: dict[str, Any] = {"HTTP": f"{check.kind}://{address}{check.path}"}
        if check.method:
            probe["Method"] = check.method
    elif check.kind == "tcp":
        probe = {"TCP": str(address)}
    elif check.kind == "grpc":
        # What follows the address is the name that is asked about.
        probe = {"GRPC": f"{address}{check.path}", "GRPCUseTLS": check.use_tls}
    elif check.kind == "script":
        probe = {"Args": ["/bin/sh", "-c", check.command]}
    elif check.kind == "cmd":
        # As Registrator has it: a program of the user's beside Consul, that enters the container.
        container = record.container_id[:12]
        probe = {"Args": ["check-cmd", container, str(record.private_port), check.command]}
    else:
        probe = {}
    if check.skip_verify:
        probe["TLSSkipVerify"] = True
    return probe


def _duration(seconds: float) -> str:
    """Return seconds as Go reads them."""
    return f"{round(seconds * 1000)}ms"
