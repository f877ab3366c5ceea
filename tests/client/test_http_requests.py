"""What goes over the wire: the same as with httpx, where httpx has an answer."""

from __future__ import annotations

import dataclasses
import uuid
from collections.abc import AsyncIterator
from typing import Any
from urllib.parse import parse_qsl, urlsplit

import httpx2
import pydantic
import pytest

from meshkit import identity
from meshkit.client.request import encode_url
from meshkit.errors import ConfigError
from meshkit.propagation import DEADLINE
from tests.client.http_servers import Received, Server, raw_server, refusing, users

CALLS: list[tuple[str, str, dict[str, Any]]] = [
    ("GET", "/users/1", {}),
    ("GET", "users", {}),
    ("GET", "", {}),
    ("GET", "/users?a=1&b=two words&c=%41", {}),
    ("GET", "/a b/\u00e9/%41%2F/x;y=1,2", {}),
    ("GET", "/u\u017eivatel\u00e9?jm\u00e9no=\u017di\u017eka", {}),
    ("GET", "/users#part", {}),
    (
        "GET",
        "/users",
        {"params": {"a": 1, "b": 2.5, "c": True, "d": False, "e": None, "f": "x y&="}},
    ),
    ("GET", "/users", {"params": {"l": [1, None, "x"], "t": ("y", True), "empty": []}}),
    ("GET", "/users", {"params": [("a", 1), ("b", 2), ("a", 3)]}),
    ("GET", "/users", {"params": "a=1&b=&c=x+y"}),
    ("GET", "/users", {"params": {"\u00e9": "\u017e'()~*"}}),
    ("GET", "/users", {"params": {}}),
    ("HEAD", "/users", {}),
    ("OPTIONS", "/users", {}),
    ("DELETE", "/users/1", {}),
    ("get", "/users", {}),
    ("PROPFIND", "/users", {}),
    ("POST", "/users", {}),
    ("PUT", "/users", {}),
    ("PATCH", "/users", {}),
    ("POST", "/users", {"json": {"name": "\u017di\u017eka", "n": [1, 2.5, None, True]}}),
    ("POST", "/users", {"json": 0}),
    ("POST", "/users", {"json": []}),
    ("POST", "/users", {"json": "text"}),
    ("POST", "/users", {"json": 1, "headers": {"Content-Type": "application/vnd.x+json"}}),
    ("POST", "/users", {"content": "t\u00e9xt"}),
    ("POST", "/users", {"content": b"\x00\xff"}),
    ("POST", "/users", {"content": b""}),
    ("POST", "/users", {"content": b"x", "headers": {"content-type": "text/plain"}}),
    ("POST", "/users", {"data": {"a": [1, 2], "b": True, "c": None, "d": "x y&=\u017e"}}),
    ("POST", "/users", {"data": {}}),
    ("DELETE", "/users/1", {"json": {"reason": "x"}}),
]


def visible(received: Received) -> dict[str, Any]:
    split = urlsplit(received.target)
    return {
        "method": received.method,
        "path": split.path,
        "query": parse_qsl(split.query, keep_blank_values=True),
        "body": received.body,
        "content-type": received.header("content-type"),
        "content-length": received.header("content-length"),
        "accept": received.header("accept"),
        "host": received.header("host"),
    }


@pytest.mark.parametrize(("method", "url", "options"), CALLS)
async def test_as_with_httpx(method: str, url: str, options: dict[str, Any]) -> None:
    server = Server()
    async with raw_server(server) as endpoint:
        async with httpx2.AsyncClient(base_url=f"http://{endpoint}") as client:
            await client.request(method, url, **options)
        async with users(endpoint) as ours:
            await ours.client.request(method, url, **options)
    theirs, mine = map(visible, server.received)
    assert mine == theirs


@pytest.mark.parametrize("method", ["get", "head", "options", "delete", "post", "put", "patch"])
async def test_each_method_has_its_name(method: str) -> None:
    server = Server()
    async with raw_server(server) as endpoint, users(endpoint) as ours:
        answer = await getattr(ours.client, method)("/x", params={"a": 1}, headers={"X-A": "1"})
    assert answer.status_code == 200
    assert answer.request.method == method.upper()
    (received,) = server.received
    assert (received.method, received.target) == (method.upper(), "/x?a=1")
    assert received.header("x-a") == "1"


async def test_a_body_in_pieces() -> None:
    async def pieces() -> AsyncIterator[bytes]:
        yield b"one"
        yield b"two"

    server = Server()
    async with raw_server(server) as endpoint, users(endpoint) as ours:
        await ours.client.post("/x", content=pieces())
    assert server.received[0].body == b"onetwo"
    assert server.received[0].header("transfer-encoding") == "chunked"


async def test_pydantic_models_are_sent_as_fastapi_reads_them() -> None:
    class User(pydantic.BaseModel):
        user_id: uuid.UUID = pydantic.Field(alias="id")
        name: str

    user = User(id=uuid.UUID(int=7), name="\u017e")
    server = Server()
    async with raw_server(server) as endpoint, users(endpoint) as ours:
        await ours.client.post("/x", json=user)
        await ours.client.post("/x", json={"all": [user]})
    one, many = server.received
    assert one.header("content-type") == "application/json"
    assert User.model_validate_json(one.body) == user
    assert many.body == b'{"all":[' + one.body + b"]}"


async def test_headers_of_a_call_replace_those_of_the_client() -> None:
    server = Server()
    async with (
        raw_server(server) as endpoint,
        users(endpoint, headers={"X-Both": "client", "X-Client": "yes"}) as ours,
    ):
        await ours.client.get("/x", headers=[("x-both", "call"), ("x-two", "1"), ("x-two", "2")])
        await ours.client.get("/x")
    first, second = [
        [pair for pair in each.headers if pair[0].startswith("x-") and pair[0] != DEADLINE]
        for each in server.received
    ]
    assert first == [("x-client", "yes"), ("x-both", "call"), ("x-two", "1"), ("x-two", "2")]
    assert second == [("x-both", "client"), ("x-client", "yes")]


async def test_only_instances_of_meshkit_are_asked_by_id() -> None:
    """An engine may name an instance that it was told of by an id which it doesn't know itself."""

    def answer(request: Received) -> bytes:
        return b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\nx-meshkit-instance: users-a\r\n\r\n"

    server = Server(answer)
    async with raw_server(server) as endpoint:
        async with users(endpoint, named=True) as ours:
            await ours.client.get("/x")
        async with users(endpoint, named=False) as ours:
            await ours.client.get("/x")
    assert [each.header(identity.TARGET) for each in server.received] == ["users-a", None]


@pytest.mark.parametrize(
    ("url", "params", "expected"),
    [
        ("/users", None, ("/users", "")),
        ("users/1", None, ("/users/1", "")),
        ("http://users/users/1?a=1", None, ("/users/1", "?a=1")),
        ("http://users", {"a": 1}, ("/", "?a=1")),
        ("http://users?x=1", None, ("/", "?x=1")),
        ("/x?to=http://other/", None, ("/x", "?to=http://other/")),
        ("/proxy/http://other", None, ("/proxy/http://other", "")),
        ("/x?a=1&b=2", {"a": 5, "c": "d e"}, ("/x", "?a=5&b=2&c=d+e")),
        ("/x?a=1&a=2&b=", {}, ("/x", "?a=1&a=2&b=")),
        ("/x?a=1", [("b", 1), ("b", 2)], ("/x", "?a=1&b=1&b=2")),
        ("/v1.2/..x/x../.well-known", None, ("/v1.2/..x/x../.well-known", "")),
        ("/a\\..\\b", None, ("/a%5C..%5Cb", "")),
        ("/x\r\nhost: evil", None, ("/x%0D%0Ahost:%20evil", "")),
        ("/x?a=\r\nb", None, ("/x", "?a=%0D%0Ab")),
    ],
)
def test_urls(url: str, params: Any, expected: tuple[str, str]) -> None:
    assert encode_url("users", url, params) == expected


async def test_paths_arrive_as_they_were_encoded() -> None:
    server = Server()
    async with raw_server(server) as endpoint, users(endpoint) as ours:
        for path in ("/a\\..\\b", "/a//b/", "/a|[x]^`{}", "/%2F%5C%3F%23", "//double"):
            await ours.client.get(path)
    assert [each.target for each in server.received] == [
        "/a%5C..%5Cb",
        "/a//b/",
        "/a%7C%5Bx%5D%5E%60%7B%7D",
        "/%2F%5C%3F%23",
        "//double",
    ]


@dataclasses.dataclass
class NotJson:
    x: int = 1


@pytest.mark.parametrize(
    ("method", "url", "options", "message"),
    [
        ("GET", "http://orders/x", {}, r"users: http://orders is not this service: give a path"),
        ("GET", "https://users/x", {}, r"users: https://users is not this service"),
        ("GET", "http://users:80/x", {}, r"users: http://users:80 is not this service"),
        ("GET", "http://me:hush@users/x", {}, r"users: http://users is not this"),
        ("GET", "/users/../admin", {}, r"users: the path '/users/../admin' must not have"),
        ("GET", "/users/%2E%2e/admin", {}, r"must not have '\.' or '\.\.' as a part"),
        ("GET", "/users/..", {}, r"must not have"),
        ("GET", "/./users", {}, r"must not have"),
        ("GE T", "/x", {}, r"users: 'GE T' is not an HTTP method"),
        ("", "/x", {}, r"is not an HTTP method"),
        ("POST", "/x", {"json": 1, "content": b"x"}, r"give only one of json=, content= and data="),
        ("POST", "/x", {"json": {"a": 1}, "data": {"a": 1}}, r"give only one of"),
        ("POST", "/x", {"json": NotJson()}, r"json= can't be encoded: NotJson can't be sent"),
        ("POST", "/x", {"json": float("nan")}, r"json= can't be encoded: Out of range"),
        ("POST", "/x", {"content": 7}, r"content= must be bytes, str or an async .*, not int"),
        ("POST", "/x", {"content": [b"x"]}, r"content= must be .*, not list"),
        ("GET", "/x", {"timeout": 0}, r"users: timeout must be more than 0 s, not 0"),
        ("GET", "/x", {"timeout": -1}, r"timeout must be more than 0 s, not -1"),
        ("GET", "/x", {"timeout": float("inf")}, r"timeout must be more than 0 s"),
        ("GET", "/x", {"timeout": float("nan")}, r"timeout must be more than 0 s"),
        ("GET", "/x", {"headers": {"a b": "1"}}, r"invalid header name 'a b'"),
        ("GET", "/x", {"headers": {"a": "hush\r\nx: y"}}, r"header 'a': the value must be text"),
        ("GET", "/x", {"headers": {"a": 1}}, r"header 'a': the value must be text"),
    ],
)
async def test_what_can_not_be_sent(
    method: str, url: str, options: dict[str, Any], message: str
) -> None:
    with refusing() as endpoint:  # nothing is tried, or this would be NoInstances
        async with users(endpoint) as ours:
            with pytest.raises(ConfigError, match=message) as caught:
                await ours.client.request(method, url, **options)
            assert ours.client.stats.calls == 0
    assert "\n" not in str(caught.value)
    assert "hush" not in str(caught.value)


async def test_a_misspelt_option_is_no_option() -> None:
    with refusing() as endpoint:
        async with users(endpoint) as ours:
            with pytest.raises(TypeError, match="parms"):
                await ours.client.get("/x", parms={"a": 1})  # type: ignore[call-arg]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"timeout": 0}, "users: timeout must be more than 0 s, not 0"),
        ({"headers": {"x": "a\nb"}}, "header 'x': the value must be text"),
    ],
)
async def test_what_a_client_can_not_be_made_with(options: dict[str, Any], message: str) -> None:
    with refusing() as endpoint, pytest.raises(ConfigError, match=message):
        async with users(endpoint, **options):
            pass
