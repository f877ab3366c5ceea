"""Why the servers may not list what an agent has accepted.

The usual case is a client agent in a container that was started anew without its data: it has the
node's name and another id, and servers refuse all that it registers. The agent itself goes on
saying yes; only its log has the reason.
"""

from __future__ import annotations

import json
from typing import Any

from meshkit.errors import RegistryError
from meshkit.registry.consul.transport import Transport

AGENT = "/v1/agent/self"


async def why_unlisted(transport: Transport) -> str:
    """Compare the agent's node with what the servers know of it; empty when that is well."""
    try:
        async with transport.within():
            answer = await transport.read(AGENT)
            if answer.status == 403:
                return (
                    "its log may say that its node name is reserved (the token may not ask: "
                    "agent:read), or the token of the agent lacks node:write"
                )
            config = json.loads(answer.body)["Config"]
            name, node_id = config["NodeName"], config["NodeID"]
            answer = await transport.read(f"/v1/catalog/node/{name}", (("stale", "1"),))
            found: Any = json.loads(answer.body)
            known = found["Node"]["ID"] if found else ""
    except (RegistryError, KeyError, TypeError, ValueError):
        return ""
    if not found:
        return (
            f"its node {name} is not listed either: the token may lack node:read, "
            "or the agent's own token node:write"
        )
    if known and known != node_id:
        return (
            f"its servers know its node {name} by another id, {known}, and refuse what the agent "
            f"registers, for it has lost its data folder and is {node_id} now: give it a folder "
            f"that lasts or a fixed node_id, and let the servers forget the old one "
            f"(consul leave before the loss, or node_id = {known!r} now)"
        )
    return ""
