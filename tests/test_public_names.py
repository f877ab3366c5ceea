"""What `import meshkit` offers, and what it does not load."""

import importlib
import json
import subprocess
import sys

import pytest

import meshkit

NAMES = """
AnswerTooLarge Balancer BindError BreakerOpen BreakerPolicy BulkheadFull BulkheadPolicy
CallContext CallError CallTimeout Candidate ConfigError ConnectError ConnectionLost
EjectionPolicy Endpoint Explanation HTTPStatusError HedgePolicy HttpClient Instance LeaseLost
LiveConfig
Mesh MeshError MeshService MeshSettings MeshTransport MissingExtraError NoInstances Outcome
RegistryDenied RegistryError RegistryUnavailable RegistryUrlError Response RetryPolicy Route
Runtime ServiceInfo Snapshot StartError Status Unsupported WebSocketClosed WrongInstance context
deadline_in
delete get grpc_client health_check http_client live_config patch post put remaining websocket
"""


def modules_after(code: str) -> set[str]:
    """The top-level and meshkit modules that a new interpreter has loaded after ``code``."""
    done = subprocess.run(
        [sys.executable, "-c", f"{code}\nimport json, sys; print(json.dumps([*sys.modules]))"],
        capture_output=True,
        text=True,
        check=True,
    )
    return set(json.loads(done.stdout.splitlines()[-1]))


def test_the_public_names_are_these() -> None:
    assert meshkit.__all__ == sorted(meshkit.__all__)
    assert set(meshkit.__all__) == set(NAMES.split())


@pytest.mark.parametrize("name", NAMES.split())
def test_every_name_is_there_and_documented(name: str) -> None:
    value = getattr(meshkit, name)
    assert value.__name__.rpartition(".")[2] == name
    assert value.__doc__


def test_lazy_names_are_kept_after_their_first_use() -> None:
    for name, module in meshkit._MODULE_OF.items():
        assert getattr(meshkit, name) is getattr(importlib.import_module(module), name)
        assert name in vars(meshkit)


def test_other_names_are_attribute_errors() -> None:
    with pytest.raises(AttributeError, match="module 'meshkit' has no attribute 'Nothing'"):
        _ = meshkit.Nothing
    assert not hasattr(meshkit, "Nothing")


def test_importing_it_is_cheap() -> None:
    loaded = modules_after("import meshkit")
    assert "meshkit.context" not in loaded
    assert "meshkit.context" in modules_after("import meshkit; meshkit.context.remaining()")
    heavy = {"fastapi", "grpc", "typer", "pydantic", "uvicorn", "starlette", "httptools", "consul"}
    assert "meshkit" in loaded
    assert not loaded & heavy
    assert not {each for each in loaded if each.startswith(("meshkit.registry", "meshkit.cli"))}


def test_a_service_of_http_never_imports_grpc_and_one_of_grpc_never_fastapi() -> None:
    loaded = modules_after(
        "import meshkit\n"
        "class Plain(meshkit.MeshService):\n"
        "    name = 'plain'\n"
        "    @meshkit.get('/')\n"
        "    async def read(self) -> int: return 1\n"
        "Plain().app\n"
        "import meshkit.server.http, meshkit.runtime"
    )
    assert "fastapi" in loaded
    assert "grpc" not in loaded
    loaded = modules_after("import meshkit.server.grpc, meshkit.runtime")
    assert "grpc" in loaded
    assert "fastapi" not in loaded
    assert "uvicorn" not in loaded


def test_a_service_imports_what_it_uses_of_discovery_and_configuration() -> None:
    loaded = modules_after(
        "import asyncio, meshkit\n"
        "class Plain(meshkit.MeshService):\n"
        "    name = 'plain'\n"
        "    users = meshkit.http_client('users')\n"
        "async def main():\n"
        "    async with meshkit.Runtime(Plain(), registry='memory://plain') as running:\n"
        "        running.mesh.http('users')\n"
        "asyncio.run(main())"
    )
    assert "meshkit.discovery.subscription" in loaded
    assert not loaded & {
        "meshkit.discovery.failover",
        "meshkit.config.live",
        "meshkit.registry.several",
        "meshkit.client.grpc",
    }
