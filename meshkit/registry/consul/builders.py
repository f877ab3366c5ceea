"""python-consul2 as the builder of requests, over our own transport.

Of the library only the classes that turn arguments into a path and parameters are used. Its
``Consul`` is never made: it prefers the environment to its arguments and warns on every start.
Our stand-in has the attributes that those classes look at. py-consul, which takes over the
module ``consul`` when it is installed too, works the same way.

Importing this module takes over 0.1 s, because the library imports requests: do it on use.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from consul import base

from meshkit.registry.consul.failures import not_consul
from meshkit.registry.consul.transport import Answer, Transport, seconds

# python-consul2 nests its parts in the class, py-consul has them in the module.
_parts: Any = base.Consul if hasattr(base.Consul, "Health") else base

Callback = Callable[[Any], Any]
Pairs = list[tuple[str, str]]


class Builders:
    """The parts of the library's client that we use; each of their methods returns an awaitable.

    Reads that Consul can answer without its leader are asked for as ``stale``: a watch then
    survives an election, and a list is at most as old as the last contact of the agent's server.
    """

    def __init__(self, transport: Transport, *, dc: str) -> None:
        self.http = _Http(transport)
        self.dc = dc or None
        self.token = None  # the transport reads it for each request
        self.consistency = "default"
        self.catalog: Any = _parts.Catalog(self)
        self.health: Any = _parts.Health(self)

    def prepare_headers(self, token: str | None) -> dict[str, str]:  # noqa: ARG002 - py-consul's
        """Return no headers: the transport adds them."""
        return {}


class _Http:
    """What the library takes for its HTTP client."""

    def __init__(self, transport: Transport) -> None:
        self._transport = transport

    async def get(
        self, callback: Callback, path: str, params: Pairs | None = None, **_: object
    ) -> Any:
        waits = seconds(params or ())
        # What waits may come from the agent's cache; what is to be answered at once must be new.
        cached = [("cached", "1")] if waits and self._transport.options.cached else []
        params = [*(params or ()), ("stale", "1"), *cached]
        answer = await self._transport.read(path, params, wait=waits)
        return self._result(callback, answer, f"GET {path}")

    async def put(
        self,
        callback: Callback,
        path: str,
        params: Pairs | None = None,
        data: str = "",
        **_: object,
    ) -> Any:
        answer = await self._transport.write(path, params or (), body=data.encode())
        return self._result(callback, answer, f"PUT {path}")

    def _result(self, callback: Callback, answer: Answer, request: str) -> Any:
        # 404 is for the callback: "unknown", not a failure, to most of them.
        if answer.status >= 300 and answer.status != 404:
            raise self._transport.error(answer, request)
        headers = {"X-Consul-Index": answer.index} if answer.index.isdigit() else {}
        content = answer.body.encode()
        response = (answer.status, headers, answer.body, content)[: len(base.Response._fields)]
        try:
            return callback(base.Response(*response))
        except (KeyError, TypeError, ValueError):
            raise not_consul(self._transport.address, request=request) from None
