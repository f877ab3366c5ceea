"""``kubernetes://`` URLs: what they mean, in a pod and elsewhere, and what is wrong with others."""

from collections.abc import Mapping
from pathlib import Path

import pytest

from meshkit.errors import RegistryUrlError
from meshkit.model import Endpoint
from meshkit.registry import RegistryUrl, open_registry
from meshkit.registry.kubernetes import options
from meshkit.registry.kubernetes.options import KubernetesOptions, read_options
from tests.registry.zookeeper_certificates import make_certificates

POD = {"KUBERNETES_SERVICE_HOST": "10.96.0.1", "KUBERNETES_SERVICE_PORT": "443"}


@pytest.fixture
def account(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The service account of a pod in the namespace shop."""
    folder = tmp_path / "serviceaccount"
    authority = make_certificates(tmp_path / "certificates") / "ca.pem"
    folder.mkdir()
    (folder / "namespace").write_text("shop")
    (folder / "token").write_text("first")
    (folder / "ca.crt").write_text(authority.read_text())
    monkeypatch.setattr(options, "SERVICE_ACCOUNT", folder)
    return folder


def read(url: str, environ: Mapping[str, str] = POD) -> KubernetesOptions:
    return read_options(RegistryUrl.parse(url), environ)


def test_a_pod_needs_no_more_than_the_scheme(account: Path) -> None:
    found = read("kubernetes://")
    assert (found.server, found.namespace) == (Endpoint("10.96.0.1", 443), "shop")
    assert found.certificates is not None
    assert (found.url, found.in_cluster) == ("kubernetes://shop", True)
    assert found.read_token() == "first"
    (account / "token").write_text("second\n")
    assert found.read_token() == "second"


def test_what_the_url_says_wins(account: Path, tmp_path: Path) -> None:
    own = tmp_path / "own"
    own.write_text("own")
    assert read(f"kubernetes://billing?token_file={own}").read_token() == "own"
    assert read("kubernetes://billing?token=given").read_token() == "given"
    for url in ("kubernetes://billing", "kubernetes:///billing"):
        assert read(url).namespace == "billing"
    (account / "namespace").unlink()
    assert read("kubernetes://billing").namespace == "billing"


def test_a_cluster_of_ipv6(account: Path) -> None:
    found = read("kubernetes://", {**POD, "KUBERNETES_SERVICE_HOST": "fd00::1"})
    assert found.server == Endpoint("fd00::1", 443)


@pytest.mark.parametrize(
    ("url", "server", "namespace"),
    [
        ("kubernetes://127.0.0.1:8001/shop?tls=false", Endpoint("127.0.0.1", 8001), "shop"),
        ("kubernetes://localhost:8001?tls=FALSE", Endpoint("localhost", 8001), "default"),
        ("kubernetes://[::1]:6443/shop/", Endpoint("::1", 6443), "shop"),
        ("kubernetes://api.example.org:6443/a-b-1", Endpoint("api.example.org", 6443), "a-b-1"),
    ],
)
def test_outside_of_a_cluster(url: str, server: Endpoint, namespace: str) -> None:
    """Nothing of the machine's own is sent to a server that is named."""
    found = read(url)
    assert (found.server, found.namespace) == (server, namespace)
    assert (found.in_cluster, found.token_file, found.read_token()) == (False, None, "")
    assert (found.certificates is None) == ("tls" in url)


@pytest.mark.parametrize(
    ("url", "part"),
    [
        ("kubernetes://a:b/c", "'a:b' is not host:port"),
        ("kubernetes://:6443/c", "not host:port"),
        ("kubernetes://a!b:6443/c", "'a!b:6443' is not HOST:PORT"),
        ("kubernetes://10.0.0.1/shop", "needs its port: kubernetes://10.0.0.1:443/shop"),
        ("kubernetes://a.b", "'a.b' is not a namespace"),
        ("kubernetes://Shop", "'Shop' is not a namespace"),
        ("kubernetes://a:6443/b/c", "'b/c' is not a namespace"),
        ("kubernetes://me:secret@a:6443/c", "Kubernetes takes a token, not a user"),
        ("kubernetes://a:6443/c?tsl=false", "unknown parameter 'tsl'"),
        ("kubernetes://a:6443/c?tls=no", "tls= should be true or false, not 'no'"),
        ("kubernetes://shop?tls=false", "tls=false needs the address of a proxy"),
        ("kubernetes://a:1/c?tls=false&token=secret", "token= needs TLS"),
        ("kubernetes://a:1/c?tls=false&verify=false", "verify= needs TLS"),
        ("kubernetes://a:1/c?token=secret%0d%0aa", "token= holds characters that can't be sent"),
        ("kubernetes://a:1/c?token=secret&token_file=/x", "exclude each other"),
        ("kubernetes://a:1/c?ca=/nowhere", "ca= names /nowhere, which can't be read"),
        ("kubernetes://a:1/c?ca=/etc/hostname", "ca= names /etc/hostname, which holds no cert"),
        ("kubernetes://a:1/c?cert=/etc/hostname", "cert= needs key= too"),
        ("kubernetes://a:1/c?verify=maybe", "verify= should be true or false"),
    ],
)
def test_bad_urls_name_the_bad_part(account: Path, url: str, part: str) -> None:
    with pytest.raises(RegistryUrlError) as caught:
        read(url)
    assert part in str(caught.value)
    assert "\n" not in str(caught.value)
    assert "secret" not in str(caught.value)


def test_in_no_cluster_it_says_what_to_write() -> None:
    with pytest.raises(RegistryUrlError, match="this process runs in none") as caught:
        read("kubernetes://shop", {})
    assert "kubernetes://127.0.0.1:8001/NAMESPACE?tls=false" in str(caught.value)
    with pytest.raises(RegistryUrlError, match="bad value for KUBERNETES_SERVICE_HOST or"):
        read("kubernetes://shop", {**POD, "KUBERNETES_SERVICE_PORT": "tcp"})


@pytest.mark.parametrize(
    ("file", "part"),
    [("namespace", "the namespace has to be named"), ("ca.crt", "ca= names .* no certificate")],
)
def test_a_service_account_that_is_not_mounted(account: Path, file: str, part: str) -> None:
    (account / file).unlink()
    with pytest.raises(RegistryUrlError, match=part):
        read("kubernetes://")


def test_the_token_is_never_shown(account: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in POD.items():
        monkeypatch.setenv(name, value)
    url = "kubernetes://a:6443/shop?token=hidden"
    registry = open_registry(url)
    shown = [repr(read(url)), repr(read("kubernetes://")), registry.url, repr(registry)]
    assert not [text for text in shown if "hidden" in text or "first" in text]
    assert registry.url == "kubernetes://a:6443/shop?token=***"
    assert open_registry("kubernetes://").url == "kubernetes://shop"
