"""One look at whether a service is well, as Consul would look: HTTP, TCP, or gRPC's health."""

from __future__ import annotations

import asyncio
import functools
import os
import re
import ssl
from typing import Any

from meshkit.model import Endpoint
from meshkit.registrator.record import Check

TIMEOUT = 10.0
STATUS = re.compile(rb"HTTP/1\.[01] (\d{3})\b")
BODY_LIMIT = 65536
# Consul's "warning", which does not keep a service from being used.
TOO_MANY_REQUESTS = 429


class Unwell(Exception):
    """The service is not well; the text says how that shows."""


async def look(address: Endpoint, check: Check) -> None:
    """Look once. Raises Unwell."""
    limit = check.timeout or TIMEOUT
    try:
        async with asyncio.timeout(limit):
            if check.kind in ("http", "https"):
                await _http(address, check)
            elif check.kind == "tcp":
                await _connect(address, None)
            elif check.use_tls and check.skip_verify:
                # gRPC's library can't speak to whom it does not trust.
                await _connect(address, _context(skip_verify=True))
            else:
                await _grpc(address, check, limit)
    except TimeoutError:
        raise Unwell(f"no answer within {limit:g} s") from None
    except (OSError, ValueError) as error:  # a line without an end is the latter
        raise Unwell(_reason(error)) from None


async def _http(address: Endpoint, check: Check) -> None:
    context = _context(skip_verify=check.skip_verify) if check.kind == "https" else None
    head = (
        f"{check.method or 'GET'} {check.path} HTTP/1.1\r\nHost: {address}\r\n"
        "User-Agent: meshkit-registrator\r\nAccept: text/plain, text/*, */*\r\n"
        "Connection: close\r\n\r\n"
    )
    reader, writer = await asyncio.open_connection(address.host, address.port, ssl=context)
    try:
        writer.write(head.encode())
        line = await reader.readline()
        # What there is of it, or a server would complain of a broken pipe; some never end it.
        await reader.read(BODY_LIMIT)
    finally:
        writer.transport.abort()
    found = STATUS.match(line)
    if not found:
        raise Unwell("what answers is not HTTP")
    status = int(found[1])
    if not 200 <= status < 300 and status != TOO_MANY_REQUESTS:
        raise Unwell(f"{check.method or 'GET'} {check.path} is answered with {status}")


async def _connect(address: Endpoint, context: ssl.SSLContext | None) -> None:
    _, writer = await asyncio.open_connection(address.host, address.port, ssl=context)
    writer.transport.abort()


@functools.cache
def _context(*, skip_verify: bool) -> ssl.SSLContext:
    # Made once: reading all the authorities holds up the loop for tens of milliseconds.
    context = ssl.create_default_context()
    if skip_verify:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    return context


async def _grpc(address: Endpoint, check: Check, limit: float) -> None:
    # Only who has such a check pays for it.
    import grpc.aio  # noqa: PLC0415
    from grpc_health.v1 import health_pb2, health_pb2_grpc  # noqa: PLC0415

    options = (("grpc.use_local_subchannel_pool", 1),)
    channel = (
        grpc.aio.secure_channel(str(address), grpc.ssl_channel_credentials(), options)
        if check.use_tls
        else grpc.aio.insecure_channel(str(address), options)
    )
    async with channel:
        request = health_pb2.HealthCheckRequest(service=check.path.lstrip("/"))
        try:
            stub: Any = health_pb2_grpc.HealthStub(channel)
            answer = await stub.Check(request, timeout=limit)
        except grpc.aio.AioRpcError as error:
            reason = f"{error.code().name}: {error.details()}"
            raise Unwell(f"gRPC's health check says {reason}"[:200]) from None
    if answer.status != health_pb2.HealthCheckResponse.SERVING:
        name = health_pb2.HealthCheckResponse.ServingStatus.Name(answer.status)
        raise Unwell(f"gRPC's health check says {name}")


def _reason(error: Exception) -> str:
    # asyncio's messages name address after address; the first one's number says what happened.
    number = re.search(r"\[Errno (\d+)\]", str(error))
    return os.strerror(int(number[1])) if number else str(error)
