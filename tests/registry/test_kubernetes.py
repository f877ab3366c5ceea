"""``kubernetes://`` on an API server of the test's own: what is found, and how changes are seen."""

from collections.abc import AsyncIterator

import kubernetes_validate
import pytest

from meshkit.errors import RegistryError, RegistryUnavailable
from meshkit.model import Endpoint, Instance, ServiceInfo, Snapshot, Status
from meshkit.registry import open_registry
from meshkit.registry.kubernetes import api as requests, following
from meshkit.testing.reading_contract import Opener, ReadOnlyContract
from meshkit.testing.unreachable_contract import UnreachableContract
from meshkit.testing.watched import Watched
from tests.registry.kubernetes_api import BOTH, KubernetesApi, endpoint, kubernetes_api, piece
from tests.servers.ports import free_ports
from tests.support.waiting import aeventually


@pytest.fixture
async def api() -> AsyncIterator[KubernetesApi]:
    async with kubernetes_api() as served:
        yield served


class TestRead(ReadOnlyContract):
    @pytest.fixture
    async def opener(self, api: KubernetesApi) -> Opener:
        return lambda: open_registry(api.url)


class TestUnreachable(UnreachableContract):
    @pytest.fixture
    def opener(self) -> Opener:
        (port,) = free_ports(1)
        return lambda: open_registry(f"kubernetes://127.0.0.1:{port}/shop?tls=false")


def ids(snapshot: Snapshot) -> dict[str, Status]:
    return {each.id: each.status for each in snapshot.instances}


async def under_way(watched: Watched[Snapshot], api: KubernetesApi, count: int = 1) -> None:
    """Wait until the API server has been asked for this many watches."""

    async def asked() -> bool:
        await watched.nothing(seconds=0.01)
        return api.watches() >= count

    await aeventually(asked, within=30)


async def one(api: KubernetesApi) -> Instance:
    (found,) = await several(api)
    return found


async def several(api: KubernetesApi) -> tuple[Instance, ...]:
    async with open_registry(api.url) as registry:
        return (await registry.instances("users")).instances


def test_the_simulated_slices_are_what_kubernetes_has() -> None:
    """By the schema of its API, in which nothing else may stand."""
    leaving = endpoint("users-1", ready=False, serving=None, terminating=True)
    for each in (piece("users", leaving, labels={"a": "b"}), piece("users", endpoint())):
        slice_ = {"apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice", **each}
        kubernetes_validate.validate(slice_, kubernetes_validate.latest_version(), strict=True)


# --- what a slice means --------------------------------------------------------------------------


async def test_a_ready_pod_is_an_instance(api: KubernetesApi) -> None:
    labels = {"app.kubernetes.io/version": "1.4.2"}
    await api.put(piece("users", endpoint("users-7d4b9-x2x4z"), labels=labels))
    await api.put(piece("orders", endpoint("orders-1")))
    assert await one(api) == Instance(
        id="users-7d4b9-x2x4z",
        service="users",
        version="1.4.2",
        metadata={"node": "node-1"},
        endpoints={"http": Endpoint("10.1.0.1", 8000), "grpc": Endpoint("10.1.0.1", 9000)},
        zone="zone-a",
    )


@pytest.mark.parametrize(
    ("conditions", "status"),
    [
        ({}, Status.UP),
        ({"ready": None, "serving": None, "terminating": None}, Status.UP),
        ({"ready": False, "serving": False}, Status.DOWN),
        ({"ready": False, "serving": True, "terminating": True}, Status.DRAINING),
        ({"ready": False, "serving": False, "terminating": True}, Status.DOWN),
        ({"ready": False, "serving": None, "terminating": True}, Status.DOWN),
        # publishNotReadyAddresses: ready whatever the probe says
        ({"ready": True, "serving": False}, Status.UP),
        ({"ready": True, "serving": True, "terminating": True}, Status.DRAINING),
    ],
)
async def test_conditions(
    api: KubernetesApi, conditions: dict[str, bool | None], status: Status
) -> None:
    await api.put(piece("users", endpoint("users-1", **conditions)))
    assert (await one(api)).status is status


@pytest.mark.parametrize(
    ("ports", "found"),
    [
        ([{"name": "", "port": 80}], {"http": 80}),
        ([{"name": None, "port": 80}], {"http": 80}),
        ([{"name": "http-w", "port": 1}, {"name": "grpc-a", "port": 2}], {"http": 1, "grpc": 2}),
        ([{"name": "web", "port": 80, "appProtocol": "http"}], {"http": 80}),
        ([{"name": "", "port": 90, "appProtocol": "grpc"}], {"grpc": 90}),
        ([{"name": "http", "port": 80}, {"name": "metrics", "port": 91}], {"http": 80}),
        ([{"name": "http", "port": 80, "protocol": "UDP"}], {}),
        ([{"name": "redis", "port": 6379}], {}),
        ([{"name": "http", "port": None}], {}),
        (None, {}),
    ],
)  # fmt: skip
async def test_ports(
    api: KubernetesApi, ports: list[dict[str, object]] | None, found: dict[str, int]
) -> None:
    await api.put({**piece("users", endpoint("users-1")), "ports": ports})
    expected = {name: Endpoint("10.1.0.1", port) for name, port in found.items()}
    assert (await one(api)).endpoints == expected


async def test_a_pod_of_two_address_families_is_one_instance(api: KubernetesApi) -> None:
    """And one that the controller moves from slice to slice; what is only in one counts too."""
    await api.put(
        piece("users", endpoint("users-1", "fd00::1"), name="users-aaaaa", addressType="IPv6"),
        piece("users", endpoint("users-1", "10.1.0.1"), name="users-bbbbb", ports=[("http", 8000)]),
        piece("users", endpoint("users-2", "fd00::2"), name="users-ccccc", addressType="IPv6"),
    )
    first, second = await several(api)
    assert first.endpoints == {
        "http": Endpoint("10.1.0.1", 8000),
        "grpc": Endpoint("fd00::1", 9000),
    }
    assert second.endpoints["http"] == Endpoint("fd00::2", 8000)


async def test_ids_are_labels_and_unique(api: KubernetesApi) -> None:
    long = "a-service-with-a-name-of-fifty-characters-or-so-7d4b9c6f5d-"
    pods = (f"{long}x2x4z", f"{long}y2y4y", "users.a", "users-a", "")
    endpoints = [endpoint(pod, f"10.1.0.{n}") for n, pod in enumerate(pods)]
    await api.put(piece("users", *endpoints))
    found = [each.id for each in await several(api)]
    assert len(set(found)) == len(pods)
    assert {"users-a"} < set(found)
    assert all(len(each) <= 63 and each.replace("-", "").isalnum() for each in found)
    assert any(each.startswith("users-10-1-0-4-8000") for each in found)


async def test_a_slice_may_be_empty(api: KubernetesApi) -> None:
    await api.put({**piece("users"), "endpoints": None})
    assert await several(api) == ()


async def test_services_with_their_counts(api: KubernetesApi) -> None:
    async with open_registry(api.url) as registry, Watched(registry.watch_services()) as watched:
        assert await watched.next() == ()
        await api.put(
            piece("users", endpoint("users-1"), endpoint("users-2"), name="users-aaaaa"),
            piece("users", endpoint("users-3"), name="users-bbbbb"),
            piece("orders", endpoint("orders-1", ready=False)),
            piece("nobody"),
        )
        expected = (ServiceInfo(name="orders", instances=1), ServiceInfo(name="users", instances=3))
        assert await watched.until(lambda found: len(found) == 2) == expected
        assert await registry.services() == expected


# --- changes -------------------------------------------------------------------------------------


async def test_a_watch_follows_a_rollout(api: KubernetesApi) -> None:
    await api.put(piece("users", endpoint("users-1")))
    async with open_registry(api.url) as registry, Watched(registry.watch("users")) as watched:
        assert ids(await watched.next()) == {"users-1": Status.UP}
        await api.put(piece("users", endpoint("users-1"), endpoint("users-2", ready=False)))
        assert ids(await watched.next())["users-2"] is Status.DOWN
        leaving = endpoint("users-1", ready=False, terminating=True)
        await api.put(piece("users", leaving, endpoint("users-2")))
        expected = {"users-1": Status.DRAINING, "users-2": Status.UP}
        found = await watched.until(lambda snapshot: ids(snapshot) == expected)
        assert found.revision == 3
        await api.put(piece("users", endpoint("users-3"), name="users-second"))
        assert set(ids(await watched.next())) == {"users-1", "users-2", "users-3"}
        await api.delete("users-abcde")
        assert set(ids(await watched.next())) == {"users-3"}
        await api.delete("users-second")
        assert (await watched.next()).instances == ()
    assert (api.lists(), api.watches()) == (1, 1)


async def test_only_a_change_of_its_own_is_told(api: KubernetesApi) -> None:
    same = piece("users", endpoint("users-1"))
    await api.put(same)
    async with open_registry(api.url) as registry, Watched(registry.watch("users")) as watched:
        await watched.next()
        await api.put(same, piece("orders", endpoint("orders-1")))
        await api.bookmark()
        await watched.nothing(seconds=0.3)


async def test_a_thousand_pods(api: KubernetesApi) -> None:
    """In slices of a hundred, as the controller cuts them; a whole rollout comes as few lists."""

    def slices(round_: int) -> list[dict[str, object]]:
        return [
            piece(
                "users",
                *(endpoint(f"users-{round_}-{n}-{m}", f"10.{n}.{m}.{round_}") for m in range(100)),
                name=f"users-{n}",
            )
            for n in range(10)
        ]  # fmt: skip

    await api.put(*slices(1))
    async with open_registry(api.url) as registry, Watched(registry.watch("users")) as watched:
        assert len((await watched.next()).up) == 1000
        await api.put(*slices(2))
        await watched.until(lambda found: all("users-2" in each.id for each in found.instances))
    assert api.lists() == 1


# --- the protocol --------------------------------------------------------------------------------


async def test_what_is_asked_for(api: KubernetesApi) -> None:
    await api.put(piece("users", endpoint("users-1")))
    async with open_registry(api.url) as registry, Watched(registry.watch("users")) as watched:
        await watched.next()
        await under_way(watched, api)
    (_, listed), (_, followed) = api.asked
    assert listed == {"labelSelector": "kubernetes.io/service-name=users"}
    assert 54 <= int(followed.pop("timeoutSeconds")) <= 66
    assert followed == {
        "labelSelector": "kubernetes.io/service-name=users",
        "watch": "true",
        "allowWatchBookmarks": "true",
        "resourceVersion": "101",
    }


async def test_the_next_watch_goes_on_from_the_last_bookmark(
    api: KubernetesApi, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(following, "WATCH", 1)
    monkeypatch.setattr(following, "JITTER", 0)
    await api.put(piece("users", endpoint("users-1")))
    async with open_registry(api.url) as registry, Watched(registry.watch("users")) as watched:
        await watched.next()
        await under_way(watched, api)
        await api.put(piece("orders", endpoint("orders-1")))
        await api.bookmark()
        await under_way(watched, api, 2)
        await api.forget()  # but for the bookmark, it would have to be listed again
        await under_way(watched, api, 3)
        await api.put(piece("users", endpoint("users-2")))
        assert set(ids(await watched.next())) == {"users-2"}
    assert api.lists() == 1
    assert [asked["resourceVersion"] for verb, asked in api.asked[1:4]] == ["101", "103", "103"]


@pytest.mark.parametrize("by_status", [False, True])
async def test_what_is_too_old_is_listed_again(
    api: KubernetesApi, monkeypatch: pytest.MonkeyPatch, *, by_status: bool
) -> None:
    """As of a quiet service in a busy cluster, which may hear of no newer version for long."""
    monkeypatch.setattr(following, "WATCH", 1)
    monkeypatch.setattr(following, "JITTER", 0)
    api.gone_by_status = by_status
    await api.put(piece("users", endpoint("users-1")))
    async with open_registry(api.url) as registry, Watched(registry.watch("users")) as watched:
        await watched.next()
        await under_way(watched, api, 2)
        await api.put(piece("orders", endpoint("orders-1")))
        await api.forget()

        async def listed_again() -> bool:
            await watched.nothing(seconds=0.01)
            return api.lists() == 2

        await aeventually(listed_again, within=30)
        await api.put(piece("users", endpoint("users-3")))
        assert set(ids(await watched.next())) == {"users-3"}


async def test_a_server_that_forgets_its_own_list_is_no_loop(api: KubernetesApi) -> None:
    await api.forget(more=100)
    async with open_registry(api.url) as registry, Watched(registry.watch("users")) as watched:
        await watched.next()
        with pytest.raises(RegistryUnavailable, match="has forgotten what happened"):
            await watched.next()
    assert (api.lists(), api.watches()) == (1, 1)


async def test_a_server_that_stops_in_order(api: KubernetesApi) -> None:
    """It ends its watches, as if their time were over; the next server may count otherwise."""
    async with open_registry(api.url) as registry, Watched(registry.watch("users")) as watched:
        await watched.next()
        api.ends_early = True
        await api.bookmark()
        with pytest.raises(RegistryUnavailable, match=r"ended a watch after \d s; is it stopping"):
            await watched.next()


async def test_a_server_that_crashes_and_comes_back(api: KubernetesApi) -> None:
    await api.put(piece("users", endpoint("users-1")))
    async with open_registry(api.url) as registry:
        async with Watched(registry.watch("users")) as watched:
            await watched.next()
            await under_way(watched, api)
            await api.stop()
            with pytest.raises(RegistryUnavailable, match="closed the connection"):
                await watched.next()
        with pytest.raises(RegistryUnavailable, match="can't be reached: Connection refused"):
            await registry.instances("users")
        await api.start()
        await api.put(piece("users", endpoint("users-2")))
        async with Watched(registry.watch("users")) as watched:
            assert set(ids(await watched.next())) == {"users-2"}


async def test_a_server_that_hangs_is_noticed(
    api: KubernetesApi, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(requests, "LIMIT", 0.5)
    api.hung.set()
    async with open_registry(api.url) as registry:
        with pytest.raises(RegistryUnavailable, match="did not answer within"):
            await registry.instances("users")


async def test_a_watch_that_does_not_end_is_noticed(
    api: KubernetesApi, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As over a connection that is dead: nothing comes, and not the end that was asked for."""
    monkeypatch.setattr(following, "WATCH", 1)
    monkeypatch.setattr(following, "JITTER", 0)
    monkeypatch.setattr(requests, "LIMIT", 4.0)
    api.endless = True
    async with open_registry(api.url) as registry:
        async with Watched(registry.watch("users"), patience=30) as watched:
            await watched.next()
            with pytest.raises(RegistryUnavailable, match="did not end a watch after 5 s"):
                await watched.next()


GARBAGE = {
    "nothing": b"",
    "no HTTP": b"\x15\x03\x01",
    "a page": b"HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\n<html>",
    "another list": b'HTTP/1.1 200 OK\r\nContent-Length: 30\r\n\r\n{"kind":"PodList","items":[]}  ',
    "a list": b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n[]",
    "not found": b"HTTP/1.1 404 Not Found\r\nContent-Length: 4\r\n\r\n404 ",
    "cut off": b"HTTP/1.1 200 OK\r\nContent-Length: 99\r\n\r\n{",
}


@pytest.mark.parametrize("answer", GARBAGE.values(), ids=GARBAGE.keys())
async def test_garbage_is_one_line_and_never_an_empty_list(
    api: KubernetesApi, answer: bytes
) -> None:
    api.twist = answer
    with pytest.raises(RegistryError, match=r"\A.*127\.0\.0\.1.*\Z"):
        await several(api)


@pytest.mark.parametrize(
    "change",
    [
        {"ports": [{"name": "http", "port": 80}], "endpoints": [{}]},
        {"endpoints": ["x"]},
        {"endpoints": [{"addresses": []}]},
        {"addressType": None, "endpoints": 3},
    ],
)
async def test_slices_that_are_none(api: KubernetesApi, change: dict[str, object]) -> None:
    await api.put({**piece("users", ports=BOTH), **change})
    with pytest.raises(RegistryError, match="is not the API server of Kubernetes"):
        await several(api)


async def test_garbage_in_a_watch(api: KubernetesApi) -> None:
    async with open_registry(api.url) as registry, Watched(registry.watch("users")) as watched:
        await watched.next()
        await api.put({**piece("users"), "endpoints": [{}]})
        with pytest.raises(RegistryError, match="is not the API server of Kubernetes"):
            await watched.next()


async def test_an_overloaded_server(api: KubernetesApi) -> None:
    body = b'{"kind":"Status","message":"Too many requests, please try again later.","code":429}'
    head = b"HTTP/1.1 429 Too Many Requests\r\nRetry-After: 1\r\nContent-Length: %d\r\n\r\n"
    api.twist = head % len(body) + body
    with pytest.raises(RegistryUnavailable, match=r"failed: Too many requests.* \(429\)"):
        await several(api)
