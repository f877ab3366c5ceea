"""Tags that a template takes from the network, on the real engine."""

import json
from pathlib import Path

import pytest

from tests.cli.command import meshkit
from tests.servers import Consul
from tests.servers.docker_engine import DockerEngine
from tests.support.fleet import SLEEPING
from tests.support.registrator import finished


@pytest.mark.docker
@pytest.mark.consul
def test_tags_may_come_from_the_network(
    docker: DockerEngine, consul: Consul, tmp_path: Path
) -> None:
    name = docker.named("web")
    labels = ("--label", f"SERVICE_NAME={name}", "--label", f"own={name}")
    docker.run("web", "-p", "127.0.0.1::80", *labels, *SLEEPING)
    asked = f"http://{consul.address}/v1/agent/self"
    tags = f'zone,{{{{jsonParse (httpGet "{asked}") "Config::Datacenter"}}}}'
    done = finished(consul.url, "--dry-run", "--json", "-tags", tags, folder=tmp_path, own=name)
    assert done.returncode == 0, done.stderr
    (found,) = (each for each in json.loads(done.stdout) if each.get("name") == name)
    assert found["tags"] == ["zone", "dc1"]


@pytest.mark.docker
def test_a_malformed_template_is_one_line(docker: DockerEngine, tmp_path: Path) -> None:
    done = meshkit(
        "registrator", "-tags", "{{env `HOME`}}", "consul://127.0.0.1:9", folder=tmp_path
    )
    assert done.returncode == 1
    assert done.stderr.count("\n") == 1
    assert "-tags: {{env `HOME`}}: unknown function 'env'; known are and, eq, " in done.stderr
