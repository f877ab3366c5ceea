"""Following what happens in Docker, across restarts of its engine."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Mapping
from typing import Any

from meshkit.backoff import Backoff
from meshkit.docker import Docker, DockerError
from meshkit.registrator.counters import Counters
from meshkit.registrator.fleet import Fleet

CONTAINER = (
    *("start", "kill", "stop", "die", "destroy", "pause", "unpause", "rename", "update"),
    "health_status",
)
NETWORK = ("connect", "disconnect")
FILTERS = {"type": ["container", "network"], "event": [*CONTAINER, *NETWORK]}
# Of what went before us only this much is of interest: a container that was told to stop then may
# still be on its way.
LOOK_BACK = 10
# What happens meanwhile is seen that much later; and the engine is of this machine, as a rule.
LONGEST_PAUSE = 1.0

log = logging.getLogger("meshkit.registrator")


class Follower:
    """Marks in the fleet what events speak of.

    Args:
        docker: whose events.
        fleet: where to mark.
        wake: called after each mark.
        counters: of the registrator.
    """

    def __init__(
        self, docker: Docker, fleet: Fleet, wake: Callable[[], None], counters: Counters
    ) -> None:
        self._docker = docker
        self._fleet = fleet
        self._wake = wake
        self._counters = counters
        self._since = str(int(time.time()) - LOOK_BACK)

    async def run(self) -> None:
        """Follow for ever. Whenever the stream has begun, everything is marked.

        So whatever happened while there was none is seen; and what it began with, which the list
        does not tell, such as a signal, Docker repeats as far as it remembers.
        """
        backoff, lost = Backoff(cap=LONGEST_PAUSE), False
        while True:
            try:
                async with self._docker.events(since=self._since, filters=FILTERS) as events:
                    if lost:
                        log.warning("Docker at %s is back", self._docker.host.address)
                    lost = False
                    self._fleet.mark_all()
                    self._wake()
                    async for event in events:
                        backoff.reset()
                        self._take(event)
            except DockerError as error:
                self._counters.docker_up = False
                self._counters.errors["docker"] += 1
                if not lost:
                    log.warning("%s; everything stays as it is until it is back", error)
                lost = True
            await asyncio.sleep(backoff.next())

    def _take(self, event: Mapping[str, Any]) -> None:
        actor = event.get("Actor") or {}
        attributes = actor.get("Attributes") or {}
        action = str(event.get("Action") or "").partition(":")[0]
        self._remember(event)
        if event.get("Type") == "network":
            container_id = str(attributes.get("container") or "")
        elif self._fleet.wants(attributes):  # a container's labels are among them
            container_id = str(actor.get("ID") or "")
        else:
            return
        if not container_id:
            return
        self._counters.events += 1
        if action == "kill":
            self._fleet.told(container_id, attributes.get("signal"))
        elif action in ("start", "die"):
            self._fleet.changed(container_id)
        else:
            self._fleet.mark(container_id)
        self._wake()

    def _remember(self, event: Mapping[str, Any]) -> None:
        """Have the next stream begin after this event."""
        at = event.get("timeNano")
        if isinstance(at, int):
            seconds, nanoseconds = divmod(at + 1, 10**9)
            self._since = f"{seconds}.{nanoseconds:09d}"
