"""Calling ourselves by the advertised address, before others are told of it."""

from __future__ import annotations

import asyncio
import contextlib

from meshkit import identity
from meshkit.errors import StartError
from meshkit.model import Endpoint, Instance
from meshkit.runtime.advertise import ADVICE
from meshkit.server.asgi import LIVE

LIMIT = 5.0
HEALTH_CHECK = "/grpc.health.v1.Health/Check"
DIRECT = (("grpc.enable_http_proxy", 0), ("grpc.use_local_subchannel_pool", 1))


async def probe(instance: Instance, *, advice: str = ADVICE) -> None:
    """Check that the advertised endpoints reach this very instance.

    Args:
        instance: with the endpoints.
        advice: what to do if nobody answers.

    Raises:
        StartError: nobody answers there, or somebody else does.
    """
    for transport, endpoint in instance.endpoints.items():
        try:
            async with asyncio.timeout(LIMIT):
                answered_by = await _ask(transport, endpoint)
        except TimeoutError:
            reason = f"no answer within {LIMIT:g} s"
            raise _unreachable(transport, endpoint, reason, advice) from None
        except OSError as error:
            reason = error.strerror or str(error)
            raise _unreachable(transport, endpoint, reason, advice) from None
        if answered_by != instance.id:
            raise StartError(
                f"the advertised {transport} address {endpoint} is answered by somebody else "
                f"({answered_by or 'without an identity'}): check the --advertise options"
            )


async def _ask(transport: str, endpoint: Endpoint) -> str:
    """Return the instance id of whoever answers."""
    # By gRPC too, whose own errors say less about a connection.
    reader, writer = await asyncio.open_connection(endpoint.host, endpoint.port)
    try:
        if transport != "http":
            return await asyncio.to_thread(_ask_grpc, endpoint)
        request = f"GET {LIVE} HTTP/1.1\r\nHost: {endpoint}\r\nConnection: close\r\n\r\n"
        writer.write(request.encode())
        return _instance_id(await reader.read(16384))
    finally:
        writer.close()
        with contextlib.suppress(OSError):
            await writer.wait_closed()


def _ask_grpc(endpoint: Endpoint) -> str:
    """Not by grpc.aio: each loop that has used it is woken for the calls of all others."""
    import grpc  # noqa: PLC0415 - HTTP alone needs no gRPC

    with grpc.insecure_channel(f"dns:///{endpoint}", options=DIRECT) as channel:
        check: grpc.UnaryUnaryMultiCallable[bytes, bytes] = channel.unary_unary(HEALTH_CHECK)
        try:
            _, call = check.with_call(b"", timeout=LIMIT)  # about the whole server
        except grpc.RpcError:
            return ""  # ours answers, however it is
        return str(dict(call.trailing_metadata() or ()).get(identity.INSTANCE, ""))


def _instance_id(answer: bytes) -> str:
    head = answer.partition(b"\r\n\r\n")[0].decode("latin-1")
    for line in head.split("\r\n")[1:]:
        name, _, value = line.partition(":")
        if name.strip().lower() == identity.INSTANCE:
            return value.strip()
    return ""


def _unreachable(transport: str, endpoint: Endpoint, reason: str, advice: str) -> StartError:
    return StartError(
        f"this service can't reach itself at {endpoint}, the {transport} address that others "
        f"would be given ({reason}): {advice}"
    )
