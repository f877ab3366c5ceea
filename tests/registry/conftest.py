"""Processes that own instances of ``local://``."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.registry.processes import Nursery


@pytest.fixture
def nursery(tmp_path: Path) -> Iterator[Nursery]:
    """A nursery on ``local://?dir=tmp_path``."""
    nursery = Nursery(f"local://?dir={tmp_path}")
    try:
        yield nursery
    finally:
        nursery.close()
