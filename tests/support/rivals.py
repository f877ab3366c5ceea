"""Two running services that were given one id."""

import dataclasses

from meshkit.model import Instance
from meshkit.registry import open_registry
from meshkit.runtime.registration import Registration
from meshkit.testing.registry_fixtures import has
from meshkit.testing.watched import Watched


async def rivals_do_not_fight(url: str) -> None:
    """The last one has it for as long as it lives, and the first one says why it has not."""
    instance = Instance(id="users-1", service="users")
    first, last = (
        Registration(lambda: open_registry(url), each, lag_limit=5.0)
        for each in (instance, dataclasses.replace(instance, weight=7))
    )
    async with (
        open_registry(url) as registry,
        Watched(registry.watch("users"), patience=20.0) as watched,
    ):
        try:
            first.start()
            await watched.until(has(first.instance))
            last.start()
            await watched.until(has(last.instance))
            await watched.nothing(seconds=10.0)
            assert "another process that lives" in first.state
            assert last.state == "registered"
            await last.stop()
            await watched.until(has(first.instance))
        finally:
            await last.stop()
            await first.stop()
        await watched.until(has())
