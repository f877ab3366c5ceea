"""Arrows point one way: the rules of design, rooms, checked on the real imports."""

import subprocess
import sys
from pathlib import Path

from tests.test_public_names import modules_after

ROOT = Path(__file__).parents[1]
ENGINES = {f"meshkit.registry.{name}" for name in ("local", "memory", "static", "consul", "dns")}
RUN_LINTER = (
    "import sys; from importlinter.cli import lint_imports_command as main; sys.exit(main())"
)


def test_the_import_contracts_hold() -> None:
    done = subprocess.run(
        [sys.executable, "-c", RUN_LINTER, "--no-cache"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert " 0 broken" in done.stdout


def test_discovery_and_clients_work_without_any_engine() -> None:
    folders = [ROOT / "meshkit" / name for name in ("discovery", "client")]
    paths = [path for folder in folders for path in folder.rglob("*.py")]
    modules = [
        ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")
        for path in paths
    ]
    assert "meshkit.client.mesh" in modules
    loaded = modules_after(f"import {', '.join(modules)}")
    assert not {each for each in loaded if ".".join(each.split(".")[:3]) in ENGINES}
    assert not {each for each in loaded if each.startswith(("meshkit.runtime", "meshkit.server"))}


def test_help_imports_nothing_heavy() -> None:
    loaded = modules_after("from meshkit.cli import dispatch\nassert dispatch(['--help']) == 0")
    assert not loaded & {"typer", "fastapi", "pydantic", "grpc", "uvicorn", "asyncio", "jinja2"}
    assert {each for each in loaded if each.startswith("meshkit.cli")} == {"meshkit.cli"}


def test_only_the_consul_engine_imports_the_consul_library() -> None:
    loaded = modules_after("from meshkit.registry import open_registry; open_registry('local://')")
    assert "meshkit.registry.local" in loaded
    assert "consul" not in loaded
    assert "meshkit.registry.consul" not in loaded
