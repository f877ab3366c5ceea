"""Errors that are two things at once: meshkit's own, and what callers of gRPC stubs catch.

``except grpc.aio.AioRpcError`` and ``except meshkit.CallError`` both work. What a server answered
by itself reaches the caller as the plain ``AioRpcError`` that it is.
"""

from __future__ import annotations

from typing import ClassVar

import grpc
import grpc.aio

from meshkit.errors import (
    BreakerOpen,
    BulkheadFull,
    CallError,
    CallTimeout,
    ConnectError,
    ConnectionLost,
    NoInstances,
    WrongInstance,
)

# The details that grpc.aio gives a call which its own caller has cancelled.
CANCELLED_HERE = "Locally cancelled by application!"


class RpcFailure(CallError, grpc.aio.AioRpcError):
    """A call that no instance answered. ``details()`` is the message, one line."""

    status: ClassVar[grpc.StatusCode] = grpc.StatusCode.UNAVAILABLE

    def __init__(self, message: str) -> None:
        # By name: TimeoutError, a base of one subclass, would be next in line.
        grpc.aio.AioRpcError.__init__(
            self, self.status, grpc.aio.Metadata(), grpc.aio.Metadata(), message
        )

    def __str__(self) -> str:
        return self.details() or ""

    def __repr__(self) -> str:
        return f"{type(self).__name__}({str(self)!r})"

    def __reduce__(self) -> tuple[type[RpcFailure], tuple[str]]:
        return type(self), (str(self),)


class RpcNoInstances(NoInstances, RpcFailure):
    """Nobody is known, or everybody that is known was tried."""


class RpcConnectError(ConnectError, RpcFailure):
    """The call surely never left this process."""


class RpcConnectionLost(ConnectionLost, RpcFailure):
    """The connection broke; the call may have had an effect."""


class RpcWrongInstance(WrongInstance, RpcFailure):
    """The address was answered by another service or instance."""


class RpcTimeout(CallTimeout, RpcFailure):
    """No answer within the call's time."""

    status = grpc.StatusCode.DEADLINE_EXCEEDED


class RpcBreakerOpen(BreakerOpen, RpcFailure):
    """Not called, as too many calls to the service failed lately."""


class RpcBulkheadFull(BulkheadFull, RpcFailure):
    """Not called, as too many calls to the service are under way."""

    status = grpc.StatusCode.RESOURCE_EXHAUSTED


class Cancelled(grpc.aio.AioRpcError):
    """The status of a call that its caller cancelled before it was sent to anybody."""

    def __init__(self) -> None:
        metadata = grpc.aio.Metadata()
        super().__init__(grpc.StatusCode.CANCELLED, metadata, metadata, CANCELLED_HERE)
