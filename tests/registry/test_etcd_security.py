"""Users and certificates, against servers that insist on them."""

import asyncio
import base64
import dataclasses
import logging
import shutil
import subprocess
from collections.abc import Awaitable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest

from meshkit.errors import RegistryDenied, RegistryError, RegistryUnavailable, RegistryUrlError
from meshkit.model import Endpoint, Instance
from meshkit.registry import open_registry
from meshkit.registry.etcd import watching
from meshkit.registry.etcd.client import Client
from meshkit.registry.etcd.options import read_options
from meshkit.registry.url import RegistryUrl
from meshkit.testing.registry_fixtures import has, open_files
from meshkit.testing.watched import Watched
from tests.servers.etcd import Etcd
from tests.servers.fixtures import MakeEtcd
from tests.support.waiting import aeventually

pytestmark = pytest.mark.etcd

USERS = Instance(id="users-1a2b", service="users", endpoints={"http": Endpoint("127.0.0.1", 8000)})
PASSWORD = "sword:fish/7"
SECRET = quote(PASSWORD, safe="")


async def failure(awaitable: Awaitable[Any]) -> RegistryError:
    with pytest.raises(RegistryError) as caught:
        await awaitable
    assert "\n" not in str(caught.value)
    assert caught.value.__cause__ is None
    for text in (str(caught.value), repr(caught.value)):
        assert PASSWORD not in text
        assert SECRET not in text
    return caught.value


# --- users ---------------------------------------------------------------------------------------


class Guarded(Etcd):
    """An etcd that asks for users: root, mesh (readwrite below /meshkit), and reader."""

    def guard(self) -> None:
        self.ask("/v3/auth/user/add", name="root", password="root")
        self.ask("/v3/auth/user/grant", user="root", role="root")
        for user, kind in (("mesh", "READWRITE"), ("reader", "READ"), ("nobody", "")):
            self.ask("/v3/auth/user/add", name=user, password=PASSWORD)
            self.ask("/v3/auth/role/add", name=user)
            self.ask("/v3/auth/user/grant", user=user, role=user)
            if kind:
                self.ask("/v3/auth/role/grant", name=user, perm=permission(kind, b"/meshkit/"))
        self.ask("/v3/auth/enable")

    def as_root(self, path: str, **body: Any) -> Any:
        token = self.ask("/v3/auth/authenticate", name="root", password="root")["token"]
        return self.ask(path, token, **body)

    def url_of(self, user: str, secret: str = SECRET) -> str:
        return f"etcd://{user}:{secret}@{self.address}"


def permission(kind: str, prefix: bytes) -> dict[str, str]:
    end = prefix[:-1] + bytes([prefix[-1] + 1])
    return {
        "permType": kind,
        "key": base64.b64encode(prefix).decode(),
        "range_end": base64.b64encode(end).decode(),
    }


@pytest.fixture(scope="module")
def guarded(etcd_program: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Guarded]:
    # Tokens of 3 s show whether a login is renewed.
    server = Guarded(
        etcd_program, tmp_path_factory.mktemp("guarded"), arguments=["--auth-token-ttl", "3"]
    )
    try:
        server.start()
        server.guard()
        yield server
    finally:
        server.stop()


async def test_a_sufficient_user(guarded: Guarded) -> None:
    async with (
        open_registry(guarded.url_of("mesh")) as registry,
        Watched(registry.watch("users")) as watched,
    ):
        assert (await watched.next()).instances == ()
        lease = await registry.register(USERS)
        await watched.until(has(USERS))
        await registry.renew(lease)
        assert [each.name for each in await registry.services()] == ["users"]
        entry = await registry.kv.put("a", b"1")
        assert await registry.kv.get("a") == entry
        await registry.deregister(USERS.id)
        await registry.deregister("somebody-else")
        await watched.until(has())


async def test_many_first_calls_log_in_once(guarded: Guarded) -> None:
    def logins() -> int:
        started = 'grpc_server_started_total{grpc_method="Authenticate"'
        (line,) = (line for line in guarded.metrics().splitlines() if line.startswith(started))
        return int(float(line.split()[-1]))

    before = logins()
    async with open_registry(guarded.url_of("mesh")) as registry:
        await asyncio.gather(*(registry.services() for _ in range(10)))
        lease = await registry.register(USERS)
        for _ in range(5):
            await registry.renew(lease)
        await registry.deregister(USERS.id)
    assert logins() == before + 1


async def test_the_login_is_renewed_when_its_token_has_ended(guarded: Guarded) -> None:
    async with open_registry(guarded.url_of("mesh")) as registry:
        lease = await registry.register(USERS)
        await asyncio.sleep(7)  # a token's end is looked for each second
        await registry.renew(lease)
        assert (await registry.instances("users")).up
        await asyncio.sleep(5)
        async with Watched(registry.watch("users")) as watched:
            await watched.next()
            await registry.deregister(USERS.id)
            await watched.until(has())


async def test_a_change_of_users_does_not_end_the_login(guarded: Guarded) -> None:
    """Every change of users or roles makes older logins invalid for etcd."""
    async with open_registry(guarded.url_of("mesh")) as registry:
        lease = await registry.register(USERS)
        for n in range(3):
            guarded.as_root("/v3/auth/role/add", name=f"more-{n}")
            await registry.renew(lease)
            assert (await registry.instances("users")).up
        await registry.deregister(USERS.id)


async def test_refusals_name_the_request_and_no_secret(
    guarded: Guarded, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    at = f"etcd at {guarded.address}"
    for url in (guarded.url_of("mesh", "wrong"), guarded.url_of("unknown")):
        async with open_registry(url) as registry:
            for error in (
                await failure(registry.register(USERS)),
                await failure(registry.instances("users")),
                await failure(registry.kv.get("a")),
            ):
                assert type(error) is RegistryDenied
                assert str(error) == f"{at} refused the login: check user and password"
            assert SECRET not in repr(vars(registry)) + registry.url
    async with open_registry(guarded.url) as registry:
        error = await failure(registry.services())
        assert type(error) is RegistryDenied
        assert str(error) == f"{at} asks for a user: etcd://USER:PASSWORD@host"
    assert PASSWORD not in caplog.text


async def test_missing_permissions(guarded: Guarded) -> None:
    async with (
        open_registry(guarded.url_of("mesh")) as owner,
        open_registry(guarded.url_of("reader")) as reader,
        open_registry(guarded.url_of("nobody")) as nobody,
        open_registry(guarded.url_of("mesh") + "/elsewhere") as elsewhere,
    ):
        await owner.register(USERS)
        assert (await reader.instances("users")).instances == (USERS,)
        for error in (
            await failure(reader.register(dataclasses.replace(USERS, id="users-2"))),
            await failure(reader.deregister(USERS.id)),
            await failure(reader.kv.put("a", b"")),
            await failure(nobody.instances("users")),
            await failure(nobody.services()),
            await failure(elsewhere.register(USERS)),
            await failure(elsewhere.services()),
        ):
            assert type(error) is RegistryDenied
            assert str(error).endswith(
                "permission denied; grant the user's role readwrite on the prefix"
            )
        await owner.deregister(USERS.id)


async def test_a_permission_that_is_taken_away_ends_the_next_watch(guarded: Guarded) -> None:
    guarded.as_root("/v3/auth/user/add", name="guest", password=PASSWORD)
    guarded.as_root("/v3/auth/user/grant", user="guest", role="reader")
    async with open_registry(guarded.url_of("guest")) as registry:
        watch = registry.watch("users")
        await anext(watch)  # it is listed, and not yet watched
        guarded.as_root("/v3/auth/user/revoke", name="guest", role="reader")
        error = await failure(asyncio.wait_for(anext(watch), 16))
        assert isinstance(error, RegistryDenied | RegistryUnavailable)
        error = await failure(registry.instances("users"))
        assert type(error) is RegistryDenied


async def test_a_changed_password_file_is_read_at_the_next_login(
    guarded: Guarded, tmp_path: Path
) -> None:
    file = tmp_path / "password"
    file.write_text("wrong")
    url = f"etcd://mesh@{guarded.address}?password_file={quote(str(file))}"
    async with open_registry(url) as registry:
        assert type(await failure(registry.services())) is RegistryDenied
        file.write_text(f"{PASSWORD}\n")
        await registry.renew(await registry.register(USERS))
        await registry.deregister(USERS.id)
        file.unlink()
        await asyncio.sleep(6)  # until the token has ended
        error = await failure(registry.services())
        assert type(error) is RegistryDenied
        assert str(error).endswith("can't be read: No such file or directory")
        file.write_text(PASSWORD)
        assert await registry.services() == ()


async def test_a_user_where_none_is_asked_for(make_etcd: MakeEtcd) -> None:
    """And from when on one is: the URL may be in place before users are."""
    etcd = make_etcd()
    guarded = Guarded(etcd.program, etcd.folder, ports=(etcd.client_port, 0, etcd.metrics_port))
    async with open_registry(guarded.url_of("mesh")) as registry:
        lease = await registry.register(USERS)
        guarded.guard()
        await registry.renew(lease)
        assert (await registry.instances("users")).up
        guarded.as_root("/v3/auth/disable")
        await registry.renew(lease)
        assert (await registry.instances("users")).up


# --- certificates --------------------------------------------------------------------------------

SUBJECT = "subjectAltName=IP:127.0.0.1,DNS:localhost\nextendedKeyUsage=serverAuth,clientAuth\n"


class Authority:
    """Signs certificates into its folder; all it takes is openssl."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        folder.mkdir(parents=True)
        self._openssl("req", "-x509", *self._new("ca"), "-out", "ca.pem", "-days", "10")
        self.sign("server")
        self.sign("mesh")

    def sign(self, name: str, extensions: str = SUBJECT) -> None:
        (self.folder / "extensions").write_text(extensions)
        self._openssl("req", *self._new(name), "-out", f"{name}.csr")
        self._openssl(
            *("x509", "-req", "-in", f"{name}.csr", "-out", f"{name}.pem", "-days", "10"),
            *("-CA", "ca.pem", "-CAkey", "ca-key.pem", "-CAcreateserial", "-extfile", "extensions"),
        )

    @property
    def ca(self) -> str:
        return f"ca={quote(str(self.folder / 'ca.pem'))}"

    @property
    def identity(self) -> str:
        file = quote(str(self.folder / "mesh"))
        return f"cert={file}.pem&key={file}-key.pem"

    def server_arguments(self) -> list[str]:
        return [
            *("--cert-file", str(self.folder / "server.pem")),
            *("--key-file", str(self.folder / "server-key.pem")),
            *("--trusted-ca-file", str(self.folder / "ca.pem"), "--client-cert-auth"),
        ]

    @staticmethod
    def _new(name: str) -> list[str]:
        curve = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"]
        return [*curve, "-keyout", f"{name}-key.pem", "-subj", f"/CN={name}"]

    def _openssl(self, *words: str) -> None:
        subprocess.run(["openssl", *words], cwd=self.folder, check=True, capture_output=True)


@pytest.fixture(scope="module")
def ours(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("certificates") / "ours")


@pytest.fixture(scope="module")
def theirs(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("certificates") / "theirs")


@pytest.fixture(scope="module")
def encrypted(
    etcd_program: Path, ours: Authority, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Etcd]:
    """A server that shows a certificate and asks for one."""
    folder = tmp_path_factory.mktemp("encrypted")
    server = Etcd(etcd_program, folder, tls=True, arguments=ours.server_arguments())
    try:
        yield server.start()
    finally:
        server.stop()


async def test_both_sides_prove_themselves(encrypted: Etcd, ours: Authority) -> None:
    for host in ("127.0.0.1", "localhost"):
        url = f"etcd+tls://{host}:{encrypted.client_port}?{ours.ca}&{ours.identity}"
        async with open_registry(url) as registry, Watched(registry.watch("users")) as watched:
            assert (await watched.next()).instances == ()
            await registry.renew(await registry.register(USERS))
            await watched.until(has(USERS))
            await registry.deregister(USERS.id)
            await watched.until(has())


async def test_skydns_over_tls(encrypted: Etcd, ours: Authority) -> None:
    url = f"skydns+etcd+tls://{encrypted.address}/mesh.local?{ours.ca}&{ours.identity}"
    async with open_registry(url) as registry:
        await registry.register(USERS)
        assert (await registry.instances("users")).up
        await registry.deregister(USERS.id)


async def refused(url: str) -> RegistryError:
    async with open_registry(url) as registry:
        return await failure(registry.services())


async def test_the_wrong_authority_is_named(
    encrypted: Etcd, ours: Authority, theirs: Authority
) -> None:
    for authority in (f"{theirs.ca}&", ""):  # the latter: the system's own authorities
        error = await refused(f"etcd+tls://{encrypted.address}?{authority}{ours.identity}")
        assert type(error) is RegistryDenied
        assert str(error).startswith(
            f"no TLS with etcd at {encrypted.address}: its certificate is not trusted"
        )
        assert str(error).endswith("check ca=")


async def test_a_missing_or_foreign_client_certificate_is_named(
    encrypted: Etcd, ours: Authority, theirs: Authority
) -> None:
    for shown in ("", f"&{theirs.identity}"):
        error = await refused(f"etcd+tls://{encrypted.address}?{ours.ca}{shown}")
        assert type(error) is RegistryDenied
        assert str(error).endswith("check cert= and key=")


async def test_a_certificate_of_another_name_is_named(make_etcd: MakeEtcd, tmp_path: Path) -> None:
    elsewhere = Authority(tmp_path / "elsewhere")
    elsewhere.sign("server", SUBJECT.replace("IP:127.0.0.1,", "").replace("localhost", "other"))
    etcd = make_etcd(tls=True, arguments=elsewhere.server_arguments())
    error = await refused(f"etcd+tls://{etcd.address}?{elsewhere.ca}&{elsewhere.identity}")
    assert type(error) is RegistryDenied
    assert str(error).endswith("its certificate is for another name or address")


async def test_the_wrong_scheme_is_named(encrypted: Etcd, etcd: Etcd, ours: Authority) -> None:
    error = await refused(f"etcd+tls://{etcd.address}?{ours.ca}")
    assert type(error) is RegistryUnavailable
    assert str(error) == f"etcd at {etcd.address} does not speak TLS there; use etcd://"
    error = await refused(f"etcd://{encrypted.address}")
    assert type(error) is RegistryUnavailable
    assert str(error).endswith("closed the connection; if it expects TLS, use etcd+tls://")


async def test_renewed_certificates_are_taken_up(make_etcd: MakeEtcd, tmp_path: Path) -> None:
    """All of them are replaced, the authority too, while the registry stays open."""
    place = tmp_path / "certificates"
    authority = Authority(place)
    etcd = make_etcd(tls=True, arguments=authority.server_arguments())
    url = f"etcd+tls://{etcd.address}?{authority.ca}&{authority.identity}"
    async with open_registry(url) as registry, Watched(registry.watch("users")) as watched:
        await watched.next()
        lease = await registry.register(USERS)
        await watched.until(has(USERS))
        etcd.kill()
        renewed = Authority(tmp_path / "renewed")
        for file in renewed.folder.iterdir():
            shutil.copy(file, place / file.name)
        await asyncio.to_thread(etcd.start)

        async def renews() -> bool:
            try:
                await registry.renew(lease)
            except (RegistryUnavailable, RegistryDenied):
                return False
            return True

        await aeventually(renews)
        assert (await registry.instances("users")).instances == (USERS,)


async def test_what_a_renewal_cuts_off_is_lost_not_closed(
    encrypted: Etcd, ours: Authority, tmp_path: Path
) -> None:
    """Others may still use the old connection when one of them finds new certificates."""
    for name in ("mesh.pem", "mesh-key.pem"):
        shutil.copy(ours.folder / name, tmp_path / name)
    identity = (
        f"cert={quote(str(tmp_path / 'mesh.pem'))}&key={quote(str(tmp_path / 'mesh-key.pem'))}"
    )
    options = read_options(
        RegistryUrl.parse(f"etcd+tls://{encrypted.address}?{ours.ca}&{identity}"), prefix="/meshkit"
    )
    client = Client(options)
    try:
        async with Watched(watching.follow(client, b"/meshkit/")) as watched:
            await watched.next()
            await watched.nothing(seconds=0.2)
            await client.leave(client.current)
            await watched.nothing(seconds=0.2)  # as long as the files are the same
            ours.sign("mesh-2")
            shutil.copy(ours.folder / "mesh-2.pem", tmp_path / "mesh.pem")
            shutil.copy(ours.folder / "mesh-2-key.pem", tmp_path / "mesh-key.pem")
            await client.leave(client.current)
            error = await failure(watched.next())
            assert type(error) is RegistryUnavailable
            assert str(error).endswith("is lost: its certificates were renewed")
        await watching.read(client, b"/meshkit/")
    finally:
        await client.aclose()


async def test_a_certificate_broken_meanwhile_is_named(
    encrypted: Etcd, ours: Authority, tmp_path: Path
) -> None:
    for name in ("mesh.pem", "mesh-key.pem"):
        shutil.copy(ours.folder / name, tmp_path / name)
    url = (
        f"etcd+tls://{encrypted.address}?{ours.ca}"
        f"&cert={quote(str(tmp_path / 'mesh.pem'))}&key={quote(str(tmp_path / 'mesh-key.pem'))}"
    )
    async with open_registry(url) as registry:
        (tmp_path / "mesh.pem").write_text("broken")
        error = await failure(registry.services())
        assert type(error) is RegistryDenied
        assert "can't be used together" in str(error)
        shutil.copy(ours.folder / "mesh.pem", tmp_path / "mesh.pem")
        await registry.services()


def test_files_that_are_not_usable(ours: Authority, theirs: Authority, tmp_path: Path) -> None:
    cert, key = quote(str(ours.folder / "mesh.pem")), quote(str(theirs.folder / "mesh-key.pem"))
    encrypted_key = tmp_path / "key.pem"
    subprocess.run(
        [
            *("openssl", "ec", "-in", ours.folder / "mesh-key.pem", "-aes256"),
            *("-passout", "pass:secret", "-out", encrypted_key),
        ],
        check=True,
        capture_output=True,
    )
    for query, reason in (
        (f"cert={cert}&key={key}", "can't be used together"),
        (f"cert={cert}&key={quote(str(encrypted_key))}", "can't be used together"),
        (f"cert={cert}", "cert= needs key= too"),
        (f"key={key}", "key= needs cert= too"),
        ("ca=/nowhere/ca.pem", "ca=/nowhere/ca.pem holds no certificate: No such file"),
        (f"ca={key}", "holds no certificate"),
    ):
        with pytest.raises(RegistryUrlError) as caught:
            open_registry(f"etcd+tls://host?{query}")
        assert reason in str(caught.value)
        assert "\n" not in str(caught.value)


async def test_tls_leaves_nothing_behind(encrypted: Etcd, ours: Authority) -> None:
    url = f"etcd+tls://{encrypted.address}?{ours.ca}&{ours.identity}"

    async def cycle() -> None:
        async with open_registry(url) as registry, Watched(registry.watch("users")) as watched:
            await watched.next()
            await watched.nothing(seconds=0.01)

    for _ in range(3):
        await cycle()
    before = open_files()
    for _ in range(10):
        await cycle()

    async def none_left() -> bool:
        return open_files() <= before

    await aeventually(none_left)
