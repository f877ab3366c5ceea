"""Requests to etcd: which endpoint is asked, how long, and as whom."""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections.abc import AsyncIterator
from typing import Any

import grpc.aio

from meshkit.errors import RegistryDenied, RegistryError
from meshkit.model import Endpoint
from meshkit.registry.etcd import failures
from meshkit.registry.etcd.link import Link, Metadata, Stream
from meshkit.registry.etcd.messages import AUTHENTICATE, Rpc, make
from meshkit.registry.etcd.options import EtcdOptions

# Of one endpoint, when there are others to ask: a member that hangs costs this once.
ATTEMPT = 1.5
# Of the last one; a cluster that elects a leader needs a second or two.
LIMIT = 5.0
SETTLE = 0.05
# A member that has lost its leader says so instead of waiting.
# https://github.com/etcd-io/etcd/blob/main/client/v3/ctx.go (WithRequireLeader)
HAS_LEADER = ("hasleader", "true")


class Client:
    """Asks one endpoint for as long as it answers, then the next one.

    gRPC's own balancing keeps calling a member that hangs until a ping has failed, and can't
    resolve a list of names; so each endpoint has a channel of its own here.

    Attributes:
        current: the endpoint that is asked first.
    """

    def __init__(self, options: EtcdOptions) -> None:
        self.options = options
        self._links: dict[Endpoint, Link] = {}
        # Not always the first one, which would carry the watches of all processes.
        self.current = random.choice(options.endpoints)  # noqa: S311 - no secret
        self._token: str | None = None  # "" when etcd knows no users
        self._logins = asyncio.Lock()
        self._closed = False

    async def call(self, rpc: Rpc, request: Any, *, repeat: bool = True) -> Any:
        """Return the answer of the first endpoint that gives one.

        Args:
            rpc: what to call.
            request: its message.
            repeat: whether it may be carried out twice, as it may when an answer is lost.

        Raises:
            RegistryError: as the endpoints failed, in one line.
        """
        errors: list[RegistryError] = []
        order = self._order()
        for endpoint in order:
            last = len(errors) == len(order) - 1
            limit = LIMIT if last or not repeat else ATTEMPT
            try:
                answer = await self._ask(endpoint, rpc, request, limit)
            except grpc.aio.AioRpcError as error:
                errors.append(self._translate(error, endpoint, rpc, limit))
                if not failures.is_elsewhere_better(error):
                    raise errors[-1] from None
                await self.leave(endpoint)
                if not repeat and not failures.is_surely_undone(error):
                    break
            else:
                self.current = endpoint
                return answer
        raise failures.all_of(errors)

    async def open_stream(self, rpc: Rpc) -> Stream:
        """Open a stream to the endpoint that answered last. Whoever loses it calls ``leave``."""
        endpoint = self.current
        try:
            return (await self._link(endpoint)).stream(rpc, await self._metadata(endpoint, LIMIT))
        except grpc.aio.AioRpcError as error:
            await self.leave(endpoint)
            raise self._translate(error, endpoint, rpc, LIMIT) from None

    @contextlib.asynccontextmanager
    async def streaming(self, rpc: Rpc) -> AsyncIterator[Stream]:
        """Yield a stream that ends with the block; when it fails its endpoint is left."""
        stream = await self.open_stream(rpc)
        try:
            yield stream
        except RegistryError:  # a refused certificate too
            await self.leave(stream.link.endpoint)
            raise
        finally:
            stream.cancel()

    async def leave(self, endpoint: Endpoint) -> None:
        """Ask another endpoint from now on; connect anew when certificates were renewed."""
        if self.current == endpoint:
            self.current = self._order()[1 % len(self.options.endpoints)]
        link = self._links.get(endpoint)
        if link is None or self.options.tls is None:
            return
        try:
            renewed = self.options.tls.load() != link.material
        except RegistryDenied:
            return  # said when they are needed
        if renewed and self._links.get(endpoint) is link:
            del self._links[endpoint]
            await link.aclose(renewed=True)

    async def aclose(self) -> None:
        """Close all channels; what is under way fails. Closing twice is safe."""
        self._closed = True
        links = list(self._links.values())
        self._links.clear()
        for link in links:
            await link.aclose()
        if links:
            # gRPC tells the loop of a cancelled call's end a moment later, and complains in other
            # loops of the process when ours is closed by then.
            await asyncio.sleep(SETTLE)

    def _order(self) -> tuple[Endpoint, ...]:
        endpoints = self.options.endpoints
        first = endpoints.index(self.current)
        return endpoints[first:] + endpoints[:first]

    async def _ask(self, endpoint: Endpoint, rpc: Rpc, request: Any, limit: float) -> Any:
        metadata = await self._metadata(endpoint, limit)
        try:
            return await (await self._link(endpoint)).unary(rpc, request, metadata, limit)
        except grpc.aio.AioRpcError as error:
            if not self.options.username or not failures.is_stale_token(error):
                raise
        self._forget(metadata)
        metadata = await self._metadata(endpoint, limit)
        return await (await self._link(endpoint)).unary(rpc, request, metadata, limit)

    async def _link(self, endpoint: Endpoint) -> Link:
        if self._closed:
            raise failures.closed(endpoint)
        if endpoint not in self._links:
            material = self.options.tls.load() if self.options.tls else None
            self._links[endpoint] = Link(endpoint, material)
        return self._links[endpoint]

    async def _metadata(self, endpoint: Endpoint, limit: float) -> Metadata:
        if not self.options.username:
            return (HAS_LEADER,)
        async with self._logins:
            if self._token is None:
                self._token = await self._log_in(endpoint, limit)
            token = self._token
        return (HAS_LEADER, ("token", token)) if token else (HAS_LEADER,)

    async def _log_in(self, endpoint: Endpoint, limit: float) -> str:
        """Return a token; empty when etcd knows no users, and so needs none."""
        request = make(
            AUTHENTICATE.request,
            name=self.options.username,
            password=self.options.read_password(),
        )
        try:
            answer = await (await self._link(endpoint)).unary(
                AUTHENTICATE, request, (HAS_LEADER,), limit
            )
        except grpc.aio.AioRpcError as error:
            if failures.NO_AUTHENTICATION in failures.text_of(error):
                return ""
            raise
        return str(answer.token)

    def _forget(self, metadata: Metadata) -> None:
        """Forget the token that was refused, unless a newer one is known."""
        if not self._token or ("token", self._token) in metadata:
            self._token = None

    def _translate(
        self, error: grpc.aio.AioRpcError, endpoint: Endpoint, rpc: Rpc, limit: float
    ) -> RegistryError:
        return failures.translate(
            error, endpoint, request=rpc.name, tls=self.options.tls is not None, limit=limit
        )
