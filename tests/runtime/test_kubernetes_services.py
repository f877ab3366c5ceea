"""Real services as pods of a simulated cluster: unregistered, they find each other, and leave."""

import asyncio
import signal
import ssl
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from meshkit import Mesh
from meshkit.registry.kubernetes import KubernetesRegistry
from tests.protos import echo_pb2, echo_pb2_grpc
from tests.registry.kubernetes_api import KubernetesApi, endpoint, kubernetes_api, piece
from tests.registry.zookeeper_certificates import make_certificates
from tests.support.processes import Processes, ServiceProcess, processes
from tests.support.waiting import aeventually

APPS = Path(__file__).parents[1] / "support" / "apps"
TOKEN = "of-the-service-account"


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_certificates(tmp_path_factory.mktemp("tls") / "cluster")


@pytest.fixture
async def cluster(certificates: Path) -> AsyncIterator[KubernetesApi]:
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(certificates / "server.pem", certificates / "server-key.pem")
    async with kubernetes_api(context) as api:
        api.token = TOKEN
        yield api


@pytest.fixture
def pods(
    cluster: KubernetesApi, certificates: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Processes]:
    """Starts services that are told of their cluster as pods are."""
    monkeypatch.setenv("KUBERNETES_SERVICE_HOST", "127.0.0.1")
    monkeypatch.setenv("KUBERNETES_SERVICE_PORT", str(cluster.port))
    token = tmp_path / "token"
    token.write_text(TOKEN)
    url = f"kubernetes://shop?token_file={token}&ca={certificates / 'ca.pem'}"
    with processes(APPS, url) as running:
        yield running


async def start(pods: Processes, spec: str) -> ServiceProcess:
    return await asyncio.to_thread(pods.start(spec).ready)


async def show(
    cluster: KubernetesApi, service: str, pod: ServiceProcess, **conditions: bool
) -> None:
    """Do the controller's part; each pod has ports of its own here, and so a slice."""
    ports = [("http", urlsplit(pod.url).port or 0)]
    if pod.facts["grpc"]:
        ports.append(("grpc", int(pod.facts["grpc"].rpartition(":")[2])))
    found = endpoint(f"{service}-{pod.pid}", "127.0.0.1", **conditions)
    await cluster.put(piece(service, found, name=f"{service}-{pod.pid}", ports=ports))


async def test_services_find_each_other(cluster: KubernetesApi, pods: Processes) -> None:
    """Over both transports, by the names of their Services."""
    users, ledger = await asyncio.gather(start(pods, "chain:Users"), start(pods, "chain:Ledger"))
    await show(cluster, "ledger", ledger)
    async with Mesh(f"static://users={urlsplit(users.url).netloc}") as mesh:
        for hops in ("http", "grpc"):
            params = {"hops": hops, "mode": "end"}
            answer = await mesh.http("users").get("/go", params=params, timeout=30)
            assert answer.json()["service"] == "ledger"
    for each in pods.started:
        each.send(signal.SIGTERM)
    for each in pods.started:
        assert await asyncio.to_thread(each.wait) == 0
        assert "Traceback" not in each.output
        assert TOKEN not in each.output


async def test_who_leaves_is_waited_for_though_nothing_was_registered(
    cluster: KubernetesApi, pods: Processes
) -> None:
    """The controller may be later than the signal: a pod answers until it is known to leave."""
    first, second = await asyncio.gather(*(start(pods, "echo_rpc:EchoRpc") for _ in "ab"))
    for each in (first, second):
        await show(cluster, "echo-rpc", each)
    async with Mesh(pods.registry, balancer="round_robin") as mesh:
        stub = mesh.grpc(echo_pb2_grpc.EchoStub, "echo-rpc")

        async def call() -> set[int]:
            said = await stub.Say(echo_pb2.EchoRequest(text="hello"), timeout=30)
            who = await mesh.http("echo-rpc").get("/who", timeout=30)
            return {int(said.instance), who.json()["pid"]}

        async def all_called() -> bool:
            return set().union(*[await call() for _ in range(4)]) == {first.pid, second.pid}

        await aeventually(all_called, within=30)
        first.send(signal.SIGTERM)
        sent = time.monotonic()
        for _ in range(10):
            await call()
        await show(cluster, "echo-rpc", first, ready=False, terminating=True)
        while first.code is None:
            await call()
        assert first.code == 0
        assert time.monotonic() - sent >= KubernetesRegistry.propagation
        await cluster.delete(f"echo-rpc-{first.pid}")
        assert set().union(*[await call() for _ in range(4)]) == {second.pid}


async def test_a_cluster_that_refuses_is_one_line_and_the_service_serves(
    cluster: KubernetesApi, pods: Processes
) -> None:
    cluster.verbs = set()
    users = await start(pods, "chain:Users")
    async with Mesh(f"static://users={urlsplit(users.url).netloc}") as mesh:
        params = {"hops": "http", "mode": "end"}
        answer = await mesh.http("users").get("/go", params=params, timeout=30)
    assert answer.status_code >= 500
    users.send(signal.SIGTERM)
    assert await asyncio.to_thread(users.wait) == 0
    (line,) = (each for each in users.lines if "can't be followed" in each)
    assert "a Role in the namespace shop" in line
    assert TOKEN not in users.output
