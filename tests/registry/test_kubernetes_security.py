"""``kubernetes://``: TLS, tokens that rotate, and what an API server refuses."""

import logging
import ssl
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from meshkit.errors import RegistryDenied, RegistryUnavailable
from meshkit.model import ServiceInfo
from meshkit.registry import Registry, open_registry
from meshkit.testing.watched import Watched
from tests.registry.kubernetes_api import KubernetesApi, endpoint, kubernetes_api, piece
from tests.registry.zookeeper_certificates import make_certificates


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_certificates(tmp_path_factory.mktemp("tls") / "cluster")


@pytest.fixture
async def api(certificates: Path) -> AsyncIterator[KubernetesApi]:
    """An API server that speaks TLS, and wants a token."""
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(certificates / "server.pem", certificates / "server-key.pem")
    async with kubernetes_api(context) as served:
        served.token = "token-1"
        await served.put(piece("users", endpoint("users-1")))
        yield served


@pytest.fixture
def token(tmp_path: Path) -> Path:
    file = tmp_path / "token"
    file.write_text("token-1\n")
    return file


def opened(api: KubernetesApi, *parameters: str) -> Registry:
    return open_registry(f"kubernetes://127.0.0.1:{api.port}/shop?{'&'.join(parameters)}")


async def refusal(api: KubernetesApi, *parameters: str) -> str:
    async with opened(api, *parameters) as registry:
        with pytest.raises((RegistryDenied, RegistryUnavailable)) as caught:
            await registry.instances("users")
    assert "\n" not in str(caught.value)
    assert caught.value.__cause__ is None
    return str(caught.value)


async def test_a_token_that_rotates(
    api: KubernetesApi, certificates: Path, token: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """It is read for each request; a watch under way goes on."""
    caplog.set_level(logging.DEBUG)
    async with opened(api, f"token_file={token}", f"ca={certificates / 'ca.pem'}") as registry:
        async with Watched(registry.watch("users")) as watched:
            assert len((await watched.next()).up) == 1
            await watched.nothing(seconds=0.1)
            api.token = "token-2"
            with pytest.raises(RegistryDenied, match="does not accept the token") as caught:
                await registry.services()
            token.write_text("token-2")
            assert await registry.services() == (ServiceInfo(name="users", instances=1),)
            await api.put(piece("users", endpoint("users-1"), endpoint("users-2")))
            assert len((await watched.next()).up) == 2
        shown = [str(caught.value), registry.url, repr(vars(registry)), caplog.text]
    assert not [text for text in shown if "token-" in text]


@pytest.mark.parametrize(
    ("content", "part"),
    [
        (None, "can't be read: No such file"),
        (b"", "holds no token"),
        (b"secret\r\nX-Remote-User: admin", "holds characters that can't be sent"),
        (b"secret\xff", "it is not text"),
        ("secret\u00e9".encode(), "holds characters that can't be sent"),
    ],
)
async def test_a_token_file_that_can_not_be_used(
    api: KubernetesApi, certificates: Path, token: Path, content: bytes | None, part: str
) -> None:
    token.unlink() if content is None else token.write_bytes(content)
    said = await refusal(api, f"token_file={token}", f"ca={certificates / 'ca.pem'}")
    assert part in said
    assert str(token) in said
    assert "secret" not in said
    assert api.asked == []


async def test_certificates_that_are_not_trusted(api: KubernetesApi, token: Path) -> None:
    said = await refusal(api, f"token_file={token}")
    assert "its certificate is not trusted" in said
    assert "check ca=" in said
    async with opened(api, f"token_file={token}", "verify=false") as registry:
        assert len((await registry.instances("users")).up) == 1


async def test_tls_on_one_side_only(api: KubernetesApi, certificates: Path) -> None:
    assert "closed the connection" in await refusal(api, "tls=false")
    async with kubernetes_api() as plain:
        said = await refusal(plain, f"ca={certificates / 'ca.pem'}")
    assert "does not speak TLS; for kubectl proxy add tls=false" in said


@pytest.mark.parametrize("verbs", [set(), {"list"}])
async def test_what_the_role_does_not_allow_is_named(
    api: KubernetesApi, certificates: Path, token: Path, verbs: set[str]
) -> None:
    api.verbs = verbs
    async with (
        opened(api, f"token_file={token}", f"ca={certificates / 'ca.pem'}") as registry,
        Watched(registry.watch("users")) as watched,
    ):
        if verbs:
            await watched.next()
        with pytest.raises(RegistryDenied) as caught:
            await watched.next()
    said = str(caught.value)
    verb = "watch" if verbs else "list"
    assert f"cannot {verb} resource" in said
    assert "a Role in the namespace shop with the verbs list and watch for endpointslices" in said


async def test_without_a_token_nobody_is_told_to_check_a_role(
    api: KubernetesApi, certificates: Path
) -> None:
    said = await refusal(api, f"ca={certificates / 'ca.pem'}")
    assert "was sent none" in said
    assert "Role" not in said
    assert "automountServiceAccountToken" in said
