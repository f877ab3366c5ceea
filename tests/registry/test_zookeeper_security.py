"""Who may do what on ZooKeeper, and TLS."""

import contextlib
import logging
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
from kazoo.security import ACL, Id, Permissions, make_digest_acl

from meshkit.errors import RegistryDenied, RegistryError, RegistryUnavailable
from meshkit.model import Endpoint, Instance
from meshkit.registry import open_registry
from meshkit.registry.zookeeper.session import Session
from meshkit.testing.registry_fixtures import open_files
from meshkit.testing.watched import Watched
from tests.registry.zookeeper_certificates import make_certificates
from tests.registry.zookeeper_tree import fresh, path_of, tree
from tests.servers import ZooKeeper
from tests.servers.fixtures import MakeZooKeeper

pytestmark = pytest.mark.zookeeper

USERS = Instance(id="users-1a2b", service="users", endpoints={"http": Endpoint("127.0.0.1", 8000)})
SECRET = "hunter2"


def as_user(url: str, user: str = "alice", password: str = SECRET, query: str = "") -> str:
    return url.replace("://", f"://{user}:{password}@") + query


async def failure(url: str) -> RegistryError:
    async with open_registry(url) as registry:
        with pytest.raises(RegistryError) as caught:
            await registry.register(USERS)
    assert "\n" not in str(caught.value)
    assert SECRET not in str(caught.value)
    assert caught.value.__cause__ is None
    return caught.value


# --- permissions ----------------------------------------------------------------------------------


async def test_what_a_user_makes_others_may_read_only(zookeeper: ZooKeeper) -> None:
    url = fresh(zookeeper)
    async with open_registry(as_user(url)) as registry, open_registry(url) as stranger:
        await registry.register(USERS)
        await registry.kv.put("limit", b"1")
        assert (await stranger.instances("users")).up
        assert await stranger.kv.get("limit")
        for attempt in (
            stranger.register(USERS),
            stranger.register(Instance(id="intruder", service="users")),
            stranger.kv.put("limit", b"2"),
            stranger.kv.put("other", b"2"),
            stranger.kv.delete("limit"),
        ):
            with pytest.raises(RegistryDenied, match=r"no permission; check user:password@"):
                await attempt
        await stranger.deregister(USERS.id)
        assert (await registry.instances("users")).up
    # Another process of the same user is no stranger.
    async with open_registry(as_user(url)) as again:
        assert await again.kv.put("limit", b"3")
        await again.register(USERS)


async def test_private_nodes_are_for_their_user_alone(zookeeper: ZooKeeper) -> None:
    url = fresh(zookeeper)
    private = as_user(url, query="?acl=private")
    async with open_registry(private) as registry:
        await registry.register(USERS)
        await registry.kv.put("limit", b"1")
        assert (await registry.instances("users")).up
        for other in (url, as_user(url, password="wrong"), as_user(url, user="bob")):
            async with open_registry(other) as stranger:
                for attempt in (
                    stranger.instances("users"),
                    anext(stranger.watch("users")),
                    stranger.services(),
                    stranger.kv.get("limit"),
                ):
                    with pytest.raises(RegistryDenied, match="no permission"):
                        await attempt


async def test_wrong_credentials_are_named(zookeeper: ZooKeeper) -> None:
    url = fresh(zookeeper)
    async with open_registry(as_user(url)) as registry:
        await registry.register(USERS)
        error = await failure(as_user(url, password="wrong"))
    assert type(error) is RegistryDenied
    assert str(error) == (
        f"ZooKeeper at {zookeeper.address} refused create {path_of(url)}/services/users/users-1a2b"
        ": no permission; check user:password@ in the URL and the ACLs of that path"
    )


async def test_a_path_that_is_closed_to_us_is_named(zookeeper: ZooKeeper) -> None:
    url = fresh(zookeeper)
    with tree(zookeeper, auth_data=[("digest", "root:root")]) as client:
        closed = make_digest_acl("root", "root", all=True)
        client.create(path_of(url), b"", acl=[closed])
        error = await failure(url)
        assert type(error) is RegistryDenied
        assert path_of(url) in str(error)
        # The right to make nodes below it is enough.
        open_acl = ACL(Permissions.CREATE, Id("world", "anyone"))
        client.set_acls(path_of(url), [closed, open_acl])
        async with open_registry(url) as registry:
            await registry.renew(await registry.register(USERS))


async def test_a_watcher_that_may_no_longer_read_is_told(
    zookeeper: ZooKeeper, monkeypatch: pytest.MonkeyPatch
) -> None:
    """ZooKeeper itself does not tell: it leaves out the events."""
    monkeypatch.setattr("meshkit.registry.zookeeper.folder.MAKE_SURE", 0.5)
    url = fresh(zookeeper)
    folder = f"{path_of(url)}/services/users"
    async with open_registry(as_user(url)) as registry, open_registry(url) as stranger:
        await registry.register(USERS)
        await registry.kv.put("limit", b"1")
        for path, watch in (
            (folder, stranger.watch("users")),
            (f"{folder}/{USERS.id}", stranger.watch("users")),
            (f"{path_of(url)}/kv", stranger.kv.watch()),
        ):
            async with Watched(watch) as watched:
                await watched.next()
                denied = pytest.raises(RegistryDenied, match="no permission")
                with closed_to_others(zookeeper, path), denied:
                    await watched.next()


async def test_what_was_kept_from_a_watcher_is_found_later(
    zookeeper: ZooKeeper, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its permission was taken and given back; the change between them used its watch up."""
    monkeypatch.setattr("meshkit.registry.zookeeper.folder.MAKE_SURE", 3.0)
    url = fresh(zookeeper)
    folder = f"{path_of(url)}/services/users"
    other, changed = replace(USERS, id="users-other"), replace(USERS, weight=5)
    async with open_registry(as_user(url)) as registry, open_registry(url) as stranger:
        await registry.register(USERS)
        async with Watched(stranger.watch("users")) as watched:
            assert (await watched.next()).instances == (USERS,)
            with closed_to_others(zookeeper, folder):
                await registry.register(other)
            seen = await watched.next()
            assert seen.instances == (USERS, other)
            with closed_to_others(zookeeper, f"{folder}/{USERS.id}"):
                await registry.register(changed)
            seen = await watched.next()
            assert seen.instances == (changed, other)


async def test_making_sure_reads_no_instance_again(
    zookeeper: ZooKeeper, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("meshkit.registry.zookeeper.folder.MAKE_SURE", 0.1)
    requests: list[str] = []
    call = Session.call

    async def noted(self: Session, name: str, *args: Any, **options: Any) -> Any:
        requests.append(name)
        return await call(self, name, *args, **options)

    async with open_registry(fresh(zookeeper)) as registry:
        await registry.register(USERS)
        async with Watched(registry.watch("users")) as watched:
            await watched.next()
            monkeypatch.setattr(Session, "call", noted)
            await watched.nothing(seconds=1.0)
    assert requests.count("get_children") > 2
    assert set(requests) == {"get_children", "exists"}


@contextlib.contextmanager
def closed_to_others(server: ZooKeeper, path: str) -> Iterator[None]:
    """Let only its user read a node, and everybody again afterwards."""
    with tree(server, auth_data=[("digest", f"alice:{SECRET}")]) as client:
        former, _ = client.get_acls(path)
        client.set_acls(path, [make_digest_acl("alice", SECRET, all=True)])
        try:
            yield
        finally:
            client.set_acls(path, former)


async def test_a_server_that_wants_a_user(make_zookeeper: MakeZooKeeper) -> None:
    wanted = {"enforce.auth.enabled": "true", "enforce.auth.schemes": "digest"}
    server = make_zookeeper(settings=wanted)
    error = await failure(server.url)
    assert "user:password@" in str(error), str(error)
    async with open_registry(as_user(server.url)) as registry:
        await registry.renew(await registry.register(USERS))


async def test_passwords_are_in_no_log(
    zookeeper: ZooKeeper, caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> None:
    """kazoo's own debug lines have them."""
    with caplog.at_level(logging.DEBUG):
        async with open_registry(as_user(fresh(zookeeper))) as registry:
            await registry.register(USERS)
            assert SECRET not in repr(vars(registry))
    assert SECRET not in caplog.text
    assert SECRET not in "".join(capfd.readouterr())
    assert "kazoo" not in caplog.text


# --- TLS ------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("certificates")
    make_certificates(folder / "ours")
    make_certificates(folder / "theirs")
    make_certificates(folder / "misnamed", names="subjectAltName=DNS:zk.example.org")
    return folder


def secured(program: Path, folder: Path, certificates: Path, *, client: str = "none") -> ZooKeeper:
    return ZooKeeper(
        program,
        folder,
        secure=True,
        settings={
            "ssl.keyStore.location": certificates / "server-both.pem",
            "ssl.keyStore.type": "PEM",
            "ssl.trustStore.location": certificates / "ca.pem",
            "ssl.trustStore.type": "PEM",
            "ssl.clientAuth": client,
        },
    )


@pytest.fixture(scope="module")
def encrypted(
    zookeeper_program: Path, certificates: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[ZooKeeper]:
    """A server with a certificate that asks for one."""
    folder = tmp_path_factory.mktemp("encrypted")
    server = secured(zookeeper_program, folder, certificates / "ours", client="need")
    try:
        yield server.start()
    finally:
        server.stop()


@pytest.fixture(scope="module")
def misnamed(
    zookeeper_program: Path, certificates: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[ZooKeeper]:
    """A server with a certificate for another host, that asks for none."""
    folder = tmp_path_factory.mktemp("misnamed")
    server = secured(zookeeper_program, folder, certificates / "misnamed")
    try:
        yield server.start()
    finally:
        server.stop()


def ca(folder: Path) -> str:
    return f"ca={quote(str(folder / 'ca.pem'))}"


def identity(folder: Path) -> str:
    file = quote(str(folder / "client"))
    return f"cert={file}.pem&key={file}-key.pem"


def tls_url(server: ZooKeeper, query: str, host: str = "127.0.0.1") -> str:
    return f"zookeeper+tls://{host}:{server.secure_port}/tls?{query}"


async def test_both_sides_prove_themselves(encrypted: ZooKeeper, certificates: Path) -> None:
    ours = certificates / "ours"
    for host in ("127.0.0.1", "localhost"):
        url = tls_url(encrypted, f"{ca(ours)}&{identity(ours)}", host)
        async with open_registry(url) as registry, Watched(registry.watch("users")) as watched:
            assert (await watched.next()).instances == ()
            lease = await registry.register(USERS)
            await registry.renew(lease)
            await watched.until(lambda snapshot: len(snapshot.up) == 1)
            value = bytes(500_000)  # many TLS records
            assert await registry.kv.put("large", value)
            entry = await registry.kv.get("large")
            assert entry
            assert entry.value == value
            await registry.deregister(USERS.id)
            await watched.until(lambda snapshot: not snapshot.instances)


async def test_the_wrong_authority_is_named(encrypted: ZooKeeper, certificates: Path) -> None:
    ours, theirs = certificates / "ours", certificates / "theirs"
    for authority in (ca(theirs), "session=10"):  # the latter: the system's own authorities
        error = await failure(tls_url(encrypted, f"{authority}&{identity(ours)}"))
        assert type(error) is RegistryDenied
        assert str(error).startswith(
            f"no TLS with ZooKeeper at 127.0.0.1:{encrypted.secure_port}: its certificate is not"
        )
        assert str(error).endswith("check ca=")


async def test_a_missing_or_foreign_client_certificate_is_named(
    encrypted: ZooKeeper, certificates: Path
) -> None:
    ours, theirs = certificates / "ours", certificates / "theirs"
    for shown in ("", f"&{identity(theirs)}"):
        error = await failure(tls_url(encrypted, f"{ca(ours)}{shown}"))
        assert "cert= and key=" in str(error)


async def test_the_host_name_is_checked(misnamed: ZooKeeper, certificates: Path) -> None:
    authority = ca(certificates / "misnamed")
    error = await failure(tls_url(misnamed, authority))
    assert type(error) is RegistryDenied
    assert "IP address mismatch" in str(error)
    async with open_registry(tls_url(misnamed, f"{authority}&check_hostname=false")) as registry:
        await registry.register(USERS)


async def test_the_wrong_scheme_is_named(encrypted: ZooKeeper, certificates: Path) -> None:
    error = await failure(f"zookeeper://127.0.0.1:{encrypted.secure_port}")
    assert type(error) is RegistryUnavailable
    assert "use zookeeper+tls://" in str(error)
    authority = ca(certificates / "ours")
    error = await failure(f"zookeeper+tls://{encrypted.address}?{authority}")
    assert "check that the port is the secure one" in str(error)


async def test_tls_leaves_nothing_behind(encrypted: ZooKeeper, certificates: Path) -> None:
    ours = certificates / "ours"
    url = tls_url(encrypted, f"{ca(ours)}&{identity(ours)}")

    async def cycle() -> None:
        async with open_registry(url) as registry, Watched(registry.watch("users")) as watched:
            await watched.next()
            await watched.nothing(seconds=0.01)

    async def fail() -> None:
        await failure(tls_url(encrypted, ca(certificates / "theirs")))

    await cycle()
    await fail()
    before = open_files()
    for _ in range(10):
        await cycle()
        await fail()
    assert open_files() <= before
