"""The key-value contract on ``memory://``."""

import secrets

import pytest

from meshkit.registry import open_registry
from meshkit.testing.keyvalue_contract import KeyValueContract, Opener


class TestMemoryKeyValue(KeyValueContract):
    @pytest.fixture
    def opener(self) -> Opener:
        url = f"memory://{secrets.token_hex(4)}"
        return lambda: open_registry(url)


async def test_names_do_not_meet() -> None:
    one, two = open_registry("memory://kv-one").kv, open_registry("memory://kv-two").kv
    await one.put("a", b"1")
    assert await two.list() == ()
    await one.delete("a")
