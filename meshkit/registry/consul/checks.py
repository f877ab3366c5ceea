"""The checks that an instance is registered with: our heartbeat, and the agent's own if wanted.

https://developer.hashicorp.com/consul/api-docs/agent/check#register-check
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from meshkit.model import Endpoint, Instance

TTL = 10.0
HEARTBEAT = "meshkit heartbeat"  # the name of its check
# Consul removes what has been critical for this long; it is a garbage collector, no failure
# detector: one minute is its minimum, and the reaper comes every 30 s. Who is down or
# draining is critical on purpose and should not be collected while it lives.
COLLECT_AFTER = "1m"
COLLECT_AFTER_IDLE = "10m"
# Where every service of ours answers; see meshkit.server.
READY = "/health/ready"
TIMEOUT = 5.0


def heartbeat_id(instance_id: str) -> str:
    """Return the id of the instance's heartbeat check."""
    return f"service:{instance_id}"


def checks_of(
    instance: Instance, *, kinds: Sequence[str] = (), interval: float = 10.0
) -> list[dict[str, Any]]:
    """Return the instance's checks.

    Args:
        instance: who is checked.
        kinds: what the agent checks too: ``http``, ``grpc``; for an endpoint that the instance
            has. Only the heartbeat lets Consul collect an instance: one that an agent can't reach
            but that lives would register anew and flap.
        interval: seconds between the agent's checks.
    """
    status = "passing" if instance.up else "critical"
    heartbeat = {
        "CheckID": heartbeat_id(instance.id),
        "Name": HEARTBEAT,
        "TTL": f"{TTL:.0f}s",
        "Status": status,
        "DeregisterCriticalServiceAfter": COLLECT_AFTER if instance.up else COLLECT_AFTER_IDLE,
    }
    by_agent = {
        "Interval": f"{interval:g}s",
        "Timeout": f"{min(interval, TIMEOUT):g}s",
        "Status": status,  # without it the first check comes at some point of the interval
    }
    return [
        heartbeat,
        *(
            by_agent
            | {"CheckID": f"{heartbeat_id(instance.id)}:{kind}", "Name": f"meshkit {kind} ready"}
            | _target(kind, instance.endpoints[kind])
            for kind in kinds
            if kind in instance.endpoints
        ),
    ]


def _target(kind: str, endpoint: Endpoint) -> dict[str, str]:
    return {"GRPC": str(endpoint)} if kind == "grpc" else {"HTTP": f"http://{endpoint}{READY}"}
