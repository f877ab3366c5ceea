"""A registry to follow, what is logged of it, and its failing."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from meshkit.registry import KeyValue, Registry, open_registry
from tests.config.following import Away, Said


@pytest.fixture
async def registry() -> AsyncIterator[Registry]:
    async with open_registry("local://") as registry:
        yield registry


@pytest.fixture
def kv(registry: Registry) -> KeyValue:
    return registry.kv


@pytest.fixture
def said(caplog: pytest.LogCaptureFixture) -> Said:
    return Said(caplog)


@pytest.fixture
def away(registry: Registry, tmp_path: Path) -> Away:
    return Away(tmp_path / "state" / "registry" / "default" / "_kv")
