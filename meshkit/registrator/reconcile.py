"""Desired against actual: what has to be written and removed, and doing it.

Nothing is remembered of what was written before. Each time the registry is asked what is ours, so
that an emptied one, an entry that somebody removed, and what was left behind while we were away
are all the same case.
"""

from __future__ import annotations

import asyncio
import dataclasses
import logging
import time
from collections.abc import Awaitable, Callable, Collection, Iterable, Mapping

from meshkit.errors import RegistryError, RegistryUnavailable
from meshkit.registrator.backends import Backend, Held
from meshkit.registrator.counters import Counters
from meshkit.registrator.record import Record

AT_ONCE = 16

log = logging.getLogger("meshkit.registrator")


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Desired:
    """What the registry shall show.

    Attributes:
        records: of all containers.
        undecided: ids of records of which it is not known yet whether they are well: their entries
            are left as they are.
        kept: containers whose entries stay although they can't be told any more.
        complete: whether all containers could be read. If not, nothing is removed of which it is
            not known whose it is.
    """

    records: tuple[Record, ...] = ()
    undecided: frozenset[str] = frozenset()
    kept: frozenset[str] = frozenset()
    complete: bool = True


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What has to happen so that the registry shows what is desired.

    Attributes:
        write: records whose entries are missing or differ.
        new: ids of those that are missing.
        remove: ids of entries that nothing stands behind any more.
        twice: records that are left out, because another one has the same id.
        owned: how many entries are ours before.
    """

    write: tuple[Record, ...] = ()
    new: frozenset[str] = frozenset()
    remove: tuple[str, ...] = ()
    twice: tuple[Record, ...] = ()
    owned: int = 0


def make_plan(desired: Desired, owned: Mapping[str, Held], backend: Backend) -> Plan:
    """Compare the two."""
    chosen, twice = _by_id(desired.records, owned, backend)
    states = {entry_id: backend.state_of(record) for entry_id, record in chosen.items()}
    undecided = {entry_id for entry_id, record in chosen.items() if record.id in desired.undecided}
    write = tuple(
        record
        for entry_id, record in chosen.items()
        if entry_id not in undecided
        and states[entry_id] is not None
        and (entry_id not in owned or owned[entry_id].state != states[entry_id])
    )
    remove = tuple(
        entry_id
        for entry_id, held in owned.items()
        if entry_id not in undecided
        and states.get(entry_id) is None
        and held.container not in desired.kept
        and (desired.complete or held.container)
    )
    return Plan(
        write=write,
        new=frozenset(record.id for record in write if backend.id_of(record) not in owned),
        remove=remove,
        twice=twice,
        owned=len(owned),
    )


def _by_id(
    records: Iterable[Record], owned: Mapping[str, Held], backend: Backend
) -> tuple[dict[str, Record], tuple[Record, ...]]:
    """Give each id to one record: to the one that has it in the registry, else the first by name.

    Two containers may say the same SERVICE_ID, or one may come up while another, that is to be
    replaced by it, still drains.
    """
    chosen: dict[str, Record] = {}
    twice: list[Record] = []

    def rank(record: Record) -> tuple[bool, bool, str, str]:
        held = owned.get(backend.id_of(record))
        has_it = held is not None and held.container == record.container_id[:12]
        return record.status.value == "draining", not has_it, record.container_name, record.id

    for record in sorted(records, key=rank):
        if backend.id_of(record) in chosen:
            twice.append(record)
        else:
            chosen[backend.id_of(record)] = record
    return chosen, tuple(twice)


class Reconciler:
    """Makes the registry show what is desired. One call at a time.

    What goes wrong is said once, and again when it is something else.
    """

    def __init__(self, backend: Backend, counters: Counters) -> None:
        self._backend = backend
        self._counters = counters
        self._said: dict[str, str] = {}

    async def plan(self, desired: Desired) -> Plan:
        """Return what would have to be done. Raises RegistryError."""
        try:
            owned = await self._backend.owned()
        except RegistryError:
            self._counters.registry_up = False
            self._counters.errors["registry"] += 1
            raise
        self._counters.registry_up = True
        return make_plan(desired, owned, self._backend)

    async def apply(self, desired: Desired) -> list[RegistryError]:
        """Do it; return what could not be done.

        Raises RegistryError when the registry is lost.
        """
        plan = await self.plan(desired)
        said: dict[str, str] = {}
        for record in plan.twice:
            self._say_twice(record, said)
        errors = await self._all(
            (entry_id, self._removal(entry_id)) for entry_id in plan.remove
        ) | await self._all(
            (record.id, self._write(record, new=record.id in plan.new)) for record in plan.write
        )
        lost = [each for each in errors.values() if isinstance(each, RegistryUnavailable)]
        for entry_id, error in errors.items():
            if error not in lost:
                self._say(entry_id, str(error), said)
        self._said = said
        self._counters.errors["registry"] += len(errors)
        self._counters.owned = plan.owned + len(plan.new) - len(plan.remove)
        if lost:
            self._counters.registry_up = False
            raise lost[0]
        if not errors and desired.complete:
            self._counters.reconciled_at = time.monotonic()
        return list(errors.values())

    async def _all(
        self, steps: Iterable[tuple[str, Callable[[], Awaitable[None]]]]
    ) -> dict[str, RegistryError]:
        """Take the steps, several at once; one that fails keeps no other from being taken."""
        slots, errors = asyncio.Semaphore(AT_ONCE), dict[str, RegistryError]()

        async def take(entry_id: str, step: Callable[[], Awaitable[None]]) -> None:
            async with slots:
                try:
                    await step()
                except RegistryError as error:
                    errors[entry_id] = error

        async with asyncio.TaskGroup() as group:
            for entry_id, step in steps:
                group.create_task(take(entry_id, step))
        return errors

    def _write(self, record: Record, *, new: bool) -> Callable[[], Awaitable[None]]:
        async def write() -> None:
            await self._backend.put(record)
            self._counters.written += 1
            log.info(
                "%s %s at %s:%d as %s: %s",
                "added" if new else "changed",
                record.name,
                record.host,
                record.port,
                record.id,
                record.status.value,
            )

        return write

    def _removal(self, entry_id: str) -> Callable[[], Awaitable[None]]:
        async def remove() -> None:
            await self._backend.remove(entry_id)
            self._counters.removed += 1
            log.info("removed %s", entry_id)

        return remove

    def _say_twice(self, record: Record, said: dict[str, str]) -> None:
        text = (
            f"container {record.container_name} is not registered as {record.id}: another one has "
            "this id; give each a SERVICE_ID of its own"
        )
        self._say(f"{record.container_id} {record.id}", text, said)

    def _say(self, about: str, text: str, said: dict[str, str]) -> None:
        if self._said.get(about) != text:
            log.warning("%s", text)
        said[about] = text


def ids(records: Collection[Record]) -> frozenset[str]:
    """Return the records' ids."""
    return frozenset(record.id for record in records)
