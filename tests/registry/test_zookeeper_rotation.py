"""Certificates that change while a registry is open: no restart of ours is needed."""

import asyncio
import logging
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import quote

import pytest

from meshkit.errors import LeaseLost, RegistryDenied, RegistryError, RegistryUnavailable
from meshkit.model import Endpoint, Instance
from meshkit.registry import Lease, Registry, open_registry
from meshkit.testing.watched import Watched
from tests.faults.certificates import DAY, Certificates
from tests.servers import ZooKeeper
from tests.support.waiting import aeventually

pytestmark = pytest.mark.zookeeper

USERS = Instance(id="users-1a2b", service="users", endpoints={"http": Endpoint("127.0.0.1", 8000)})


@pytest.fixture
def certificates(tmp_path: Path) -> Certificates:
    made = Certificates(tmp_path / "certificates")
    made.issue("server")
    made.issue("client")
    return made


@pytest.fixture
def server(
    zookeeper_program: Path, tmp_path: Path, certificates: Certificates
) -> Iterator[ZooKeeper]:
    """A server that asks for a certificate."""
    both = tmp_path / "both.pem"
    parts = certificates.key("server"), certificates.cert("server")
    both.write_text("".join(part.read_text() for part in parts))
    settings = {
        "ssl.keyStore.location": both,
        "ssl.keyStore.type": "PEM",
        "ssl.trustStore.location": certificates.ca,
        "ssl.trustStore.type": "PEM",
        "ssl.clientAuth": "need",
    }
    made = ZooKeeper(zookeeper_program, tmp_path / "server", secure=True, settings=settings)
    try:
        yield made.start()
    finally:
        made.stop()


def url_of(server: ZooKeeper, known: Certificates) -> str:
    files = {"ca": known.ca, "cert": known.cert("client"), "key": known.key("client")}
    query = "&".join(f"{name}={quote(str(path))}" for name, path in files.items())
    return f"zookeeper+tls://127.0.0.1:{server.secure_port}?{query}"


async def registered(registry: Registry, lease: Lease) -> bool:
    """Do what the runtime does at each of its turns."""
    try:
        await registry.renew(lease)
    except LeaseLost:
        await registry.register(USERS)
    except (RegistryDenied, RegistryUnavailable):
        return False
    return True


async def refusal(registry: Registry, lease: Lease) -> RegistryDenied:
    """Renew until it is refused; return the error."""
    found: list[RegistryDenied] = []

    async def refused() -> bool:
        try:
            await registry.renew(lease)
        except RegistryDenied as error:
            found.append(error)
        except RegistryUnavailable:
            pass
        return bool(found)

    await aeventually(refused)
    return found[0]


async def test_an_expired_certificate_is_named_and_the_next_one_is_shown(
    server: ZooKeeper, certificates: Certificates, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "meshkit")
    url = url_of(server, certificates)
    async with open_registry(url) as registry:
        lease = await registry.register(USERS)
        async with Watched(registry.watch("users"), patience=30) as watched:
            assert (await watched.next()).up
            certificates.issue("client", lasts=-DAY)
            await registry.renew(lease)  # the connection outlives its certificate
            await asyncio.to_thread(server.restart)
            error = await refusal(registry, lease)
            with pytest.raises(RegistryError):
                await watched.until(lambda _: False)
        place = f"127.0.0.1:{server.secure_port}"
        assert str(error).startswith(f"no TLS with ZooKeeper at {place}: ")
        assert "certificate" in str(error)
        assert str(error).endswith("and cert= and key=")
        assert "\n" not in str(error)
        certificates.issue("client")
        await aeventually(lambda: registered(registry, lease))
        await registry.renew(lease)
        async with Watched(registry.watch("users"), patience=30) as watched:
            await watched.until(lambda snapshot: bool(snapshot.up))
    assert {each.message for each in caplog.records} == {
        "certificates for ZooKeeper have changed: the new ones are used from now on"
    }


async def test_files_that_cannot_be_used_are_named_once_and_the_earlier_ones_stay(
    server: ZooKeeper, certificates: Certificates, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "meshkit")
    cert, key = certificates.cert("client"), certificates.key("client")
    whole = cert.read_bytes()
    async with open_registry(url_of(server, certificates)) as registry:
        lease = await registry.register(USERS)

        async def after_restart() -> list[str]:
            caplog.clear()
            for _ in range(2):
                await asyncio.to_thread(server.restart)
                await aeventually(lambda: registered(registry, lease))
            assert all("\n" not in each for each in caplog.messages)
            return caplog.messages

        cert.write_bytes(whole[: len(whole) // 2])
        (line,) = await after_restart()
        assert "the earlier ones stay in use" in line
        assert f"cert= names {cert}, and it and the key in {key} can't be used together" in line
        cert.unlink()
        (line,) = await after_restart()
        assert "No such file or directory" in line
        certificates.issue("client")
        (line,) = await after_restart()
        assert line.endswith("the new ones are used from now on")


async def test_lost_data_is_found_out_by_tls_too(
    server: ZooKeeper, certificates: Certificates
) -> None:
    """Long before the session's time is up."""
    async with open_registry(f"{url_of(server, certificates)}&session=40") as registry:
        lease = await registry.register(USERS)
        for _ in range(20):
            await registry.register(USERS)
        async with Watched(registry.watch("users"), patience=20) as watched:
            assert (await watched.next()).up
            server.kill()
            server.empty()
            await asyncio.to_thread(server.start)
            with pytest.raises(RegistryUnavailable, match="come back without data"):
                await watched.next()
        await aeventually(lambda: registered(registry, lease))
        await registry.renew(lease)
