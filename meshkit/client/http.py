"""HTTP calls by service name, written as with httpx."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import math
from collections.abc import AsyncGenerator, Mapping, Sequence
from time import monotonic
from typing import TYPE_CHECKING, Any, TypeVar, Unpack

from meshkit.client.call import Answer, Call
from meshkit.client.exchange import Exchange
from meshkit.client.explanation import Explanation, explain
from meshkit.client.gate import Gate
from meshkit.client.guards import Guards
from meshkit.client.headers import HeaderTypes, check_headers, merge_headers
from meshkit.client.hedge import HedgePolicy
from meshkit.client.plan import Plans
from meshkit.client.policy import CallPolicy
from meshkit.client.probe import http_probe
from meshkit.client.request import (
    METHOD,
    ContentTypes,
    ParamTypes,
    Values,
    encode_body,
    encode_url,
)
from meshkit.client.response import Response, StreamResponse
from meshkit.client.retry import IDEMPOTENT_METHODS, RetryPolicy
from meshkit.client.sse import IDLE_TIMEOUT, EventStream
from meshkit.client.stats import CallStats
from meshkit.client.tracing import Carries, Tracing
from meshkit.client.transport import HttpTransport, RawStream
from meshkit.client.verbs import USUAL_METHODS, WITH_BODY, BodyOptions, Verbs
from meshkit.context import OUTSIDE, current
from meshkit.discovery.balancing import Outcome
from meshkit.discovery.routing import Route, Router
from meshkit.discovery.target import Target
from meshkit.errors import CallError, ConfigError

if TYPE_CHECKING:
    from meshkit.client.websocket import WebSocket

# Of WebSockets: how often the other side is asked whether it is there, and bytes of a message.
PING_INTERVAL = 20.0
MAX_MESSAGE = 16 * 1024 * 1024

Pairs = list[tuple[str, str]]
Kind = TypeVar("Kind", Response, StreamResponse)


class HttpClient(Verbs):
    """Calls one service over HTTP: ``r = await users.get("/users/1")``.

    Each call goes to an instance that the balancer picks. It goes on to another one when the
    first can't have had the request (connection refused, or the address is somebody else's by
    now) or refused it as too much, and for idempotent methods also when the connection broke,
    when the answer is 502, 503 or 504, or when there is none for long; see
    :class:`~meshkit.RetryPolicy`. When that does not help, the last answer is returned, whatever
    its status. As with httpx, redirects are not followed; there are no cookies.

    Every method raises :class:`~meshkit.errors.CallError` (see its subclasses) when there is no
    answer, and :class:`~meshkit.errors.ConfigError` for arguments that can't be used.

    Args:
        target: the service, as discovery sees it.
        transport: shared by all clients; not closed by this one.
        timeout: seconds for a whole call, retries included.
        policy: how calls are made; its ``timeout`` does not count here.
        guards: what all clients of the service share; its own when None.
        headers: sent with every call.
        router: aims the calls; all go to the target when None.

    Attributes:
        stats: counters since the client was made.
        guards: the retry budget, breakers and bulkheads of the service.
        target: the service, as discovery sees it.
        router: aims the calls.
    """

    transport = "http"

    def __init__(
        self,
        target: Target,
        transport: HttpTransport,
        *,
        timeout: float,
        policy: CallPolicy | None = None,
        guards: Guards | None = None,
        headers: HeaderTypes | None = None,
        router: Router | None = None,
    ) -> None:
        policy = policy or CallPolicy()
        self.service = target.service
        self.guards = guards or Guards(target.service)
        self.timeout = self._checked_timeout(timeout)
        self.stats = CallStats()
        self.target = target
        self._transport = transport
        target.on_change(functools.partial(transport.keep, target.service))
        if (known := target.subscription.snapshot) is not None:
            transport.keep(target.service, known.instances)
        self._headers = check_headers(headers)
        self.router = router or Router(target, route=policy.route, sticky=policy.sticky)
        self._plans = Plans(self.guards, policy.retry, policy.hedge)
        self._gate = Gate.of(self.guards, policy)
        self._most = policy.max_answer or 0
        self._plain = Exchange(target, self.guards, self.stats)
        self._exchange: Carries = self._plain
        target.probe_with("http", http_probe(transport))

    def trace(self, tracing: Tracing) -> None:
        """Let the calls from now on be traced."""
        self._exchange = tracing.http(self._plain, self.service)

    async def request(self, method: str, url: str, **options: Unpack[BodyOptions]) -> Response:
        """Send a request and read the whole answer.

        Args:
            method: GET, POST and so on.
            url: a path, as in ``"/users/1?full=true"``.
            options: see :class:`~meshkit.client.verbs.BodyOptions`.
        """
        call = self._prepare(method, url, **options)
        call.deadline = call.started + call.timeout
        gate, failed = self._gate, None
        ticket = 0 if gate is None else await self._enter(gate, call)
        try:
            answer = await self._exchange.run(call, self._transport.send)
            failed = answer.raw.status_code >= 500
        except BaseException as error:
            failed = self._exchange.failed(call, error)
            raise
        finally:
            if gate is not None:
                gate.judge(ticket, failed=failed)
                gate.leave()
        answer.done(answer.outcome)
        return _respond(Response, call, answer)

    async def _enter(self, gate: Gate, call: Call) -> int:
        try:
            return await gate.enter(call.left)
        except CallError:
            self.stats.calls += 1
            self.stats.failed += 1
            raise

    @contextlib.asynccontextmanager
    async def stream(
        self, method: str, url: str, **options: Unpack[BodyOptions]
    ) -> AsyncGenerator[StreamResponse, None]:
        """Send a request and give the answer as it begins: ``async with users.stream(...) as r``.

        Here ``timeout`` is for the answer to begin, and then for each of its pieces, so that a
        stream may last: only the deadline of the call being handled is sent along. What was not
        read is dropped at the end of the block.
        """
        call = self._prepare(method, url, **options)
        gate, failed = self._gate, None
        ticket = 0 if gate is None else await self._enter(gate, call)
        try:
            try:
                answer = await self._exchange.run(call, self._transport.stream)
                failed = answer.raw.status_code >= 500
            except BaseException as error:
                failed = self._exchange.failed(call, error)
                raise
            finally:
                if gate is not None:
                    gate.judge(ticket, failed=failed)
            async with self._reading(call, answer) as response:
                yield response
        finally:
            if gate is not None:
                gate.leave()

    @contextlib.asynccontextmanager
    async def _reading(
        self, call: Call, answer: Answer[RawStream]
    ) -> AsyncGenerator[StreamResponse, None]:
        answer.pick.answered()
        response = _respond(StreamResponse, call, answer)
        outcome = answer.outcome
        try:
            yield response
        except asyncio.CancelledError:
            outcome = Outcome.CANCELLED
            raise
        finally:
            answer.done(Outcome.FAILED if response.failed else outcome)
            self.stats.failed += response.failed
            await answer.raw.aclose()

    def sse(
        self,
        url: str,
        *,
        method: str = "GET",
        reconnect: bool | None = None,
        idle_timeout: float | None = IDLE_TIMEOUT,
        last_event_id: str = "",
        **options: Unpack[BodyOptions],
    ) -> EventStream:
        """Read server-sent events: ``async with users.sse("/events") as events``.

        Args:
            url: a path, as everywhere.
            method: GET, as browsers send; POST for what streams its answer to a question.
            reconnect: open the stream anew, on another instance, when it ends or breaks off; yes
                for GET, no for other methods when None.
            idle_timeout: seconds without a byte (comments count) after which the instance is
                taken for hung; None for no limit. ``timeout`` is for the answer to begin.
            last_event_id: go on after this event, if the server can.
            options: see :class:`~meshkit.client.verbs.BodyOptions`.

        The block raises what :meth:`stream` does, and besides
        :class:`~meshkit.errors.HTTPStatusError` for an answer that is not 2xx, and
        :class:`~meshkit.errors.CallError` for one that is no event stream.
        """
        own = check_headers(options.get("headers"))

        def opened(headers: Pairs) -> contextlib.AbstractAsyncContextManager[StreamResponse]:
            options["headers"] = merge_headers(own, headers)
            return self.stream(method, url, **options)

        return EventStream(
            opened,
            self.target,
            reconnect=method.upper() == "GET" if reconnect is None else reconnect,
            idle_timeout=idle_timeout,
            last_event_id=last_event_id,
        )

    def explain(self) -> Explanation:
        """Return what calls go by now: the instances, who is aside and why, the budget.

        ``print(users.explain())`` shows it as a table; ``to_dict()`` is for JSON.
        """
        return explain([self])

    def websocket(
        self,
        url: str,
        *,
        params: ParamTypes | None = None,
        headers: HeaderTypes | None = None,
        timeout: float | None = None,
        subprotocols: Sequence[str] = (),
        ping_interval: float | None = PING_INTERVAL,
        max_size: int | None = MAX_MESSAGE,
    ) -> WebSocket:
        """Open a WebSocket: ``async with users.websocket("/ws") as ws``.

        Args:
            url: a path, as everywhere.
            params: query parameters.
            headers: sent with the handshake.
            timeout: seconds until it is open, further instances included; the client's when None.
            subprotocols: offered to the server, the preferred one first.
            ping_interval: seconds between pings; a peer that answers none for as long is taken
                for hung. None for no pings.
            max_size: bytes of a message that is received; any number if None.

        Raises:
            MissingExtraError: the extra ``websocket`` is not installed.

        The block raises :class:`~meshkit.errors.HTTPStatusError` when the service refuses.
        """
        from meshkit.client.websocket import WebSocket  # noqa: PLC0415 - needs an extra

        path, query = encode_url(self.service, url, params)
        pairs = merge_headers(self._headers, check_headers(headers))
        return WebSocket(
            self.target,
            self.router.aim(pairs),
            path,
            query,
            pairs,
            timeout=self.timeout if timeout is None else self._checked_timeout(timeout),
            subprotocols=subprotocols,
            ping_interval=ping_interval,
            max_size=max_size,
        )

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
        retry: RetryPolicy | None = None,
        hedge: HedgePolicy | None = None,
        idempotent: bool | None = None,
        route: Route | None = None,
        key: str | None = None,
    ) -> Call:
        if method not in USUAL_METHODS:
            method = method.upper()
            if not METHOD.fullmatch(method):
                raise ConfigError(f"{self.service}: {method!r} is not an HTTP method")
        path, query = encode_url(self.service, url, params)
        pairs = self._headers
        if headers is not None:
            pairs = merge_headers(pairs, check_headers(headers))
        body, content_type = encode_body(json, content, data)
        if content_type is not None:
            pairs = merge_headers([("content-type", content_type)], pairs)
        elif body is None and method in WITH_BODY:
            pairs = merge_headers([("content-length", "0")], pairs)
        seconds = self.timeout if timeout is None else self._checked_timeout(timeout)
        if route is not None and not isinstance(route, Route):
            raise ConfigError(
                f"{self.service}: route= must be a Route, as in Route(tags=('v2',)), not {route!r}"
            )
        if idempotent is None:
            idempotent = method in IDEMPOTENT_METHODS
        plan = (
            self._plans.usual if retry is None and hedge is None else self._plans.of(retry, hedge)
        )
        call = Call(
            method,
            path,
            query,
            pairs,
            body,
            timeout=seconds,
            picker=self.router.aim(pairs, key, route),
            plan=plan,
            idempotent=idempotent,
        )
        call.most = self._most
        if (context := current()) is not OUTSIDE:
            call.inherit(context)
        return call

    def _checked_timeout(self, timeout: float) -> float:
        if not isinstance(timeout, int | float) or not 0 < timeout < math.inf:
            raise ConfigError(f"{self.service}: timeout must be more than 0 s, not {timeout!r}")
        return float(timeout)

    def __repr__(self) -> str:
        return f"<HttpClient {self.service}>"


def _respond(kind: type[Kind], call: Call, answer: Answer[Any]) -> Kind:
    return kind(
        answer.raw,
        request=answer.request,
        instance=answer.pick.instance,
        attempts=call.attempts,
        seconds=monotonic() - call.started,
    )
