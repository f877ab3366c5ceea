"""What the demo shows while it runs: a live table on a terminal, plain lines elsewhere."""

from __future__ import annotations

import abc
import asyncio
import dataclasses
import time
from collections import deque
from types import TracebackType
from typing import TYPE_CHECKING, Self, TextIO

from census import Census
from processes import Child, Children
from traffic import Tally

if TYPE_CHECKING:
    from rich.console import RenderableType


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Scene:
    """All that there is to show."""

    children: Children
    census: Census
    tally: Tally

    def summary(self) -> str:
        """Return the calls so far in one line."""
        tally = self.tally
        return (
            f"{tally.issued:5} calls  {tally.failed} failed  {tally.retried} retried  "
            f"p50 {tally.percentile(50):.1f} ms  p99 {tally.percentile(99):.1f} ms"
        )

    def calls(self, child: Child) -> int:
        """Return how many right answers an instance had a part in."""
        return self.tally.by_instance[self.census.instance_id(child.label)]


class View(abc.ABC):
    """A way to show the scene."""

    interval = 1.0  # seconds between frames

    def __init__(self, output: TextIO) -> None:
        self.output = output
        self.started_at = time.monotonic()

    @property
    def elapsed(self) -> float:
        return time.monotonic() - self.started_at

    @abc.abstractmethod
    def event(self, text: str) -> None:
        """Tell what happened just now."""

    @abc.abstractmethod
    def frame(self, scene: Scene) -> None:
        """Show how things stand."""

    async def run(self, scene: Scene) -> None:
        """Show a frame now and then, until cancelled."""
        while True:
            self.frame(scene)
            await asyncio.sleep(self.interval)

    def __enter__(self) -> Self:
        return self

    def __exit__(  # noqa: B027 - a default
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Leave the terminal as it was."""


class LineView(View):
    """At most one line a second, and one for each event."""

    def event(self, text: str) -> None:
        print(f"{self.elapsed:5.1f} s  * {text}", file=self.output, flush=True)

    def frame(self, scene: Scene) -> None:
        if scene.tally.answered:
            up = ", ".join(sorted(scene.census.up))
            line = f"{self.elapsed:5.1f} s  {scene.summary()}  up: {up}"
            print(line, file=self.output, flush=True)


class LiveView(View):
    """A table that is redrawn in place, with the last events below it."""

    interval = 0.25

    def __init__(self, output: TextIO) -> None:
        from rich.console import Console  # noqa: PLC0415 - only a terminal needs it
        from rich.live import Live  # noqa: PLC0415

        super().__init__(output)
        self._events: deque[str] = deque(maxlen=8)
        self._live = Live(console=Console(file=output), auto_refresh=False)

    def event(self, text: str) -> None:
        self._events.append(f"{self.elapsed:5.1f} s  {text}")

    def frame(self, scene: Scene) -> None:
        self._live.update(self._draw(scene), refresh=True)

    async def run(self, scene: Scene) -> None:
        try:
            await super().run(scene)
        finally:
            self.frame(scene)  # what stays on the screen

    def _draw(self, scene: Scene) -> RenderableType:
        from rich.console import Group  # noqa: PLC0415
        from rich.table import Table  # noqa: PLC0415
        from rich.text import Text  # noqa: PLC0415

        table = Table("instance", "pid", "process", "registry", "HTTP", "gRPC", title="meshkit")
        table.add_column("answers", justify="right")
        for child in scene.children.all:
            instance = scene.census.instances.get(child.label)
            endpoints = instance.endpoints if instance else {}
            ports = {transport: str(endpoint.port) for transport, endpoint in endpoints.items()}
            table.add_row(
                child.label,
                str(child.process.pid),
                child.state,
                "up" if child.label in scene.census.up else "-",
                ports.get("http", "-"),
                ports.get("grpc", "-"),
                str(scene.calls(child)),
                style="" if child.alive else "dim",
            )
        return Group(table, Text(scene.summary()), *(Text(event) for event in self._events))

    def __enter__(self) -> Self:
        self._live.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._live.stop()


def open_view(output: TextIO) -> View:
    """Choose the view that fits where it is shown."""
    return LiveView(output) if output.isatty() else LineView(output)
