"""Which backend a URL means, also as Registrator writes it; nothing is connected to."""

import dataclasses

import pytest

from meshkit.errors import ConfigError, RegistryUrlError
from meshkit.model import Status
from meshkit.registrator.naming import dns_label
from meshkit.registrator.opening import find_backend, parse
from meshkit.registrator.options import Options
from meshkit.registrator.record import Record

RECORD = Record(
    id="host:my_web:80",
    name="my_web",
    host="10.0.0.1",
    port=8080,
    container_id="c" * 64,
    container_name="my_web",
    private_port=80,
)
LABEL = dns_label(RECORD.id)


@pytest.mark.parametrize(
    ("url", "entry"),
    [
        ("consul://agent", "host:my_web:80"),
        ("consul-unix:///run/consul.sock", "host:my_web:80"),
        ("consulkv://agent/a/b", "a/b/my_web/host:my_web:80"),
        ("consulkv://agent", "my_web/host:my_web:80"),
        ("consulkv-unix:///run/consul.sock:/a", "a/my_web/host:my_web:80"),
        ("consul://agent/a?layout=registrator", "a/my_web/host:my_web:80"),
        ("etcdkv://a,b:2380/services", "/services/my_web/host:my_web:80"),
        ("etcd://a/services?layout=registrator", "/services/my_web/host:my_web:80"),
        ("skydns2://a/Cluster.local", f"/skydns/local/cluster/my-web/{LABEL}"),
        ("zookeeper://a,b/base?layout=registrator", "/base/my_web/10.0.0.1:8080"),
        ("zookeeperkv://a", "/my_web/10.0.0.1:8080"),
        ("etcd://a", LABEL),
        ("etcd://a/x?layout=meshkit", LABEL),
        ("zookeeper://a", LABEL),
        ("local://", LABEL),
    ],
)
async def test_where_a_record_is_kept(url: str, entry: str) -> None:
    async with find_backend(parse(url), Options())("host") as backend:
        assert backend.id_of(RECORD) == entry


@pytest.mark.parametrize(
    "url", ["consulkv://a/b", "etcdkv://a/b", "skydns2://a/b.c", "zookeeperkv://a/b"]
)
@pytest.mark.parametrize("status", Status)
async def test_keys_are_there_only_for_what_is_up(url: str, status: Status) -> None:

    async with find_backend(parse(url), Options())("host") as backend:
        state = backend.state_of(dataclasses.replace(RECORD, status=status))
        assert (state is not None) == (status is Status.UP)


@pytest.mark.parametrize(
    ("url", "message"),
    [
        ("etcd://a?layout=other", "layout=other is not known"),
        ("local://?layout=registrator", "layout=registrator is not known there"),
        ("skydns2://a", "name the domain, as in skydns2://HOST/cluster.local"),
        ("etcdkv://a/b c", "should be words"),
        ("etcdkv://a/b?tokn=x", "unknown parameter 'tokn'"),
        ("consulkv-unix:///run/consul.sock", "name the socket and the prefix"),
        ("dns://127.0.0.1/mesh.local", "can only be read"),
        ("static://users=127.0.0.1:80", "can only be read"),
    ],
)
def test_what_cannot_be_opened(url: str, message: str) -> None:
    with pytest.raises((RegistryUrlError, ConfigError), match=message):
        find_backend(parse(url), Options())
