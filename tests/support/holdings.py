"""What this process holds, to find what is never let go of."""

from __future__ import annotations

import asyncio
import collections
import gc
import resource
import threading
import time
from pathlib import Path

from meshkit.testing.registry_fixtures import open_files

PATIENCE = 60.0


def holdings() -> dict[str, int]:
    """Count files, tasks and threads."""
    gc.collect()
    return {
        "open files": open_files(),
        "tasks": len(asyncio.all_tasks()),
        "threads": threading.active_count(),
    }


async def fall_to(limits: dict[str, int], *, spare: int) -> None:
    """Wait until the process holds no more than it did, but for so many of each kind."""
    deadline, now = time.monotonic() + PATIENCE, holdings()
    while any(count > limits[what] + spare for what, count in now.items()):
        found = f"it had {limits} and now has {now}: {_tasks()}"
        assert time.monotonic() < deadline, found
        await asyncio.sleep(0.1)
        now = holdings()


def memory() -> float:
    """Return the resident memory in MiB."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * resource.getpagesize() / 2**20


def _tasks() -> dict[str, int]:
    """Count tasks by what they run."""
    coroutines = (task.get_coro() for task in asyncio.all_tasks())
    return dict(collections.Counter(getattr(each, "__qualname__", "?") for each in coroutines))
