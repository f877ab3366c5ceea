"""Whatever stands where a Docker engine should: one clear line each. No engine is needed."""

import asyncio
import contextlib
import os
import socket
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import pytest

from meshkit.docker import (
    Docker,
    DockerDenied,
    DockerError,
    DockerHost,
    DockerNotFound,
    DockerUnavailable,
)
from meshkit.errors import ConfigError
from meshkit.model import Endpoint
from tests.docker.fake_engine import FakeEngine, answer, version
from tests.faults.certificates import Certificates


@pytest.fixture
async def fake(tmp_path: Path) -> AsyncIterator[tuple[FakeEngine, Docker]]:
    fake = FakeEngine()
    path = tmp_path / "docker.sock"
    listener = await asyncio.start_unix_server(fake.serve, path)
    async with Docker(DockerHost(path), limit=30) as docker:
        yield fake, docker
    listener.close()


@pytest.mark.parametrize(
    ("newest", "oldest", "spoken"),
    [("1.41", "1.12", "1.41"), ("1.30", "1.12", "1.30"), ("1.52", "1.44", "1.44")],
)
async def test_the_version_is_one_that_both_speak(
    fake: tuple[FakeEngine, Docker], newest: str, oldest: str, spoken: str
) -> None:
    engine, docker = fake
    engine.answers |= {"/version": version(newest, oldest), f"/v{spoken}/info": answer({"ID": "x"})}
    for _ in range(2):
        assert await docker.info() == {"ID": "x"}
    assert engine.asked == ["/version", *[f"/v{spoken}/info"] * 2]


async def test_an_engine_that_comes_back_is_asked_for_its_version_anew(
    fake: tuple[FakeEngine, Docker],
) -> None:
    engine, docker = fake
    await docker.version()
    with pytest.raises(DockerUnavailable, match=r"docker\.sock closed the connection$"):
        await docker.info()
    engine.answers |= {"/version": version("1.30"), "/v1.30/info": answer({"ID": "x"})}
    assert await docker.info() == {"ID": "x"}


def page(status: str) -> bytes:
    """What a proxy that lets only some requests pass, such as HAProxy, answers for itself."""
    text = f"<html><body><h1>{status}</h1>\nRequest forbidden by administrative rules.</html>"
    return b"HTTP/1.1 %s\r\nContent-Length: %d\r\n\r\n%s" % (
        status.encode(),
        len(text),
        text.encode(),
    )


@pytest.mark.parametrize(
    ("content", "kind", "message"),
    [
        (answer({"message": "no such thing"}, "404 Not Found"), DockerNotFound, "no such thing"),
        (answer({"message": "by policy"}, "403 Forbidden"), DockerDenied, r"by policy \(403\)$"),
        (answer({"message": "disk\nfull"}, "500 Oh"), DockerError, r"disk full \(500\)$"),
        (page("403 Forbidden"), DockerDenied, r"/info: a proxy says Forbidden \(403\)$"),
        (page("503 No backend"), DockerUnavailable, r"a proxy says Service Unavailable \(503\)$"),
        (
            (
                b"HTTP/1.0 400 Bad Request\r\nX: Connection: close\r\n\r\n"
                b"Client sent an HTTP request to an HTTPS server.\n"
            ),
            DockerDenied,
            "expects TLS: set DOCKER_TLS_VERIFY=1, and DOCKER_CERT_PATH",
        ),
        (page("500 Oh"), DockerError, "is not Docker: /v1.41/info"),
        (answer(["x"], "500 Oh"), DockerError, "is not Docker: /v1.41/info"),
        (answer([]), DockerError, "is not Docker: /info was answered in another form$"),
        (b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n<html>", DockerError, "is not Docker"),
        (b"SSH-2.0-OpenSSH\r\n\r\nConnection: close", DockerError, "is not Docker: no HTTP"),
        (
            b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n{}Connection: close",
            DockerError,
            "is not Docker",
        ),
    ],
)
async def test_answers_that_are_no_success(
    fake: tuple[FakeEngine, Docker], content: bytes, kind: type[DockerError], message: str
) -> None:
    engine, docker = fake
    engine.answers["/v1.41/info"] = content
    with pytest.raises(kind, match=message) as caught:
        await docker.info()
    assert str(docker.host.address) in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("content", [answer({}), answer([1]), answer({"ApiVersion": "new"})])
async def test_a_version_of_another_server(fake: tuple[FakeEngine, Docker], content: bytes) -> None:
    engine, docker = fake
    engine.answers["/version"] = content
    with pytest.raises(DockerError, match=r"is not Docker: /version was answered in another form$"):
        await docker.containers()


async def test_no_swarm_and_a_locked_one(fake: tuple[FakeEngine, Docker]) -> None:
    engine, docker = fake
    reason = {"message": "This node is not a swarm manager. Use ..."}
    engine.answers["/v1.41/tasks"] = answer(reason, "503 Service Unavailable")
    assert await docker.tasks(filters={"desired-state": ["running"]}) == ()
    assert engine.asked[-1].endswith(
        "tasks?filters=%7B%22desired-state%22%3A+%5B%22running%22%5D%7D"
    )
    locked = {"message": "Swarm is encrypted and needs to be unlocked"}
    engine.answers["/v1.41/services"] = answer(locked, "503 Service Unavailable")
    with pytest.raises(DockerError, match=r"needs to be unlocked"):
        await docker.services()


EVENTS = b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n"


async def test_the_end_of_the_events_is_an_error(fake: tuple[FakeEngine, Docker]) -> None:
    engine, docker = fake
    engine.answers["/v1.41/events"] = EVENTS + b'{"Action": "start"}\n\n {"Action": "die"}\n{"Ac'
    async with docker.events() as events:
        assert [(await anext(events))["Action"] for _ in range(2)] == ["start", "die"]
        with pytest.raises(DockerUnavailable, match=r"docker\.sock ended its stream of events$"):
            await anext(events)


async def test_events_that_break_off(fake: tuple[FakeEngine, Docker]) -> None:
    engine, docker = fake
    head = b"HTTP/1.1 200 OK\r\nX: Connection: close\r\nTransfer-Encoding: chunked\r\n\r\n"
    engine.answers["/v1.41/events"] = head + b'14\r\n{"Action": "start"}\n\r\n'
    async with docker.events() as events:
        assert (await anext(events))["Action"] == "start"
        with pytest.raises(DockerUnavailable, match=r"closed the connection$"):
            await anext(events)


@pytest.mark.parametrize("line", [b"what?\n", b"[]\n"])
async def test_events_that_are_none(fake: tuple[FakeEngine, Docker], line: bytes) -> None:
    engine, docker = fake
    engine.answers["/v1.41/events"] = EVENTS + line
    async with docker.events() as events:
        with pytest.raises(DockerError, match=r"is not Docker: /events"):
            await anext(events)


async def test_refused_events(fake: tuple[FakeEngine, Docker]) -> None:
    engine, docker = fake
    engine.answers["/v1.41/events"] = answer({"message": "bad filter"}, "400 Bad Request")
    with pytest.raises(DockerError, match=r"/events: bad filter \(400\)$"):
        async with docker.events(filters={"nonsense": ["x"]}):
            pass


@pytest.mark.parametrize("ask", [Docker.info, lambda docker: docker.events().__aenter__()])
async def test_no_answer_in_time(
    fake: tuple[FakeEngine, Docker], ask: Callable[[Docker], Awaitable[object]]
) -> None:
    engine, docker = fake
    engine.silent = True
    async with Docker(docker.host, limit=0.2) as impatient:
        with pytest.raises(DockerUnavailable, match=r"docker\.sock did not answer within 0.2 s$"):
            await ask(impatient)


async def test_use_after_closing(fake: tuple[FakeEngine, Docker]) -> None:
    _, docker = fake
    await docker.aclose()
    with pytest.raises(DockerError, match=r"the connection to Docker at .* is closed$"):
        await docker.info()


async def test_no_socket(tmp_path: Path) -> None:
    async with Docker(DockerHost(tmp_path / "none.sock")) as docker:
        with pytest.raises(
            DockerUnavailable, match=r"none.sock can't be reached: there is no such"
        ):
            await docker.info()


async def test_a_folder_instead_of_a_socket(tmp_path: Path) -> None:
    async with Docker(DockerHost(tmp_path)) as docker:
        with pytest.raises(
            DockerUnavailable, match=r"it is a folder; start Docker, mount its sock"
        ):
            await docker.info()


async def test_a_socket_that_nobody_serves(tmp_path: Path) -> None:
    path = tmp_path / "docker.sock"
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(path))
    async with Docker(DockerHost(path)) as docker:
        with pytest.raises(DockerUnavailable, match=r"can't be reached: Connection refused; start"):
            async with docker.events():
                pass


@pytest.mark.skipif(os.geteuid() != 0, reason="only root may become somebody else")
async def test_no_permission(tmp_path: Path) -> None:
    path = tmp_path / "docker.sock"
    listener = await asyncio.start_unix_server(FakeEngine().serve, path)
    path.chmod(0o660)
    os.seteuid(65534)
    try:
        async with Docker(DockerHost(path)) as docker:
            with pytest.raises(
                DockerDenied, match=r"no permission to use Docker at .* as user 655"
            ):
                await docker.info()
    finally:
        os.seteuid(0)
        listener.close()


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder like DOCKER_CERT_PATH, with the server's files too."""
    authority = Certificates(tmp_path_factory.mktemp("certificates"))
    for name in ("server", "client"):
        authority.issue(name)
    (authority.folder / "cert.pem").write_bytes(authority.cert("client").read_bytes())
    (authority.folder / "key.pem").write_bytes(authority.key("client").read_bytes())
    return authority.folder


@contextlib.asynccontextmanager
async def serving(context: ssl.SSLContext | None, answers: bytes = b"") -> AsyncIterator[Endpoint]:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(1)
        writer.write(answers)
        writer.close()

    listener = await asyncio.start_server(serve, "127.0.0.1", 0, ssl=context)
    yield Endpoint("127.0.0.1", listener.sockets[0].getsockname()[1])
    listener.close()


async def test_tls_with_certificates_of_both_sides(certificates: Path) -> None:
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH, cafile=certificates / "ca.pem")
    context.load_cert_chain(certificates / "server.pem", certificates / "server-key.pem")
    context.verify_mode = ssl.CERT_REQUIRED
    async with serving(context, version("1.40")) as endpoint:
        async with Docker(DockerHost(endpoint, certificates)) as docker:
            assert await docker.version() == "1.40"


async def test_tls_with_a_stranger(certificates: Path, tmp_path: Path) -> None:
    other = Certificates(tmp_path / "other")
    other.issue("server")
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(other.cert("server"), other.key("server"))
    async with serving(context) as endpoint, Docker(DockerHost(endpoint, certificates)) as docker:
        with pytest.raises(
            DockerDenied, match=r"no TLS .*issuer.*; check the certificates in DOCKER_"
        ):
            await docker.info()


async def test_tls_where_none_is_spoken(certificates: Path, tmp_path: Path) -> None:
    async with serving(None, b"HTTP/1.1 400 Bad Request\r\n\r\n") as endpoint:
        async with Docker(DockerHost(endpoint, certificates)) as docker:
            with pytest.raises(DockerError, match=r"does not speak TLS there; unset DOCKER_TLS_V"):
                await docker.info()
        async with Docker(DockerHost(endpoint, tmp_path)) as docker:
            with pytest.raises(ConfigError, match=f"TLS with Docker needs ca.pem.* in {tmp_path}"):
                await docker.info()


@pytest.mark.parametrize(
    ("variables", "host"),
    [
        ({"DOCKER_HOST": "unix:///x/docker.sock"}, DockerHost(Path("/x/docker.sock"))),
        ({"DOCKER_HOST": "tcp://10.0.0.1:2375"}, DockerHost(Endpoint("10.0.0.1", 2375))),
        ({"DOCKER_HOST": "tcp://engine"}, DockerHost(Endpoint("engine", 2375))),
        ({"DOCKER_HOST": "tcp://[::1]"}, DockerHost(Endpoint("::1", 2375))),
        (
            {"DOCKER_HOST": "tcp://engine", "DOCKER_TLS_VERIFY": "1", "DOCKER_CERT_PATH": "/c"},
            DockerHost(Endpoint("engine", 2376), Path("/c")),
        ),
    ],
)
def test_hosts_of_the_environment(variables: dict[str, str], host: DockerHost) -> None:
    assert DockerHost.from_environment(variables) == host


@pytest.mark.parametrize(
    "url", ["ssh://me@there", "unix://docker.sock", "/var/run/docker.sock", "tcp://", "tcp://a:b"]
)
def test_hosts_that_are_none(url: str) -> None:
    with pytest.raises(ConfigError, match=f"DOCKER_HOST={url} can't be used: write unix:///var"):
        DockerHost.from_environment({"DOCKER_HOST": url})


def test_the_socket_that_registrators_users_mount(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    usual, other = tmp_path / "usual", tmp_path / "other"
    monkeypatch.setattr("meshkit.docker.host.SOCKET", usual)
    monkeypatch.setattr("meshkit.docker.host.REGISTRATOR_SOCKET", other)
    assert DockerHost.from_environment({}) == DockerHost(usual)
    other.touch()
    assert DockerHost.from_environment({}) == DockerHost(other)
    usual.touch()
    assert DockerHost.from_environment({}) == DockerHost(usual)
