"""The registry contract on ``local://``, with inotify and with nothing but the poll."""

import shutil
from pathlib import Path

import pytest

from meshkit.model import Instance
from meshkit.registry import Registry, open_registry
from meshkit.registry.local import LocalRegistry
from meshkit.testing.registry_contract import Opener, RegistryContract


class TestLocal(RegistryContract):
    @pytest.fixture
    def opener(self, tmp_path: Path) -> Opener:
        return lambda: open_registry(f"local://?dir={tmp_path}")

    async def forget(self, registrar: Registry, instance: Instance) -> None:
        assert isinstance(registrar, LocalRegistry)
        shutil.rmtree(registrar._path[-1])


class TestLocalWithoutInotify(TestLocal):
    calm = 1.2  # more than two polls

    @pytest.fixture
    def opener(self, tmp_path: Path) -> Opener:
        return lambda: LocalRegistry("local://", tmp_path, inotify=False)
