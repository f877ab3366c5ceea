"""A word on what is empty because it may not be read: Consul hides that instead of refusing."""

from __future__ import annotations

import logging

from meshkit.errors import RegistryError
from meshkit.registry.consul.transport import Transport

AGENT = "/v1/agent/self"
PROBE_LIMIT = 2.0  # seconds; the list waits for it

log = logging.getLogger("meshkit.consul")


class Hidden:
    """Hints at missing permissions, once for each kind of them."""

    def __init__(self, transport: Transport) -> None:
        self._transport = transport
        self._said: set[str] = set()

    async def hint(self, what: str, *, permission: str) -> None:
        """Say that there is no ``what``, and which permission may be missing. Never raises."""
        if permission in self._said:
            return
        self._said.add(permission)
        if self._transport.options.has_token:
            log.info(
                "Consul at %s lists no %s; should there be one, check that the token has "
                "%s, because Consul hides what it may not read",
                self._transport.address,
                what,
                permission,
            )
        elif await self._refuses_strangers():
            log.warning(
                "Consul at %s lists no %s, and hides what may not be read without a token; "
                "give one that has %s, by ?token= or CONSUL_HTTP_TOKEN",
                self._transport.address,
                what,
                permission,
            )

    async def _refuses_strangers(self) -> bool:
        """Whether ACLs are on: of the agent itself Consul refuses to speak, instead of hiding."""
        try:
            async with self._transport.within(PROBE_LIMIT):
                answer = await self._transport.read(AGENT)
        except RegistryError:
            return False
        return answer.status == 403
