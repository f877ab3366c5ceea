"""`meshkit healthcheck`: it finds what runs here, and tells whether that is ready."""

import contextlib
import json
import os
import signal
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from meshkit.cli.running import started
from tests.cli.command import HELLO, meshkit, running
from tests.support.waiting import eventually
from tests.test_public_names import modules_after

MOODY = """
from pathlib import Path
from meshkit import MeshService, get, health_check
class Moody(MeshService):
    name = "moody"
    @health_check(name="mood")
    async def mood(self) -> None:
        if Path("bad").exists():
            raise RuntimeError("bad day")
"""
RPC = """
from meshkit import MeshService
from tests.protos import echo_pb2_grpc
class Rpc(MeshService, echo_pb2_grpc.EchoServicer):
    name = "rpc"
"""
NOBODY = (
    "meshkit: error: no service runs here, or it is not up yet; --url names one that is elsewhere\n"
)


def check(folder: Path, *arguments: str, code: int, **env: str) -> subprocess.CompletedProcess[str]:
    done = meshkit("healthcheck", *arguments, folder=folder, env=env)
    assert done.returncode == code, done.stdout + done.stderr
    return done


def said(folder: Path, *arguments: str, **env: str) -> str:
    """Return the one line that is said when it isn't ready."""
    done = check(folder, *arguments, code=1, **env)
    assert done.stdout == ""
    assert done.stderr.count("\n") == 1
    return done.stderr.removeprefix("meshkit: error: ")


def notes() -> list[Path]:
    return list(Path(os.environ["MESHKIT_STATE_DIR"], "running").iterdir())


def test_it_finds_a_service_on_any_port_until_that_ends(tmp_path: Path) -> None:
    (tmp_path / "service.py").write_text(HELLO)
    assert check(tmp_path, code=1).stderr == NOBODY
    with running("run", "--port", "0", "--log-format", "json", folder=tmp_path) as command:
        instance = command.ready()["instance"]
        assert check(tmp_path, code=0).stdout == f"ready: {instance}\n"
        assert command.stop() == 0
    assert notes() == []
    assert check(tmp_path, code=1).stderr == NOBODY


def test_a_failing_check_is_told(tmp_path: Path) -> None:
    (tmp_path / "service.py").write_text(MOODY)
    with running("run", "--log-format", "json", folder=tmp_path) as command:
        url = command.ready()["health"]
        (tmp_path / "bad").touch()
        assert eventually(lambda: meshkit("healthcheck", folder=tmp_path).returncode)
        assert said(tmp_path) == f"{url}: 503 (mood: RuntimeError: bad day)\n"
        (tmp_path / "bad").unlink()
        eventually(lambda: meshkit("healthcheck", folder=tmp_path).returncode == 0)


def test_all_of_several_instances_have_to_be_ready(tmp_path: Path) -> None:
    (tmp_path / "service.py").write_text(HELLO)
    arguments = ("run", "--instances", "2", "--log-format", "json")
    with running(*arguments, folder=tmp_path) as command:
        command.ready(2)
        up = {line["instance"]: line["pid"] for line in command.all_ready}
        assert set(check(tmp_path, code=0).stdout.split()) == {"ready:", *up}
        pid = next(iter(up.values()))
        os.kill(pid, signal.SIGSTOP)
        try:
            assert said(tmp_path, "--timeout", "1").endswith(
                "/health/ready: no answer in time (--timeout)\n"
            )
        finally:
            os.kill(pid, signal.SIGCONT)


def test_one_without_http_is_asked_over_grpc(tmp_path: Path) -> None:
    (tmp_path / "service.py").write_text(RPC)
    with running("run", "--log-format", "json", folder=tmp_path) as command:
        facts = command.ready()
        assert facts["http"] is None
        assert check(tmp_path, code=0).stdout == f"ready: {facts['instance']}\n"
        url = f"grpc://{facts['grpc']}"
        assert check(tmp_path, "--url", url, code=0).stdout == f"ready: {url}\n"


def test_one_that_was_killed_is_nobody(tmp_path: Path) -> None:
    (tmp_path / "service.py").write_text(HELLO)
    with running("run", "--log-format", "json", folder=tmp_path) as command:
        command.ready()
        command.stop(signal.SIGKILL)
        assert len(notes()) == 1
        assert check(tmp_path, code=1).stderr == NOBODY
        assert notes() == []


def test_another_process_that_got_its_number_is_not_it(tmp_path: Path) -> None:
    (tmp_path / "service.py").write_text(HELLO)
    with running("run", "--log-format", "json", folder=tmp_path) as command:
        pid = command.ready()["pid"]
        command.stop(signal.SIGKILL)
    (note,) = notes()
    left = json.loads(note.read_text()) | {"pid": os.getpid()}  # as after a container's restart
    note.rename(note.with_name(note.name.replace(str(pid), str(os.getpid()))))
    (note,) = notes()
    note.write_text(json.dumps(left))
    assert check(tmp_path, code=1).stderr == NOBODY
    assert notes() == []


def test_somebody_else_on_its_port_is_not_it(tmp_path: Path) -> None:
    (tmp_path / "service.py").write_text(HELLO)
    with running("run", "--log-format", "json", folder=tmp_path) as command:
        instance = command.ready()["instance"]
        (note,) = notes()
        note.write_text(note.read_text().replace(instance, "hello-other-1-abcdef"))
        assert said(tmp_path).endswith(" is answered by somebody else than hello-other-1-abcdef\n")


def test_without_a_state_folder_the_variables_say_where_to_ask(tmp_path: Path) -> None:
    (tmp_path / "service.py").write_text(HELLO)
    (tmp_path / "file").touch()
    env = {"MESHKIT_STATE_DIR": str(tmp_path / "file"), "MESHKIT_REGISTRY": "memory://x"}
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = str(probe.getsockname()[1])
    with running(
        "run", "--log-format", "json", folder=tmp_path, env={**env, "MESHKIT_PORT": port}
    ) as command:
        command.ready()
        assert "meshkit healthcheck won't find this service by itself" in command.out + command.err
        url = f"http://127.0.0.1:{port}/health/ready"
        assert check(tmp_path, code=0, MESHKIT_PORT=port, **env).stdout == f"ready: {url}\n"
        assert "state folder" in said(tmp_path, **env)


@contextlib.contextmanager
def answering(content: bytes) -> Iterator[int]:
    """A port that sends the same to everybody; nothing at all when ``content`` is empty."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.settimeout(30)
        pid = os.fork()
        if pid == 0:  # a process, so that no thread can outlive the test
            with contextlib.suppress(OSError):
                while True:
                    peer, _ = server.accept()
                    if content:
                        peer.recv(65536)
                        peer.sendall(content)
                        peer.close()
            os._exit(0)
        try:
            yield server.getsockname()[1]
        finally:
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        (b"", "no answer in time (--timeout)"),
        (b"hello\r\n\r\n", "does not speak HTTP: BadStatusLine('hello\\r\\n')"),
        (b"HTTP/1.1 503 Busy\r\nContent-Length: 4\r\n\r\nbusy", "503"),
        (b'HTTP/1.1 503 Busy\r\nContent-Length: 21\r\n\r\n{"detail":"starting"}', "503 (starting)"),
        (b"HTTP/1.1 404 No\r\nContent-Length: 2\r\n\r\n[]", "404"),
    ],
)
def test_other_answers_are_told_in_a_line(tmp_path: Path, content: bytes, problem: str) -> None:
    with answering(content) as port:
        line = said(tmp_path, "--url", f"http://127.0.0.1:{port}/ready", "--timeout", "0.5")
    assert line.startswith(f"http://127.0.0.1:{port}/ready")
    assert line.rstrip().endswith(problem)


@pytest.mark.parametrize(
    "url", ["ftp://x:1", "127.0.0.1:80", "http://x", "http://x:y", "", "http://[x"]
)
def test_a_url_that_is_none_is_one_line(tmp_path: Path, url: str) -> None:
    assert said(tmp_path, "--url", url).startswith(f"can't ask {url!r}: it has to be http://")


def test_refused_connections_are_one_line(tmp_path: Path) -> None:
    assert said(tmp_path, "--url", "http://127.0.0.1:9") == (
        "http://127.0.0.1:9/health/ready: Connection refused\n"
    )
    assert said(tmp_path, "--url", "grpc://127.0.0.1:9").startswith(
        "grpc://127.0.0.1:9: UNAVAILABLE"
    )


def test_notes_of_other_origin_are_passed_over(tmp_path: Path) -> None:
    folder = Path(os.environ["MESHKIT_STATE_DIR"], "running")
    folder.mkdir(parents=True, mode=0o700)
    folder.parent.chmod(0o700)
    host = socket.gethostname()
    (folder / f"{host}-1.json").write_text("{")
    (folder / f"{host}-2.json").write_text(json.dumps({"port": 1}))
    (folder / f"elsewhere-{os.getpid()}.json").write_text(
        json.dumps({"instance": "a", "pid": os.getpid(), "started": started(os.getpid())})
    )
    assert check(tmp_path, code=1).stderr == NOBODY


def test_it_imports_next_to_nothing() -> None:
    loaded = modules_after(
        "from meshkit.cli import dispatch\nassert dispatch(['healthcheck']) == 1"
    )
    heavy = {"asyncio", "fastapi", "grpc", "jinja2", "pydantic", "rich", "typer", "uvicorn"}
    assert not loaded & heavy


@pytest.mark.parametrize("seconds", ["0", "x", "61", "nan", "-1"])
def test_a_timeout_that_is_none_is_wrong_usage(tmp_path: Path, seconds: str) -> None:
    done = check(tmp_path, "--timeout", seconds, code=2)
    assert f"argument --timeout: {seconds!r} is not a number of seconds up to 60" in done.stderr
