"""What the load generator says of its calls."""

from __future__ import annotations

import asyncio
import json
from typing import Any

from compose import Compose, DemoError, end


class Followed:
    """The last tally of the container ``load``.

    Attributes:
        tally: as examples/docker/load.py prints it; empty before its first line.
    """

    def __init__(self) -> None:
        self.tally: dict[str, Any] = {}
        self._last = ""
        self._first = asyncio.Event()
        self._ended = asyncio.Event()

    async def run(self, compose: Compose) -> None:
        """Follow it, to its end. Raises DemoError when it ended by itself."""
        container = (await compose.containers("load", running=False))[0]
        process = await compose.follow(container)
        assert process.stdout is not None
        try:
            async for line in process.stdout:
                self._read(line.decode(errors="replace").strip())
        finally:
            await end(process)
        if self.tally.get("event") != "end":
            raise DemoError(f"the load generator ended by itself; its last line: {self._last}")

    async def first(self, limit: float) -> None:
        """Wait for the first call that succeeds."""
        try:
            async with asyncio.timeout(limit):
                await self._first.wait()
        except TimeoutError:
            problem = self.tally.get("problem", "it said nothing")
            raise DemoError(f"no call succeeded in {limit:.0f} s; the last: {problem}") from None

    async def end(self, limit: float) -> None:
        """Wait for the last line."""
        try:
            async with asyncio.timeout(limit):
                await self._ended.wait()
        except TimeoutError:
            raise DemoError(f"the load generator did not end in {limit:.0f} s") from None

    def _read(self, line: str) -> None:
        self._last = line or self._last
        try:
            self.tally = json.loads(line)
        except ValueError:  # a line of meshkit's log
            return
        if self.tally["event"] != "waiting":
            self._first.set()
        if self.tally["event"] == "end":
            self._ended.set()
