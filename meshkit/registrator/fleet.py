"""What the containers of one Docker engine offer, read anew where something has happened."""

from __future__ import annotations

import asyncio
import dataclasses
import functools
import logging
import signal
import time
from collections.abc import Callable, Mapping
from typing import Any

from meshkit.docker import Docker, DockerDenied, DockerError, DockerNotFound, DockerUnavailable
from meshkit.model import Status
from meshkit.registrator.containers import records
from meshkit.registrator.counters import Counters
from meshkit.registrator.options import Host, Options
from meshkit.registrator.record import Record
from meshkit.registrator.swarm import service_id_of
from meshkit.registrator.template import Template

Inspect = Mapping[str, Any]

AT_ONCE = 32
PATIENCE = 0.5
# How long a container that was told to stop, and goes on, is taken for one that is leaving.
LEAVING = 300.0
STOPS = frozenset({signal.SIGTERM, signal.SIGINT, signal.SIGKILL})
# An exit code above stands for a signal; https://tldp.org/LDP/abs/html/exitcodes.html
SIGNALED = 128
SHARED = "container:"

log = logging.getLogger("meshkit.registrator")


@dataclasses.dataclass(slots=True)
class Known:
    """What we know of a container.

    Attributes:
        records: what it offers.
        peer: id of the container whose network it shares, or empty.
        kept: its entries are to stay: it has ended with an error, or can't be read.
        warnings: what was wrong with its labels when it was last read.
    """

    records: tuple[Record, ...] = ()
    peer: str = ""
    kept: bool = False
    warnings: frozenset[str] = frozenset()


class Fleet:
    """See the module. Whoever hears of an event marks; ``refresh`` reads what is marked.

    Docker answers for a container only when it has done with it, as with starting it, which may
    take seconds. The others do not wait for that.

    Args:
        docker: the engine.
        options: which containers count, and how they are read.
        host: the engine's machine.
        counters: filled as things happen.
        wake: called when a container is read that ``refresh`` has not waited for.
    """

    def __init__(
        self,
        docker: Docker,
        options: Options,
        host: Host,
        counters: Counters,
        wake: Callable[[], None],
    ) -> None:
        self._docker = docker
        self._options = options
        self._host = host
        self._counters = counters
        self._known: dict[str, Known] = {}
        self._wake = wake
        self._marked: set[str] = set()
        self._reading: dict[str, asyncio.Task[None]] = {}
        self._late: set[str] = set()
        self._failed: DockerError | None = None
        self._slots = asyncio.Semaphore(AT_ONCE)
        self._list = True
        self._unread: set[str] | None = None  # of the first list
        self._fetches = Template.of(options.tags).fetches
        self._leaving: dict[str, tuple[int, float]] = {}  # signal, and when it was sent
        self._services: dict[str, Inspect] = {}

    @property
    def complete(self) -> bool:
        """Whether each container of the first list was read, or is left as it is."""
        return self._unread is not None and not self._unread

    @property
    def records(self) -> tuple[Record, ...]:
        """What all containers offer."""
        return tuple(record for known in self._known.values() for record in known.records)

    @property
    def kept(self) -> frozenset[str]:
        """Containers, by the first 12 digits of their ids, whose entries stay as they are.

        Those that ended with an error, and those that could not be read, or not yet. What they
        offered we know only if we have seen them running.
        """
        kept = {container_id for container_id, known in self._known.items() if known.kept}
        return frozenset(container_id[:12] for container_id in kept | (self._unread or set()))

    def mark(self, container_id: str) -> None:
        """Hear that something has happened to this container."""
        self._marked.add(container_id)
        self._marked |= {
            other for other, known in self._known.items() if known.peer == container_id
        }

    def mark_all(self) -> None:
        """Hear that anything may have happened."""
        self._list = True

    def told(self, container_id: str, signal: object) -> None:
        """Hear that the container was sent a signal, a number or a name."""
        self._leaving[container_id] = signal_number(signal), time.monotonic()
        self.mark(container_id)

    def changed(self, container_id: str) -> None:
        """Hear that the container was started, or has ended."""
        self._leaving.pop(container_id, None)
        self.mark(container_id)

    async def refresh(self, *, patience: float | None = PATIENCE) -> None:
        """Read what is marked.

        Args:
            patience: seconds after which what Docker has not answered yet is left to be read in
                its own time; None to wait for all.

        Raises DockerError; what could not be read stays marked.
        """
        try:
            if self._list:
                await self._read_list()
            await self._read(patience)
        except DockerError:
            self._counters.docker_up = False
            self._counters.errors["docker"] += 1
            raise
        self._counters.docker_up = True
        self._counters.containers = sum(not each.kept for each in self._known.values())
        self._counters.records = len(self.records)

    async def _read_list(self) -> None:
        self._list = False
        try:
            # Who keeps the entries of those that ended has to know which ones there are.
            ended = self._options.deregister == "on-success"
            label = self._options.only_label
            found = await self._docker.containers(
                all=ended, filters={"label": [label]} if label else None
            )
        except BaseException:
            self._list = True
            raise
        listed = {each["Id"] for each in found}
        for gone in self._known.keys() - listed:
            self._forget(gone)
        # What is being read may be older than the list.
        self._marked |= listed | self._reading.keys()
        self._services.clear()
        if self._unread is None:
            self._unread = set(listed)
        self._unread &= listed

    async def _read(self, patience: float | None) -> None:
        # One that is being read stays marked: it has changed since, and is read again afterwards.
        for container_id in self._marked - self._reading.keys():
            self._marked.discard(container_id)
            task = asyncio.create_task(self._read_one(container_id))
            self._reading[container_id] = task
            task.add_done_callback(functools.partial(self._on_read, container_id))
        if self._reading:
            await asyncio.wait(self._reading.values(), timeout=patience)
            await asyncio.sleep(0)  # callbacks of those that are done
        self._late = set(self._reading)
        failed, self._failed = self._failed, None
        if failed is not None:
            self._list = True
            raise failed

    def _on_read(self, container_id: str, task: asyncio.Task[None]) -> None:
        del self._reading[container_id]
        if task.cancelled():
            return
        news = container_id in self._late or container_id in self._marked
        self._late.discard(container_id)
        error = task.exception()
        if error is not None:
            assert isinstance(error, DockerError)
            news = news and container_id not in self._marked  # tried again after a pause
            self._marked.add(container_id)
            self._failed = error
        elif self._unread is not None:
            self._unread.discard(container_id)
        if news:
            self._wake()

    async def _read_one(self, container_id: str) -> None:
        known = self._known.get(container_id) or Known()
        try:
            async with self._slots:
                found = await self._docker.inspect(container_id)
            if self._is_kept(found):
                down = (dataclasses.replace(each, status=Status.DOWN) for each in known.records)
                self._known[container_id] = Known(records=tuple(down), kept=True)
            elif not found["State"]["Running"] or not self.wants(found["Config"]["Labels"] or {}):
                self._forget(container_id)
            else:
                self._known[container_id] = await self._read_running(found, known)
        except DockerNotFound:
            self._forget(container_id)
        except (DockerUnavailable, DockerDenied):
            raise
        except Exception as error:  # noqa: BLE001 - it is said, and the others are read
            self._leave(container_id, known, error)

    def _leave(self, container_id: str, known: Known, error: Exception) -> None:
        """Leave one as it is that is beyond Docker, or us: it must not hold up the others."""
        self._known[container_id] = dataclasses.replace(known, kept=True)
        by_docker = isinstance(error, DockerError)
        self._counters.errors["docker"] += by_docker
        if not known.kept:
            log.warning(
                "container %s is left as it is: %s",
                container_id[:12],
                error if by_docker else "a fault of ours",
                exc_info=None if by_docker else error,
            )

    async def _read_running(self, found: Inspect, known: Known) -> Known:
        peer = await self._peer_of(found)
        warnings: set[str] = set()
        read = functools.partial(
            records,
            found,
            self._options,
            host=self._host,
            peer=peer,
            service=await self._service_of(found),
            warn=warnings.add,
        )
        # A template that asks somebody must not keep the loop from what it has to renew.
        offered = await asyncio.to_thread(read) if self._fetches else read()
        name = str(found["Name"]).lstrip("/")
        for warning in sorted(warnings - known.warnings):
            self._counters.errors["label"] += 1
            log.warning("container %s: %s", name, warning)
        if self._is_leaving(found):
            offered = tuple(
                dataclasses.replace(record, status=Status.DRAINING) for record in offered
            )
        return Known(
            records=offered,
            peer=peer["Id"] if peer is not None else "",
            warnings=frozenset(warnings),
        )

    async def _peer_of(self, found: Inspect) -> Inspect | None:
        mode = str((found.get("HostConfig") or {}).get("NetworkMode") or "")
        if not mode.startswith(SHARED):
            return None
        try:
            return await self._docker.inspect(mode.removeprefix(SHARED))
        except DockerNotFound:
            return None

    async def _service_of(self, found: Inspect) -> Inspect | None:
        service_id = service_id_of(found)
        if not service_id:
            return None
        if service_id not in self._services:
            self._services = {each["ID"]: each for each in await self._docker.services()}
        return self._services.get(service_id)

    def wants(self, labels: Mapping[str, str]) -> bool:
        """Whether a container with these labels is to be registered at all."""
        name, equals, value = self._options.only_label.partition("=")
        return not name or (labels.get(name) == value if equals else name in labels)

    def _is_kept(self, found: Inspect) -> bool:
        state = found["State"]
        return (
            self._options.deregister == "on-success"
            and self.wants(found["Config"]["Labels"] or {})
            and not state["Running"]
            and state["Status"] in ("exited", "dead")
            and int(state["ExitCode"]) > 0
            and not int(state["ExitCode"]) & SIGNALED
        )

    def _is_leaving(self, found: Inspect) -> bool:
        number, since = self._leaving.get(found["Id"], (0, 0.0))
        if not number or time.monotonic() - since > LEAVING:
            return False
        configured = (found.get("Config") or {}).get("StopSignal")
        return number in STOPS or number == signal_number(configured)

    def _forget(self, container_id: str) -> None:
        self._known.pop(container_id, None)
        self._leaving.pop(container_id, None)


def signal_number(text: object) -> int:
    """Return the number of a signal that Docker writes as one, or as a name; 0 for neither."""
    word = str(text or "").upper()
    if word.isdigit():
        return int(word)
    return int(getattr(signal, word if word.startswith("SIG") else f"SIG{word}", 0))
