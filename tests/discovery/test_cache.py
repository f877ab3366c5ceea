"""The last good list on disk: private, whole, stale when read, and never a reason to fail."""

import json
import logging
import stat
from pathlib import Path

import pytest

from meshkit.discovery.cache import SnapshotCache
from meshkit.model import Snapshot, Status
from tests.discovery.values import SERVICE, instance, snapshot

URL = "consul://127.0.0.1:8500"


@pytest.fixture
def cache() -> SnapshotCache:
    made = SnapshotCache.of(URL)
    assert made is not None
    return made


def file_of(state: Path) -> Path:
    (found,) = state.rglob("users.json")
    return found


@pytest.fixture
def state(tmp_path: Path) -> Path:
    return tmp_path / "state"


def test_a_list_comes_back_marked_stale(cache: SnapshotCache) -> None:
    instances = (instance(1, transports=("http", "grpc")), instance(2, status=Status.DOWN))
    saved = Snapshot(service=SERVICE, instances=instances, revision=9, read_at=1_700_000_000.5)
    cache.save(saved)
    loaded = cache.load(SERVICE)
    assert loaded == Snapshot(
        service=SERVICE, instances=instances, stale=True, read_at=1_700_000_000.5
    )
    again = SnapshotCache.of(URL)
    assert again is not None
    assert again.load(SERVICE) == loaded


def test_an_empty_list_is_a_list_and_no_list_is_none(cache: SnapshotCache) -> None:
    assert cache.load(SERVICE) is None
    cache.save(snapshot())
    loaded = cache.load(SERVICE)
    assert loaded is not None
    assert loaded.instances == ()


def test_registries_do_not_share_their_lists(cache: SnapshotCache) -> None:
    cache.save(snapshot(1))
    other = SnapshotCache.of("consul://127.0.0.1:8501")
    assert other is not None
    assert other.load(SERVICE) is None


def test_only_the_owner_can_read_it(cache: SnapshotCache, state: Path) -> None:
    cache.save(snapshot(1))
    for path in (file_of(state), file_of(state).parent, state):
        assert stat.S_IMODE(path.stat().st_mode) & 0o077 == 0, path


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\xff\xfe",
        b"null",
        b"[]",
        b'{"instances": []}',
        b'{"instances": [{"id": "a"}], "read_at": 1}',
        b'{"instances": [null], "read_at": 1}',
        b'{"instances": null, "read_at": 1}',
        b'{"instances": [], "read_at": "yesterday"}',
    ],
)
def test_a_damaged_file_is_no_list(cache: SnapshotCache, state: Path, content: bytes) -> None:
    cache.save(snapshot(1))
    file_of(state).write_bytes(content)
    assert cache.load(SERVICE) is None


def test_odd_endpoints_are_no_list_either(cache: SnapshotCache, state: Path) -> None:
    cache.save(snapshot(1))
    data = json.loads(file_of(state).read_bytes())
    data["instances"][0]["endpoints"] = ["127.0.0.1:8000"]
    file_of(state).write_text(json.dumps(data))
    assert cache.load(SERVICE) is None


def test_saving_replaces_the_file_in_one_step(cache: SnapshotCache, state: Path) -> None:
    cache.save(snapshot(1))
    path = file_of(state)
    with path.open("rb") as before:
        cache.save(snapshot(1, 2))
        assert len(json.load(before)["instances"]) == 1  # who read it then still reads it whole
    assert len(json.loads(path.read_bytes())["instances"]) == 2
    assert [each.name for each in path.parent.iterdir()] == ["users.json"]


def test_a_folder_that_went_away_costs_one_line_until_it_works_again(
    cache: SnapshotCache, state: Path, caplog: pytest.LogCaptureFixture
) -> None:
    cache.save(snapshot(1))
    folder, elsewhere = file_of(state).parent, state / "elsewhere"
    with caplog.at_level(logging.INFO, "meshkit"):
        for _ in range(2):
            folder.rename(elsewhere)
            cache.save(snapshot(2))
            cache.save(snapshot(3))
            elsewhere.rename(folder)
            cache.save(snapshot(4))
    lines = [each.getMessage() for each in caplog.records]
    assert len(lines) == 2
    assert lines[0].startswith("the list of users is not kept on disk: ")


def test_without_a_state_folder_there_is_no_cache_and_one_line(
    state: Path, caplog: pytest.LogCaptureFixture
) -> None:
    state.touch()
    with caplog.at_level(logging.WARNING, "meshkit"):
        assert SnapshotCache.of(URL) is None
    (record,) = caplog.records
    assert record.getMessage().startswith("lists are not kept on disk: state folder ")
