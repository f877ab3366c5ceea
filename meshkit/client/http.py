"""HTTP calls by service name, written as with httpx."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import math
from collections.abc import AsyncGenerator, Mapping
from typing import Any, TypedDict, TypeVar, Unpack

from meshkit.client.exchange import Answer, Call, Exchange
from meshkit.client.headers import HeaderTypes, check_headers, merge_headers
from meshkit.client.request import (
    METHOD,
    ContentTypes,
    ParamTypes,
    Values,
    encode_body,
    encode_url,
)
from meshkit.client.response import Response, StreamResponse
from meshkit.client.retry import CallStats, RetryPolicy
from meshkit.client.transport import HttpTransport
from meshkit.discovery.balancing import Outcome
from meshkit.discovery.target import Target
from meshkit.errors import ConfigError

# Methods that always announce a body, if an empty one.
# https://www.rfc-editor.org/rfc/rfc9110#section-8.6
WITH_BODY = frozenset({"PATCH", "POST", "PUT"})

Kind = TypeVar("Kind", Response, StreamResponse)


class Options(TypedDict, total=False):
    """What every method takes beside the URL.

    Keys:
        params: query parameters: a mapping, pairs or text; None is an empty value, a list
            repeats the name. They are merged into the query that the URL has.
        headers: a mapping or pairs; they replace the client's headers of the same names.
        timeout: seconds for the whole call, retries included; the client's when None.
    """

    params: ParamTypes | None
    headers: HeaderTypes | None
    timeout: float | None


class BodyOptions(Options, total=False):
    """What methods with a body take; at most one of the three.

    Keys:
        json: anything that JSON has a form for; pydantic models may stand anywhere in it.
        content: bytes, text or an async iterable of bytes, which is sent only once.
        data: a form.
    """

    json: Any
    content: ContentTypes | None
    data: Mapping[str, Values] | None


class HttpClient:
    """Calls one service over HTTP: ``r = await users.get("/users/1")``.

    Each call goes to an instance that the balancer picks. It goes on to another one when the
    first can't have had the request (connection refused, or the address is somebody else's by
    now), and for idempotent methods also when the connection broke. Answers are never retried,
    whatever their status. As with httpx, redirects are not followed; there are no cookies.

    Every method raises :class:`~meshkit.errors.CallError` (see its subclasses) when there is no
    answer, and :class:`~meshkit.errors.ConfigError` for arguments that can't be used.

    Args:
        target: the service, as discovery sees it.
        transport: shared by all clients; not closed by this one.
        timeout: seconds for a whole call, retries included.
        retry: when another instance is tried.
        headers: sent with every call.

    Attributes:
        stats: counters since the client was made.
    """

    def __init__(
        self,
        target: Target,
        transport: HttpTransport,
        *,
        timeout: float,
        retry: RetryPolicy | None = None,
        headers: HeaderTypes | None = None,
    ) -> None:
        self.service = target.service
        self.timeout = self._checked_timeout(timeout)
        self.stats = CallStats()
        self._transport = transport
        target.on_change(functools.partial(transport.keep, target.service))
        if (known := target.subscription.snapshot) is not None:
            transport.keep(target.service, known.instances)
        self._headers = check_headers(headers)
        self._exchange = Exchange(target, retry or RetryPolicy(), self.stats)

    async def get(self, url: str, **options: Unpack[Options]) -> Response:
        """Send a GET request."""
        return await self.request("GET", url, **options)

    async def head(self, url: str, **options: Unpack[Options]) -> Response:
        """Send a HEAD request."""
        return await self.request("HEAD", url, **options)

    async def options(self, url: str, **options: Unpack[Options]) -> Response:
        """Send an OPTIONS request."""
        return await self.request("OPTIONS", url, **options)

    async def delete(self, url: str, **options: Unpack[Options]) -> Response:
        """Send a DELETE request; with a body as ``request("DELETE", url, json=...)``."""
        return await self.request("DELETE", url, **options)

    async def post(self, url: str, **options: Unpack[BodyOptions]) -> Response:
        """Send a POST request."""
        return await self.request("POST", url, **options)

    async def put(self, url: str, **options: Unpack[BodyOptions]) -> Response:
        """Send a PUT request."""
        return await self.request("PUT", url, **options)

    async def patch(self, url: str, **options: Unpack[BodyOptions]) -> Response:
        """Send a PATCH request."""
        return await self.request("PATCH", url, **options)

    async def request(self, method: str, url: str, **options: Unpack[BodyOptions]) -> Response:
        """Send a request and read the whole answer.

        Args:
            method: GET, POST and so on.
            url: a path, as in ``"/users/1?full=true"``.
            options: see :class:`Options` and :class:`BodyOptions`.
        """
        call = self._prepare(method, url, **options)
        answer = await self._exchange.run(call, self._transport.send)
        answer.pick.done(answer.outcome)
        return _respond(Response, call, answer)

    @contextlib.asynccontextmanager
    async def stream(
        self, method: str, url: str, **options: Unpack[BodyOptions]
    ) -> AsyncGenerator[StreamResponse, None]:
        """Send a request and give the answer as it begins: ``async with users.stream(...) as r``.

        Here ``timeout`` is for the answer to begin, and then for each of its pieces, so that a
        stream may last. What was not read is dropped at the end of the block.
        """
        call = self._prepare(method, url, **options)
        answer = await self._exchange.run(call, self._transport.stream)
        response = _respond(StreamResponse, call, answer)
        outcome = answer.outcome
        try:
            yield response
        except asyncio.CancelledError:
            outcome = Outcome.CANCELLED
            raise
        finally:
            answer.pick.done(Outcome.FAILED if response.failed else outcome)
            self.stats.failed += response.failed
            await answer.raw.aclose()

    def _prepare(
        self,
        method: str,
        url: str,
        *,
        params: ParamTypes | None = None,
        headers: HeaderTypes | None = None,
        timeout: float | None = None,
        json: Any = None,
        content: ContentTypes | None = None,
        data: Mapping[str, Values] | None = None,
    ) -> Call:
        method = method.upper()
        if not METHOD.fullmatch(method):
            raise ConfigError(f"{self.service}: {method!r} is not an HTTP method")
        path, query = encode_url(self.service, url, params)
        body, content_type = encode_body(json, content, data)
        pairs = merge_headers(self._headers, check_headers(headers))
        if content_type is not None:
            pairs = merge_headers([("content-type", content_type)], pairs)
        elif body is None and method in WITH_BODY:
            pairs = merge_headers([("content-length", "0")], pairs)
        seconds = self.timeout if timeout is None else self._checked_timeout(timeout)
        return Call(method, path, query, pairs, body, seconds)

    def _checked_timeout(self, timeout: float) -> float:
        if not 0 < timeout < math.inf:
            raise ConfigError(f"{self.service}: timeout must be more than 0 s, not {timeout:g}")
        return float(timeout)

    def __repr__(self) -> str:
        return f"<HttpClient {self.service}>"


def _respond(kind: type[Kind], call: Call, answer: Answer[Any]) -> Kind:
    return kind(
        answer.raw,
        request=answer.request,
        instance=answer.pick.instance,
        attempts=len(call.failures) + 1,
        seconds=call.elapsed,
    )
