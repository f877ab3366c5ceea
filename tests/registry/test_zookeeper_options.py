"""What a ``zookeeper://`` URL may say. No server is needed."""

import subprocess
import sys

import pytest

from meshkit.errors import MissingExtraError, RegistryUrlError
from meshkit.model import Endpoint
from meshkit.registry import open_registry
from meshkit.registry.url import RegistryUrl
from meshkit.registry.zookeeper.options import ZooKeeperOptions, read_options

FILE = __file__  # one that can be read, and is no certificate


def options(url: str) -> ZooKeeperOptions:
    return read_options(RegistryUrl.parse(url))


def test_defaults() -> None:
    read = options("zookeeper://zk")
    assert read.servers == (Endpoint("zk", 2181),)
    assert (read.path, read.session, read.certificates) == ("/meshkit", 10.0, None)
    assert (read.username, read.password, read.private) == ("", "", False)


def test_everything() -> None:
    read = options("zookeeper://al%40ice:s%3Ae%2Fcret@a:2182,b,[::1],[::2]:9/x/y/?session=4.5")
    assert [str(server) for server in read.servers] == ["a:2182", "b:2181", "[::1]:2181", "[::2]:9"]
    assert (read.username, read.password) == ("al@ice", "s:e/cret")
    assert (read.path, read.session) == ("/x/y", 4.5)
    assert read.place == "a:2182,b:2181,[::1]:2181,[::2]:9"
    assert options("zookeeper://zk/").path == ""
    assert options("zookeeper://u:p@zk?acl=private").private


def test_tls() -> None:
    read = options("zookeeper+tls://zk")
    assert read.servers == (Endpoint("zk", 2281),)
    assert read.certificates is not None
    assert read.certificates.context().check_hostname
    read = options("zookeeper+tls://zk?check_hostname=false")
    assert read.certificates is not None
    assert not read.certificates.context().check_hostname


@pytest.mark.parametrize(
    ("url", "reason"),
    [
        ("zookeeper://", "names no server"),
        ("zookeeper:///meshkit", "names no server"),
        ("zookeeper://a,,b", "names no server"),
        ("zookeeper://a\x01", "names no server"),
        ("zookeeper://a:0", "port must be between"),
        ("zookeeper://a:x", "is not host:port"),
        ("zookeeper://::1", "needs brackets"),
        ("zookeeper://a/x//y", "no path of ZooKeeper's"),
        ("zookeeper://a/x/../y", "no path of ZooKeeper's"),
        ("zookeeper://a/x%00", "no path of ZooKeeper's"),
        ("zookeeper://a/zookeeper", "ZooKeeper's own"),
        ("zookeeper://user@a", "user:password@"),
        ("zookeeper://:word@a", "user:password@"),
        ("zookeeper://a?session=soon", "number of seconds"),
        ("zookeeper://a?session=1", "from 2 to 40 seconds"),
        ("zookeeper://a?session=nan", "from 2 to 40 seconds"),
        ("zookeeper://a?acl=none", "readable or private"),
        ("zookeeper://a?acl=private", "needs user:password@"),
        ("zookeeper://a?ca=/ca.pem", "needs zookeeper[+]tls://"),
        ("zookeeper://a?check_hostname=true", "needs zookeeper[+]tls://"),
        ("zookeeper+tls://a?ca=/no/such.pem", "can't be read"),
        (f"zookeeper+tls://a?ca={FILE}", "holds no certificate"),
        ("zookeeper+tls://a?check_hostname=no", "true or false"),
        (f"zookeeper+tls://a?cert={FILE}", "needs key= too"),
        (f"zookeeper+tls://a?cert={FILE}&key={FILE}", "used together"),
        ("zookeeper://a?sessions=10", "unknown parameter 'sessions'; known: session, acl, ca"),
    ],
)
def test_what_is_wrong_is_named(url: str, reason: str) -> None:
    with pytest.raises(RegistryUrlError, match=reason) as caught:
        open_registry(url)
    assert "\n" not in str(caught.value)


def test_the_password_is_never_shown() -> None:
    url = "zookeeper://user:hunter2@zk/x?session=4"
    registry = open_registry(url)
    assert registry.url == "zookeeper://user:***@zk/x?session=4"
    assert registry.peer == Endpoint("zk", 2181)
    assert "hunter2" not in repr(options(url))
    with pytest.raises(RegistryUrlError) as caught:
        open_registry(f"{url}&nonsense=1")
    assert "hunter2" not in str(caught.value)


def test_without_kazoo(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "kazoo", None)
    with pytest.raises(MissingExtraError, match=r"pip install 'meshkit\[zookeeper\]'"):
        open_registry("zookeeper://zk")


def test_imported_on_use_only() -> None:
    code = "import sys, meshkit, meshkit.registry; sys.exit('kazoo' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)
