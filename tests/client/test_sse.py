"""Server-sent events: the grammar, and streams that outlive their instances."""

from __future__ import annotations

import asyncio
import dataclasses
import re
import uuid

import pytest
from hypothesis import given, strategies as st

from meshkit import Mesh
from meshkit.client.sse_parser import MOST, EventParser, ServerSentEvent
from meshkit.discovery.balancing import Outcome
from meshkit.errors import (
    AnswerTooLarge,
    CallError,
    CallTimeout,
    ConfigError,
    ConnectionLost,
    HTTPStatusError,
)
from meshkit.model import Instance, Status
from meshkit.registry import open_registry
from tests.client.http_servers import (
    Received,
    http_answer,
    raw_server,
    read_request,
    refusing,
    users,
)


def parse(data: bytes) -> list[ServerSentEvent]:
    return EventParser().feed(data)


def plain(events: list[ServerSentEvent]) -> list[tuple[str, str, str]]:
    return [(each.event, each.data, each.id) for each in events]


@pytest.mark.parametrize(
    ("text", "events"),
    [
        # The examples of the standard.
        (
            "data: YHOO\ndata: +2\ndata: 10\n\n",
            [("message", "YHOO\n+2\n10", "")],
        ),
        (
            ": test\n\ndata: first event\nid: 1\n\ndata:second event\nid\n\ndata:  third\n\n",
            [
                ("message", "first event", "1"),
                ("message", "second event", ""),
                ("message", " third", ""),
            ],
        ),
        ("data\n\ndata\ndata\n\ndata:", [("message", "", ""), ("message", "\n", "")]),
        ("data:test\n\ndata: test\n\n", [("message", "test", ""), ("message", "test", "")]),
        # And what it says in between.
        ("\ufeffdata: x\n\n", [("message", "x", "")]),
        ("data: \ufeffx\n\n", [("message", "\ufeffx", "")]),
        ("event: add\ndata: 1\n\ndata: 2\n\n", [("add", "1", ""), ("message", "2", "")]),
        ("event: add\n\ndata: 2\n\n", [("message", "2", "")]),
        ("id: 7\n\ndata: 1\n\n", [("message", "1", "7")]),
        ("id: 7\ndata: 1\n\nid: 8\0\ndata: 2\n\n", [("message", "1", "7"), ("message", "2", "7")]),
        ("data: a: b\n\n", [("message", "a: b", "")]),
        ("DATA: x\nData: y\nother: z\n\n", []),
        ("data: 1\r\rdata: 2\r\n\r\ndata: 3\n\n", [("message", n, "") for n in "123"]),
        ("data: never complete\n", []),
        ("", []),
    ],
)
def test_the_grammar(text: str, events: list[tuple[str, str, str]]) -> None:
    assert plain(parse(text.encode())) == events


def test_an_event_is_not_kept_waiting_for_what_follows_it() -> None:
    parser = EventParser()
    assert plain(parser.feed(b"data: 1\r\r")) == [("message", "1", "")]
    assert parser.between_events
    assert parser.feed(b"\n") == []
    assert plain(parser.feed(b"data: 2\r\n\r")) == [("message", "2", "")]


@pytest.mark.parametrize(
    ("line", "retry"),
    [("retry: 1500", 1500), ("retry: -1", None), ("retry: 1.5", None), ("retry", None)],
)
def test_retry(line: str, retry: int | None) -> None:
    parser = EventParser()
    (event,) = parser.feed(f"{line}\ndata: x\n\n".encode())
    assert (parser.retry, event.retry) == (retry, retry)
    (event,) = parser.feed(b"data: y\n\n")
    assert (parser.retry, event.retry) == (retry, None)


def test_an_id_counts_when_its_event_is_complete() -> None:
    parser = EventParser("5")
    parser.feed(b"id: 6\ndata: x\n")
    assert (parser.last_event_id, parser.between_events) == ("5", False)
    parser.feed(b"\n")
    assert (parser.last_event_id, parser.between_events) == ("6", True)


def test_a_retry_of_many_digits() -> None:
    parser = EventParser()
    parser.feed(b"retry: " + b"9" * 10_000 + b"\n")
    assert parser.retry == 24 * 3600 * 1000


def test_an_endless_event() -> None:
    parser = EventParser()
    half = b"x" * (MOST // 2 + 1)
    parser.feed(half)
    with pytest.raises(AnswerTooLarge):
        parser.feed(half)


LINES = st.lists(
    st.sampled_from(["", "data", "data: x", "data:  \u20ac", ": c", "id: 1", "id", "event: e"])
    | st.text(st.characters(exclude_characters="\r\n", exclude_categories=["Cs"]), max_size=8)
)
END = st.sampled_from(["\n", "\r", "\r\n"])


@given(st.data(), LINES)
def test_where_a_stream_is_cut_makes_no_difference(data: st.DataObject, lines: list[str]) -> None:
    raw = "".join(line + data.draw(END) for line in lines).encode()
    cuts = sorted(data.draw(st.lists(st.integers(0, len(raw)))))
    parser, events = EventParser(), []
    for begin, end in zip([0, *cuts], [*cuts, len(raw)], strict=True):
        events += parser.feed(raw[begin:end])
    assert events == parse(raw)


@given(st.binary(max_size=200))
def test_no_bytes_break_it(raw: bytes) -> None:
    for event in parse(raw):
        assert not re.search("[\r\n]", event.event + event.id)


@given(st.lists(st.text(st.characters(exclude_categories=["Cs"]))))
def test_what_is_sent_arrives(texts: list[str]) -> None:
    raw = ""
    for text in texts:
        lines = re.split("\r\n|\r|\n", text)
        raw += "".join(f"data: {line}\n" for line in lines) + "\n"
    expected = [re.sub("\r\n?", "\n", text) for text in texts]
    assert [event.data for event in parse(raw.encode())] == expected


def test_json() -> None:
    assert ServerSentEvent(data='{"a": 1}').json() == {"a": 1}


class Events:
    """A server of events: one text per connection, and then an end of a given kind."""

    def __init__(self, *texts: str, then: str = "close", first: bytes = b"") -> None:
        self.texts = list(texts)
        self.then = then
        self.first = first
        self.received: list[Received] = []
        self.left = asyncio.Event()

    async def __call__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.received.append(await read_request(reader))
        if self.first:
            first, self.first = self.first, b""
            writer.write(first)
            return
        if not self.texts:
            writer.write(b"HTTP/1.1 204 No Content\r\n\r\n")
            return
        head = "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream; charset=utf-8\r\n"
        writer.write(f"{head}transfer-encoding: chunked\r\n\r\n".encode())
        text = self.texts.pop(0).encode()
        writer.write(b"%x\r\n%b\r\n" % (len(text), text))
        await writer.drain()
        if self.then == "end":
            writer.write(b"0\r\n\r\n")
        elif self.then == "hang":
            await reader.read()
            self.left.set()


async def test_events_of_a_service() -> None:
    server = Events('id: 1\ndata: {"a": 1}\n\nevent: add\ndata: x\n\n', then="hang")
    async with raw_server(server) as endpoint, users(endpoint) as ours:
        async with ours.client.sse("/events", params={"q": 1}, headers={"x-a": "b"}) as events:
            first, second = await anext(events), await anext(events)
            assert events.response is not None
            assert events.response.instance.id == "users-a"
        assert (first.json(), first.id, second.event, second.data) == ({"a": 1}, "1", "add", "x")
        async with asyncio.timeout(20):
            await server.left.wait()
        assert ours.outcomes == [("users-a", Outcome.OK)]
    request = server.received[0]
    assert (request.method, request.target) == ("GET", "/events?q=1")
    sent = [request.header(name) for name in ("accept", "cache-control", "last-event-id", "x-a")]
    assert sent == ["text/event-stream", "no-store", None, "b"]


@pytest.mark.parametrize("then", ["close", "end"])
async def test_a_stream_goes_on_elsewhere_after_its_last_event(then: str) -> None:
    first = Events("id: 1\ndata: 1\n\nid: 2\ndata: 2\n\nid: 3\ndata: cut", then=then)
    second = Events("data: 3\n\n", then=then)
    async with raw_server(first) as one, raw_server(second) as two:
        async with users(one, two, attempts=1) as ours, asyncio.timeout(30):
            async with ours.client.sse("/events") as events:
                first.texts.clear()
                got = []
                async for event in events:
                    got.append((event.data, event.id))
                    if event.data == "2":
                        first.first = http_answer(503, b"gone")  # and then 204 for good
                        first.texts.append("data: 3\n\n")
    assert got == [("1", "1"), ("2", "2"), ("3", "2")]
    assert {each.header("last-event-id") for each in first.received[1:]} == {"2"}
    assert events.reconnects >= 1


async def test_a_stream_survives_its_instance() -> None:
    second = Events("data: 2\n\n", then="hang")
    async with raw_server(second) as two:
        first = Events("id: 1\ndata: 1\n\n", then="hang")
        server = raw_server(first)
        one = await server.__aenter__()
        async with users(one, two) as ours, asyncio.timeout(30):
            async with ours.client.sse("/events") as events:
                assert (await anext(events)).data == "1"
                await server.__aexit__(None, None, None)  # nobody listens there any more
                assert (await anext(events)).data == "2"
                assert events.response is not None
                assert events.response.instance.id == "users-b"
    assert second.received[0].header("last-event-id") == "1"


async def test_an_instance_that_hangs_is_left() -> None:
    first, second = Events("data: 1\n\n", then="hang"), Events("data: 2\n\n", then="hang")
    async with raw_server(first) as one, users(one) as ours, asyncio.timeout(30):
        first.texts += second.texts
        async with ours.client.sse("/events", idle_timeout=0.3) as events:
            assert [(await anext(events)).data, (await anext(events)).data] == ["1", "2"]
            assert events.reconnects == 1
        assert ours.outcomes[0] == ("users-a", Outcome.FAILED)


async def test_an_instance_that_leaves_is_left_between_two_events() -> None:
    first, second = Events("id: 1\ndata: 1\n\n", then="hang"), Events("data: 2\n\n", then="hang")
    async with (
        raw_server(first) as one,
        raw_server(second) as two,
        open_registry(f"memory://{uuid.uuid4()}") as registry,
        Mesh(registry) as mesh,
        asyncio.timeout(30),
    ):
        here = Instance(id="users-a", service="users", endpoints={"http": one})
        await registry.register(here)
        async with mesh.http("users").sse("/events") as events:
            assert (await anext(events)).data == "1"
            waiting = asyncio.ensure_future(anext(events))
            await registry.register(dataclasses.replace(here, status=Status.DRAINING))
            await asyncio.sleep(0.1)
            assert not first.left.is_set()  # nobody else is there
            there = Instance(id="users-b", service="users", endpoints={"http": two})
            await registry.register(there)
            assert (await waiting).data == "2"
            await first.left.wait()
    assert second.received[0].header("last-event-id") == "1"


async def test_the_server_says_how_long_to_wait() -> None:
    server = Events("retry: 700\ndata: 1\n\n", "data: 2\n\n")
    loop = asyncio.get_running_loop()
    async with raw_server(server) as endpoint, users(endpoint) as ours, asyncio.timeout(30):
        async with ours.client.sse("/events") as events:
            await anext(events)
            began = loop.time()
            await anext(events)
    assert loop.time() - began >= 0.7


async def test_without_reconnecting_the_end_is_the_end() -> None:
    server = Events("data: 1\n\n", "data: 2\n\n", then="end")
    async with raw_server(server) as endpoint, users(endpoint) as ours, asyncio.timeout(30):
        async with ours.client.sse("/ask", method="POST", json={}) as events:
            assert [event.data async for event in events] == ["1"]
        async with ours.client.sse("/events", reconnect=False) as events:
            assert [event.data async for event in events] == ["2"]
    assert server.received[0].method == "POST"


async def test_without_reconnecting_a_break_is_an_error() -> None:
    async with raw_server(Events("data: 1\n\n")) as endpoint, users(endpoint) as ours:
        async with ours.client.sse("/events", reconnect=False) as events:
            await anext(events)
            with pytest.raises(ConnectionLost, match=r"^users: GET /events: users-a broke"):
                await anext(events)
    async with raw_server(Events("data: 1\n\n", then="hang")) as endpoint, users(endpoint) as ours:
        async with ours.client.sse("/events", reconnect=False, idle_timeout=0.2) as events:
            await anext(events)
            with pytest.raises(CallTimeout):
                await anext(events)


async def test_what_cannot_pass_is_an_error() -> None:
    answers = {
        http_answer(404): (HTTPStatusError, "answered 404"),
        http_answer(200, b"{}", ("content-type", "application/json")): (
            CallError,
            r"^users: GET /events: users-a answered with application/json, not text/event-stream$",
        ),
    }
    for answer, (kind, message) in answers.items():
        server = Events("data: 1\n\n", first=answer)
        async with raw_server(server) as endpoint, users(endpoint) as ours:
            with pytest.raises(kind, match=message):
                async with ours.client.sse("/events"):
                    pytest.fail("no events, so no block")
            async with asyncio.timeout(30), ours.client.sse("/events") as events:
                await anext(events)
                server.first = answer
                with pytest.raises(kind, match=message):
                    await anext(events)


async def test_the_first_attempt_is_a_call_like_others() -> None:
    with refusing() as dead:
        async with users(dead) as ours:
            with pytest.raises(CallError, match="refused the connection"):
                async with ours.client.sse("/events"):
                    pytest.fail("nobody is there, so no block")


async def test_a_limit_that_makes_no_sense() -> None:
    async with raw_server(Events()) as endpoint, users(endpoint) as ours:
        with pytest.raises(ConfigError, match=r"^users: idle_timeout must be more than 0 s, not 0"):
            ours.client.sse("/events", idle_timeout=0)
