"""The checks of records, for registries that run none."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import logging
import time
from collections.abc import Callable, Iterable

from meshkit.model import Endpoint, Status
from meshkit.registrator.probes import Unwell, look
from meshkit.registrator.record import Check, Record

# How long the first answers are waited for by whoever looks only once.
FIRST_LIMIT = 15.0

log = logging.getLogger("meshkit.registrator")


@dataclasses.dataclass(slots=True)
class Checked:
    """One record's check, and what came of it.

    Attributes:
        record: whose check it is, by what has to be the same for the results to count.
        well: None before the first result.
        since: when that began, on the monotonic clock.
        task: runs it; a TTL has none.
        timer: ends a TTL.
    """

    record: Record
    check: Check
    well: bool | None = None
    since: float = 0.0
    task: asyncio.Task[None] | None = None
    timer: asyncio.TimerHandle | None = None

    def end(self) -> None:
        """Run it no longer."""
        if self.task is not None:
            self.task.cancel()
        if self.timer is not None:
            self.timer.cancel()


class Checks:
    """Runs the checks of the records that it was last asked about.

    Args:
        changed: called when a result is another one than before.
        hears: whether somebody can tell us by HTTP that a service is well (CHECK_TTL).
    """

    def __init__(self, changed: Callable[[], None], *, hears: bool = False) -> None:
        self._changed = changed
        self._hears = hears
        self._checked: dict[str, Checked] = {}
        self._refused: set[str] = set()
        self._new = asyncio.Event()  # results

    def judge(self, records: Iterable[Record]) -> tuple[tuple[Record, ...], frozenset[str]]:
        """Return the records with what their checks say, and the ids of those not known yet.

        A record whose check has failed for as long as it asks for is left out.
        """
        wanted = {each.id: each for each in records}
        for record_id in self._checked.keys() - wanted.keys():
            self._checked.pop(record_id).end()
        self._refused &= wanted.keys()
        judged: list[Record] = []
        undecided: set[str] = set()
        for record in wanted.values():
            checked = self._of(record)
            if checked is None or checked.well or record.status is not Status.UP:
                judged.append(record)
            elif checked.well is None:
                judged.append(record)
                undecided.add(record.id)
            elif not _is_over(checked):
                judged.append(dataclasses.replace(record, status=Status.DOWN))
        return tuple(judged), frozenset(undecided)

    async def decide(self, records: Iterable[Record]) -> None:
        """Wait until each check of the records has had its first result, within a limit."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(FIRST_LIMIT):
                while self.judge(records)[1]:
                    self._new.clear()
                    await self._new.wait()

    def hear(self, record_id: str, *, well: bool) -> bool:
        """Take what a service says of itself; False when it has no TTL check."""
        checked = self._checked.get(record_id)
        if checked is None or checked.check.kind != "ttl":
            return False
        self._heard(checked, well=well)
        return True

    async def aclose(self) -> None:
        """End all checks. Closing twice is safe."""
        ending = [each.task for each in self._checked.values() if each.task is not None]
        for checked in self._checked.values():
            checked.end()
        self._checked.clear()
        await asyncio.gather(*ending, return_exceptions=True)

    def _of(self, record: Record) -> Checked | None:
        """Return the record's check, begun if it is new; None when there is none to run."""
        checked = self._checked.get(record.id)
        if checked is not None and _same(checked.record, record):
            return checked
        if checked is not None:
            self._checked.pop(record.id).end()
        if record.check is None or not self._can_run(record, record.check):
            return None
        checked = self._checked[record.id] = Checked(record, record.check)
        initial = record.check.initial_status
        if initial:
            checked.well, checked.since = initial != "critical", time.monotonic()
        if record.check.kind == "ttl":
            # As with Consul nobody is well who has not said so.
            self._heard(checked, well=bool(initial) and initial != "critical")
        else:
            checked.task = asyncio.create_task(self._run(checked))
        return checked

    def _can_run(self, record: Record, check: Check) -> bool:
        if check.kind in ("cmd", "script"):
            self._refuse(record, "a check by a command is run by Consul only (consul://)")
        elif check.kind == "ttl" and not self._hears:
            self._refuse(
                record, "a TTL check needs --health-port, where the service says it is well"
            )
        else:
            return True
        return False

    def _refuse(self, record: Record, reason: str) -> None:
        if record.id not in self._refused:
            self._refused.add(record.id)
            log.warning(
                "container %s: %s; %s is registered without",
                record.container_name,
                reason,
                record.id,
            )

    async def _run(self, checked: Checked) -> None:
        address = Endpoint(checked.record.host, checked.record.port)
        while True:
            try:
                await look(address, checked.check)
            except Unwell as unwell:
                self._set(checked, well=False, reason=str(unwell))
            else:
                self._set(checked, well=True)
            await asyncio.sleep(checked.check.interval)

    def _heard(self, checked: Checked, *, well: bool) -> None:
        if checked.timer is not None:
            checked.timer.cancel()
        if well and checked.check.ttl is not None:
            checked.timer = asyncio.get_running_loop().call_later(
                checked.check.ttl, self._silent, checked
            )
        self._set(checked, well=well, reason="it has not said that it is well")

    def _silent(self, checked: Checked) -> None:
        self._set(checked, well=False, reason=f"not a word for {checked.check.ttl:g} s")

    def _set(self, checked: Checked, *, well: bool, reason: str = "") -> None:
        if checked.well is well:
            return
        if not well:
            log.warning("the check of %s fails: %s", checked.record.id, reason)
        elif checked.well is False:
            log.info("the check of %s passes again", checked.record.id)
        checked.well, checked.since = well, time.monotonic()
        self._new.set()
        self._changed()


def _same(old: Record, new: Record) -> bool:
    """Whether a result for the one counts for the other."""
    return (old.check, old.host, old.port, old.container_id) == (
        new.check,
        new.host,
        new.port,
        new.container_id,
    )


def _is_over(checked: Checked) -> bool:
    after = checked.check.deregister_after
    return after is not None and time.monotonic() - checked.since > after
