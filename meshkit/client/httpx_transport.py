"""The mesh under an httpx2 or httpx client: ``http://users/...`` goes to the service ``users``.

Neither library is imported here: each request brings its own along.
"""

from __future__ import annotations

import functools
import sys
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self, Unpack

from meshkit.client.mesh import Mesh
from meshkit.client.policy import CallPolicy, PolicyOptions
from meshkit.client.response import StreamResponse
from meshkit.errors import (
    BreakerOpen,
    BulkheadFull,
    CallError,
    CallTimeout,
    ConfigError,
    ConnectError,
    ConnectionLost,
    MeshError,
    NoInstances,
)

if TYPE_CHECKING:
    from httpx2 import AsyncBaseTransport
else:
    AsyncBaseTransport = object

# How messages are framed and connections kept is between us and the instance.
HOP = frozenset({"connection", "host", "transfer-encoding"})

# https://www.python-httpx.org/exceptions/
ERRORS: tuple[tuple[type[MeshError], str], ...] = (
    (BulkheadFull, "PoolTimeout"),
    (CallTimeout, "ReadTimeout"),
    (NoInstances, "ConnectError"),
    (ConnectError, "ConnectError"),
    (BreakerOpen, "ConnectError"),
    (ConnectionLost, "ReadError"),
    (CallError, "RemoteProtocolError"),
    (ConfigError, "LocalProtocolError"),
)


class MeshTransport(AsyncBaseTransport):
    """Sends the requests of an ``AsyncClient`` to services by their names.

    ::

        async with Mesh() as mesh, httpx2.AsyncClient(transport=MeshTransport(mesh)) as client:
            answer = await client.get("http://users/users/1")

    or for some hosts only: ``AsyncClient(mounts={"http://users": MeshTransport(mesh)})``.

    Calls are balanced, retried and so on as those of ``mesh.http``. Of httpx's timeouts the read
    timeout counts: for the answer to begin, further instances included, and then between two
    pieces of it. Errors are httpx's; ``__cause__`` has ours. Who answered is in
    ``response.extensions["meshkit_instance"]``.

    Args:
        mesh: not closed along with the client.
        options: see :class:`~meshkit.client.policy.PolicyOptions`.
    """

    def __init__(self, mesh: Mesh, **options: Unpack[PolicyOptions]) -> None:
        if not isinstance(mesh, Mesh):
            raise ConfigError(f"MeshTransport takes a Mesh, not {mesh!r}")
        CallPolicy.of(options)  # complains now, not with the first request
        self._mesh = mesh
        self._options = options

    async def handle_async_request(self, request: Any) -> Any:
        """Send a request of httpx2's or httpx's, and return an answer of the same."""
        library = sys.modules[type(request).__module__.partition(".")[0]]
        service = request.url.host
        if request.url.scheme != "http" or request.url.port is not None:
            raise library.UnsupportedProtocol(
                f"{service}: services are called as http://{service}/..., without a port",
                request=request,
            )
        try:
            context = self._stream(library, request, service)
            answer = await context.__aenter__()
        except MeshError as error:
            raise translate(library, request, error) from error
        return library.Response(
            answer.status_code,
            headers=answer.headers.multi_items(),
            stream=_stream_class(library)(library, request, context, answer),
            extensions={
                "http_version": answer.http_version.encode(),
                "meshkit_instance": answer.instance,
            },
        )

    def _stream(
        self, library: Any, request: Any, service: str
    ) -> AbstractAsyncContextManager[StreamResponse]:
        try:
            content = request.content
        except library.RequestNotRead:
            content = request.stream
        headers = [
            (name.decode("latin-1"), value.decode("latin-1"))
            for name, value in request.headers.raw
            if name.lower().decode("latin-1") not in HOP
        ]
        return self._mesh.http(service, **self._options).stream(
            request.method,
            request.url.raw_path.decode(),
            headers=headers,
            content=content or None,
            timeout=(request.extensions.get("timeout") or {}).get("read"),
        )

    async def aclose(self) -> None:
        """Do nothing: the mesh stays open."""

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None = None,
        error: BaseException | None = None,
        traceback: TracebackType | None = None,
    ) -> None:
        """Do nothing: the mesh stays open."""


def translate(library: Any, request: Any, error: MeshError) -> Exception:
    """Return the library's error for ours."""
    name = next(name for kind, name in ERRORS if isinstance(error, kind))
    made: Exception = getattr(library, name)(str(error), request=request)
    return made


@functools.cache
def _stream_class(library: Any) -> Any:
    """Return a class of streams that the library takes for its own."""

    class Stream(library.AsyncByteStream):  # type: ignore[misc] # whichever library it is
        def __init__(
            self,
            library: Any,
            request: Any,
            context: AbstractAsyncContextManager[StreamResponse],
            answer: StreamResponse,
        ) -> None:
            self._library = library
            self._request = request
            self._context = context
            self._answer = answer
            self._closed = False

        async def __aiter__(self) -> AsyncIterator[bytes]:
            try:
                async for piece in self._answer.aiter_bytes():
                    yield piece
            except MeshError as error:
                raise translate(self._library, self._request, error) from error

        async def aclose(self) -> None:
            if not self._closed:
                self._closed = True
                await self._context.__aexit__(None, None, None)

    return Stream
