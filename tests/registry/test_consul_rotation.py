"""Tokens and certificates that change while a registry is open: no restart is needed."""

import asyncio
import subprocess
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import quote

import pytest

from meshkit.errors import RegistryDenied
from meshkit.model import Endpoint, Instance
from meshkit.registry import Registry, open_registry
from meshkit.registry.consul import ConsulOptions, ConsulRegistry
from meshkit.testing.watched import Watched
from tests.servers import Consul
from tests.servers.fixtures import MakeConsul

pytestmark = pytest.mark.consul

USERS = Instance(id="users-1a2b", service="users", endpoints={"http": Endpoint("127.0.0.1", 8000)})
RULES = """
service_prefix "users" { policy = "write" }
node_prefix "" { policy = "read" }
"""


# --- tokens ---------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def guarded(consul_program: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Consul]:
    """An agent that denies what no token allows."""
    settings = {"acl": {"enabled": True, "default_policy": "deny"}}
    agent = Consul(consul_program, tmp_path_factory.mktemp("guarded"), settings=settings)
    try:
        agent.start()
        agent.token = agent.put("/v1/acl/bootstrap")["SecretID"]
        agent.put("/v1/acl/policy", {"Name": "users", "Rules": RULES})
        yield agent
    finally:
        agent.stop()


class Token:
    """A token of the policy ``users``, until it is revoked."""

    def __init__(self, consul: Consul) -> None:
        made = consul.put("/v1/acl/token", {"Policies": [{"Name": "users"}]})
        self._consul, self._accessor = consul, made["AccessorID"]
        self.secret: str = made["SecretID"]

    def revoke(self) -> None:
        status, answer = self._consul.request("DELETE", f"/v1/acl/token/{self._accessor}")
        assert status == 200, answer


async def test_a_revoked_token_ends_the_watch_and_the_next_one_in_the_file_heals(
    guarded: Consul, tmp_path: Path
) -> None:
    first, second = Token(guarded), Token(guarded)
    file = tmp_path / "token"
    file.write_text(first.secret)
    async with open_registry(f"{guarded.url}?token_file={quote(str(file))}") as registry:
        lease = await registry.register(USERS)
        async with Watched(registry.watch("users")) as watched:
            assert (await watched.next()).up
            await watched.nothing(seconds=0.2)  # its query waits at the agent now
            first.revoke()
            with pytest.raises(RegistryDenied, match="ACL not found") as of_renewal:
                await registry.renew(lease)
            # What ends the wait is a change; then the agent asks who is waiting.
            guarded.put("/v1/agent/service/register", {"ID": "users-2", "Name": "users"})
            with pytest.raises(RegistryDenied, match="ACL not found") as of_watch:
                await watched.until(lambda _: False)
        for error in (of_renewal, of_watch):
            assert guarded.address in str(error.value)
            assert first.secret not in str(error.value)
        file.write_text(second.secret)
        await registry.renew(lease)
        async with Watched(registry.watch("users")) as watched:
            assert [each.id for each in (await watched.next()).instances] == [
                "users-1a2b",
                "users-2",
            ]
        await registry.deregister(USERS.id)
        guarded.put("/v1/agent/service/deregister/users-2")


async def works(registry: Registry) -> None:
    lease = await registry.register(USERS)
    await registry.renew(lease)
    assert (await registry.instances("users")).up
    await registry.deregister(USERS.id)


async def test_a_function_gives_the_token_and_does_not_block_the_loop(guarded: Consul) -> None:
    token = Token(guarded)
    threads = set()

    def slow() -> str:
        threads.add(threading.current_thread())
        time.sleep(0.05)
        return token.secret

    async def coroutine() -> str:
        return token.secret

    endpoint = Endpoint.parse(guarded.address)
    for call in (slow, coroutine):
        options = ConsulOptions(endpoint=endpoint, token_call=call)
        async with ConsulRegistry(guarded.url, options) as registry:
            await works(registry)
            assert token.secret not in repr(registry) + repr(options)
    assert threading.main_thread() not in threads


async def test_a_function_named_in_the_url(
    guarded: Consul, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    token = Token(guarded)
    (tmp_path / "vault_tokens.py").write_text(
        "current = ''\ndef give():\n    if not current:\n        raise OSError('secret-path')\n"
        "    return current\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    async with open_registry(f"{guarded.url}?token_call=vault_tokens:give") as registry:
        with pytest.raises(RegistryDenied, match="token function give failed: OSError") as caught:
            await registry.instances("users")
        assert "secret-path" not in str(caught.value)
        import vault_tokens  # type: ignore[import-not-found]

        vault_tokens.current = token.secret
        await works(registry)
        vault_tokens.current = "two words"
        with pytest.raises(RegistryDenied, match="token function give returned no token"):
            await registry.instances("users")


async def test_a_function_that_hangs_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("meshkit.registry.consul.transport.LIMIT", 0.2)

    async def hang() -> str:
        await asyncio.sleep(60)
        return ""

    async with ConsulRegistry("consul://", ConsulOptions(token_call=hang)) as registry:
        with pytest.raises(Exception, match="did not answer within"):
            await registry.instances("users")


# --- certificates ---------------------------------------------------------------------------------


@pytest.fixture
def authority(consul_program: Path, tmp_path: Path) -> Path:
    """A folder with an authority, the agent's certificate, and client certificates by kind."""
    run(consul_program, "tls", "ca", "create", cwd=tmp_path)
    run(consul_program, "tls", "cert", "create", "-server", cwd=tmp_path)
    run(
        "openssl",
        "ecparam",
        "-name",
        "prime256v1",
        "-genkey",
        "-noout",
        "-out",
        "key",
        cwd=tmp_path,
    )
    run("openssl", "req", "-new", "-key", "key", "-subj", "/CN=client", "-out", "csr", cwd=tmp_path)
    ca = ("-CA", "consul-agent-ca.pem", "-CAkey", "consul-agent-ca-key.pem", "-set_serial", "7")
    for kind, days in (("valid", "7"), ("expired", "-1")):
        out = ("-days", days, "-out", kind)
        run("openssl", "x509", "-req", "-in", "csr", *ca, *out, cwd=tmp_path)
    return tmp_path


def run(*command: str | Path, cwd: Path) -> None:
    subprocess.run(command, cwd=cwd, check=True, capture_output=True)


async def test_an_expired_certificate_is_named_and_its_renewal_taken_up(
    make_consul: MakeConsul, authority: Path, caplog: pytest.LogCaptureFixture
) -> None:
    settings = {
        "verify_incoming": True,
        "ca_file": str(authority / "consul-agent-ca.pem"),
        "cert_file": str(authority / "dc1-server-consul-0.pem"),
        "key_file": str(authority / "dc1-server-consul-0-key.pem"),
    }
    consul = make_consul(settings=settings, tls=True)
    certificate = authority / "current.pem"
    certificate.write_bytes((authority / "expired").read_bytes())
    names = {"ca": "consul-agent-ca.pem", "cert": "current.pem", "key": "key"}
    query = "&".join(f"{name}={quote(str(authority / file))}" for name, file in names.items())
    async with open_registry(f"consul+tls://127.0.0.1:{consul.ports.https}?{query}") as registry:
        with pytest.raises(RegistryDenied, match="check cert= and key="):
            await registry.register(USERS)
        certificate.write_text("half a certificate")
        with pytest.raises(RegistryDenied, match="check cert= and key="):
            await registry.register(USERS)
        assert "the earlier ones stay in use: cert= " in caplog.text
        certificate.write_bytes((authority / "valid").read_bytes())
        lease = await registry.register(USERS)
        await registry.renew(lease)
        assert (await registry.instances("users")).up
        # A file that is gone for a moment does not end what works.
        certificate.unlink()
        await registry.renew(lease)
        assert (await registry.instances("users")).up


async def test_the_documented_policy_is_enough(guarded: Consul) -> None:
    page = (Path(__file__).parents[2] / "docs" / "registries" / "consul.md").read_text()
    rules = page.partition("```hcl\n")[2].partition("```")[0]
    guarded.put("/v1/acl/policy", {"Name": "documented", "Rules": rules})
    token = guarded.put("/v1/acl/token", {"Policies": [{"Name": "documented"}]})["SecretID"]
    orders = Instance(id="orders-1", service="orders", endpoints=USERS.endpoints)
    for options in ("", "&watch_connections=0", "&check=http"):
        async with (
            open_registry(f"{guarded.url}?token={token}{options}") as registry,
            Watched(registry.watch("orders"), patience=20) as watched,
        ):
            assert (await watched.next()).instances == ()
            await registry.renew(await registry.register(orders))
            await watched.until(lambda snapshot: len(snapshot.up) == 1)
            assert "orders" in [each.name for each in await registry.services()]
            assert await registry.kv.put("limit", b"7")
            assert await registry.kv.delete("limit")
            assert await registry.why_unlisted() == ""
            with pytest.raises(RegistryDenied):
                await registry.register(USERS)
            await registry.deregister("orders-1")
            await watched.until(lambda snapshot: not snapshot.instances)
