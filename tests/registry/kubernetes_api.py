"""An API server of the test's own: EndpointSlices, listed and watched as Kubernetes does it.

Answers, their order and their errors are those that kube-apiserver gives; see
https://kubernetes.io/docs/reference/using-api/api-concepts/.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import ssl
from collections.abc import AsyncIterator, Coroutine, Iterable
from typing import Any
from urllib.parse import parse_qsl, urlsplit

from tests.servers.ports import free_ports

GROUP = "discovery.k8s.io"
SERVICE = "kubernetes.io/service-name"
ACCOUNT = "system:serviceaccount:shop:meshkit"
TLS_HELLO = b"\x16"
BOTH = (("http", 8000), ("grpc", 9000))

Ports = Iterable[tuple[str, int]]
Object = dict[str, Any]


def endpoint(pod: str = "", address: str = "10.1.0.1", /, **fields: Any) -> Object:
    """One endpoint, ready unless ``ready``, ``serving`` or ``terminating`` say otherwise."""
    names = ("ready", "serving", "terminating")
    told = {name: fields.pop(name) for name in names if name in fields}
    found = {
        "addresses": [address],
        "conditions": {"ready": True, "serving": True, "terminating": False, **told},
    }
    if pod:
        found["targetRef"] = {"kind": "Pod", "name": pod, "namespace": "shop", "uid": f"uid-{pod}"}
    return {**found, "nodeName": "node-1", "zone": "zone-a", **fields}


def piece(
    service: str, *endpoints: Object, name: str = "", ports: Ports = BOTH, **fields: Any
) -> Object:
    """One EndpointSlice of a service."""
    return {
        "metadata": {
            "name": name or f"{service}-abcde",
            "namespace": "shop",
            "labels": {SERVICE: service, **fields.pop("labels", {})},
        },
        "addressType": "IPv4",
        "endpoints": list(endpoints),
        "ports": [{"name": each, "port": port, "protocol": "TCP"} for each, port in ports],
        **fields,
    }


class KubernetesApi:
    """Serves the EndpointSlices of the namespace ``shop`` on one port, also across restarts.

    Attributes:
        token: that has to be sent; None takes whoever comes.
        verbs: that the Role allows.
        hung: takes requests, and answers none while it is set.
        endless: ends no watch, whatever was asked for.
        ends_early: ends each watch at once, as a server does that stops.
        gone_by_status: says that a version is too old by the status, not by an event.
        twist: what is answered instead, whole.
        asked: (verb, parameters) of each request so far.
    """

    def __init__(self, context: ssl.SSLContext | None = None) -> None:
        self.context = context
        self.token: str | None = None
        self.verbs = {"list", "watch"}
        self.hung = asyncio.Event()
        self.endless = self.ends_early = self.gone_by_status = False
        self.twist: bytes | None = None
        self.asked: list[tuple[str, dict[str, str]]] = []
        self.version = 100
        (self.port,) = free_ports(1)
        self._slices: dict[str, Object] = {}
        self._history: list[tuple[int, str, Object]] = []
        self._forgotten = 0
        self._changed = asyncio.Condition()
        self._server: asyncio.Server | None = None
        self._tasks: set[asyncio.Task[None]] = set()

    # --- what a test does ---

    @property
    def url(self) -> str:
        return f"kubernetes://127.0.0.1:{self.port}/shop?tls=false"

    async def start(self) -> None:
        self._server = await asyncio.start_server(
            self._accept, "127.0.0.1", self.port, ssl=self.context
        )

    async def stop(self) -> None:
        """Close the port, and what is open on it, as a crash does."""
        if self._server is not None:
            self._server.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def put(self, *slices: Object) -> None:
        for each in slices:
            name = each["metadata"]["name"]
            await self._note("MODIFIED" if name in self._slices else "ADDED", each)
            self._slices[name] = self._history[-1][2]

    async def delete(self, name: str) -> None:
        await self._note("DELETED", self._slices.pop(name))

    async def bookmark(self) -> None:
        """Tell all watches of a version that has nothing new for them."""
        metadata = {"resourceVersion": "", "creationTimestamp": None}
        await self._note("BOOKMARK", {"kind": "EndpointSlice", "metadata": metadata})

    async def forget(self, *, more: int = 0) -> None:
        """Compact: all versions so far, and as many that are still to come, are too old."""
        self._forgotten = self.version + more
        async with self._changed:
            self._changed.notify_all()

    def watches(self) -> int:
        return sum(verb == "watch" for verb, _ in self.asked)

    def lists(self) -> int:
        return sum(verb == "list" for verb, _ in self.asked)

    # --- how it answers ---

    async def _note(self, kind: str, found: Object) -> None:
        self.version += 1
        metadata = {**found["metadata"], "resourceVersion": str(self.version)}
        head = {"kind": "EndpointSlice", "apiVersion": f"{GROUP}/v1"}
        self._history.append((self.version, kind, {**head, **found, "metadata": metadata}))
        async with self._changed:
            self._changed.notify_all()

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        try:
            with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError, ssl.SSLError):
                while True:
                    if (first := await reader.readexactly(1)) == TLS_HELLO:
                        writer.write(_answered(400, b"400 Bad Request", "text/plain"))
                        await writer.drain()
                        break
                    head = (first + await reader.readuntil(b"\r\n\r\n")).decode()
                    await self._answer(head, reader, writer)
                    await writer.drain()
        except asyncio.CancelledError:
            pass  # stopped; asyncio's own callback would log it
        finally:
            self._tasks.discard(task)
            writer.transport.abort()

    async def _answer(
        self, head: str, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        line, *rest = head.split("\r\n")
        headers = dict(each.lower().split(": ", 1) for each in rest if each)
        target = urlsplit(line.split(" ")[1])
        params = dict(parse_qsl(target.query))
        verb = "watch" if params.get("watch") == "true" else "list"
        self.asked.append((verb, params))
        while self.hung.is_set():
            await asyncio.sleep(0.01)
        if self.twist is not None:
            writer.write(self.twist)
            writer.close()
            return
        told = headers.get("authorization", "anonymous")
        if self.token is not None and told not in ("anonymous", f"bearer {self.token}".lower()):
            writer.write(_status(401, "Unauthorized", "Unauthorized"))
        elif target.path != f"/apis/{GROUP}/v1/namespaces/shop/endpointslices":
            writer.write(_answered(404, b"404 page not found\n", "text/plain"))
        elif self.token is not None and told == "anonymous":
            writer.write(_status(403, "Forbidden", _forbidden("system:anonymous", verb)))
        elif verb not in self.verbs:
            writer.write(_status(403, "Forbidden", _forbidden(ACCOUNT, verb)))
        elif verb == "list":
            writer.write(_answered(200, json.dumps(self._list(params["labelSelector"])).encode()))
        else:
            await _until_gone(reader, self._watch(params, writer))

    def _list(self, selector: str) -> Object:
        items = [each for each in self._slices.values() if _matches(each, selector)]
        return {
            "kind": "EndpointSliceList",
            "apiVersion": f"{GROUP}/v1",
            "metadata": {"resourceVersion": str(self.version)},
            "items": items,
        }

    async def _watch(self, params: dict[str, str], writer: asyncio.StreamWriter) -> None:
        version = int(params["resourceVersion"])
        if version < self._forgotten and self.gone_by_status:
            writer.write(_status(410, "Expired", "The resourceVersion is too old."))
            return
        head = ("HTTP/1.1 200 OK", "Content-Type: application/json", "Transfer-Encoding: chunked")
        writer.write("\r\n".join([*head, "", ""]).encode())
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(None if self.endless else int(params["timeoutSeconds"])):
                while not self.ends_early:
                    if version < self._forgotten:
                        _send(writer, "ERROR", _failure(410, "Expired", "too old resource version"))
                        break
                    version = self._send_since(version, params["labelSelector"], writer)
                    await writer.drain()
                    async with self._changed:
                        await self._changed.wait_for(
                            lambda: max(self.version, self._forgotten) > version  # noqa: B023
                        )
        writer.write(b"0\r\n\r\n")

    def _send_since(self, version: int, selector: str, writer: asyncio.StreamWriter) -> int:
        for number, kind, found in self._history:
            if number > version and (kind == "BOOKMARK" or _matches(found, selector)):
                _send(writer, kind, found)
        return self.version


async def _until_gone(reader: asyncio.StreamReader, watch: Coroutine[Any, Any, None]) -> None:
    """Carry on until it ends, or who asked for it has gone."""
    tasks = {asyncio.ensure_future(watch), asyncio.ensure_future(reader.read())}
    try:
        await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


def _matches(found: Object, selector: str) -> bool:
    key, equals, value = selector.partition("=")
    labels = found["metadata"]["labels"]
    return labels.get(key) == value if equals else key in labels


def _send(writer: asyncio.StreamWriter, kind: str, found: Object) -> None:
    line = json.dumps({"type": kind, "object": found}).encode() + b"\n"
    writer.write(b"%x\r\n%s\r\n" % (len(line), line))


def _answered(code: int, body: bytes, kind: str = "application/json") -> bytes:
    head = (f"HTTP/1.1 {code} Said", f"Content-Type: {kind}", f"Content-Length: {len(body)}")
    return "\r\n".join([*head, "", ""]).encode() + body


def _failure(code: int, reason: str, message: str) -> Object:
    head = {"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure"}
    return {**head, "message": message, "reason": reason, "code": code}


def _status(code: int, reason: str, message: str) -> bytes:
    return _answered(code, json.dumps(_failure(code, reason, message)).encode())


def _forbidden(who: str, verb: str) -> str:
    return (
        f'endpointslices.{GROUP} is forbidden: User "{who}" cannot {verb} resource '
        f'"endpointslices" in API group "{GROUP}" in the namespace "shop"'
    )


@contextlib.asynccontextmanager
async def kubernetes_api(context: ssl.SSLContext | None = None) -> AsyncIterator[KubernetesApi]:
    """Serve until the block ends."""
    api = KubernetesApi(context)
    await api.start()
    try:
        yield api
    finally:
        await api.stop()
