"""The registry contract on ``memory://``."""

import secrets

import pytest

from meshkit.model import Instance
from meshkit.registry import Registry, open_registry
from meshkit.registry.memory import MemoryRegistry
from meshkit.testing.registry_contract import Opener, RegistryContract


class TestMemory(RegistryContract):
    @pytest.fixture
    def opener(self) -> Opener:
        url = f"memory://{secrets.token_hex(4)}"
        return lambda: open_registry(url)

    async def forget(self, registrar: Registry, instance: Instance) -> None:
        assert isinstance(registrar, MemoryRegistry)
        registrar._store.clear()


async def test_names_do_not_meet() -> None:
    instance = Instance(id="users-a", service="users")
    one, two = open_registry("memory://one"), open_registry("memory://two")
    await one.register(instance)
    assert (await two.instances("users")).instances == ()
    assert (await one.instances("users")).instances == (instance,)
    await one.deregister(instance.id)
