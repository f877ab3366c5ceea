"""Requests to the API server about EndpointSlices: a list of them, and a watch from there on.

https://kubernetes.io/docs/reference/using-api/api-concepts/#efficient-detection-of-changes
"""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import json
import time
from collections.abc import AsyncGenerator, AsyncIterator, Iterator, Mapping
from typing import Any
from urllib.parse import urlencode

import httptools

from meshkit.connections import Pool, Stream
from meshkit.errors import RegistryError
from meshkit.registry.kubernetes import failures
from meshkit.registry.kubernetes.options import KubernetesOptions

LIMIT = 10.0  # seconds for an answer, and for a watch to end after its time
LONGEST_EVENT = 16 << 20  # bytes; etcd takes objects of 1.5 MiB

#: an EndpointSlice, as JSON has it
Slice = dict[str, Any]


@dataclasses.dataclass(frozen=True, slots=True)
class Listing:
    """All slices that a selector meets, and the version that a watch for changes begins with."""

    slices: tuple[Slice, ...]
    version: str


@dataclasses.dataclass(frozen=True, slots=True)
class Event:
    """What a watch tells: ``ADDED``, ``MODIFIED``, ``DELETED``; by ``BOOKMARK`` only the version.

    The object of an ``ERROR`` is a Status.
    """

    kind: str
    object: Slice


class Api:
    """Asks about the EndpointSlices of one namespace; connects on use.

    All raise RegistryUnavailable when no answer comes, and RegistryDenied when it is refused.
    """

    def __init__(self, options: KubernetesOptions) -> None:
        self.server = options.server
        self._options = options
        self._pool = Pool(
            options.server, options.certificates.context if options.certificates else None
        )

    async def read(self, selector: str) -> Listing:
        """Return what is true now, not what a cache of the server may have been left with."""
        with self._failures():
            async with self._within(LIMIT):
                response = await self._pool.send(
                    self._request({"labelSelector": selector}), repeat=True
                )
        if response.status != 200:
            raise self._refusal(response.status, bytes(response.body))
        return self._listing(response.body)

    async def watch(
        self, selector: str, version: str, *, seconds: int
    ) -> AsyncGenerator[list[Event], None]:
        """Yield what happens after ``version``, in what came at once; ends after ``seconds``."""
        params = {
            "labelSelector": selector,
            "watch": "true",
            "allowWatchBookmarks": "true",
            "resourceVersion": version,
            "timeoutSeconds": str(seconds),
        }
        lines, limit = Lines(self), seconds + LIMIT
        ends = time.monotonic() + limit
        with self._failures():
            async with self._opened(params) as stream:
                try:
                    while (part := await _part(stream, ends)) is not None:
                        if events := [self._event(line) for line in lines.of(part)]:
                            yield events
                except TimeoutError:
                    raise failures.silent(self.server, limit) from None

    async def aclose(self) -> None:
        """Close all connections; requests under way fail. Closing twice is safe."""
        await self._pool.aclose()

    def failure(self, event: Event) -> RegistryError:
        """Return the error that an event of the kind ``ERROR`` tells of."""
        said = event.object if isinstance(event.object, dict) else {}
        code = said.get("code")
        return self._error(code if isinstance(code, int) else 500, said)

    def unreadable(self) -> RegistryError:
        """Return the error for what is none of Kubernetes' answers."""
        return failures.not_kubernetes(self.server)

    @contextlib.asynccontextmanager
    async def _opened(self, params: dict[str, str]) -> AsyncIterator[Stream]:
        """Send the request of a watch; its head comes at once, and says whether we may."""
        async with contextlib.AsyncExitStack() as stack:
            async with self._within(LIMIT):
                stream = await stack.enter_async_context(self._pool.stream(self._request(params)))
                if stream.status != 200:
                    body = b"".join([part async for part in stream])
                    raise self._refusal(stream.status, body)
            yield stream

    def _request(self, params: dict[str, str]) -> bytes:
        path = f"/apis/discovery.k8s.io/v1/namespaces/{self._options.namespace}/endpointslices"
        lines = [
            f"GET {path}?{urlencode(params)} HTTP/1.1",
            f"Host: {self.server}",
            "User-Agent: meshkit",
            "Accept: application/json",
        ]
        if token := self._options.read_token():
            lines.append(f"Authorization: Bearer {token}")
        return "\r\n".join([*lines, "", ""]).encode("ascii")

    def _listing(self, body: bytes | bytearray) -> Listing:
        try:
            found = json.loads(body)
            version = found["metadata"]["resourceVersion"]
            items = tuple(found.get("items") or ())
        except (ValueError, TypeError, KeyError, AttributeError):
            raise self.unreadable() from None
        if found.get("kind") != "EndpointSliceList" or not isinstance(version, str):
            raise self.unreadable()
        return Listing(items, version)

    def _event(self, line: bytes) -> Event:
        try:
            found = json.loads(line)
            return Event(found["type"], found["object"])
        except (ValueError, TypeError, KeyError):
            raise self.unreadable() from None

    def _refusal(self, status: int, body: bytes) -> RegistryError:
        return self._error(status, failures.read_status(body))

    def _error(self, status: int, said: Mapping[str, Any] | None) -> RegistryError:
        return failures.from_status(status, said, self.server, namespace=self._options.namespace)

    @contextlib.asynccontextmanager
    async def _within(self, limit: float) -> AsyncIterator[None]:
        try:
            async with asyncio.timeout(limit):
                yield
        except TimeoutError:
            raise failures.too_slow(self.server, limit) from None

    @contextlib.contextmanager
    def _failures(self) -> Iterator[None]:
        """Translate what breaks inside."""
        if self._pool.closed:
            raise failures.closed(self._options.url)
        try:
            yield
        except (OSError, httptools.HttpParserError) as error:
            if self._pool.closed:
                raise failures.closed(self._options.url) from None
            raise failures.from_exchange(error, self.server) from None


async def _part(stream: Stream, ends: float) -> bytes | None:
    """Return what comes next, None at the end. Raises TimeoutError when it has not by ``ends``."""
    async with asyncio.timeout(ends - time.monotonic()):
        return await anext(stream, None)


class Lines:
    """Puts the lines of a stream together again, whose parts end anywhere."""

    def __init__(self, api: Api) -> None:
        self._api = api
        self._rest = b""

    def of(self, part: bytes) -> list[bytes]:
        """Return the lines that are complete with this part."""
        *lines, self._rest = (self._rest + part).split(b"\n")
        if len(self._rest) > LONGEST_EVENT:
            raise self._api.unreadable()
        return [line for line in lines if line.strip()]
