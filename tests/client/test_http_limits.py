"""How large an answer may be."""

from __future__ import annotations

import pytest

from meshkit.client.policy import CallPolicy
from meshkit.errors import AnswerTooLarge, ConfigError
from tests.client.http_servers import Server, http_answer, raw_server, users


async def test_an_answer_that_is_too_large_is_not_asked_for_again() -> None:
    server = Server(http_answer(200, b"x" * 101))
    async with raw_server(server) as endpoint, users(endpoint, endpoint, max_answer=100) as ours:
        with pytest.raises(AnswerTooLarge, match=r"^users: GET /x: users-a .* more than the 100"):
            await ours.client.get("/x")
        async with ours.client.stream("GET", "/x") as answer:
            assert len(await answer.aread()) == 101
        server.answer = http_answer(200, b"x" * 100)
        assert len((await ours.client.get("/x")).content) == 100
    assert len(server.received) == 3
    assert ours.outcomes[0][0] == "users-a"


def test_a_limit_that_makes_no_sense() -> None:
    with pytest.raises(ConfigError, match=r"^max_answer is 0; it must be at least 1 byte$"):
        CallPolicy(max_answer=0)
