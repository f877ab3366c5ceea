"""Where the server programs are, and what a test does when one can't be had."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest

CACHE = Path(__file__).parents[2] / ".cache" / "servers"
REQUIRE = "TEST_REQUIRE_SERVERS"


def find_program(name: str) -> Path | None:
    """Return the program: the one in TEST_<NAME>, on PATH, or fetched by our script."""
    if explicit := os.environ.get(f"TEST_{name.upper()}") or shutil.which(name):
        return Path(explicit)
    fetched = Path(os.environ.get("TEST_SERVERS", CACHE)) / name
    return fetched if fetched.is_file() else None


def how_to_get(name: str) -> str:
    """Say what to do when there is none."""
    return f"no {name} here: run scripts/fetch-servers {name}, or name one by TEST_{name.upper()}"


def require_program(name: str) -> Path:
    """Return the program; without one the test is skipped, or fails if servers are required."""
    program = find_program(name)
    if program is not None:
        return program
    if os.environ.get(REQUIRE) == "1":
        pytest.fail(how_to_get(name), pytrace=False)
    pytest.skip(how_to_get(name))
