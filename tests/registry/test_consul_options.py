"""The Consul URL, and Consul's own variables where the URL says nothing."""

import re
from base64 import b64decode
from pathlib import Path

import pytest

from meshkit.errors import RegistryDenied, RegistryUrlError
from meshkit.model import Endpoint
from meshkit.registry import RegistryUrl, open_registry
from meshkit.registry.consul.options import ConsulOptions
from meshkit.registry.consul.settings import read_options
from meshkit.registry.consul.transport import Request

SECRET = "6f1d3a40-secret"


def read(url: str, **environ: str) -> ConsulOptions:
    return read_options(RegistryUrl.parse(url), environ)


def as_url(options: ConsulOptions) -> str:
    return options.url


@pytest.fixture
def pem(tmp_path: Path) -> str:
    path = tmp_path / "some.pem"
    path.write_text("-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n")
    return str(path)


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("consul://", "consul://127.0.0.1:8500"),
        ("consul:///", "consul://127.0.0.1:8500"),
        ("consul://registry", "consul://registry:8500"),
        ("consul://registry:18500", "consul://registry:18500"),
        ("consul://[::1]:18500", "consul://[::1]:18500"),
        ("consul://[::1]", "consul://[::1]:8500"),
        ("consul+tls://", "consul+tls://127.0.0.1:8501"),
        ("consul+tls://registry", "consul+tls://registry:8501"),
        ("consul+unix:///run/consul.sock", "consul+unix:///run/consul.sock"),
        ("CONSUL+TLS://registry:8500", "consul+tls://registry:8500"),
    ],
)
def test_address_and_scheme(url: str, expected: str) -> None:
    assert as_url(read(url)) == expected


@pytest.mark.parametrize(
    ("environ", "expected"),
    [
        ({"CONSUL_HTTP_ADDR": "registry:18500"}, "consul://registry:18500"),
        ({"CONSUL_HTTP_ADDR": "registry"}, "consul://registry:8500"),
        ({"CONSUL_HTTP_ADDR": "http://registry:18500/"}, "consul://registry:18500"),
        ({"CONSUL_HTTP_ADDR": "https://[::1]:18500"}, "consul+tls://[::1]:18500"),
        ({"CONSUL_HTTP_ADDR": "registry:1", "CONSUL_HTTP_SSL": "true"}, "consul+tls://registry:1"),
        ({"CONSUL_HTTP_ADDR": "registry:1", "CONSUL_HTTP_SSL": "0"}, "consul://registry:1"),
        ({"CONSUL_HTTP_SSL": "1"}, "consul+tls://127.0.0.1:8500"),
        ({"CONSUL_HTTP_ADDR": "unix:///run/consul.sock"}, "consul+unix:///run/consul.sock"),
        ({}, "consul://127.0.0.1:8500"),
    ],
)
def test_variables_count_without_a_host(environ: dict[str, str], expected: str) -> None:
    assert as_url(read("consul://", **environ)) == expected


def test_explicit_address_wins() -> None:
    environ = {"CONSUL_HTTP_ADDR": "https://elsewhere:1", "CONSUL_HTTP_SSL": "true"}
    assert as_url(read("consul://here:2", **environ)) == "consul://here:2"
    assert as_url(read("consul+unix:///here", **environ)) == "consul+unix:///here"
    environ = {"CONSUL_HTTP_ADDR": "http://there:1", "CONSUL_HTTP_SSL": "0"}
    assert as_url(read("consul+tls://", **environ)) == "consul+tls://there:1"


async def test_behaviour() -> None:
    options = read("consul://?check=grpc,http&check_interval=2.5s&cached=1&kv_prefix=/a/b/")
    assert (options.checks, options.check_interval) == (("http", "grpc"), 2.5)
    assert (options.cached, options.kv_prefix, options.watch_connections) == (True, "a/b", 8)
    options = read("consul://?kv_prefix=/&watch_connections=0&cached=false")
    assert (options.cached, options.kv_prefix, options.watch_connections) == (False, "", 0)


async def test_token_from_url_or_variable(tmp_path: Path) -> None:
    file = tmp_path / "token"
    file.write_text("from-file\n")
    variables = {"CONSUL_HTTP_TOKEN": "from-variable"}
    both = variables | {"CONSUL_HTTP_TOKEN_FILE": str(file)}
    assert await read("consul://").read_token() == ""
    assert await read("consul://", **variables).read_token() == "from-variable"
    assert await read("consul://", **both).read_token() == "from-file"
    assert await read("consul://?token=from-url", **both).read_token() == "from-url"
    assert await read(f"consul://?token_file={file}", **variables).read_token() == "from-file"


async def test_token_file_is_read_each_time(tmp_path: Path) -> None:
    file = tmp_path / "token"
    file.write_text("one")
    options = read(f"consul://?token_file={file}")
    assert await options.read_token() == "one"
    file.write_text("two")
    assert await options.read_token() == "two"


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (None, "No such file"),
        (b"", "holds no token"),
        (b"two words", "holds characters that can't be sent"),
    ],
)
async def test_unusable_token_file_is_named(
    tmp_path: Path, content: bytes | None, reason: str
) -> None:
    file = tmp_path / "token"
    if content is not None:
        file.write_bytes(content)
    with pytest.raises(RegistryDenied, match=reason) as caught:
        await read(f"consul://?token_file={file}").read_token()
    assert str(file) in str(caught.value)
    assert "two words" not in str(caught.value)


async def test_token_is_never_shown() -> None:
    for options in (
        read(f"consul://registry?token={SECRET}"),
        read("consul://", CONSUL_HTTP_TOKEN=SECRET),
    ):
        assert await options.read_token() == SECRET
        assert SECRET not in repr(options)
    registry = open_registry(f"consul://registry?token={SECRET}")
    assert SECRET not in registry.url
    assert SECRET not in repr(registry) + repr(vars(registry))


def test_a_user_for_a_proxy_in_front_of_the_agent() -> None:
    options = read("consul://", CONSUL_HTTP_AUTH=f"me:{SECRET}")
    assert SECRET not in repr(options)
    request = Request("GET", "/v1/kv/ä", (("dc", "a b"),)).encode(options, "").decode()
    assert request.startswith("GET /v1/kv/%C3%A4?dc=a+b HTTP/1.1\r\nHost: 127.0.0.1:8500\r\n")
    (user,) = (line.split()[-1] for line in request.splitlines() if "Basic" in line)
    assert b64decode(user).decode() == f"me:{SECRET}"
    assert "Authorization" not in Request("GET", "/").encode(read("consul://"), "").decode()


def test_without_tls_certificates_are_not_looked_at() -> None:
    """As in Consul's own tools."""
    assert read("consul://", CONSUL_CACERT="/missing.pem").certificates is None


@pytest.mark.parametrize(
    ("url", "reason"),
    [
        ("consul://host:port", "'host:port' is not host:port"),
        ("consul://host:0", "port must be between"),
        ("consul://::1:8500", "needs brackets"),
        ("consul://host/path", "unexpected path '/path'"),
        ("consul://user:pass@host", "write ?token="),
        ("consul://host?tken=x", "unknown parameter 'tken'"),
        ("consul://host?token=a&token_file=b", "exclude each other"),
        ("consul://host?token=a%0Ab", "characters that can't be sent"),
        ("consul://host?ca=/ca.pem", "ca= needs consul+tls://"),
        ("consul://host?token_file=a&token_call=b", "exclude each other"),
        ("consul://host?token_call=tokens", "should be package.module:function, not 'tokens'"),
        ("consul://host?token_call=no.such:call", "can't be imported: ModuleNotFoundError"),
        ("consul://host?token_call=os:nothing", "and os has no nothing"),
        ("consul://host?token_call=os:sep", "which is no function"),
        ("consul+unix://host/run/consul.sock", "named by its whole path"),
        ("consul+unix://", "named by its whole path"),
        ("consul+unix:///run/consul.sock?ca=/ca.pem", "ca= needs consul+tls://"),
        ("consul://host?check=tcp", "check= should be http, grpc or http,grpc, not 'tcp'"),
        ("consul://host?check=http&check_interval=1m", "should be seconds, at least 1, not '1m'"),
        ("consul://host?check=http&check_interval=0.5", "should be seconds, at least 1"),
        ("consul://host?check_interval=10s", "check_interval= needs check= too"),
        ("consul://host?cached=maybe", "cached= should be true or false"),
        ("consul://host?watch_connections=-1", "watch_connections= should be a number"),
        ("consul://host?kv_prefix=a//b", "kv_prefix= should be words joined by slashes"),
        ("consul://host?kv_prefix=../a", "kv_prefix= should be words joined by slashes"),
        ("consul+tls://host?verify=maybe", "verify= should be true or false"),
        ("consul+tls://host?ca=/missing.pem", "ca= names /missing.pem, which can't be read"),
        ("consul+tls://host?ca=/dev/null", "which holds no certificate"),
        ("consul+tls://host?cert=/dev/null&key=/dev/null", "can't be used together"),
        ("consul://ho st", "'ho st' is not host:port"),
    ],
)
def test_malformed_urls(url: str, reason: str) -> None:
    with pytest.raises(RegistryUrlError, match=re.escape(reason)) as caught:
        read(url)
    assert "\n" not in str(caught.value)
    assert ":pass" not in str(caught.value)


def test_certificate_without_key(pem: str) -> None:
    with pytest.raises(RegistryUrlError, match=r"cert= needs key= too"):
        read(f"consul+tls://host?cert={pem}")
    with pytest.raises(RegistryUrlError, match=r"CONSUL_CLIENT_KEY: it needs cert= too"):
        read("consul+tls://host", CONSUL_CLIENT_KEY=pem)


@pytest.mark.parametrize(
    ("name", "value", "reason"),
    [
        ("CONSUL_HTTP_ADDR", "unix://run/consul.sock", "is not unix:///path"),
        ("CONSUL_HTTP_ADDR", "ftp://host", "ftp:// is unknown"),
        ("CONSUL_HTTP_ADDR", "host:port", "is not host:port"),
        ("CONSUL_HTTP_SSL", "maybe", "should be true or false"),
        ("CONSUL_HTTP_SSL_VERIFY", "maybe", "should be true or false"),
        ("CONSUL_CACERT", "/missing.pem", "names /missing.pem, which can't be read"),
        ("CONSUL_HTTP_TOKEN", "a\nb", "characters that can't be sent"),
    ],
)
def test_bad_variables_are_named(name: str, value: str, reason: str) -> None:
    scheme = "consul" if "ADDR" in name or name.endswith("_SSL") else "consul+tls"
    with pytest.raises(RegistryUrlError, match=re.escape(reason)) as caught:
        read(f"{scheme}://", **{name: value})
    assert f"bad value for {name}" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_environment_reaches_the_registry(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CONSUL_HTTP_ADDR", "registry:18500")
    registry = open_registry("consul://")
    assert registry.peer == Endpoint("registry", 18500)
    assert registry.url == "consul://registry:18500"
    assert open_registry("consul://other").peer == Endpoint("other", 8500)
