"""Asking over gRPC whether an instance is well, before a call risks it."""

from __future__ import annotations

import grpc
import grpc.aio

from meshkit import identity
from meshkit.client.grpc.pool import ChannelPool
from meshkit.discovery.ejection.probing import TIMEOUT, Probe
from meshkit.model import Endpoint, Instance

# The standard health service, without its generated code: an empty request asks for the server
# as a whole, and this is the answer SERVING.
# https://github.com/grpc/grpc/blob/master/doc/health-checking.md
CHECK = "/grpc.health.v1.Health/Check"
SERVING = b"\x08\x01"


def grpc_probe(pool: ChannelPool) -> Probe:
    """Return what asks the standard health service, on the connection that calls have."""

    async def probe(instance: Instance, endpoint: Endpoint) -> bool:
        link = pool.link(instance, endpoint)
        link.acquire()
        try:
            check: grpc.aio.UnaryUnaryMultiCallable[bytes, bytes] = link.channel.unary_unary(CHECK)
            call = check(b"", timeout=TIMEOUT, metadata=link.metadata)
            answer = await call
            names = (await call.trailing_metadata()).get_all(identity.INSTANCE)
        except grpc.aio.AioRpcError as error:
            # Others need not have one; the server itself has answered.
            foreign = not identity.proves_identity(instance.metadata)
            return foreign and error.code() is grpc.StatusCode.UNIMPLEMENTED
        finally:
            link.release()
        ours = not identity.proves_identity(instance.metadata) or instance.id in names
        return ours and answer == SERVING

    return probe
