"""Tokens and certificates, against agents that insist on them."""

import functools
import logging
import subprocess
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import quote

import pytest

from meshkit.errors import RegistryDenied, RegistryError, RegistryUnavailable, RegistryUrlError
from meshkit.model import Endpoint, Instance
from meshkit.registry import Lease, open_registry
from meshkit.runtime.registration import Registration
from meshkit.testing.registry_fixtures import open_files
from meshkit.testing.watched import Watched
from tests.servers import Consul
from tests.support.waiting import aeventually

pytestmark = pytest.mark.consul

USERS = Instance(id="users-1a2b", service="users", endpoints={"http": Endpoint("127.0.0.1", 8000)})
LEASE = Lease(instance_id=USERS.id, ttl=10.0)
BOGUS = "11111111-2222-3333-4444-555555555555"
RULES = """
service_prefix "users" { policy = "write" }
node_prefix "" { policy = "read" }
"""


# --- tokens --------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def guarded(consul_program: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Consul]:
    """An agent that denies what no token allows."""
    settings = {"acl": {"enabled": True, "default_policy": "deny"}}
    agent = Consul(consul_program, tmp_path_factory.mktemp("guarded"), settings=settings)
    try:
        agent.start()
        agent.token = agent.put("/v1/acl/bootstrap")["SecretID"]
        yield agent
    finally:
        agent.stop()


@pytest.fixture(scope="module")
def token(guarded: Consul) -> str:
    """A token that may register and read users."""
    guarded.put("/v1/acl/policy", {"Name": "users", "Rules": RULES})
    return str(guarded.put("/v1/acl/token", {"Policies": [{"Name": "users"}]})["SecretID"])


@pytest.fixture(scope="module")
def powerless(guarded: Consul) -> str:
    """A token that is known and may do nothing."""
    return str(guarded.put("/v1/acl/token", {"Description": "nothing"})["SecretID"])


async def test_a_sufficient_token(guarded: Consul, token: str) -> None:
    async with (
        open_registry(f"{guarded.url}?token={token}") as registry,
        Watched(registry.watch("users")) as watched,
    ):
        assert (await watched.next()).instances == ()
        lease = await registry.register(USERS)
        await watched.until(lambda snapshot: len(snapshot.up) == 1)
        await registry.renew(lease)
        assert [each.name for each in await registry.services()] == ["users"]
        await registry.deregister(USERS.id)
        await watched.until(lambda snapshot: not snapshot.instances)


async def test_refusals_name_the_request_and_never_the_token(
    guarded: Consul, token: str, powerless: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    shown: list[str] = []
    async with open_registry(f"{guarded.url}?token={token}") as owner:
        await owner.register(USERS)
        for other in ("", powerless, BOGUS):
            query = f"?token={other}" if other else ""
            async with open_registry(f"{guarded.url}{query}") as registry:
                for operation in (registry.register(USERS), registry.renew(LEASE)):
                    with pytest.raises(
                        RegistryDenied, match=r"refused .*(users|register)"
                    ) as caught:
                        await operation
                    shown += [str(caught.value), repr(caught.value)]
                shown += [registry.url, repr(registry), repr(vars(registry))]
        await owner.renew(LEASE)
        await owner.deregister(USERS.id)
    shown.append(caplog.text)
    assert not [text for text in shown for secret in (token, powerless, BOGUS) if secret in text]
    assert not [text for text in shown if "\n" in text and text != caplog.text]


async def test_to_deregister_what_is_unknown_is_no_error(guarded: Consul, token: str) -> None:
    async with open_registry(f"{guarded.url}?token={token}") as registry:
        await registry.deregister("users-nobody")
        await registry.register(USERS)
        await registry.deregister(USERS.id)
        await registry.deregister(USERS.id)


async def test_who_was_never_registered_is_not_said_to_be_left(
    guarded: Consul, powerless: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "meshkit")
    for query in ("", f"?token={powerless}", f"?token={BOGUS}"):
        url = f"{guarded.url}{query}"
        registration = Registration(functools.partial(open_registry, url), USERS, lag_limit=5.0)
        registration.start()
        await aeventually(lambda: failed(registration))  # noqa: B023 - awaited at once
        await registration.stop()
    assert caplog.text.count("can't register with") == 3
    assert "could not deregister" not in caplog.text


async def failed(registration: Registration) -> bool:
    return registration.state.startswith("retrying")


async def test_an_unknown_token_may_not_read(guarded: Consul) -> None:
    async with open_registry(f"{guarded.url}?token={BOGUS}") as registry:
        with pytest.raises(RegistryDenied, match="ACL not found"):
            await registry.instances("users")


async def test_an_empty_list_hints_once_at_the_permission(
    guarded: Consul, token: str, powerless: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    async with open_registry(f"{guarded.url}?token={token}") as owner:
        await owner.register(USERS)
        async with open_registry(f"{guarded.url}?token={powerless}") as registry:
            for _ in range(3):
                # Consul hides what may not be read, instead of refusing.
                assert (await registry.instances("users")).instances == ()
        await owner.deregister(USERS.id)
    hints = [record.getMessage() for record in caplog.records if "service:read" in record.message]
    assert len(hints) == 1
    assert "lists no instance of users" in hints[0]


async def test_without_a_token_a_hint_at_the_permission_is_a_warning(
    guarded: Consul, token: str, consul: Consul, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "meshkit")
    for agent in (consul, guarded):  # the former has no ACLs: nothing is to be said
        async with open_registry(agent.url) as registry:
            assert await registry.services() == ()
            assert (await registry.instances("users")).instances == ()
            assert await registry.kv.list("config/users/") == ()
    services, keys = (record for record in caplog.records if "lists no" in record.getMessage())
    assert {services.levelname, keys.levelname} == {"WARNING"}
    advice = "by ?token= or CONSUL_HTTP_TOKEN"
    assert services.getMessage() == (
        f"Consul at {guarded.address} lists no service, and hides what may not be read without a "
        f"token; give one that has service:read and node:read, {advice}"
    )
    assert "no key that begins with meshkit/config/users/" in keys.getMessage()
    assert keys.getMessage().endswith(f"key:read, {advice}")


async def test_a_refusal_of_a_key_says_so(guarded: Consul, powerless: str) -> None:
    guarded.put("/v1/kv/meshkit/config/users/size", "1")
    async with open_registry(f"{guarded.url}?token={powerless}") as registry:
        for refused in (
            registry.kv.get("config/users/size"),
            registry.kv.put("config/users/size", b"2"),
            registry.kv.delete("config/users/size"),
        ):
            with pytest.raises(RegistryDenied) as caught:
                await refused
            assert str(caught.value).endswith(
                "meshkit/config/users/size: Permission denied; check that the token "
                "(?token= or CONSUL_HTTP_TOKEN) may read and write this key"
            )


async def test_a_rotated_token_file_is_used_at_once(
    guarded: Consul, token: str, tmp_path: Path
) -> None:
    file = tmp_path / "token"
    file.write_text(BOGUS)
    async with open_registry(f"{guarded.url}?token_file={quote(str(file))}") as registry:
        with pytest.raises(RegistryDenied):
            await registry.register(USERS)
        file.write_text(token + "\n")
        await registry.renew(await registry.register(USERS))
        file.unlink()
        with pytest.raises(RegistryDenied, match="No such file"):
            await registry.renew(LEASE)
        file.write_text(token)
        await registry.deregister(USERS.id)


async def test_variables_and_what_the_url_says_instead(
    guarded: Consul, token: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CONSUL_HTTP_ADDR", guarded.address)
    monkeypatch.setenv("CONSUL_HTTP_TOKEN", token)
    async with open_registry("consul://") as registry:
        assert registry.url == guarded.url
        await registry.register(USERS)
        assert (await registry.instances("users")).up
        await registry.deregister(USERS.id)
    monkeypatch.setenv("CONSUL_HTTP_ADDR", "127.0.0.1:1")
    monkeypatch.setenv("CONSUL_HTTP_TOKEN", BOGUS)
    monkeypatch.setenv("CONSUL_HTTP_SSL", "true")
    async with open_registry(f"{guarded.url}?token={token}") as registry:
        await registry.register(USERS)
        assert (await registry.instances("users")).up
        await registry.deregister(USERS.id)


# --- certificates --------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def certificates(consul_program: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Certificates of an authority in ``ours`` and of another one in ``theirs``."""
    folder = tmp_path_factory.mktemp("certificates")
    for authority in ("ours", "theirs"):
        (folder / authority).mkdir()
        for words in ("ca create", "cert create -server", "cert create -client"):
            subprocess.run(
                [consul_program, "tls", *words.split()],
                cwd=folder / authority,
                check=True,
                capture_output=True,
            )
    return folder


@pytest.fixture(scope="module")
def encrypted(
    consul_program: Path, certificates: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Consul]:
    """An agent that shows a certificate and asks for one."""
    ours = certificates / "ours"
    settings = {
        "verify_incoming": True,
        "ca_file": str(ours / "consul-agent-ca.pem"),
        "cert_file": str(ours / "dc1-server-consul-0.pem"),
        "key_file": str(ours / "dc1-server-consul-0-key.pem"),
    }
    folder = tmp_path_factory.mktemp("encrypted")
    agent = Consul(consul_program, folder, settings=settings, tls=True)
    try:
        yield agent.start()
    finally:
        agent.stop()


def ca(folder: Path) -> str:
    return f"ca={quote(str(folder / 'consul-agent-ca.pem'))}"


def identity(folder: Path) -> str:
    file = quote(str(folder / "dc1-client-consul-0"))
    return f"cert={file}.pem&key={file}-key.pem"


async def failure(url: str) -> RegistryError:
    async with open_registry(url) as registry:
        with pytest.raises(RegistryError) as caught:
            await registry.register(USERS)
    assert "\n" not in str(caught.value)
    return caught.value


async def test_both_sides_prove_themselves(encrypted: Consul, certificates: Path) -> None:
    ours = certificates / "ours"
    for host in ("127.0.0.1", "localhost"):
        url = f"consul+tls://{host}:{encrypted.ports.https}?{ca(ours)}&{identity(ours)}"
        async with open_registry(url) as registry, Watched(registry.watch("users")) as watched:
            assert (await watched.next()).instances == ()
            lease = await registry.register(USERS)
            await registry.renew(lease)
            await watched.until(lambda snapshot: len(snapshot.up) == 1)
            await registry.deregister(USERS.id)
            await watched.until(lambda snapshot: not snapshot.instances)


async def test_certificates_from_variables(
    encrypted: Consul, certificates: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ours = certificates / "ours"
    monkeypatch.setenv("CONSUL_HTTP_ADDR", f"https://127.0.0.1:{encrypted.ports.https}")
    monkeypatch.setenv("CONSUL_CACERT", str(ours / "consul-agent-ca.pem"))
    monkeypatch.setenv("CONSUL_CLIENT_CERT", str(ours / "dc1-client-consul-0.pem"))
    monkeypatch.setenv("CONSUL_CLIENT_KEY", str(ours / "dc1-client-consul-0-key.pem"))
    async with open_registry("consul://") as registry:
        assert registry.url == f"consul+tls://127.0.0.1:{encrypted.ports.https}"
        assert (await registry.instances("users")).instances == ()


async def test_the_wrong_authority_is_named(encrypted: Consul, certificates: Path) -> None:
    ours, theirs = certificates / "ours", certificates / "theirs"
    address = f"127.0.0.1:{encrypted.ports.https}"
    for authority in (ca(theirs), "dc=dc1"):  # the latter: the system's own authorities
        error = await failure(f"consul+tls://{address}?{authority}&{identity(ours)}")
        assert type(error) is RegistryDenied
        assert str(error).startswith(f"no TLS with Consul at {address}: its certificate is not")
        assert str(error).endswith("check ca=")
    # Said twice, because it is dangerous: the URL has to ask for it.
    unverified = f"consul+tls://{address}?verify=false&{identity(ours)}"
    async with open_registry(unverified) as registry:
        assert (await registry.instances("users")).instances == ()


async def test_a_missing_or_foreign_client_certificate_is_named(
    encrypted: Consul, certificates: Path
) -> None:
    ours, theirs = certificates / "ours", certificates / "theirs"
    address = f"127.0.0.1:{encrypted.ports.https}"
    for shown in ("", f"&{identity(theirs)}"):
        error = await failure(f"consul+tls://{address}?{ca(ours)}{shown}")
        assert type(error) is RegistryDenied
        assert "check cert= and key=" in str(error)


async def test_the_wrong_scheme_is_named(encrypted: Consul, certificates: Path) -> None:
    authority = ca(certificates / "ours")
    error = await failure(f"consul+tls://{encrypted.address}?{authority}")
    assert type(error) is RegistryUnavailable
    assert str(error).endswith("does not speak TLS there; use consul://")
    error = await failure(f"consul://127.0.0.1:{encrypted.ports.https}")
    assert type(error) is RegistryUnavailable
    assert str(error).endswith("expects TLS; use consul+tls://")


def test_a_key_of_another_certificate(certificates: Path) -> None:
    ours, theirs = certificates / "ours", certificates / "theirs"
    url = (
        f"consul+tls://host?cert={quote(str(ours / 'dc1-client-consul-0.pem'))}"
        f"&key={quote(str(theirs / 'dc1-client-consul-0-key.pem'))}"
    )
    with pytest.raises(RegistryUrlError, match=r"can't be used together") as caught:
        open_registry(url)
    assert "\n" not in str(caught.value)


def test_an_encrypted_key_does_not_ask_for_its_password(certificates: Path, tmp_path: Path) -> None:
    key = tmp_path / "key.pem"
    plain = certificates / "ours" / "dc1-client-consul-0-key.pem"
    subprocess.run(
        ["openssl", "ec", "-in", plain, "-aes256", "-passout", "pass:secret", "-out", key],
        check=True,
        capture_output=True,
    )
    certificate = quote(str(certificates / "ours" / "dc1-client-consul-0.pem"))
    with pytest.raises(RegistryUrlError, match=r"can't be used together"):
        open_registry(f"consul+tls://host?cert={certificate}&key={quote(str(key))}")


async def test_tls_leaves_nothing_behind(encrypted: Consul, certificates: Path) -> None:
    ours = certificates / "ours"
    url = f"consul+tls://127.0.0.1:{encrypted.ports.https}?{ca(ours)}&{identity(ours)}"

    async def cycle() -> None:
        async with open_registry(url) as registry, Watched(registry.watch("users")) as watched:
            await watched.next()
            await watched.nothing(seconds=0.01)

    await cycle()
    before = open_files()
    for _ in range(20):
        await cycle()
    assert open_files() <= before
