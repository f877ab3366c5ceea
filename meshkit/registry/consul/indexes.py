"""Whether something has changed, without what it is: answers that carry only an index.

Each service has an index of its own, and so have the tables of all services and of all checks.
A filter that nothing fits empties the answer and leaves the index as it is.
https://developer.hashicorp.com/consul/api-docs/features/filtering
"""

from __future__ import annotations

from meshkit.registry.consul import failures
from meshkit.registry.consul.transport import Params, Transport, seconds

NO_SERVICE = ("filter", "Service.ID == none")
NO_CHECK = ("filter", "Status == none")


class Indexes:
    """The indexes of one datacenter."""

    def __init__(self, transport: Transport, *, dc: str) -> None:
        self._transport = transport
        self._common = (("stale", "1"), *((("dc", dc),) if dc else ()))

    async def of_service(self, service: str) -> int:
        """Return the index that moves with this service's instances and their checks."""
        index, _ = await self._ask(f"/v1/health/service/{service}", (NO_SERVICE,))
        return int(index)

    async def of_services(self, index: int | None, wait: str) -> tuple[str, str]:
        """Wait for the index of all registrations; for :func:`.polling.follow`."""
        return await self._ask("/v1/catalog/services", _blocking(index, wait))

    async def of_checks(self, index: int | None, wait: str) -> tuple[str, str]:
        """Wait for the index of all checks; for :func:`.polling.follow`."""
        return await self._ask("/v1/health/state/any", (NO_CHECK, *_blocking(index, wait)))

    async def _ask(self, path: str, params: Params) -> tuple[str, str]:
        waits = seconds(params)
        answer = await self._transport.read(path, (*self._common, *params), wait=waits)
        if answer.status != 200:
            raise self._transport.error(answer, f"GET {path}")
        if not answer.index.isdigit():
            raise failures.not_consul(self._transport.address, request=f"GET {path}")
        return answer.index, answer.index


def _blocking(index: int | None, wait: str) -> Params:
    return (("index", str(index)), ("wait", wait)) if index else ()
