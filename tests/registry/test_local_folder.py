"""What ``local://`` keeps on disk: where, for whom, and what it makes of anything else there."""

from __future__ import annotations

import json
import os
import shutil
import stat
from pathlib import Path

import pytest
from hypothesis import given, settings, strategies as st

from meshkit.errors import ConfigError, LeaseLost, RegistryUnavailable
from meshkit.model import Endpoint, Instance
from meshkit.registry import Registry, open_registry
from meshkit.registry.local.folder import parse
from meshkit.testing.watched import Watched

USER = Instance(id="users-1", service="users", endpoints={"http": Endpoint("127.0.0.1", 8000)})


@pytest.fixture
async def registry(tmp_path: Path) -> Registry:
    return open_registry(f"local://?dir={tmp_path}")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "default" / "users"


async def ids(registry: Registry, service: str = "users") -> list[str]:
    return [each.id for each in (await registry.instances(service)).instances]


def names(folder: Path) -> set[str]:
    return {each.name for each in folder.iterdir()}


async def test_default_place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MESHKIT_STATE_DIR", str(tmp_path / "state"))
    async with open_registry("local://") as registry:
        await registry.register(USER)
        folder = tmp_path / "state" / "registry" / "default" / "users"
        assert names(folder) == {"users-1.json", "users-1.lock"}
        written = json.loads((folder / "users-1.json").read_text())
        assert written == {**USER.to_dict(), "pid": os.getpid()}
        for each in (folder, *folder.parents[:3]):
            assert stat.S_IMODE(each.stat().st_mode) == 0o700
    assert names(folder) == set()


async def test_namespaces_and_folders_do_not_meet(tmp_path: Path) -> None:
    urls = [
        f"local://?dir={tmp_path}/one",
        f"local://other?dir={tmp_path}/one",
        f"local://?dir={tmp_path}/two",
    ]
    registries = [open_registry(url) for url in urls]
    for n, registry in enumerate(registries):
        await registry.register(Instance(id=f"i{n}", service="users"))
    assert [await ids(registry) for registry in registries] == [["i0"], ["i1"], ["i2"]]
    same = open_registry(f"local://default?dir={tmp_path}/one/")
    assert await ids(same) == ["i0"]
    for registry in registries:
        await registry.aclose()


async def test_relative_folder_stays_when_the_process_moves(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    registry = open_registry("local://?dir=here")
    monkeypatch.chdir("/")
    async with registry:
        await registry.register(USER)
        assert (tmp_path / "here" / "default" / "users" / "users-1.json").exists()


@pytest.mark.parametrize(
    ("url", "says"),
    [
        ("local://Bad_Name", "namespace 'Bad_Name'"),
        ("local:///tmp/x", r"\?dir=FOLDER"),
        ("local://me@here", r"\?dir=FOLDER"),
        ("local://?folder=x", "unknown parameter 'folder'; known: dir"),
        ("local://?dir=~nobody-of-this-name/x", "home directory"),
        ("local://?dir=a%00b", "null character"),
    ],
)
def test_bad_urls(url: str, says: str) -> None:
    with pytest.raises(ConfigError, match=says) as caught:
        open_registry(url)
    assert "\n" not in str(caught.value)


async def test_bad_names_never_become_paths(registry: Registry, tmp_path: Path) -> None:
    for service in ("../users", "Users", "", "a/b"):
        with pytest.raises(ConfigError, match="invalid service name"):
            await registry.instances(service)
    for instance_id in ("../../x", "", "A"):
        with pytest.raises(ConfigError, match="invalid instance id"):
            await registry.register(Instance(id=instance_id, service="users"))
        await registry.deregister(instance_id)
    assert names(tmp_path) == {"default"}


def test_unwritable_state_folder(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MESHKIT_STATE_DIR", "/proc/meshkit")
    with pytest.raises(ConfigError, match="MESHKIT_STATE_DIR") as caught:
        open_registry("local://")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("whose", ["top", "namespace", "service"])
async def test_folder_of_somebody_else_is_refused(tmp_path: Path, whose: str) -> None:
    path = {"top": ".", "namespace": "default", "service": "default/users"}[whose]
    registry = open_registry(f"local://?dir={tmp_path}/mine")
    folder = tmp_path / "mine" / path
    folder.mkdir(mode=0o700, exist_ok=True)
    if os.getuid() == 0:
        os.chown(folder, 12345, 12345)
    else:  # what somebody else owns, under a name of ours
        shutil.rmtree(folder)
        folder.symlink_to("/usr")
    for operation in (registry.instances("users"), registry.register(USER)):
        with pytest.raises(RegistryUnavailable, match="not a folder of this user"):
            await operation
    if whose != "service":
        with pytest.raises(ConfigError, match="not a folder of this user"):
            open_registry(f"local://?dir={tmp_path}/mine")


@pytest.mark.parametrize("mode", [0o777, 0o770, 0o702])
async def test_folder_that_others_may_write_is_refused(tmp_path: Path, mode: int) -> None:
    url = f"local://?dir={tmp_path}/mine"
    registry = open_registry(url)
    (tmp_path / "mine").chmod(mode)
    with pytest.raises(ConfigError, match="others may write to it"):
        open_registry(url)
    with pytest.raises(RegistryUnavailable, match="others may write to it"):
        await registry.register(USER)
    (tmp_path / "mine").chmod(0o755)
    async with open_registry(url) as registry:
        await registry.register(USER)


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"{",
        b"\xff\xfe",
        b"[]",
        b"null",
        b"{}",
        b"[" * 100_000,
        json.dumps(USER.to_dict() | {"endpoints": ["http"]}).encode(),
        json.dumps(USER.to_dict() | {"endpoints": {"http": 5}}).encode(),
        json.dumps(USER.to_dict() | {"endpoints": {"http": "nowhere"}}).encode(),
        json.dumps(USER.to_dict() | {"status": "asleep"}).encode(),
        json.dumps(USER.to_dict() | {"weight": float("inf")}).encode(),
        json.dumps(USER.to_dict() | {"tags": [{}]}).encode(),
        json.dumps(USER.to_dict() | {"metadata": {"a": 1}}).encode(),
        json.dumps(USER.to_dict() | {"id": "users-2"}).encode(),
        json.dumps(USER.to_dict() | {"service": "orders"}).encode(),
    ],
    ids=range(16),
)
async def test_unreadable_content_is_skipped(
    registry: Registry, folder: Path, content: bytes
) -> None:
    lease = await registry.register(USER)
    other = Instance(id="users-9", service="users")
    await registry.register(other)
    async with Watched(registry.watch("users")) as watched:
        assert (await watched.next()).instances == (USER, other)
        (folder / "users-1.json").write_bytes(content)
        assert (await watched.next()).instances == (other,)
        assert (await registry.services())[0].instances == 1
        with pytest.raises(LeaseLost):
            await registry.renew(lease)
        await registry.register(USER)
        assert (await watched.next()).instances == (USER, other)
    await registry.aclose()


@given(
    st.recursive(
        st.none() | st.booleans() | st.floats() | st.integers() | st.text(max_size=5),
        lambda each: (
            st.lists(each, max_size=3)
            | st.dictionaries(st.sampled_from(sorted(USER.to_dict())), each, max_size=3)
        ),
        max_leaves=10,
    ),
    st.binary(max_size=20),
)
@settings(deadline=None, max_examples=100, database=None)
def test_no_content_is_fatal(value: object, noise: bytes) -> None:
    parse(noise)
    parse(json.dumps(value).encode())
    if isinstance(value, dict):
        parse(json.dumps(USER.to_dict() | value).encode())


async def test_foreign_files_are_left_alone(registry: Registry, folder: Path) -> None:
    await registry.register(USER)
    foreign = {"README", "Big.json", "notes.txt", ".hidden.json", "link.json", "pipe.json"}
    for name in ("README", "Big.json", "notes.txt", ".hidden.json"):
        (folder / name).write_text("mine")
    (folder / "link.json").symlink_to("/etc/hostname")
    (folder / "loop.lock").symlink_to("loop.lock")
    (folder / "loop.json").write_text("{}")
    (folder / "folder.json").mkdir()
    os.mkfifo(folder / "pipe.json")
    assert await ids(registry) == ["users-1"]
    assert foreign | {"loop.lock", "loop.json", "folder.json"} <= names(folder)
    (folder.parent / "README").write_text("mine")
    (folder.parent / "Not-A-Service").mkdir()
    (service,) = await registry.services()
    assert (service.name, service.instances) == ("users", 1)
    await registry.aclose()


async def test_what_the_dead_left_is_swept(registry: Registry, folder: Path) -> None:
    await registry.register(USER)
    left = ["a.json", "b.lock", "c.tmp", "d.json", "d.lock", "d.tmp"]
    for name in left:
        (folder / name).write_text(json.dumps(USER.to_dict() | {"id": name[0]}))
    assert await ids(registry) == ["users-1"]
    assert names(folder) == {"users-1.json", "users-1.lock"}
    await registry.aclose()


async def test_temporary_file_of_the_living_stays(registry: Registry, folder: Path) -> None:
    await registry.register(USER)
    (folder / "users-1.tmp").write_text("{")
    assert await ids(registry) == ["users-1"]
    assert "users-1.tmp" in names(folder)
    await registry.deregister("users-1")
    assert names(folder) == set()
