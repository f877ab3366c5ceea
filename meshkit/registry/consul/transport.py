"""Requests to one Consul agent: time limits, the token, and errors of one family."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import time
from collections.abc import AsyncIterator, Sequence
from urllib.parse import quote, urlencode

import httptools

from meshkit.errors import RegistryError
from meshkit.registry.consul import failures
from meshkit.registry.consul.connection import Pool
from meshkit.registry.consul.options import ConsulOptions

# An agent whose server has lost its leader may take 7 s for a write that then succeeds.
LIMIT = 10.0

Params = Sequence[tuple[str, str]]


@dataclasses.dataclass(frozen=True, slots=True)
class Answer:
    """What Consul answered: status, its index (empty when there is none), and the body."""

    status: int
    index: str
    body: str


class Transport:
    """Sends requests to the agent; connects on use.

    Writes have a pool of their own: its connection stays open from heartbeat to heartbeat, so
    that watches which use up Consul's connections don't cost us the lease, and an address
    that stands for several agents keeps to the one that has our registration.
    """

    def __init__(self, options: ConsulOptions) -> None:
        self.options = options
        self._reads = Pool(options.endpoint, options.context)
        self._writes = Pool(options.endpoint, options.context)

    async def read(self, path: str, params: Params = (), *, wait: float = 0.0) -> Answer:
        """GET ``path``, which Consul may hold back for ``wait`` seconds. Any status is returned.

        Raises:
            RegistryUnavailable: no answer.
            RegistryDenied: no token can be read, or a certificate is refused.
        """
        request = self._request("GET", path, params, b"")
        # Consul adds up to a sixteenth to the wait. What waits is not repeated: behind a broken
        # connection may be a server that was restarted, and that knows nothing of our index.
        limit = wait * 17 / 16 + LIMIT
        return await self._send(self._reads, request, limit=limit, repeat=not wait)

    async def write(self, path: str, params: Params = (), *, body: bytes = b"") -> Answer:
        """PUT ``body`` to ``path``. Raises as :meth:`read`."""
        request = self._request("PUT", path, params, body)
        return await self._send(self._writes, request, limit=LIMIT, repeat=True)

    @contextlib.asynccontextmanager
    async def within(self, limit: float = LIMIT) -> AsyncIterator[None]:
        """Bound all that is awaited inside. Raises RegistryUnavailable."""
        try:
            async with asyncio.timeout(limit):
                yield
        except TimeoutError:
            raise failures.too_slow(self.options.endpoint, limit) from None

    def error(self, answer: Answer, request: str) -> RegistryError:
        """Return the error that an unsuccessful answer stands for."""
        return failures.from_status(
            answer.status, answer.body, self.options.endpoint, request=request
        )

    async def aclose(self) -> None:
        """Close all connections; requests under way fail. Closing twice is safe."""
        await self._reads.aclose()
        await self._writes.aclose()

    def _request(self, method: str, path: str, params: Params, body: bytes) -> bytes:
        target = quote(path, safe="/:") + (f"?{urlencode(params)}" if params else "")
        token = self.options.read_token()
        lines = [
            f"{method} {target} HTTP/1.1",
            f"Host: {self.options.endpoint}",
            "User-Agent: meshkit",
            f"Content-Length: {len(body)}",
            *([f"X-Consul-Token: {token}"] if token else []),
        ]
        return "\r\n".join([*lines, "", ""]).encode("ascii") + body

    async def _send(self, pool: Pool, request: bytes, *, limit: float, repeat: bool) -> Answer:
        endpoint = self.options.endpoint
        if pool.closed:
            raise failures.closed(endpoint)
        started = time.monotonic()
        try:
            async with self.within(limit):
                response = await pool.send(request, repeat=repeat)
        except (OSError, httptools.HttpParserError) as error:
            if pool.closed:
                raise failures.closed(endpoint) from None
            lasted = time.monotonic() - started
            raise failures.from_exchange(error, endpoint, lasted=lasted) from None
        return Answer(
            response.status,
            response.headers.get("x-consul-index", ""),
            response.body.decode(errors="replace"),
        )
