"""What a generated stub keeps for each of its methods, one class for each of gRPC's four kinds."""

# ruff: noqa: FBT001, PLR0917 - the signatures are gRPC's

from __future__ import annotations

from typing import Any, TypedDict, Unpack

import grpc
import grpc.aio

from meshkit.client.grpc.call import (
    StreamStreamCall,
    StreamUnaryCall,
    UnaryStreamCall,
    UnaryUnaryCall,
)
from meshkit.client.grpc.interception import (
    InterceptedStreamStream,
    InterceptedStreamUnary,
    InterceptedUnaryStream,
    InterceptedUnaryUnary,
)
from meshkit.client.grpc.method import Method


class CallOptions(TypedDict, total=False):
    """What every call takes beside its request; see grpc.aio.UnaryUnaryMultiCallable."""

    timeout: float | None
    metadata: Any
    credentials: grpc.CallCredentials | None
    wait_for_ready: bool | None
    compression: grpc.Compression | None


class UnaryUnary(Method, grpc.aio.UnaryUnaryMultiCallable[Any, Any]):
    """One request, one response."""

    kind = "unary_unary"
    call = UnaryUnaryCall

    def __call__(
        self, request: Any, **options: Unpack[CallOptions]
    ) -> UnaryUnaryCall | InterceptedUnaryUnary:
        """Begin a call."""
        if self.interceptors:
            return self.intercepted(InterceptedUnaryUnary, request, **options)
        return UnaryUnaryCall(self, request, **options)


class UnaryStream(Method, grpc.aio.UnaryStreamMultiCallable[Any, Any]):
    """One request, a stream of responses."""

    kind = "unary_stream"
    call = UnaryStreamCall

    def __call__(
        self, request: Any, **options: Unpack[CallOptions]
    ) -> UnaryStreamCall | InterceptedUnaryStream:
        """Begin a call."""
        if self.interceptors:
            return self.intercepted(InterceptedUnaryStream, request, **options)
        return UnaryStreamCall(self, request, **options)


# The next two classes of gRPC can't be subscripted in grpcio 1.80.


class StreamUnary(Method, grpc.aio.StreamUnaryMultiCallable):  # type: ignore[type-arg]
    """A stream of requests, one response."""

    kind = "stream_unary"
    call = StreamUnaryCall

    def __call__(
        self,
        request_iterator: Any = None,
        timeout: float | None = None,
        metadata: Any = None,
        credentials: grpc.CallCredentials | None = None,
        wait_for_ready: bool | None = None,
        compression: grpc.Compression | None = None,
    ) -> StreamUnaryCall | InterceptedStreamUnary:
        """Begin a call. Without messages to iterate over, they are sent by ``write()``."""
        options: CallOptions = {
            "timeout": timeout,
            "metadata": metadata,
            "credentials": credentials,
            "wait_for_ready": wait_for_ready,
            "compression": compression,
        }
        if self.interceptors:
            return self.intercepted(InterceptedStreamUnary, request_iterator, **options)
        return StreamUnaryCall(self, request_iterator, **options)


class StreamStream(Method, grpc.aio.StreamStreamMultiCallable):  # type: ignore[type-arg]
    """A stream of requests and one of responses."""

    kind = "stream_stream"
    call = StreamStreamCall

    def __call__(
        self,
        request_iterator: Any = None,
        timeout: float | None = None,
        metadata: Any = None,
        credentials: grpc.CallCredentials | None = None,
        wait_for_ready: bool | None = None,
        compression: grpc.Compression | None = None,
    ) -> StreamStreamCall | InterceptedStreamStream:
        """Begin a call. Without messages to iterate over, they are sent by ``write()``."""
        options: CallOptions = {
            "timeout": timeout,
            "metadata": metadata,
            "credentials": credentials,
            "wait_for_ready": wait_for_ready,
            "compression": compression,
        }
        if self.interceptors:
            return self.intercepted(InterceptedStreamStream, request_iterator, **options)
        return StreamStreamCall(self, request_iterator, **options)
