"""Requests to one Consul agent: time limits, the token, and errors of one family."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import time
from base64 import b64encode
from collections.abc import AsyncIterator, Sequence
from urllib.parse import quote, urlencode

import httptools

from meshkit.connections import Pool
from meshkit.errors import RegistryError
from meshkit.registry.consul import failures
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


def seconds(params: Params) -> float:
    """Return how long a query may be held back: its own ``wait``, as we write it."""
    return float(dict(params).get("wait", "0ms").removesuffix("ms")) / 1000


@dataclasses.dataclass(frozen=True, slots=True)
class Request:
    """One request, before it is known who asks."""

    method: str
    path: str
    params: Params = ()
    body: bytes = b""

    def encode(self, options: ConsulOptions, token: str) -> bytes:
        """Return what is sent."""
        target = quote(self.path, safe="/:")
        if self.params:
            target += f"?{urlencode(self.params)}"
        lines = [
            f"{self.method} {target} HTTP/1.1",
            f"Host: {options.endpoint if options.socket is None else 'localhost'}",
            "User-Agent: meshkit",
            f"Content-Length: {len(self.body)}",
        ]
        if token:
            lines.append(f"X-Consul-Token: {token}")
        if options.auth:
            lines.append(f"Authorization: Basic {b64encode(options.auth.encode()).decode()}")
        return "\r\n".join([*lines, "", ""]).encode("ascii") + self.body


class Transport:
    """Sends requests to the agent; connects on use.

    Writes have a pool of their own: its connection stays open from heartbeat to heartbeat, so
    that watches which use up Consul's connections don't cost us the lease, and an address
    that stands for several agents keeps to the one that has our registration.
    """

    def __init__(self, options: ConsulOptions) -> None:
        self.options = options
        self.address = options.address
        # Whether Consul has refused a connection as one too many, while others were in order.
        self.crowded = False
        context = options.certificates.context if options.certificates else None
        self._reads = Pool(self.address, context)
        self._writes = Pool(self.address, context)

    async def read(self, path: str, params: Params = (), *, wait: float = 0.0) -> Answer:
        """GET ``path``, which Consul may hold back for ``wait`` seconds. Any status is returned.

        Raises:
            RegistryUnavailable: no answer.
            RegistryDenied: no token can be read, or a certificate is refused.
        """
        request = Request("GET", path, params)
        # Consul adds up to a sixteenth to the wait. What waits is not repeated: behind a broken
        # connection may be a server that was restarted, and that knows nothing of our index.
        limit = wait * 17 / 16 + LIMIT
        return await self._send(self._reads, request, limit=limit, repeat=not wait)

    async def write(
        self,
        path: str,
        params: Params = (),
        *,
        body: bytes = b"",
        repeat: bool = True,
    ) -> Answer:
        """PUT ``body`` to ``path``. Raises as :meth:`read`.

        ``repeat`` is for what may be carried out twice, when the first answer was lost.
        """
        request = Request("PUT", path, params, body)
        return await self._send(self._writes, request, limit=LIMIT, repeat=repeat)

    @contextlib.asynccontextmanager
    async def within(self, limit: float = LIMIT) -> AsyncIterator[None]:
        """Bound all that is awaited inside. Raises RegistryUnavailable."""
        try:
            async with asyncio.timeout(limit):
                yield
        except TimeoutError:
            raise failures.too_slow(self.address, limit) from None

    def error(self, answer: Answer, request: str, *, about: str = "service") -> RegistryError:
        """Return the error that an unsuccessful answer to a request about this stands for."""
        return failures.from_status(
            answer.status, answer.body, self.address, request=request, about=about
        )

    async def aclose(self) -> None:
        """Close all connections; requests under way fail. Closing twice is safe."""
        await self._reads.aclose()
        await self._writes.aclose()

    @property
    def _connected(self) -> bool:
        return self._reads.connected or self._writes.connected

    async def _send(self, pool: Pool, request: Request, *, limit: float, repeat: bool) -> Answer:
        if pool.closed:
            raise failures.closed(self.address)
        started = time.monotonic()
        try:
            async with self.within(limit):
                content = request.encode(self.options, await self.options.read_token())
                started = time.monotonic()
                response = await pool.send(content, repeat=repeat)
        except (OSError, httptools.HttpParserError) as error:
            if pool.closed:
                raise failures.closed(self.address) from None
            lasted = time.monotonic() - started
            # What stands before a Consul that is down (a load balancer, a container's port) closes
            # new connections just so, but the old ones too.
            if failures.is_refusal(error, lasted=lasted) and self._connected:
                self.crowded = True
            raise failures.from_exchange(error, self.address, lasted=lasted) from None
        return Answer(
            response.status,
            response.headers.get("x-consul-index", ""),
            response.body.decode(errors="replace"),
        )
