"""Asking over HTTP whether an instance is well, before a call risks it."""

from __future__ import annotations

import asyncio

from meshkit import identity
from meshkit.client.transport import HttpTransport, Request
from meshkit.discovery.ejection.probing import TIMEOUT, Probe
from meshkit.model import Endpoint, Instance

READY = "/health/ready"


def http_probe(transport: HttpTransport) -> Probe:
    """Return what asks an instance of meshkit's for its readiness.

    Others may have no such path, or one that means something else. Of them it only wants a
    connection, which one that hangs also gives: the call that follows finds that out.
    """

    async def probe(instance: Instance, endpoint: Endpoint) -> bool:
        if not identity.proves_identity(instance.metadata):
            return await connects(endpoint)
        headers = [(identity.TARGET, instance.id)]
        answer = await transport.send(
            Request("GET", f"http://{endpoint}{READY}", headers, None, TIMEOUT)
        )
        ours = instance.id in answer.headers.get_list(identity.INSTANCE)
        return ours and answer.status_code == 200

    return probe


async def connects(endpoint: Endpoint) -> bool:
    """Return True when somebody listens there.

    Raises:
        OSError: nobody does.
    """
    _, writer = await asyncio.open_connection(endpoint.host, endpoint.port)
    writer.close()
    return True
