"""`meshkit run`: what it says when it is up, where its settings come from, and how it ends."""

from __future__ import annotations

import json
import os
import pty
import select
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from pathlib import Path
from typing import Any

import pytest

from tests.cli.command import HELLO, meshkit, running
from tests.support.processes import environment
from tests.support.waiting import eventually

PLAIN = """
from fastapi import FastAPI
from meshkit import MeshService
app = FastAPI(version="3.2.1")
@app.get("/hello")
async def hello() -> str:
    return "plain world"
service = MeshService.from_app(app, name="plain")
"""
FRAGILE = """
from pathlib import Path
from meshkit import MeshService, get, health_check
class Fragile(MeshService):
    name = "fragile"
    @get("/hello")
    async def hello(self) -> str:
        return "world"
    @health_check
    def database(self) -> None:
        if not Path("database").exists():
            raise ConnectionError("refused")
"""
LEDGER = """
from meshkit import MeshService
from tests.protos import echo_pb2_grpc
class Ledger(MeshService, echo_pb2_grpc.EchoServicer):
    name = "ledger"
"""
SLOW = """
import asyncio
from meshkit import MeshService, get
class Slow(MeshService):
    name = "slow"
    @get("/hello")
    async def hello(self) -> str:
        return "world"
    async def on_start(self) -> None:
        open("starting", "w").close()
        await asyncio.sleep({start})
    async def on_stop(self) -> None:
        open("stopping", "w").close()
        await asyncio.sleep({stop})
"""


def read(url: str) -> Any:
    with urllib.request.urlopen(url, timeout=10) as answer:
        return json.load(answer)


def listed(folder: Path) -> list[dict[str, Any]]:
    """What `meshkit ps` sees."""
    done = meshkit("ps", "--json", folder=folder)
    assert done.returncode == 0, done.stderr
    found: list[dict[str, Any]] = json.loads(done.stdout)
    return found


def test_off_a_terminal_it_says_what_is_where_in_one_json_line(tmp_path: Path) -> None:
    (tmp_path / "service.py").write_text(HELLO)
    with running("run", folder=tmp_path) as command:
        facts = command.ready()
        assert command.out.count("\n") == 1
        assert facts["http"].startswith("http://127.0.0.1:")
        assert read(f"{facts['http']}/hello") == "world"
        assert read(facts["health"])["instance"] == facts["instance"]
        assert {key: facts[key] for key in ("service", "version", "tags", "grpc", "pid")} == {
            "service": "hello",
            "version": "1.2.3",
            "tags": ["v1"],
            "grpc": None,
            "pid": command.process.pid,
        }
        assert facts["docs"] == f"{facts['http']}/docs"
        assert (facts["registry"], facts["registration"]) == ("local://", "registered")
        assert (facts["event"], facts["message"], facts["ready"]) == ("ready", "serving", True)
        assert 0 < facts["seconds"] < 60
        (instance,) = listed(tmp_path)
        assert instance["id"] == facts["instance"]
        assert instance["status"] == "up"
        assert f"http://{instance['endpoints']['http']}" == facts["http"]
        assert command.stop(signal.SIGTERM) == 0
        for line in command.err.splitlines():
            assert {"time", "level", "logger", "message"} <= json.loads(line).keys()
        assert not [
            line for line in command.err.splitlines() if json.loads(line)["level"] != "info"
        ]
    assert listed(tmp_path) == []


def test_on_a_terminal_it_says_so_for_people_and_ctrl_c_stops_it(tmp_path: Path) -> None:
    (tmp_path / "service.py").write_text(HELLO)
    ours, theirs = pty.openpty()
    process = subprocess.Popen(
        [sys.executable, "-m", "meshkit", "run", "--tag", "blue"],
        cwd=tmp_path,
        env=environment({"NO_COLOR": "1"}),
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
        start_new_session=True,
    )
    os.close(theirs)
    try:
        shown = until(ours, "Ctrl-C stops.")
        process.send_signal(signal.SIGINT)
        assert process.wait(30) == 0
        shown += until(ours, "stopping")
    finally:
        process.kill()
        process.wait(10)
        os.close(ours)
    lines = [line.strip() for line in shown.splitlines()]
    assert any(line.startswith("hello 1.2.3   hello-") for line in lines), shown
    (http,) = [line for line in lines if line.startswith("HTTP")]
    url = http.split()[1]
    assert http == f"HTTP      {url}   docs: {url}/docs"
    assert f"Health    {url}/health/ready" in lines
    assert "Registry  local://  (registered)" in lines
    assert "Tags      v1, blue" in lines
    assert not [line for line in lines if line.startswith(("gRPC", "Reload", "{"))]
    assert [line for line in lines if line.endswith("a second signal ends them at once")]
    assert "\033" not in shown


def until(terminal: int, words: str, limit: float = 30) -> str:
    """Read a terminal until it shows the words, or nobody writes to it any more."""
    shown, deadline = "", time.monotonic() + limit
    while words not in shown:
        ready, _, _ = select.select([terminal], [], [], max(0.0, deadline - time.monotonic()))
        assert ready, f"{words!r} was not shown: {shown}"
        try:
            shown += os.read(terminal, 4096).decode()
        except OSError:  # Linux: the other end is closed
            break
    return shown


def test_flags_win_over_variables_over_dotenv_over_the_project(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as chosen:
        port = chosen.getsockname()[1]
    (tmp_path / "pyproject.toml").write_text(
        '[tool.meshkit]\nservice = "shop.service:Other"\ntags = ["project"]\n'
        'registry = "local://project"\nport = 1\n'
    )
    (tmp_path / ".env").write_text(
        "MESHKIT_TAGS=dotenv\nMESHKIT_REGISTRY=local://dotenv\nMESHKIT_PORT=2\nUNRELATED=x\n"
    )
    package = tmp_path / "src" / "shop"
    package.mkdir(parents=True)
    (package / "__init__.py").touch()
    other = HELLO.replace("Hello(", "Other(").replace('"hello"', '"other"', 1)
    (package / "service.py").write_text(HELLO + other)
    env = {"MESHKIT_REGISTRY": "local://variable", "MESHKIT_PORT": "3", "PORT": "4"}
    with running("run", "--port", str(port), folder=tmp_path, env=env) as command:
        facts = command.ready()
        assert facts["service"] == "other"  # project
        assert facts["tags"] == ["v1", "dotenv"]
        assert facts["registry"] == "local://variable"
        assert facts["http"] == f"http://127.0.0.1:{port}"
        assert command.stop() == 0


def test_an_existing_app_on_the_platforms_port_without_registering(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as chosen:
        port = chosen.getsockname()[1]
    (tmp_path / "web.py").write_text(PLAIN)
    with running(
        "run", "web:service", "--no-register", folder=tmp_path, env={"PORT": str(port)}
    ) as command:
        facts = command.ready()
        assert (facts["service"], facts["version"]) == ("plain", "3.2.1")
        assert facts["registration"] == "not registered"
        assert read(f"http://127.0.0.1:{port}/hello") == "plain world"
        assert listed(tmp_path) == []
        assert command.stop(signal.SIGINT) == 0


def test_a_failing_check_is_shown_and_forgiven_when_it_passes(tmp_path: Path) -> None:
    (tmp_path / "service.py").write_text(FRAGILE)
    with running("run", folder=tmp_path, env={"MESHKIT_CHECK_INTERVAL": "0.2"}) as command:
        facts = command.ready()
        assert facts["ready"] is False
        assert "not ready: database: ConnectionError: refused" in command.err
        (instance,) = listed(tmp_path)
        assert (instance["id"], instance["status"]) == (facts["instance"], "down")
        (tmp_path / "database").touch()
        eventually(lambda: '"message": "ready"' in command.err)
        eventually(lambda: listed(tmp_path)[0]["status"] == "up")
        assert command.stop() == 0


def test_a_signal_while_it_starts_ends_it_in_order(tmp_path: Path) -> None:
    (tmp_path / "service.py").write_text(SLOW.format(start=60, stop=0))
    with running("run", folder=tmp_path) as command:
        eventually((tmp_path / "starting").exists, within=30)
        assert command.stop(signal.SIGTERM) == 0
        assert command.out == ""
        assert "Traceback" not in command.err
    # on_stop undoes what on_start has finished, as the two halves of a lifespan.
    assert not (tmp_path / "stopping").exists()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_second_signal_ends_it_at_once(tmp_path: Path, number: signal.Signals) -> None:
    (tmp_path / "service.py").write_text(SLOW.format(start=0, stop=60))
    with running("run", folder=tmp_path) as command:
        command.ready()
        command.process.send_signal(signal.SIGTERM)
        eventually((tmp_path / "stopping").exists, within=20)
        assert command.process.poll() is None
        assert command.stop(number) == 128 + number
        assert "Traceback" not in command.err


@pytest.mark.parametrize(
    ("service", "option", "warning"),
    [
        (HELLO, "--grpc-port", "gRPC port {port} is not used: Hello serves no gRPC"),
        (LEDGER, "--port", "port {port} is not used: Ledger serves no HTTP; --grpc-port is"),
        (HELLO, "--advertise-grpc-port", "gRPC port {port} is not used: Hello serves no gRPC"),
        (LEDGER, "--advertise-port", "serves no HTTP; --advertise-grpc-port is the port of gRPC"),
    ],
)
def test_a_port_for_what_is_not_served_is_warned_of(
    tmp_path: Path, service: str, option: str, warning: str
) -> None:
    (tmp_path / "service.py").write_text(service)
    with socket.create_server(("127.0.0.1", 0)) as chosen:
        port = str(chosen.getsockname()[1])  # taken, and nobody minds
        with running("run", option, port, folder=tmp_path) as command:
            command.ready()
            assert warning.format(port=port) in command.err
