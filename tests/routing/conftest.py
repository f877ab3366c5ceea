"""A registry of the test's own, and what is logged."""

from __future__ import annotations

import uuid
from collections.abc import AsyncIterator

import pytest

from meshkit.registry import Registry, open_registry
from tests.routing.fleet import Said


@pytest.fixture
async def registry() -> AsyncIterator[Registry]:
    async with open_registry(f"memory://{uuid.uuid4()}") as registry:
        yield registry


@pytest.fixture
def said(caplog: pytest.LogCaptureFixture) -> Said:
    return Said(caplog)
