"""Every mistake is one line on stderr and a documented exit code; never a traceback."""

from __future__ import annotations

import dataclasses
import json
import os
import socket
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

from tests.cli.command import HELLO, meshkit
from tests.support.processes import ROOT

CLASS = """
from meshkit import MeshService, get, websocket
class {name}(MeshService):
    name = "{name}"
"""
LEDGER = """
from meshkit import MeshService
from tests.protos import echo_pb2_grpc
class Ledger(MeshService, echo_pb2_grpc.EchoServicer):
    name = "ledger"
"""
LIFESPAN = """
import contextlib
from fastapi import FastAPI
from meshkit import MeshService
@contextlib.asynccontextmanager
async def lifespan(app):
    raise ConnectionError("no cache\\nat all")
    yield
service = MeshService.from_app(FastAPI(lifespan=lifespan), name="plain")
"""
SETTINGS = """
from pydantic_settings import BaseSettings
from meshkit import MeshService
class Settings(BaseSettings):
    shop_size: int
class Shop(MeshService):
    name = "shop"
    async def on_start(self):
        Settings()
"""
# Makes a library absent for the whole process: neither imported nor found by find_spec.
WITHOUT = """
import sys
from importlib.machinery import PathFinder
class Without(PathFinder):
    @classmethod
    def find_spec(cls, name, path=None, target=None):
        if name.partition(".")[0] in {absent!r}:
            return None
        return PathFinder.find_spec(name, path, target)
sys.meta_path[sys.meta_path.index(PathFinder)] = Without
"""


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """One mistake: what is in the folder, what is called, and what is said of it.

    ``{port}`` stands for a port that is taken, ``{file}`` for a file in the way.
    """

    code: int
    says: str
    arguments: tuple[str, ...] = ("run",)
    env: Mapping[str, str] = dataclasses.field(default_factory=dict)
    service: str = HELLO
    project: str = ""
    absent: tuple[str, ...] = ()


CASES = {
    "busy HTTP port": Case(
        arguments=("run", "--port", "{port}"),
        code=3,
        says="port {port} on 127.0.0.1 is already in use: stop the process that holds it, or let "
        "--port 0 choose a free one",
    ),
    "busy gRPC port": Case(
        arguments=("run", "--grpc-port", "{port}"),
        service=LEDGER,
        code=3,
        says="port {port} on 127.0.0.1 is already in use: stop the process that holds it, or let "
        "--grpc-port 0 choose a free one",
    ),
    "unknown module": Case(
        arguments=("run", "nothing:Hello"), code=1, says="no module named 'nothing' in "
    ),
    "a syntax error": Case(
        service="def (:\n", code=1, says="service can't be imported: invalid syntax ("
    ),
    "an import error": Case(
        service="raise ImportError('first\\nsecond')\n",
        code=1,
        says="service can't be imported: ImportError: first second (",
    ),
    "no service": Case(service="", code=1, says="no MeshService found here: name it as in "),
    "two candidates": Case(
        service=CLASS.format(name="one") + CLASS.format(name="two"),
        code=1,
        says="several services found, name one of them: service:one, service:two",
    ),
    "no name": Case(
        arguments=("run", "service:Nameless"),
        service="from meshkit import MeshService\nclass Nameless(MeshService): ...\n",
        code=1,
        says='service:Nameless has no name: set `name = "..."` in its class',
    ),
    "duplicate route": Case(
        service=CLASS.format(name="doubled")
        + "    @get('/a')\n    def a(self): ...\n    @get('/a')\n    def b(self): ...\n",
        code=1,
        says="doubled: duplicate route GET /a, declared by a and b",
    ),
    "a route that FastAPI refuses": Case(
        service=CLASS.format(name="odd") + "    @get('/{x:colour}')\n    def a(self, x): ...\n",
        code=1,
        says="odd.a: FastAPI refuses the route: Unknown path convertor 'colour'",
    ),
    "invalid service name": Case(
        service=CLASS.format(name="Bad_Name"),
        code=1,
        says="Bad_Name: invalid service name 'Bad_Name': use lower-case letters",
    ),
    "malformed registry URL": Case(
        arguments=("run", "--registry", "consul"),
        code=1,
        says="malformed registry URL 'consul': expected SCHEME://..., with one of the schemes ",
    ),
    "unknown scheme": Case(
        arguments=("run", "--registry", "eureka://127.0.0.1"),
        code=1,
        says="unknown registry scheme 'eureka://' in 'eureka://127.0.0.1'; known: consul://",
    ),
    "bad variable": Case(
        env={"MESHKIT_PORT": "http"},
        code=1,
        says="bad value for MESHKIT_PORT: should be a whole number",
    ),
    "bad switch": Case(
        env={"MESHKIT_RELOAD": "perhaps"},
        code=1,
        says="bad value for MESHKIT_RELOAD: should be true or false",
    ),
    "bad size": Case(
        env={"MESHKIT_MAX_BODY": "abc"},
        code=1,
        says="bad value for MESHKIT_MAX_BODY: should be a number of bytes, or one with a unit such",
    ),
    "bad balancer": Case(
        env={"MESHKIT_BALANCER": "foo"},
        code=1,
        says="bad value for MESHKIT_BALANCER: should be 'p2c', 'round_robin', 'weighted'",
    ),
    "bad flag": Case(
        arguments=("run", "--log-level", "loud"),
        code=1,
        says="bad value for --log-level: should be 'debug', 'info', 'warning' or 'error'",
    ),
    "unknown key": Case(
        project="[tool.meshkit]\nregistri = 'local://'\n",
        code=1,
        says="unknown key 'registri' in [tool.meshkit]; did you mean 'registry'?",
    ),
    "WebSockets without their library": Case(
        service=CLASS.format(name="talk") + "    @websocket('/')\n    async def a(self, ws): ...\n",
        absent=("websockets", "wsproto"),
        code=1,
        says="a WebSocket route needs an optional dependency: pip install 'meshkit[websocket]'",
    ),
    "reloading without its library": Case(
        arguments=("run", "--reload"),
        absent=("watchfiles",),
        code=1,
        says="--reload needs an optional dependency: pip install 'meshkit[reload]'",
    ),
    "unwritable state folder": Case(
        env={"MESHKIT_STATE_DIR": "{file}/state"},
        code=1,
        says="state folder {file}/state can't be used: Not a directory; set MESHKIT_STATE_DIR to",
    ),
    "one port for several instances": Case(
        arguments=("run", "--instances", "2", "--port", "8000"),
        code=1,
        says="--port 8000 can't be shared by 2 instances: leave it out",
    ),
    "one public port for several instances": Case(
        arguments=("run", "--instances", "2", "--advertise-port", "9000"),
        code=1,
        says="--advertise-port 9000 can't be shared by 2 instances: leave it out",
    ),
    "a network of somebody else": Case(
        arguments=("run", "--advertise-host", "198.51.100.0/24"),
        code=1,
        says="--advertise-host 198.51.100.0/24: no address of this machine is in that network",
    ),
    "published by a Docker that is not there": Case(
        arguments=("run", "--advertise", "docker"),
        env={"DOCKER_HOST": "unix:///none/docker.sock"},
        code=4,
        says="Docker at /none/docker.sock can't be reached: there is no such socket; start Docker",
    ),
    "a required value that nobody has set": Case(
        service="from meshkit import MeshService, live_config\nfrom pydantic import BaseModel\n"
        "class Needs(BaseModel):\n    url: str\n"
        "class Needy(MeshService):\n    name = 'needy'\n    needs = live_config(Needs)\n",
        code=1,
        says="Needs (config/needy/) can't be made: config/needy/url: Field required",
    ),
    "failing on_start": Case(
        service=HELLO
        + "    async def on_start(self):\n        raise OSError('no database\\nat all')\n",
        code=3,
        says="on_start of Hello failed: OSError: no database at all",
    ),
    "settings of the service's own": Case(
        service=SETTINGS,
        env={"SHOP_SIZE": "hunter2"},
        code=3,
        says="on_start of Shop failed: Settings: SHOP_SIZE should be a whole number (/",
    ),
    "failing lifespan": Case(
        service=LIFESPAN,
        code=3,
        says="the application's lifespan failed: ConnectionError: no cache at all",
    ),
    "instances that no other process can see": Case(
        arguments=("ps", "--registry", "memory://"),
        code=1,
        says="memory:// lives within one process: a command finds nothing there and keeps nothing",
    ),
    "a registry that can not list": Case(
        arguments=("ps", "--registry", "dns://127.0.0.1:1/mesh.local"),
        code=1,
        says="dns://127.0.0.1:1/mesh.local can't list its services, because DNS has no question",
    ),
    "a registry that does not answer": Case(
        arguments=("ps", "--registry", "consul://127.0.0.1:1"),
        code=4,
        says="Consul at 127.0.0.1:1 can't be reached",
    ),
}


@pytest.fixture
def port() -> Iterator[int]:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        yield taken.getsockname()[1]


@pytest.mark.parametrize("name", CASES)
def test_one_line_and_the_documented_code(name: str, tmp_path: Path, port: int) -> None:
    case = CASES[name]
    folder = tmp_path / "project"
    folder.mkdir()
    (folder / "service.py").write_text(case.service)
    if case.project:
        (folder / "pyproject.toml").write_text(case.project)
    (tmp_path / "file").touch()
    path = [str(ROOT)]
    if case.absent:
        (tmp_path / "without").mkdir()
        (tmp_path / "without" / "sitecustomize.py").write_text(WITHOUT.format(absent=case.absent))
        path.insert(0, str(tmp_path / "without"))

    def fill(text: str) -> str:
        return text.replace("{port}", str(port)).replace("{file}", str(tmp_path / "file"))

    env = {**case.env, "PYTHONPATH": os.pathsep.join(path)}
    done = meshkit(
        *map(fill, case.arguments),
        folder=folder,
        env={variable: fill(value) for variable, value in env.items()},
    )
    assert done.stderr.startswith(f"meshkit: error: {fill(case.says)}"), done.stderr
    assert done.stderr.count("\n") == 1
    assert "Traceback" not in done.stderr
    assert done.stdout == ""
    assert done.returncode == case.code
    state = tmp_path / "state"
    assert not [each for each in state.rglob("*.json") if each.is_file()], "left registered"


@pytest.mark.parametrize("port", ["0", "http"])
def test_every_line_is_json_when_that_is_asked_for(tmp_path: Path, port: str) -> None:
    (tmp_path / "service.py").write_text("raise ImportError('first\\nsecond')\n")
    (tmp_path / ".env").write_text("what is this\n")
    env = {"MESHKIT_LOG_FORMAT": "json", "MESHKIT_PROT": "1", "MESHKIT_PORT": port}
    done = meshkit("run", folder=tmp_path, env=env)
    bad_line, typo, error = map(json.loads, done.stderr.splitlines())
    assert bad_line["message"].startswith(f"{tmp_path}/.env:1 is left out")
    assert typo["message"].startswith("unknown variable MESHKIT_PROT")
    assert (bad_line["level"], typo["level"], error["level"]) == ("warning", "warning", "error")
    wanted = "service can't be imported" if port == "0" else "bad value for MESHKIT_PORT"
    assert error["message"].startswith(wanted)
    assert done.returncode == 1
