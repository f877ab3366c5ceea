"""examples/kubernetes: Kubernetes would take it, and what it says of meshkit is true."""

import asyncio
import urllib.request
from typing import Any

import kubernetes_validate
import pytest
import yaml

from meshkit.settings import MeshSettings
from tests.registry.kubernetes_api import GROUP, kubernetes_api
from tests.servers.ports import free_ports
from tests.support.processes import ROOT, processes

FOLDER = ROOT / "examples" / "kubernetes"
SERVICES = ("users", "orders")
Object = dict[str, Any]


def objects(*names: str) -> list[Object]:
    files = [FOLDER / f"{name}.yaml" for name in names] or sorted(FOLDER.glob("*.yaml"))
    return [each for file in files for each in yaml.safe_load_all(file.read_text())]


def one(kind: str, *names: str) -> Object:
    (found,) = (each for each in objects(*names) if each["kind"] == kind)
    return found


def container(name: str) -> Object:
    (found,) = one("Deployment", name)["spec"]["template"]["spec"]["containers"]
    return dict(found)


@pytest.mark.parametrize("version", ["1.25.0", kubernetes_validate.latest_version()])
def test_kubernetes_takes_them(version: str) -> None:
    """By its schemas, in which nothing else may stand."""
    found = objects()
    assert len(found) == 8
    for each in found:
        kubernetes_validate.validate(each, version, strict=True)


def test_the_role_is_what_the_engine_needs() -> None:
    role, binding, account = (
        one(kind, "access") for kind in ("Role", "RoleBinding", "ServiceAccount")
    )
    needed = {"apiGroups": [GROUP], "resources": ["endpointslices"], "verbs": ["list", "watch"]}
    assert role["rules"] == [needed]
    assert binding["roleRef"]["name"] == role["metadata"]["name"]
    assert binding["subjects"][0]["name"] == account["metadata"]["name"]
    for name in SERVICES:
        pod = one("Deployment", name)["spec"]["template"]["spec"]
        assert pod["serviceAccountName"] == account["metadata"]["name"]
    assert {each["metadata"].get("namespace", "shop") for each in objects()} == {"shop"}


@pytest.mark.parametrize("name", SERVICES)
def test_a_service_leads_to_its_pods(name: str) -> None:
    service, deployment = one("Service", name), one("Deployment", name)
    labels = deployment["spec"]["template"]["metadata"]["labels"]
    assert service["spec"]["selector"].items() <= labels.items()
    assert deployment["spec"]["selector"]["matchLabels"].items() <= labels.items()
    targets = {each["name"]: each["containerPort"] for each in container(name)["ports"]}
    ports = {each["name"]: targets[each["targetPort"]] for each in service["spec"]["ports"]}
    env = {each["name"]: each.get("value") for each in container(name)["env"]}
    told = {"http": env["MESHKIT_PORT"], "grpc": env.get("MESHKIT_GRPC_PORT")}
    assert ports == {transport: int(port) for transport, port in told.items() if port}


@pytest.mark.parametrize("name", SERVICES)
def test_settings_are_known_and_the_time_to_stop_suffices(name: str) -> None:
    names = {each["name"] for each in container(name)["env"]}
    assert names <= {f"MESHKIT_{field.upper()}" for field in MeshSettings.model_fields}
    pod = one("Deployment", name)["spec"]["template"]["spec"]
    assert pod["terminationGracePeriodSeconds"] > MeshSettings().shutdown_timeout


async def test_a_pod_passes_its_probes() -> None:
    """As its container is started: its variables, but for the ports and a cluster of the test's."""
    ports = free_ports(2)
    env = {each["name"]: each["value"] for each in container("users")["env"] if "value" in each}
    env |= {"MESHKIT_PORT": str(ports[0]), "MESHKIT_GRPC_PORT": str(ports[1])}
    env |= {"MESHKIT_ZONE": ""}  # as without the label
    probes = [container("users")[f"{kind}Probe"] for kind in ("startup", "readiness", "liveness")]

    def probed() -> list[int]:
        urls = (f"http://127.0.0.1:{ports[0]}{each['httpGet']['path']}" for each in probes)
        return [urllib.request.urlopen(url, timeout=10).status for url in urls]

    async with kubernetes_api() as cluster:
        assert env.pop("MESHKIT_REGISTRY") == "kubernetes://"
        with processes(ROOT / "examples" / "users", cluster.url) as pods:
            pod = await asyncio.to_thread(pods.start("users.service:Users", env=env).ready)
            assert await asyncio.to_thread(probed) == [200, 200, 200]
            assert pod.facts["grpc"].endswith(f":{ports[1]}")
