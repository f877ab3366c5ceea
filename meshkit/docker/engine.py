"""The API of one Docker engine, as far as reading goes: nothing is ever changed there.

Objects are handed out as the engine's own JSON, described in
https://docs.docker.com/reference/api/engine/. What newer engines have dropped must not be used:
``status``, ``id`` and ``from`` of events, and addresses outside of ``NetworkSettings.Networks``.
"""

from __future__ import annotations

import asyncio
import contextlib
import http
import json
from collections import deque
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self
from urllib.parse import quote, urlencode

import httptools

from meshkit.connections import Pool, Stream
from meshkit.docker import errors
from meshkit.docker.host import DockerHost

#: what we ask for; engines that speak only older or newer ones are asked for theirs
API_VERSION = (1, 41)
LIMIT = 20.0

JsonObject = dict[str, Any]
Filters = Mapping[str, Sequence[str]]
Params = Mapping[str, str]


class Docker:
    """One Docker engine; connects on use. ``async with`` closes it.

    Args:
        host: where it is; from the environment by default.
        limit: seconds that a request may take.

    Each request raises:
        DockerUnavailable: no answer; the same request may succeed later.
        DockerDenied: we may not use the engine.
        DockerError: it answered with an error, or what answers is not Docker.
        ConfigError: the certificates to use can't be read.
    """

    def __init__(self, host: DockerHost | None = None, *, limit: float = LIMIT) -> None:
        self.host = host or DockerHost.from_environment()
        self._limit = limit
        self._pool = Pool(
            self.host.address, self.host.context if self.host.certificates is not None else None
        )
        self._version = ""

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.aclose()

    async def version(self) -> str:
        """Return the API version that is spoken, like ``1.41``; agreed upon at first use."""
        if not self._version:
            path = "/version"
            found = await self._get(path)
            try:
                newest = _version(found["ApiVersion"])
                oldest = _version(found.get("MinAPIVersion") or found["ApiVersion"])
            except (TypeError, KeyError, ValueError, AttributeError):
                raise errors.not_docker(self.host.address, request=path) from None
            major, minor = max(oldest, min(newest, API_VERSION))
            self._version = f"{major}.{minor}"
        return self._version

    async def info(self) -> JsonObject:
        """Return what the engine says about itself and its Swarm."""
        return await self._object("/info")

    async def containers(
        self, *, all: bool = False, filters: Filters | None = None
    ) -> tuple[JsonObject, ...]:
        """Return the running containers in short, or with ``all`` the others too.

        Args:
            all: also those that are created, paused or stopped.
            filters: like ``{"label": ["app=users"], "status": ["running"]}``.
        """
        params = {"all": "true"} if all else {}
        return await self._list("/containers/json", {**params, **_filtered(filters)})

    async def inspect(self, id: str) -> JsonObject:
        """Return all about a container by its id, a unique start of that, or its name.

        Raises:
            DockerNotFound: there is none, or no longer.
        """
        return await self._object(f"/containers/{quote(id, safe='')}/json")

    async def services(self) -> tuple[JsonObject, ...]:
        """Return the services of the Swarm; none where the engine manages no Swarm."""
        return await self._swarm("/services")

    async def tasks(self, *, filters: Filters | None = None) -> tuple[JsonObject, ...]:
        """Return the tasks of the Swarm; none where the engine manages no Swarm."""
        return await self._swarm("/tasks", _filtered(filters))

    async def nodes(self) -> tuple[JsonObject, ...]:
        """Return the nodes of the Swarm; none where the engine manages no Swarm."""
        return await self._swarm("/nodes")

    @contextlib.asynccontextmanager
    async def events(
        self, *, since: str = "", filters: Filters | None = None
    ) -> AsyncIterator[Events]:
        """Follow what happens: ``async with docker.events() as events``, then iterate.

        Once the block is entered no event is missed, so a list read inside of it is complete
        together with them. An engine behind TCP that vanishes without a word is noticed only by
        other requests.

        Args:
            since: seconds since the epoch by the engine's clock, with up to nine decimals: what
                has happened since then comes first, as far as the engine remembers it.
            filters: like ``{"type": ["container"]}``.
        """
        params = {**({"since": since} if since else {}), **_filtered(filters)}
        async with contextlib.AsyncExitStack() as stack:
            with self.translated():
                async with self._in_time():
                    path = f"/v{await self.version()}/events"
                    stream = await stack.enter_async_context(
                        self._pool.stream(self._request(path, params))
                    )
                    if stream.status != 200:
                        body = b"".join([part async for part in stream])
                        raise self._error(stream.status, body, "/events")
            yield Events(self, stream)

    async def aclose(self) -> None:
        """Close all connections; what is under way fails. Closing twice is safe."""
        await self._pool.aclose()

    async def _swarm(self, path: str, params: Params | None = None) -> tuple[JsonObject, ...]:
        try:
            return await self._list(path, params)
        except errors.DockerError as error:
            if "not a swarm manager" in str(error):
                return ()
            raise

    async def _list(self, path: str, params: Params | None = None) -> tuple[JsonObject, ...]:
        found = await self._get(f"/v{await self.version()}{path}", params)
        if not isinstance(found, list):
            raise errors.not_docker(self.host.address, request=path)
        return tuple(found)

    async def _object(self, path: str) -> JsonObject:
        found = await self._get(f"/v{await self.version()}{path}")
        if not isinstance(found, dict):
            raise errors.not_docker(self.host.address, request=path)
        return found

    async def _get(self, path: str, params: Params | None = None) -> Any:
        with self.translated():
            async with self._in_time():
                response = await self._pool.send(self._request(path, params or {}), repeat=True)
        if response.status != 200:
            raise self._error(response.status, bytes(response.body), path)
        try:
            return json.loads(response.body)
        except ValueError:
            raise errors.not_docker(self.host.address, request=path) from None

    def _request(self, path: str, params: Params) -> bytes:
        address = self.host.address
        target = f"{path}?{urlencode(params)}" if params else path
        host = "docker" if isinstance(address, Path) else address
        return f"GET {target} HTTP/1.1\r\nHost: {host}\r\nUser-Agent: meshkit\r\n\r\n".encode()

    def _error(self, status: int, body: bytes, path: str) -> errors.DockerError:
        try:
            message = str(json.loads(body)["message"])
        except (ValueError, TypeError, KeyError):
            if status == 400 and b"HTTPS" in body:  # as servers written in Go say it
                return errors.expects_tls(self.host.address)
            if status not in errors.BY_A_PROXY:
                return errors.not_docker(self.host.address, request=path)
            message = f"a proxy says {http.HTTPStatus(status).phrase}"
        return errors.from_status(status, message, self.host.address, request=path)

    @contextlib.asynccontextmanager
    async def _in_time(self) -> AsyncIterator[None]:
        try:
            async with asyncio.timeout(self._limit):
                yield
        except TimeoutError:
            raise errors.too_slow(self.host.address, self._limit) from None

    @contextlib.contextmanager
    def translated(self) -> Iterator[None]:
        """Turn what breaks a connection inside into our errors."""
        try:
            yield
        except (OSError, httptools.HttpParserError) as error:
            self._version = ""  # it may come back as another one
            if self._pool.closed:
                raise errors.closed(self.host.address) from None
            raise errors.from_exchange(error, self.host.address) from None


class Events:
    """What happens, as the engine tells it; iterated once.

    Iterating never ends by itself. Raises DockerUnavailable when the engine ends it or goes away,
    and DockerError for what is not Docker's. Waiting for an event may be cancelled and begun again.
    """

    def __init__(self, docker: Docker, stream: Stream) -> None:
        self._docker = docker
        self._stream = stream
        self._ready: deque[bytes] = deque()
        self._rest = b""

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> JsonObject:
        while not self._ready:
            with self._docker.translated():
                part = await anext(self._stream, b"")
            if not part:
                raise errors.stream_ended(self._docker.host.address)
            *lines, self._rest = (self._rest + part).split(b"\n")
            self._ready += filter(None, map(bytes.strip, lines))
        try:
            event = json.loads(self._ready.popleft())
        except ValueError:
            event = None
        if not isinstance(event, dict):
            raise errors.not_docker(self._docker.host.address, request="/events")
        return event


def _version(text: str) -> tuple[int, int]:
    major, _, minor = text.partition(".")
    return int(major), int(minor)


def _filtered(filters: Filters | None) -> Params:
    if not filters:
        return {}
    return {"filters": json.dumps({name: list(values) for name, values in filters.items()})}
