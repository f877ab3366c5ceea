"""How answers are read."""

from __future__ import annotations

import json
import socket
import threading
from collections.abc import AsyncIterator, Iterator
from datetime import timedelta
from urllib.parse import parse_qs

import fastapi
import pydantic
import pytest
import uvicorn

from meshkit.client.headers import Headers
from meshkit.client.response import StreamResponse
from meshkit.errors import HTTPStatusError
from meshkit.model import Endpoint
from tests.client.http_servers import Server, http_answer, raw_server, users

JSON = ("content-type", "application/json")


async def test_an_answer() -> None:
    server = Server(http_answer(201, b'{"id": 1}', JSON, ("X-Two", "1"), ("X-Two", "2")))
    async with raw_server(server) as endpoint, users(endpoint) as ours:
        answer = await ours.client.post("/users?a=1", json={})
    assert (answer.status_code, answer.reason_phrase) == (201, "Created")
    assert answer.http_version == "HTTP/1.1"
    assert (answer.content, answer.text, answer.json()) == (b'{"id": 1}', '{"id": 1}', {"id": 1})
    assert answer.headers["CONTENT-type"] == "application/json"
    assert answer.headers.get_list("x-two") == ["1", "2"]
    assert answer.url == f"http://{endpoint}/users?a=1"
    assert (answer.request.method, answer.request.url) == ("POST", answer.url)
    assert (answer.instance.id, answer.attempts) == ("users-a", 1)
    assert timedelta(0) < answer.elapsed < timedelta(seconds=30)
    assert answer.raise_for_status() is answer
    assert repr(answer) == "<Response [201 Created]>"
    assert answer.json(parse_int=str) == {"id": "1"}


@pytest.mark.parametrize(
    ("status", "words", "kinds"),
    [
        (200, "OK", {"is_success"}),
        (204, "No Content", {"is_success"}),
        (299, "", {"is_success"}),
        (304, "Not Modified", {"is_redirect"}),
        (404, "Not Found", {"is_client_error", "is_error"}),
        (503, "Service Unavailable", {"is_server_error", "is_error"}),
        (599, "", {"is_server_error", "is_error"}),
    ],
)
async def test_kinds_of_status(status: int, words: str, kinds: set[str]) -> None:
    async with raw_server(Server(http_answer(status))) as endpoint, users(endpoint) as ours:
        answer = await ours.client.get("/x")
    properties = ("is_success", "is_redirect", "is_client_error", "is_server_error", "is_error")
    assert {name for name in properties if getattr(answer, name)} == kinds
    assert (answer.status_code, answer.reason_phrase) == (status, words)


@pytest.mark.parametrize(
    ("status", "message"),
    [
        (404, "users: GET /users/7: users-a answered 404 Not Found"),
        (500, "users: GET /users/7: users-a answered 500 Internal Server Error"),
        (599, "users: GET /users/7: users-a answered 599"),
        (307, "users: GET /users/7: users-a answered 307 Temporary Redirect to /else"),
    ],
)
async def test_raise_for_status(status: int, message: str) -> None:
    headers = [("location", "/else")] * (status == 307)
    server = Server(http_answer(status, b"", *headers))
    async with raw_server(server) as endpoint, users(endpoint) as ours:
        answer = await ours.client.get("/users/7?token=hush")
    with pytest.raises(HTTPStatusError) as caught:
        answer.raise_for_status()
    assert str(caught.value) == message
    assert caught.value.status_code == status


@pytest.mark.parametrize(
    ("content_type", "body", "text"),
    [
        ("text/plain; charset=latin-1", b"caf\xe9", "caf\xe9"),
        ('text/plain; charset="UTF-16"', "x\u20ac".encode("utf-16"), "x\u20ac"),
        ("text/plain", "\u017e".encode(), "\u017e"),
        ("text/plain; charset=unheard-of", "\u017e".encode(), "\u017e"),
        ("text/plain; charset=base64", "\u017e".encode(), "\u017e"),  # a codec, but not of text
        ("application/json", b"\xff", "\ufffd"),
        ("", "\u017e".encode(), "\u017e"),
    ],
)
async def test_text_is_decoded_as_declared(content_type: str, body: bytes, text: str) -> None:
    headers = [("content-type", content_type)] * bool(content_type)
    server = Server(http_answer(200, body, *headers))
    async with raw_server(server) as endpoint, users(endpoint) as ours:
        assert (await ours.client.get("/x")).text == text
        async with ours.client.stream("GET", "/x") as answer:
            assert "".join([piece async for piece in answer.aiter_text()]) == text


async def test_what_is_not_json() -> None:
    async with (
        raw_server(Server(http_answer(200, b"<html>"))) as endpoint,
        users(endpoint) as ours,
    ):
        answer = await ours.client.get("/x")
    with pytest.raises(json.JSONDecodeError):
        answer.json()


def test_headers() -> None:
    headers = Headers([("content-type", "a"), ("set-cookie", "x=1"), ("set-cookie", "y=2")])
    assert headers["Content-Type"] == "a"
    assert "SET-COOKIE" in headers
    assert "x" not in headers
    assert 7 not in headers  # type: ignore[comparison-overlap]
    assert (headers["set-cookie"], headers.get("Set-Cookie")) == ("x=1, y=2", "x=1, y=2")
    assert headers.get_list("Set-Cookie") == ["x=1", "y=2"]
    assert headers.get_list("x") == []
    assert (headers.get("x"), headers.get("x", "default")) == (None, "default")
    with pytest.raises(KeyError):
        headers["x"]
    assert dict(headers.items()) == {"content-type": "a", "set-cookie": "x=1, y=2"}
    assert (len(headers), list(headers)) == (2, ["content-type", "set-cookie"])
    assert headers.multi_items()[1:] == [("set-cookie", "x=1"), ("set-cookie", "y=2")]
    assert repr(headers) == "Headers({'content-type': 'a', 'set-cookie': '***'})"


class User(pydantic.BaseModel):
    id: int
    name: str


def fastapi_app() -> fastapi.FastAPI:
    app = fastapi.FastAPI()

    @app.get("/users/{user_id}")
    async def read(user_id: int, *, shout: bool = False) -> User:
        return User(id=user_id, name="ADA" if shout else "ada")

    @app.post("/users", status_code=201)
    async def create(user: User) -> User:
        return user

    @app.post("/login")
    async def login(request: fastapi.Request) -> dict[str, list[str]]:
        return parse_qs((await request.body()).decode())

    @app.get("/lines")
    async def lines() -> fastapi.responses.StreamingResponse:
        async def produce() -> AsyncIterator[str]:
            for number in range(3):
                yield f'{{"n": {number}}}\n'

        return fastapi.responses.StreamingResponse(produce())

    return app


@pytest.fixture(scope="module")
def fastapi_service() -> Iterator[Endpoint]:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()  # so that a call made before uvicorn is up waits
        server = uvicorn.Server(uvicorn.Config(fastapi_app(), log_level="warning"))
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
        thread.start()
        yield Endpoint(*listener.getsockname())
        server.should_exit = True
        thread.join(30)


async def test_a_fastapi_service(fastapi_service: Endpoint) -> None:
    async with users(fastapi_service) as ours:
        answer = await ours.client.get("/users/7", params={"shout": True})
        assert answer.json() == {"id": 7, "name": "ADA"}
        made = await ours.client.post("/users", json=User(id=1, name="\u017e"))
        assert (made.status_code, made.json()) == (201, {"id": 1, "name": "\u017e"})
        refused = await ours.client.post("/users", json={"id": "x"})
        assert refused.status_code == 422
        assert (await ours.client.post("/login", data={"name": "ada"})).json() == {"name": ["ada"]}
        moved = await ours.client.get("/users/7/")
        assert (moved.status_code, moved.is_redirect) == (307, True)
        assert (await ours.client.head("/users/7")).status_code == 405
        async with ours.client.stream("GET", "/lines") as stream:
            assert isinstance(stream, StreamResponse)
            assert [json.loads(line)["n"] async for line in stream.aiter_lines()] == [0, 1, 2]
        assert ours.client.stats.calls == 7
        assert ours.client.stats.failed == 0
