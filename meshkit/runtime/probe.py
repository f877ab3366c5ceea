"""Calling ourselves by the advertised address, before others are told of it."""

from __future__ import annotations

import asyncio
import contextlib

from meshkit import identity
from meshkit.errors import StartError
from meshkit.model import Endpoint, Instance
from meshkit.server.asgi import LIVE

LIMIT = 2.0


async def probe(instance: Instance) -> None:
    """Check that the advertised endpoints reach this very instance.

    Raises:
        StartError: nobody answers there, or somebody else does.
    """
    for transport, endpoint in instance.endpoints.items():
        try:
            async with asyncio.timeout(LIMIT):
                answered_by = await _ask(transport, endpoint)
        except TimeoutError:
            raise _unreachable(transport, endpoint, f"no answer within {LIMIT:g} s") from None
        except OSError as error:
            raise _unreachable(transport, endpoint, error.strerror or str(error)) from None
        if transport == "http" and answered_by != instance.id:
            raise StartError(
                f"the advertised address {endpoint} is answered by somebody else "
                f"({answered_by or 'without an identity'}): check --advertise-host"
            )


async def _ask(transport: str, endpoint: Endpoint) -> str:
    """Connect, and over HTTP return the instance id of whoever answers."""
    reader, writer = await asyncio.open_connection(endpoint.host, endpoint.port)
    try:
        if transport != "http":
            return ""
        request = f"GET {LIVE} HTTP/1.1\r\nHost: {endpoint}\r\nConnection: close\r\n\r\n"
        writer.write(request.encode())
        return _instance_id(await reader.read(16384))
    finally:
        writer.close()
        with contextlib.suppress(OSError):
            await writer.wait_closed()


def _instance_id(answer: bytes) -> str:
    head = answer.partition(b"\r\n\r\n")[0].decode("latin-1")
    for line in head.split("\r\n")[1:]:
        name, _, value = line.partition(":")
        if name.strip().lower() == identity.INSTANCE:
            return value.strip()
    return ""


def _unreachable(transport: str, endpoint: Endpoint, reason: str) -> StartError:
    return StartError(
        f"this service can't reach itself at {endpoint}, the {transport} address that others "
        f"would be given ({reason}): check --host and --advertise-host, or set "
        "MESHKIT_SELF_PROBE=warn where an address is only reachable from outside"
    )
