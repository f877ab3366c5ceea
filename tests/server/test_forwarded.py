"""A trusted proxy says who the caller is and how it came, over HTTP and for WebSockets."""

from __future__ import annotations

import httpx2
import pytest
from fastapi import Request, WebSocket
from websockets.asyncio.client import connect

from meshkit import MeshService, Runtime, get, websocket

FORWARDED = {"X-Forwarded-For": "192.0.2.7", "X-Forwarded-Proto": "https"}


class Mirror(MeshService):
    name = "mirror"

    @get("/caller")
    async def caller(self, request: Request) -> str:
        assert request.client is not None
        return f"{request.url.scheme} {request.client.host}"

    @websocket("/talk")
    async def talk(self, socket: WebSocket) -> None:
        assert socket.client is not None
        await socket.accept()
        await socket.send_text(f"{socket.url.scheme} {socket.client.host}")
        await socket.close()


@pytest.mark.parametrize(
    ("trusted", "headers", "scheme", "host"),
    [
        (None, FORWARDED, "https", "192.0.2.7"),
        (None, {"X-Forwarded-Proto": "https"}, "https", "127.0.0.1"),
        (None, {}, "http", "127.0.0.1"),
        ("192.0.2.1", FORWARDED, "http", "127.0.0.1"),
    ],
    ids=["both", "one", "none", "not-trusted"],
)
async def test_a_proxy_that_is_trusted_names_the_caller(
    monkeypatch: pytest.MonkeyPatch,
    trusted: str | None,
    headers: dict[str, str],
    scheme: str,
    host: str,
) -> None:
    if trusted is not None:
        monkeypatch.setenv("FORWARDED_ALLOW_IPS", trusted)
    async with Runtime(Mirror(), registry="memory://forwarded", drain_delay=0) as running:
        assert running.http_url
        async with httpx2.AsyncClient(base_url=running.http_url, headers=headers) as client:
            assert (await client.get("/caller")).json() == f"{scheme} {host}"
        url = running.http_url.replace("http", "ws", 1) + "/talk"
        async with connect(url, additional_headers=headers, proxy=None) as socket:
            assert await socket.recv() == f"{scheme.replace('http', 'ws')} {host}"
