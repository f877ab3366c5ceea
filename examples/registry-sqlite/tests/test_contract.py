"""The promises that meshkit relies on: all of them, against a file."""

import sqlite3
from pathlib import Path

import pytest
from meshkit.model import Instance
from meshkit.registry import Registry, open_registry
from meshkit.testing.registry_contract import Opener, RegistryContract
from meshkit.testing.unreachable_contract import UnreachableContract


class TestSqlite(RegistryContract):
    @pytest.fixture
    def opener(self, file: Path) -> Opener:
        self.file = file
        return lambda: open_registry(f"sqlite://{file}")

    async def forget(self, registrar: Registry, instance: Instance) -> None:
        # Behind the registrar's back, as a file that was restored from an old copy would.
        with sqlite3.connect(self.file) as connection:
            connection.execute("DELETE FROM instances WHERE id = ?", (instance.id,))
        connection.close()


class TestSqliteIsAway(UnreachableContract):
    @pytest.fixture
    def opener(self, file: Path) -> Opener:
        return lambda: open_registry(f"sqlite://{file.parent}/nowhere/{file.name}")
