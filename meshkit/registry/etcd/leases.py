"""Leases: one for each instance, all kept alive through one stream."""

from __future__ import annotations

import asyncio

from meshkit.errors import RegistryError
from meshkit.model import Endpoint
from meshkit.registry.etcd import failures
from meshkit.registry.etcd.client import ATTEMPT, LIMIT, Client
from meshkit.registry.etcd.link import Stream
from meshkit.registry.etcd.messages import GRANT, KEEP_ALIVE, REVOKE, make

TTL = 10.0


class Leases:
    """Grants, renews and revokes leases.

    A stream is authenticated once, a call each time: with thousands of processes that was what a
    cluster could not stand (https://github.com/micro/go-micro/issues/2821).
    """

    def __init__(self, client: Client) -> None:
        self._client = client
        self._stream: Stream | None = None
        self._turn = asyncio.Lock()

    async def grant(self) -> int:
        """Return the id of a new lease of ``TTL`` seconds."""
        answer = await self._client.call(GRANT, make(GRANT.request, TTL=int(TTL)))
        return int(answer.ID)

    async def renew(self, lease: int) -> bool:
        """Let the lease last ``TTL`` seconds from now. False when it has ended already."""
        errors: list[RegistryError] = []
        async with self._turn:
            for left in reversed(range(len(self._client.options.endpoints))):
                try:
                    return await self._ask(lease, ATTEMPT if left else LIMIT)
                except RegistryError as error:
                    errors.append(error)
        raise failures.all_of(errors)

    async def revoke(self, lease: int) -> None:
        """End the lease and with it its keys. Raises LeaseLost when it has ended already."""
        await self._client.call(REVOKE, make(REVOKE.request, ID=lease))

    def close(self) -> None:
        """End the stream; leases end by themselves."""
        if self._stream is not None:
            self._stream.cancel()
            self._stream = None

    async def _leave(self) -> Endpoint:
        """Ask another endpoint from now on; return the one that failed."""
        endpoint = self._stream.link.endpoint if self._stream else self._client.current
        await self._client.leave(endpoint)
        return endpoint

    async def _ask(self, lease: int, limit: float) -> bool:
        if self._stream is not None and self._stream.link.endpoint != self._client.current:
            self.close()  # a call has left that endpoint
        done = False
        try:
            async with asyncio.timeout(limit):
                stream = self._stream = self._stream or await self._client.open_stream(KEEP_ALIVE)
                await stream.send(make(KEEP_ALIVE.request, ID=lease))
                answer = await stream.receive()
            done = True
            return bool(answer.TTL > 0)
        except TimeoutError:
            raise failures.too_slow(await self._leave(), limit) from None
        except RegistryError:
            await self._leave()
            raise
        finally:
            if not done:  # cancelled too: the answer would be taken for the next lease's
                self.close()
