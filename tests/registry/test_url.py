"""What a registry URL says, and that its secrets are shown nowhere."""

import pytest

from meshkit import RegistryUrlError
from meshkit.registry import RegistryUrl, open_registry
from meshkit.registry.url import mask
from meshkit.settings import MeshSettings

SECRET = "S3CR/ET"


@pytest.mark.parametrize(
    "url",
    [
        f"consul://c:8500?token={SECRET}",
        f"consul://c:8500/?token={SECRET}&dc=eu",
        f"consul+tls://c:8501?ca=/etc/ca.pem&token={SECRET}",
        f"consul+tls://c:8501?token={SECRET}&ca=/etc/ca.pem",
        f"consul://c?toke={SECRET}",
        f"etcd://root:{SECRET}@a,b,c/x?password={SECRET}",
        f"nonsense?token={SECRET}",
        f"consul://c?%74oken={SECRET}",
    ],
)
def test_secrets_are_masked_wherever_they_stand(url: str) -> None:
    assert "S3CR" not in mask(url)
    assert "ET" not in mask(url)
    with pytest.raises(RegistryUrlError) as caught:
        open_registry(url.replace("consul", "nowhere"))
    assert "S3CR" not in str(caught.value)
    assert "S3CR" not in repr(MeshSettings(registry=url))


@pytest.mark.parametrize(
    "place",
    [
        "root:S3CR/ET@a:1",
        "root:S3CR?ET@a:1/x",
        "root:S3CR?E=T@a",
        "root:x:S3CR/ET@a,b",
        "r:/S3CR@a",
    ],
)
def test_a_password_that_is_not_encoded_is_not_shown(place: str) -> None:
    with pytest.raises(RegistryUrlError, match="as %2F, %3F and %40") as caught:
        open_registry(f"etcd://{place}")
    assert "S3CR" not in str(caught.value)
    assert "ET" not in str(caught.value)
    assert "S3CR" not in repr(MeshSettings(registry=f"etcd://{place}"))


@pytest.mark.parametrize(
    "url", ["zookeeper://a:1,b:2/p@th", "zookeeper://[::1]/p@th", "consul+unix:///run/a@b.sock"]
)
def test_an_at_sign_elsewhere_is_no_password(url: str) -> None:
    assert RegistryUrl.parse(url).path == f"/{url.partition('//')[2].partition('/')[2]}"


def test_parameters_that_are_none() -> None:
    with pytest.raises(RegistryUrlError, match="should be NAME=VALUE"):
        open_registry("consul://c?token")


@pytest.mark.parametrize(
    ("url", "known"),
    [
        ("consul://c?regster=false", "token, .*, register; did you mean 'register'\\?$"),
        (
            "etcd://e?pasword_file=x",
            "password_file, .*, register; did you mean 'password_file'\\?$",
        ),
        ("static://users=a:1?regster=false", "register; did you mean 'register'\\?$"),
        ("local://?qqq=1", "dir, register$"),
    ],
)
def test_a_mistyped_parameter_is_told_from_those_that_are_known(url: str, known: str) -> None:
    with pytest.raises(RegistryUrlError, match=f"unknown parameter '.*'; known: {known}"):
        open_registry(url)


def test_the_parts() -> None:
    url = RegistryUrl.parse("etcd://root:p%40ss@a:1,[::1]:2/base/path?dc=eu&wait=3")
    assert (url.scheme, url.username, url.password) == ("etcd", "root", "p@ss")
    assert (url.host, url.path, url.params) == (
        "a:1,[::1]:2",
        "/base/path",
        {"dc": "eu", "wait": "3"},
    )
    assert url.text == "etcd://root:***@a:1,[::1]:2/base/path?dc=eu&wait=3"


def test_an_unknown_scheme_lists_the_known_ones() -> None:
    with pytest.raises(RegistryUrlError, match=r"unknown registry scheme 'cosnul://'.*consul://"):
        open_registry("cosnul://127.0.0.1")


@pytest.mark.parametrize("url", ["", "consul", "://x", "consul:/x"])
def test_what_is_no_url_says_what_is_expected(url: str) -> None:
    with pytest.raises(RegistryUrlError, match="expected SCHEME://"):
        open_registry(url)
