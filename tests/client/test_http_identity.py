"""Answers of those who leave, and of those who were not meant."""

from __future__ import annotations

import asyncio
import contextlib

import pytest

from meshkit import identity
from meshkit.discovery.balancing import Outcome
from meshkit.errors import WrongInstance
from meshkit.propagation import DEADLINE
from tests.client.http_servers import Server, http_answer, raw_server, read_request, users

MINE = (identity.INSTANCE, "users-a")
OTHERS = (identity.INSTANCE, "users-b")


async def test_a_draining_instance_answers_and_is_left() -> None:
    leaving = Server(http_answer(200, b"bye", (identity.DRAINING, "users-a"), MINE))
    staying = Server(http_answer(200, b"hi"))
    async with (
        raw_server(leaving) as first,
        raw_server(staying) as second,
        users(first, second) as ours,
    ):
        assert (await ours.client.get("/x")).text == "bye"
        assert (await ours.client.get("/x")).text == "hi"
        assert ours.outcomes == [("users-a", Outcome.DRAINING), ("users-b", Outcome.OK)]


async def test_a_gateway_is_not_left_for_whom_it_passes_on() -> None:
    passed_on = (identity.DRAINING, "ledger-x")
    gateway = Server(http_answer(200, b"hi", MINE, passed_on, (identity.INSTANCE, "ledger-x")))
    async with raw_server(gateway) as server, users(server) as ours:
        assert (await ours.client.get("/x")).text == "hi"
        assert ours.outcomes == [("users-a", Outcome.OK)]


@pytest.mark.parametrize("method", ["GET", "POST"])
async def test_a_refusal_by_somebody_else_moves_on_whatever_the_method(method: str) -> None:
    """The port belongs to another instance by now, which says so before handling anything."""
    stranger = Server(http_answer(421, b"", (identity.INSTANCE, "orders-x")))
    right = Server(http_answer(200, b"ok", OTHERS))
    async with (
        raw_server(stranger) as first,
        raw_server(right) as second,
        users(first, second, named=True, attempts=1) as ours,
    ):
        answer = await ours.client.request(method, "/x")
        assert (answer.text, answer.attempts) == ("ok", 2)
        assert ours.outcomes == [("users-a", Outcome.WRONG), ("users-b", Outcome.OK)]
    assert [each.header(identity.TARGET) for each in stranger.received] == ["users-a"]


@pytest.mark.parametrize(
    "wrong", [http_answer(200, b"x", OTHERS), http_answer(200), http_answer(421)]
)
async def test_an_answer_of_somebody_else_is_no_answer(wrong: bytes) -> None:
    right = Server(http_answer(200, b"ok", OTHERS))
    async with raw_server(Server(wrong)) as first, raw_server(right) as second:
        async with users(first, second, named=True) as ours:
            assert (await ours.client.get("/x")).text == "ok"
            assert ours.outcomes == [("users-a", Outcome.WRONG), ("users-b", Outcome.OK)]
        async with users(first, second, named=True) as ours:
            with pytest.raises(WrongInstance, match="not repeated, as POST may have had an effect"):
                await ours.client.post("/x")
            assert ours.outcomes == [("users-a", Outcome.WRONG)]
        async with users(first, second, named=True) as ours:
            async with ours.client.stream("GET", "/x") as answer:
                assert await answer.aread() == b"ok"
            assert ours.outcomes == [("users-a", Outcome.WRONG), ("users-b", Outcome.OK)]


async def test_a_stranger_is_named() -> None:
    async with (
        raw_server(Server(http_answer(200, b"", OTHERS))) as endpoint,
        users(endpoint, named=True) as ours,
    ):
        with pytest.raises(
            WrongInstance, match=rf"users-a \({endpoint}\) was answered for by users-b; not"
        ):
            await ours.client.post("/x")


@pytest.mark.parametrize("answer", [http_answer(200, b"ok"), http_answer(421, b"ok", OTHERS)])
async def test_who_never_promised_a_name_needs_none(answer: bytes) -> None:
    async with raw_server(Server(answer)) as endpoint, users(endpoint) as ours:
        assert (await ours.client.get("/x")).text == "ok"


async def test_a_421_of_the_right_instance_is_its_answer() -> None:
    async with (
        raw_server(Server(http_answer(421, b"mine", MINE))) as endpoint,
        users(endpoint, endpoint, named=True) as ours,
    ):
        answer = await ours.client.get("/x")
        assert (answer.status_code, answer.text) == (421, "mine")
        assert ours.outcomes == [("users-a", Outcome.OK)]


async def test_a_gateway_may_pass_on_the_headers_of_both_sides() -> None:
    both = http_answer(200, b"ok", OTHERS, MINE)
    server = Server(both)
    received = {"X-Meshkit-Target": "gateway-1", "X-Meshkit-Deadline": "1", "x-a": "1"}
    async with raw_server(server) as endpoint, users(endpoint, named=True) as ours:
        answer = await ours.client.post("/x", headers=received)
        assert answer.text == "ok"
    first, target, deadline = [
        pair for pair in server.received[0].headers if pair[0].startswith("x-")
    ]
    assert (first, target) == (("x-a", "1"), (identity.TARGET, "users-a"))
    assert deadline[0] == DEADLINE
    assert 10_000 < int(deadline[1]) <= 20_000


async def test_the_stream_of_a_stranger_is_let_go_of() -> None:
    left = asyncio.Event()

    async def stranger(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await read_request(reader)
        writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\n")
        with contextlib.suppress(OSError):
            await reader.read()
        left.set()

    right = Server(http_answer(200, b"ok", OTHERS))
    async with (
        raw_server(stranger) as first,
        raw_server(right) as second,
        users(first, second, named=True) as ours,
        ours.client.stream("GET", "/x") as answer,
        asyncio.timeout(20),
    ):
        await left.wait()
        assert await answer.aread() == b"ok"
