"""The command line of the registrator: Registrator's flags, ours, and what is wrong with them."""

import json
import socket
from pathlib import Path

import pytest

from meshkit.cli.registrator import switched
from meshkit.errors import RegistryUrlError
from meshkit.registrator.counters import Counters
from meshkit.registrator.opening import parse, peer_of
from meshkit.registrator.options import Options
from meshkit.registrator.page import Page
from tests.cli.command import meshkit

NOWHERE = "consul://127.0.0.1:1"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["nonsense://127.0.0.1"], "unknown registry scheme 'nonsense://'"),
        (["consull://127.0.0.1"], "did you mean consul://?"),
        (["127.0.0.1:8500"], "malformed registry URL"),
        (["consul://127.0.0.1:x"], "malformed registry URL"),
        (["-ttl", "10", NOWHERE], "-ttl and -ttl-refresh go together"),
        (["-deregister", "never", NOWHERE], '-deregister \'never\': use "always" or "on-success"'),
        (["-ttl", "nan", "-ttl-refresh", "1", NOWHERE], "-ttl nan: use 1 to 16777215 seconds"),
        (["-ttl=31536000", "-ttl-refresh", "1", NOWHERE], "-ttl 3.1536e+07: use 1 to"),
        (["-ip", "here", NOWHERE], "-ip 'here' is not an IP address"),
        (["--log-level", "loud", NOWHERE], "bad value for --log-level"),
    ],
)
def test_bad_values_are_one_line(tmp_path: Path, arguments: list[str], message: str) -> None:
    done = meshkit("registrator", *arguments, folder=tmp_path, env={"MESHKIT_LOG_FORMAT": "text"})
    assert done.returncode == 1
    assert message in done.stderr
    assert len(done.stderr.splitlines()) == 1
    assert done.stdout == ""


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "Missing argument 'REGISTRY_URL'"),
        (["-resink", "5", NOWHERE], "No such option: --resink"),
        (["-internal=perhaps", NOWHERE], "-internal"),
        ([NOWHERE, NOWHERE], "unexpected extra argument"),
        (["--health-port", "70000", NOWHERE], "Invalid value for '--health-port'"),
        (["-ttl", "soon", NOWHERE], "Invalid value for '--ttl'"),
    ],
)
def test_wrong_usage(tmp_path: Path, arguments: list[str], message: str) -> None:
    done = meshkit("registrator", *arguments, folder=tmp_path)
    assert done.returncode == 2
    assert message in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("what", ["nothing", "folder", "closed", "web"])
def test_no_docker_is_one_line(tmp_path: Path, what: str) -> None:
    path = tmp_path / "docker.sock"
    with socket.socket(socket.AF_UNIX) as listener:
        if what == "folder":
            path.mkdir()
        elif what != "nothing":
            listener.bind(str(path))
        env = {"DOCKER_HOST": f"unix://{path}", "MESHKIT_LOG_FORMAT": "text"}
        done = meshkit("registrator", NOWHERE, folder=tmp_path, env=env)
    assert done.returncode == 4
    assert f"Docker at {path}" in done.stderr
    assert len(done.stderr.splitlines()) == 1


def test_switches_as_go_writes_them() -> None:
    words = ["-internal=true", "-cleanup=false", "--explicit=1", "-ip=10.0.0.1"]
    assert switched(words) == ["--internal", "--explicit", "--ip=10.0.0.1"]
    words = ["-retry-attempts", "-1", "-useIpFromLabel", "address", "-h", "consul://a?x=true"]
    assert switched(words) == ["--retry-attempts", "-1", "--useIpFromLabel", *words[3:]]


@pytest.mark.parametrize(
    ("text", "scheme", "peer"),
    [
        ("consul://agent:8500", "consul", "agent:8500"),
        ("consul://agent", "consul", "agent:1"),
        ("consul-tls://agent:8501", "consul+tls", "agent:8501"),
        ("consul-unix:///run/consul.sock", "consul+unix", "None"),
        ("consul://", "consul", "None"),
    ],
)
def test_urls_as_registrator_writes_them(text: str, scheme: str, peer: str) -> None:
    url = parse(text)
    assert (url.scheme, str(peer_of(url))) == (scheme, peer)


def test_a_secret_is_not_shown() -> None:
    with pytest.raises(RegistryUrlError) as caught:
        parse("nonsense://user:swordfish@host?token=swordfish")
    assert "swordfish" not in str(caught.value)


def test_pages() -> None:
    counters, options = Counters(), Options()

    def get(path: str, method: str = "GET") -> tuple[str, str]:
        whole = Page(counters, options).answer(f"{method} {path} HTTP/1.1")
        head, _, body = whole.partition(b"\r\n\r\n")
        return head.decode().split(" ", 1)[1].partition("\r\n")[0], body.decode()

    assert get("/health")[0] == "503 Service Unavailable"
    assert get("/health/live")[0] == "200 OK"
    assert "meshkit_registrator_reconcile_age_seconds NaN" in get("/metrics")[1]
    counters.docker_up = counters.registry_up = True
    counters.reconciled_at = float("-inf")
    assert get("/health")[0] == "503 Service Unavailable"
    import time

    counters.reconciled_at = time.monotonic()
    counters.owned = 3
    counters.errors["label"] += 2
    status, body = get("/health?verbose")
    assert status == "200 OK"
    assert json.loads(body)["owned"] == 3
    assert 'meshkit_registrator_errors_total{source="label"} 2' in get("/metrics")[1]
    assert get("/metrics", "HEAD") == ("200 OK", "")
    assert get("/", "POST")[0] == "405 Method Not Allowed"
    assert get("/nothing")[0] == "404 Not Found"
    assert get("")[0] == "404 Not Found"
    assert get("/v1/agent/check/pass/service:a:b:80", "PUT")[0] == "404 Not Found"
