"""One instance in several registries: registered in all, kept up in each, and taken out of all."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Sequence

from meshkit.errors import LeaseLost, RegistryError, RegistryUnavailable
from meshkit.model import Instance
from meshkit.registry.base import Lease
from meshkit.registry.several.member import Member, joined

MEMBER_LIMIT = 5.0  # seconds for one write to one member
GRACE = 0.5  # seconds that slower members are waited for when one has accepted
LEAVE_GRACE = 0.5  # for a write under way when the instance leaves
LEAVE_LIMIT = 1.2
# A member that is away is tried at each renewal, and may come back with a shorter TTL.
LONGEST_TTL = 9.0

log = logging.getLogger("meshkit.registry")

Step = Callable[[Member], Awaitable[None]]


class Upkeep:
    """The registrations of one instance.

    A member that hangs is left to its own limit in the background, while the others' leases are
    renewed in time. There is one write at a time to each member.
    """

    def __init__(self, instance_id: str, members: Sequence[Member]) -> None:
        self._id = instance_id
        self._instance: Instance | None = None
        self._members = members
        self._leases: dict[Member, Lease] = {}
        self._errors: dict[Member, RegistryError] = {}
        self._running: dict[Member, asyncio.Task[None]] = {}
        self._left = False

    async def register(self, instance: Instance) -> Lease:
        """Register in all members; succeed when one has accepted. Raises RegistryError."""
        self._instance = instance
        await self._stop(self._members, grace=0.0)  # what is under way has the old instance
        self._leases.clear()
        self._errors.clear()
        await self._each(self._members, self._register)
        self._check()
        ttls = [lease.ttl for lease in self._leases.values()]
        complete = len(ttls) == len(self._members)
        return Lease(instance_id=instance.id, ttl=min(ttls if complete else [*ttls, LONGEST_TTL]))

    async def renew(self) -> None:
        """Renew every lease, and register where there is none.

        Raises:
            LeaseLost: no member knows the instance any more.
            RegistryError: no member works.
        """
        await self._each(self._members, self._renew)
        self._check()
        lost = [each for each in self._lost() if each not in self._running]
        for member in lost:
            log.info("%s is not known to %s; registering anew", self._id, member.registry.url)
        await self._each(lost, self._register)

    async def leave(self) -> None:
        """Deregister in all members. Raises RegistryError when one failed, after all were tried."""
        self._left = True
        ended = await asyncio.gather(*map(self._deregister, self._members))
        if errors := [error for error in ended if error is not None]:
            raise joined(errors)

    async def aclose(self) -> None:
        """End what is under way, without deregistering."""
        self._left = True
        await self._stop(self._members, grace=0.0)

    def _check(self) -> None:
        """Raise when no member holds the instance."""
        if any(self._holds(member) for member in self._members):
            return
        if lost := self._lost():
            raise self._errors[lost[0]]
        errors = [self._errors[member] for member in self._members if member in self._errors]
        raise joined(errors) if errors else RegistryUnavailable("no registry answers in time")

    def _holds(self, member: Member) -> bool:
        """Whether its last write succeeded; of one under way nobody knows."""
        known = member in self._leases and member not in self._errors
        return known and member not in self._running

    def _lost(self) -> list[Member]:
        return [each for each in self._members if isinstance(self._errors.get(each), LeaseLost)]

    async def _each(self, members: Sequence[Member], step: Step) -> None:
        """Take the step in these members; wait until any member holds, and a little longer."""
        if self._left:
            raise LeaseLost(f"{self._id} has left")
        for member in members:
            if member not in self._running:
                self._running[member] = asyncio.create_task(self._guarded(member, step))
        pending = {self._running[member] for member in members if member in self._running}
        while pending and not any(self._holds(member) for member in self._members):
            _, pending = await asyncio.wait(pending, return_when=asyncio.FIRST_COMPLETED)
        if pending:
            await asyncio.wait(pending, timeout=GRACE)

    async def _guarded(self, member: Member, step: Step) -> None:
        """Take the step within its limit, and note what became of it."""
        what = f"registering {self._id}"
        try:
            async with asyncio.timeout(MEMBER_LIMIT):
                await step(member)
        except LeaseLost as error:
            self._leases.pop(member, None)
            self._errors[member] = error
        except (RegistryError, TimeoutError) as error:
            self._fail(member, what, error)
        except Exception as error:
            log.exception("%s failed unexpectedly in %s", what, member.registry.url)
            self._fail(member, what, error)
        else:
            self._errors.pop(member, None)
            member.works(what)
        finally:
            self._running.pop(member, None)

    def _fail(self, member: Member, what: str, error: Exception) -> None:
        if not isinstance(error, RegistryError):
            reason = str(error) or f"no answer within {MEMBER_LIMIT:.0f} s"
            error = RegistryUnavailable(f"{member.registry.url}: {reason}")
        self._errors[member] = error
        member.failed(what, error)

    async def _register(self, member: Member) -> None:
        assert self._instance is not None
        self._leases[member] = await member.registry.register(self._instance)

    async def _renew(self, member: Member) -> None:
        if (lease := self._leases.get(member)) is None:
            await self._register(member)
        else:
            await member.registry.renew(lease)

    async def _deregister(self, member: Member) -> RegistryError | None:
        # A write under way may end, so that it can't overtake the deregistration.
        await self._stop([member], grace=LEAVE_GRACE)
        member.forget(f"registering {self._id}")
        try:
            async with asyncio.timeout(LEAVE_LIMIT):
                await member.registry.deregister(self._id)
        except RegistryError as error:
            return error
        except TimeoutError:
            return RegistryUnavailable(f"{member.registry.url}: no answer within {LEAVE_LIMIT} s")
        except Exception as error:
            log.exception("deregistering %s failed unexpectedly", self._id)
            return RegistryError(f"{member.registry.url}: {error!r}")
        return None

    async def _stop(self, members: Sequence[Member], *, grace: float) -> None:
        tasks = {self._running[member] for member in members if member in self._running}
        if tasks and grace:
            await asyncio.wait(tasks, timeout=grace)
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks)
        for member in members:  # a task that had not begun could not say that it ended
            self._running.pop(member, None)
