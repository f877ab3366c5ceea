"""What a request brings along over HTTP: read, answered back, and its deadline kept."""

from __future__ import annotations

import asyncio
import logging
import re
import threading
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import httpx2
import pytest
from fastapi import BackgroundTasks, Request, Response, WebSocket
from fastapi.responses import StreamingResponse
from hypothesis import HealthCheck, given, settings, strategies as st
from starlette.middleware.base import BaseHTTPMiddleware
from websockets.asyncio.client import connect

from meshkit import MeshService, Runtime, context, get, websocket
from meshkit.propagation import DEADLINE, NAMES, REQUEST
from meshkit.server.asgi import MeshApp
from meshkit.server.bind import bind
from meshkit.server.headers import DefaultHeaders
from meshkit.server.health import Health, Phase
from meshkit.server.http import HttpServer
from tests.support.connection import converse
from tests.support.waiting import aeventually

TRACE = "4bf92f3577b34da6a3ce929d0e0e4736"
TRACEPARENT = f"00-{TRACE}-00f067aa0ba902b7-01"
log = logging.getLogger("shop")


class Shop(MeshService):
    name = "shop"

    def __init__(self) -> None:
        self.notes: list[str] = []
        self.left: list[float | None] = []
        self.release = threading.Event()

    @get("/context")
    async def read(self) -> dict[str, Any]:
        log.warning("reading")
        call = context.current()
        return {
            "request_id": call.request_id,
            "traceparent": call.traceparent,
            "tracestate": call.tracestate,
            "baggage": dict(call.baggage),
            "left": call.remaining,
            "user": call.header("x-user"),
        }

    @get("/thread")
    def read_in_a_thread(self) -> list[Any]:
        return [context.current().request_id, context.remaining()]

    @get("/own-id")
    async def own_id(self, response: Response) -> None:
        response.headers["X-Request-ID"] = "its own"

    @get("/broken")
    async def broken(self) -> None:
        raise RuntimeError("a bug")

    @get("/slow")
    async def slow(self) -> None:
        await self._hang()

    @get("/blocking")
    def blocking(self) -> None:
        self.notes.append("began")
        self.release.wait(20)
        self.notes.append("ended")

    @get("/stubborn")
    async def stubborn(self) -> str:
        try:
            await asyncio.sleep(20)
        except asyncio.CancelledError:
            self.notes.append("cancelled")
        return "what I have"

    @get("/stream")
    async def stream(self) -> StreamingResponse:
        async def pieces() -> AsyncIterator[bytes]:
            yield b"first"
            await self._hang()

        return StreamingResponse(pieces())

    @get("/background")
    async def background(self, tasks: BackgroundTasks, seconds: float) -> str:
        self.left.append(context.remaining())
        tasks.add_task(self._later, seconds)
        return "done"

    @websocket("/talk")
    async def talk(self, socket: WebSocket) -> None:
        await socket.accept()
        while True:
            await socket.receive_text()
            await socket.send_json([context.current().request_id, context.remaining()])

    async def _later(self, seconds: float) -> None:
        await asyncio.sleep(seconds)
        self.left.append(context.remaining())
        self.notes.append("background")

    async def _hang(self) -> None:
        try:
            await asyncio.sleep(20)
        except asyncio.CancelledError:
            self.notes.append("cancelled")
            raise


class Wrapped(Shop):
    """The same behind a middleware that runs the application in a task of its own."""

    def __init__(self) -> None:
        super().__init__()
        self.app.add_middleware(BaseHTTPMiddleware, dispatch=self._pass)

    async def _pass(
        self, request: Request, call_next: Callable[[Request], Awaitable[Response]]
    ) -> Response:
        return await call_next(request)


@pytest.fixture(params=[Shop, Wrapped], ids=["plain", "middleware"])
def shop(request: pytest.FixtureRequest) -> Shop:
    made: Shop = request.param()
    return made


@pytest.fixture
async def http(shop: Shop) -> AsyncIterator[httpx2.AsyncClient]:
    options: dict[str, Any] = {"drain_delay": 0, "baggage": "tenant,user"}
    async with Runtime(shop, registry="memory://http-context", **options) as running:
        assert running.http_url
        async with httpx2.AsyncClient(base_url=running.http_url, timeout=15) as client:
            yield client
        shop.release.set()


async def noted(shop: Shop, *notes: str) -> None:
    async def all_there() -> bool:
        return shop.notes == [*notes]

    await aeventually(all_there)


async def test_a_handler_reads_what_the_request_brought(http: httpx2.AsyncClient) -> None:
    headers = {
        REQUEST: "job-7",
        DEADLINE: "9000",
        "traceparent": TRACEPARENT,
        "tracestate": "rojo=1",
        "baggage": "tenant=Am%C3%A9lie;x=1,secret=1",
        "x-user": "u1",
    }
    answer = await http.get("/context", headers=headers)
    read = answer.json()
    assert 5 < read.pop("left") <= 9
    assert read == {
        "request_id": "job-7",
        "traceparent": TRACEPARENT,
        "tracestate": "rojo=1",
        "baggage": {"tenant": "Amélie"},
        "user": "u1",
    }
    assert answer.headers[REQUEST] == "job-7"


async def test_lists_may_come_in_several_headers(http: httpx2.AsyncClient) -> None:
    headers = [
        ("traceparent", TRACEPARENT),
        ("tracestate", "a=1"),
        ("baggage", "user=1"),
        ("tracestate", "b=2"),
        ("baggage", "tenant=2"),
    ]
    read = (await http.get("/context", headers=headers)).json()
    assert read["tracestate"] == "a=1,b=2"
    assert read["baggage"] == {"user": "1", "tenant": "2"}


async def test_each_request_has_an_id_of_its_own_also_on_one_connection(
    http: httpx2.AsyncClient,
) -> None:
    answers = [await http.get("/context") for _ in range(20)]
    ids = {answer.headers[REQUEST] for answer in answers}
    assert len(ids) == 20
    assert ids == {answer.json()["request_id"] for answer in answers}
    assert all(answer.json()["left"] is None for answer in answers)


async def test_threads_of_the_service_have_the_context_too(http: httpx2.AsyncClient) -> None:
    answer = await http.get("/thread", headers={REQUEST: "job-7", DEADLINE: "9000"})
    request_id, left = answer.json()
    assert request_id == "job-7"
    assert 5 < left <= 9


@pytest.mark.parametrize(("path", "status"), [("/nowhere", 404), ("/broken", 500)])
async def test_every_answer_of_the_application_tells_the_id(
    http: httpx2.AsyncClient, path: str, status: int
) -> None:
    answer = await http.get(path, headers={REQUEST: "job-7"})
    assert (answer.status_code, answer.headers.get_list(REQUEST)) == (status, ["job-7"])


async def test_an_application_that_answers_with_its_own_id_is_left_alone(
    http: httpx2.AsyncClient,
) -> None:
    assert (await http.get("/own-id")).headers.get_list(REQUEST) == ["its own"]


async def test_log_lines_of_a_handler_tell_the_id(
    http: httpx2.AsyncClient, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.handler.addFilter(marks := context.LogFilter())
    headers = {REQUEST: "job-7", "traceparent": TRACEPARENT}
    await http.get("/context", headers=headers)
    caplog.handler.removeFilter(marks)
    (record,) = (vars(each) for each in caplog.records if each.name == "shop")
    assert (record["request_id"], record["trace_id"]) == ("job-7", TRACE)


async def test_a_handler_is_cancelled_when_the_deadline_passes(
    http: httpx2.AsyncClient, shop: Shop
) -> None:
    began = time.monotonic()
    answer = await http.get("/slow", headers={DEADLINE: "200", REQUEST: "job-7"})
    assert time.monotonic() - began < 10
    assert answer.status_code == 504
    detail = answer.json()["detail"]
    assert re.fullmatch(r"the call's deadline of 0\.(2|1\d*) s has passed", detail)
    assert answer.headers[REQUEST] == "job-7"
    assert shop.notes == ["cancelled"]
    assert (await http.get("/context")).status_code == 200


async def test_what_is_too_late_on_arrival_never_reaches_the_handler(
    http: httpx2.AsyncClient, shop: Shop
) -> None:
    answer = await http.get("/slow", headers={DEADLINE: "0"})
    assert answer.status_code == 504
    assert answer.json() == {"detail": "the call's deadline had passed on arrival"}
    assert shop.notes == []


async def test_a_thread_cannot_be_cancelled_and_its_answer_is_dropped(
    http: httpx2.AsyncClient, shop: Shop
) -> None:
    call = asyncio.create_task(http.get("/blocking", headers={DEADLINE: "1000"}))
    await noted(shop, "began")
    if isinstance(shop, Wrapped):  # the middleware's task group waits for the thread
        await asyncio.sleep(1.2)
        shop.release.set()
    assert (await call).status_code == 504
    shop.release.set()
    await noted(shop, "began", "ended")
    assert (await http.get("/thread")).status_code == 200


async def test_a_handler_that_answers_when_it_is_cancelled_is_heard(
    http: httpx2.AsyncClient, shop: Shop
) -> None:
    answer = await http.get("/stubborn", headers={DEADLINE: "200"})
    if isinstance(shop, Wrapped):  # the middleware's own task group ends at once
        assert answer.status_code == 504
    else:
        assert (answer.status_code, answer.json()) == (200, "what I have")
    assert shop.notes == ["cancelled"]


async def test_an_answer_that_has_begun_is_broken_off(
    http: httpx2.AsyncClient, shop: Shop, caplog: pytest.LogCaptureFixture
) -> None:
    with pytest.raises(httpx2.RemoteProtocolError):
        await http.get("/stream", headers={DEADLINE: "300"})
    assert shop.notes == ["cancelled"]
    lines = [each.getMessage() for each in caplog.records if each.name == "meshkit.server"]
    (line,) = lines
    assert re.fullmatch(
        r"GET /stream: answer broken off: the call's deadline of \S+ s has .*", line
    )


async def test_background_tasks_go_on_after_the_deadline_and_without_it(
    http: httpx2.AsyncClient, shop: Shop
) -> None:
    answer = await http.get("/background?seconds=0.6", headers={DEADLINE: "300"})
    assert answer.status_code == 200
    await noted(shop, "background")
    before, after = shop.left
    assert before is not None
    assert before <= 0.3
    assert after is None


async def test_web_sockets_last_and_have_a_context(http: httpx2.AsyncClient) -> None:
    url = str(http.base_url).replace("http", "ws", 1).rstrip("/") + "/talk"
    headers = {DEADLINE: "100", REQUEST: "job-7"}
    async with connect(url, additional_headers=headers) as socket:
        await asyncio.sleep(0.3)
        await socket.send("?")
        assert await socket.recv() == '["job-7",null]'


async def small(_scope: Any, _receive: Any, send: Any) -> None:
    await send({"type": "http.response.start", "status": 204})
    await send({"type": "http.response.body"})


def handled(headers: list[tuple[bytes, bytes]], *, busy: float = 0.0) -> tuple[int, list[str]]:
    """Return the status and the ids that a small application answers behind our layers.

    The loop is ``busy`` for so many seconds when the request has come.
    """

    async def request() -> bytes:
        health = Health([], timeout=1, interval=60)
        health.enter(Phase.SERVING)
        with bind("127.0.0.1", 0) as sock:
            server = HttpServer(MeshApp(small, health, dict, baggage="*"), sock, ())
            server.config.load()
            server.server_state.default_headers = DefaultHeaders()
            make: Any = server.config.http_protocol_class
            protocol = make(config=server.config, server_state=server.server_state, app_state={})
            lines = b"".join(b"%b: %b\r\n" % pair for pair in headers)
            asyncio.get_running_loop().call_soon(time.sleep, busy)  # before the handler's task
            return (await converse(protocol, b"GET / HTTP/1.1\r\n%b\r\n" % lines)).answer

    head = asyncio.run(request()).decode("latin-1").partition("\r\n\r\n")[0]
    status, *lines = head.split("\r\n")
    pairs = [line.partition(": ") for line in lines]
    return int(status.split()[1]), [value for name, _, value in pairs if name == REQUEST]


@pytest.mark.parametrize(("busy", "status"), [(0.0, 204), (0.5, 504)])
def test_the_time_that_a_busy_loop_took_counts(busy: float, status: int) -> None:
    assert handled([(DEADLINE.encode(), b"400")], busy=busy)[0] == status


names = st.sampled_from([name.encode() for name in sorted(NAMES)])
values = st.one_of(
    # The parser refuses control characters.
    st.binary(max_size=80).map(lambda value: value.translate(None, bytes([*range(32), 127]))),
    st.sampled_from([TRACEPARENT.encode(), b"a=1", b"9" * 4000, b"-1", b"\xff", b"tenant=%"]),
)


@given(st.lists(st.tuples(names, values.map(bytes.strip)), max_size=8))
@settings(max_examples=150, deadline=None, suppress_health_check=list(HealthCheck))
def test_hostile_headers_never_break_a_request(headers: list[tuple[bytes, bytes]]) -> None:
    status, ids = handled(headers)
    assert status in (204, 504)
    assert [context.REQUEST_ID.fullmatch(each) is not None for each in ids] == [True]
