"""etcd's URLs, right and wrong; nothing is connected to."""

from pathlib import Path

import pytest

from meshkit.errors import RegistryDenied, RegistryUrlError
from meshkit.model import Endpoint
from meshkit.registry import open_registry
from meshkit.registry.etcd.options import EtcdOptions, read_options
from meshkit.registry.url import RegistryUrl
from tests.test_public_names import modules_after


def read(url: str) -> EtcdOptions:
    return read_options(RegistryUrl.parse(url), prefix="/meshkit")


@pytest.mark.parametrize(
    ("host", "endpoints"),
    [
        ("", ["127.0.0.1:2379"]),
        ("a", ["a:2379"]),
        ("a:2379,b,c:1", ["a:2379", "b:2379", "c:1"]),
        ("a,b,a:2379", ["a:2379", "b:2379"]),
        ("[::1]", ["[::1]:2379"]),
        ("[::1]:7,[fe80::1]", ["[::1]:7", "[fe80::1]:2379"]),
        ("etcd-0.etcd.svc.cluster.local", ["etcd-0.etcd.svc.cluster.local:2379"]),
    ],
)
async def test_endpoints(host: str, endpoints: list[str]) -> None:
    assert [str(each) for each in read(f"etcd://{host}").endpoints] == endpoints
    async with open_registry(f"etcd://{host}") as registry:
        assert registry.peer == Endpoint.parse(endpoints[0])


@pytest.mark.parametrize(
    ("rest", "reason"),
    [
        ("a,,b", "'' is not host:port; several are joined by commas"),
        ("a,", "'' is not host:port"),
        ("a:", "is not host:port"),
        ("a:0", "the port must be between 1 and 65535"),
        ("a:65536", "the port must be between 1 and 65535"),
        ("a:http", "'a:http' is not host:port"),
        ("::1", "'::1' is not host:port"),
        ("[::1", "is not host:port"),
        ("unix:a", "'unix:a' is not host:port"),
        ("a%20b", "'a%20b' is not host:port"),
        ("a;b", "'a;b' is not host:port"),
        ("a/with%20space", "the prefix '/with space' should be words of letters"),
        ("a/b//c", "the prefix '/b//c' should be words of letters"),
        ("a/ü", "the prefix '/ü' should be"),
        ("a?lease=5", "unknown parameter 'lease'; known: password_file, ca, cert, key"),
        ("a?ca=ca.pem", "ca= needs etcd+tls://"),
        ("user@a", "the user needs a password"),
        (":swordfish@a", "a password needs a user"),
        ("a?password_file=/etc/hostname", "a password needs a user"),
        ("user:swordfish@a?password_file=/etc/hostname", "exclude each other"),
        ("user@a?password_file=", "the user needs a password"),
    ],
)
def test_bad_urls(rest: str, reason: str) -> None:
    with pytest.raises(RegistryUrlError) as caught:
        open_registry(f"etcd://{rest}")
    assert reason in str(caught.value)
    assert "swordfish" not in str(caught.value)
    assert "\n" not in str(caught.value)


def test_secrets_are_not_shown() -> None:
    registry = open_registry("etcd://user:sword%2Ffish@a,b/prefix")
    assert registry.url == "etcd://user:***@a,b/prefix"
    options = read("etcd://user:sword%2Ffish@a,b/prefix")
    assert options.read_password() == "sword/fish"
    for text in (repr(options), repr(registry), repr(vars(registry))):
        assert "fish" not in text


def test_the_password_file_is_read_anew(tmp_path: Path) -> None:
    file = tmp_path / "password"
    options = read(f"etcd://user@a?password_file={file}")
    with pytest.raises(RegistryDenied, match="can't be read: No such file"):
        options.read_password()
    for password in ("one", "two words ", "drei€"):
        file.write_text(f"{password}\n")
        assert options.read_password() == password
    file.write_bytes(b"\xff\xfe")
    with pytest.raises(RegistryDenied, match="can't be read: it is not text"):
        options.read_password()


def test_other_engines_do_not_import_etcds_libraries() -> None:
    loaded = modules_after("from meshkit.registry import open_registry; open_registry('local://')")
    assert not {"grpc", "google.protobuf", "meshkit.registry.etcd"} & loaded
    loaded = modules_after("from meshkit.registry import open_registry; open_registry('etcd://')")
    assert {"grpc", "google.protobuf", "meshkit.registry.etcd"} <= loaded
