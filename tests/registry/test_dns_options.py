"""``dns://`` URLs: what they mean, and what is wrong with those that mean nothing."""

import subprocess
import sys
from pathlib import Path

import pytest

from meshkit.errors import RegistryUrlError
from meshkit.model import Endpoint
from meshkit.registry import RegistryUrl, open_registry
from meshkit.registry.dns import options
from meshkit.registry.dns.options import DnsOptions, read_options


def read(url: str) -> DnsOptions:
    return read_options(RegistryUrl.parse(url))


@pytest.mark.parametrize(
    ("place", "servers"),
    [
        ("127.0.0.1:8600", [Endpoint("127.0.0.1", 8600)]),
        ("consul", [Endpoint("consul", 53)]),
        ("[::1]", [Endpoint("::1", 53)]),
        ("[fe80::1%25eth0]:8600".replace("%25", "%"), [Endpoint("fe80::1%eth0", 8600)]),
        ("a:1,b,[::1]:2", [Endpoint("a", 1), Endpoint("b", 53), Endpoint("::1", 2)]),
    ],
)
def test_servers(place: str, servers: list[Endpoint]) -> None:
    found = read(f"dns://{place}/service.consul")
    assert list(found.current_servers()) == servers
    assert open_registry(f"dns://{place}/service.consul").peer == servers[0]


@pytest.mark.parametrize(
    ("rest", "names"),
    [
        ("service.consul", {"http": "users.service.consul"}),
        ("service.consul./", {"http": "users.service.consul"}),
        ("service.dc2.consul?http=v1.{service}", {"http": "v1.users.service.dc2.consul"}),
        ("service.consul?grpc={service}", {"grpc": "users.service.consul"}),
        (
            "shop.svc.cluster.local?http=_http._tcp.{service}&grpc=_grpc._tcp.{service}",
            {
                "http": "_http._tcp.users.shop.svc.cluster.local",
                "grpc": "_grpc._tcp.users.shop.svc.cluster.local",
            },
        ),
        ("example.org?http=_{service}._tcp", {"http": "_users._tcp.example.org"}),
        ("example.org?http=_%7Bservice%7D._tcp", {"http": "_users._tcp.example.org"}),
    ],
)
def test_names(rest: str, names: dict[str, str]) -> None:
    assert read(f"dns:///{rest}").names("users") == names


@pytest.mark.parametrize(
    ("url", "part"),
    [
        ("dns://127.0.0.1:8600", "it needs a domain, as in dns://127.0.0.1:8600/service.consul"),
        ("dns://127.0.0.1:8600/", "it needs a domain"),
        ("dns://", "it needs a domain"),
        ("dns:///.", "it needs a domain"),
        ("dns:///a..b", "'{service}.a..b' is not a domain name"),
        ("dns:///a/b", "'{service}.a/b' is not a domain name"),
        ("dns:///-a.b", "is not a domain name"),
        ("dns:///exa%20mple", "is not a domain name"),
        ("dns:///ex\u00e4mple", "is not a domain name"),
        (f"dns:///{'x' * 64}", "is not a domain name"),
        (f"dns:///{'x.' * 126}x", "is not a domain name"),
        ("dns:///a.b?http=users", "http= needs {service}, as in http=_http._tcp.{service}"),
        ("dns:///a.b?http", "malformed registry URL"),
        ("dns:///a.b?http={service}{port}", "is not a domain name"),
        ("dns:///a.b?tag=v1", "unknown parameter 'tag'; known: http, grpc"),
        ("dns://me:secret@a/b.c", "DNS takes no user or password"),
        ("dns://a:0/b.c", "the port must be between 1 and 65535"),
        ("dns://a:dns/b.c", "'a:dns' is not host:port"),
        ("dns://a,,b/b.c", "not host:port"),
        ("dns://a!b/b.c", "'a!b' is not HOST or HOST:PORT"),
        ("dns://::1/b.c", "an IPv6 address needs brackets"),
    ],
)
def test_bad_urls_name_the_bad_part(url: str, part: str) -> None:
    with pytest.raises(RegistryUrlError) as caught:
        open_registry(url)
    assert part in str(caught.value)
    assert "\n" not in str(caught.value)
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize(
    ("text", "hosts"),
    [
        ("# none\nsearch example.org\n", ["127.0.0.1"]),
        ("nameserver 10.0.0.2\noptions ndots:5\nnameserver\t::1 # two\n", ["10.0.0.2", "::1"]),
        ("".join(f"nameserver 10.0.0.{n}\n" for n in range(5)), [f"10.0.0.{n}" for n in range(3)]),
        (None, ["127.0.0.1"]),
    ],
)
def test_the_systems_servers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str | None, hosts: list[str]
) -> None:
    file = tmp_path / "resolv.conf"
    if text is not None:
        file.write_text(text)
    monkeypatch.setattr(options, "RESOLV_CONF", file)
    found = read("dns:///service.consul")
    assert [each.host for each in found.current_servers()] == hosts
    file.write_text("nameserver 10.9.9.9\n")
    assert found.current_servers() == (Endpoint("10.9.9.9", 53),)


def test_without_dnspython_it_says_what_to_install() -> None:
    script = (
        "import sys; sys.modules['dns'] = None\n"
        "from meshkit import MissingExtraError\n"
        "from meshkit.registry import open_registry\n"
        "try: open_registry('dns:///service.consul')\n"
        "except MissingExtraError as error: print(error)"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, timeout=60, check=False
    )
    said = "a dns:// registry needs an optional dependency: pip install 'meshkit[dns]'\n"
    assert (done.stdout, done.stderr) == (said, "")


def test_only_an_open_dns_registry_imports_dnspython() -> None:
    script = (
        "import sys\n"
        "from meshkit.registry import open_registry\n"
        "open_registry('static://users=127.0.0.1:1')\n"
        "assert 'dns' not in sys.modules\n"
        "open_registry('dns:///service.consul')\n"
        "assert 'dns.message' in sys.modules\n"
        "assert not {'httpx2', 'httpx', 'anyio', 'trio', 'grpc'} & sys.modules.keys()"
    )
    subprocess.run([sys.executable, "-c", script], timeout=60, check=True)
