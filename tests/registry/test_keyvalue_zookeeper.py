"""The key-value store of ``zookeeper://``: the contract, and nodes that others left there."""

import logging
from collections.abc import Iterator
from typing import Any

import pytest

from meshkit.registry import open_registry
from meshkit.registry.kv import ABSENT
from meshkit.registry.zookeeper.session import Session
from meshkit.testing.keyvalue_contract import KeyValueContract, Opener
from meshkit.testing.keyvalue_fixtures import keys, values, written
from meshkit.testing.watched import Watched
from tests.registry.zookeeper_tree import fresh, path_of, tree
from tests.servers import ZooKeeper

pytestmark = pytest.mark.zookeeper


@pytest.fixture(scope="module")
def url(zookeeper: ZooKeeper) -> str:
    return fresh(zookeeper)


@pytest.fixture(scope="module")
def outsider(zookeeper: ZooKeeper) -> Iterator[Any]:
    with tree(zookeeper) as client:
        yield client


class TestZooKeeperKeyValue(KeyValueContract):
    @pytest.fixture
    def opener(self, url: str) -> Opener:
        return lambda: open_registry(url)


async def test_what_others_write_by_hand(url: str, outsider: Any) -> None:
    kv_path = f"{path_of(url)}/kv"
    async with open_registry(url) as registry, Watched(registry.kv.watch("hand/")) as watched:
        assert await watched.next() == ()
        outsider.create(f"{kv_path}/hand%2Fa", b"1", makepath=True)
        (entry,) = await watched.until(lambda entries: keys(entries) == ["hand/a"])
        assert (entry.text, await registry.kv.get("hand/a")) == ("1", entry)
        outsider.set(f"{kv_path}/hand%2Fa", b"2")
        (changed,) = await watched.until(lambda entries: entries[0].text == "2")
        assert await registry.kv.put("hand/a", b"3", expect=entry.revision) is None
        assert await registry.kv.put("hand/a", b"3", expect=changed.revision)


async def test_a_node_without_data_is_empty(url: str, outsider: Any) -> None:
    async with open_registry(url) as registry:
        await registry.kv.put("some", b"1")
        outsider.create(f"{path_of(url)}/kv/none")
        outsider.set(f"{path_of(url)}/kv/none", None)
        assert written(await registry.kv.get("none")).value == b""
        assert b"" in [entry.value for entry in await registry.kv.list("none")]


async def test_nodes_that_are_no_keys_are_named_once(
    url: str, outsider: Any, caplog: pytest.LogCaptureFixture
) -> None:
    kv_path = f"{path_of(url)}/kv"
    async with open_registry(url) as registry:
        entry = await registry.kv.put("good", b"1")
        for name in ("no key", "%2Fbad", "good%2f"):
            outsider.create(f"{kv_path}/{name}", b"?")
        with caplog.at_level(logging.WARNING):
            for _ in range(3):
                assert entry in await registry.kv.list()
        lines = [record.getMessage() for record in caplog.records]
        assert sorted(lines) == [
            f"{kv_path}/{name} in ZooKeeper is no key and left out"
            for name in ("%2Fbad", "good%2f", "no key")
        ]


async def test_a_folder_that_others_removed_is_made_again(url: str, outsider: Any) -> None:
    root = f"{path_of(url)}-removed"
    async with (
        open_registry(f"{url}-removed") as registry,
        Watched(registry.kv.watch()) as watched,
    ):
        assert await watched.next() == ()
        for value in (b"1", b"2", b"3"):
            await registry.kv.put("a", value)
            await watched.until(values(value))
            outsider.delete(root, recursive=True)
            await watched.until(lambda entries: not entries)
            assert await registry.kv.get("a") is None
            assert not await registry.kv.delete("a")
        assert written(await registry.kv.put("a", b"4", expect=ABSENT)).text == "4"


async def test_a_node_made_anew_between_read_and_write_is_noticed(
    url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its version is that of the old one again; only the folder's tells them apart."""
    async with open_registry(url) as registry, open_registry(url) as other:
        commit, interfered = Session.commit, 0

        async def commit_late(session: Session, *change: Any) -> Any:
            nonlocal interfered
            if session.id == ours and interfered < 2:
                interfered += 1
                await other.kv.delete("aba")
                await other.kv.put("aba", b"theirs")
            return await commit(session, *change)

        first = written(await registry.kv.put("aba", b"old"))
        async with registry.kv._sessions.within() as session:  # type: ignore[attr-defined]
            ours = session.id
        monkeypatch.setattr(Session, "commit", commit_late)
        assert await registry.kv.put("aba", b"mine", expect=first.revision) is None
        second = written(await registry.kv.get("aba"))
        assert not await registry.kv.delete("aba", expect=second.revision)
        assert interfered == 2
        assert written(await other.kv.get("aba")).text == "theirs"
