"""The registries that are compared: their servers, and the barest watch that each offers."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import tempfile
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from pathlib import Path
from typing import Any

from measure import BenchmarkError

from tests.servers.consul import Consul
from tests.servers.etcd import Etcd
from tests.servers.process import ServerProcess
from tests.servers.programs import find_program, how_to_get
from tests.servers.zookeeper import ZooKeeper

# Yields what was read after each change, as the server or file gave it.
RawWatch = Callable[["Running", str], AsyncGenerator[bytes, None]]


@dataclasses.dataclass(frozen=True, slots=True)
class Running:
    """A registry that is up: its engine's name, URL, and server (None for the embedded one)."""

    name: str
    url: str
    server: ServerProcess | None
    folder: Path


@contextlib.asynccontextmanager
async def running(name: str) -> AsyncIterator[Running]:
    """Start the engine's server, if it has one; end it with the block."""
    with tempfile.TemporaryDirectory(prefix=f"meshkit-bench-{name}-") as text:
        folder = Path(text)
        if name == "local":
            yield Running(name, f"local://bench?dir={folder}", None, folder / "bench")
            return
        server = await asyncio.to_thread(_start, name, folder)
        try:
            yield Running(name, server.url, server, folder)
        finally:
            await asyncio.to_thread(server.stop)


def _start(name: str, folder: Path) -> Consul | Etcd | ZooKeeper:
    program = find_program(name)
    if program is None:
        raise BenchmarkError(how_to_get(name))
    server: Consul | Etcd | ZooKeeper
    if name == "consul":
        settings = {"log_level": "DEBUG"}  # names each request
        server = Consul(program, folder, connections=5000, settings=settings)
    elif name == "etcd":
        server = Etcd(program, folder)
    else:
        server = ZooKeeper(program, folder)
    server.start()
    return server


async def raw_local(registry: Running, service: str) -> AsyncGenerator[bytes, None]:
    """Wait on inotify by hand, and read the service's files after each piece of news."""
    from meshkit.registry.local.inotify import Inotify  # noqa: PLC0415

    folder = registry.folder / service
    folder.mkdir(mode=0o700, exist_ok=True)
    inotify, news = Inotify(), asyncio.Event()
    loop = asyncio.get_running_loop()
    try:
        inotify.add(folder)
        loop.add_reader(inotify.fd, news.set)
        while True:
            yield b"".join(file.read_bytes() for file in folder.glob("*.json"))
            news.clear()
            await news.wait()
            list(inotify.read())
    finally:
        loop.remove_reader(inotify.fd)
        inotify.close()


async def raw_consul(registry: Running, service: str) -> AsyncGenerator[bytes, None]:
    """Repeat a blocking query over one connection."""
    assert isinstance(registry.server, Consul)
    port, index = registry.server.ports.http, "0"
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        while True:
            path = f"/v1/health/service/{service}?stale&index={index}&wait=30s"
            writer.write(f"GET {path} HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n".encode())
            head = (await reader.readuntil(b"\r\n\r\n")).decode().lower()
            headers = dict(line.split(": ", 1) for line in head.splitlines()[1:] if ": " in line)
            index = headers["x-consul-index"]
            if "content-length" in headers:
                yield await reader.readexactly(int(headers["content-length"]))
            else:
                yield await _chunked(reader)
    finally:
        writer.close()


async def _chunked(reader: asyncio.StreamReader) -> bytes:
    body = b""
    while size := int(await reader.readline(), 16):
        body += await reader.readexactly(size)
        await reader.readline()
    await reader.readline()
    return body


async def raw_etcd(registry: Running, service: str) -> AsyncGenerator[bytes, None]:
    """Read a Watch stream of the service's keys; a bare channel and etcd's own messages."""
    import grpc.aio  # noqa: PLC0415

    from meshkit.registry.etcd import messages  # noqa: PLC0415

    assert isinstance(registry.server, Etcd)
    rpc, prefix = messages.WATCH, f"/meshkit/services/{service}/".encode()
    async with grpc.aio.insecure_channel(registry.server.address) as channel:
        stream: Any = channel.stream_stream(
            rpc.path,
            request_serializer=lambda message: message.SerializeToString(),
            response_deserializer=messages.CLASSES[rpc.response].FromString,
        )()
        create = messages.make(
            "WatchCreateRequest", key=prefix, range_end=messages.prefix_end(prefix)
        )
        await stream.write(messages.make(rpc.request, create_request=create))
        async for answer in stream:
            yield b"".join(event.kv.value for event in answer.events)


async def raw_zookeeper(registry: Running, service: str) -> AsyncGenerator[bytes, None]:
    """Set kazoo's watches of children and data by hand, in its own threads."""
    from kazoo.client import KazooClient  # noqa: PLC0415

    assert isinstance(registry.server, ZooKeeper)
    loop, news = asyncio.get_running_loop(), asyncio.Event()
    client = KazooClient(hosts=registry.server.address)
    path = f"/meshkit/services/{service}"

    def changed(_: object) -> None:
        loop.call_soon_threadsafe(news.set)

    def read() -> bytes:
        client.ensure_path(path)
        children = client.get_children(path, watch=changed)
        return b"".join(client.get(f"{path}/{child}", watch=changed)[0] for child in children)

    await asyncio.to_thread(client.start)
    try:
        while True:
            news.clear()
            yield await asyncio.to_thread(read)
            await news.wait()
    finally:
        client.stop()
        client.close()


RAW: dict[str, RawWatch] = {
    "local": raw_local,
    "consul": raw_consul,
    "etcd": raw_etcd,
    "zookeeper": raw_zookeeper,
}
