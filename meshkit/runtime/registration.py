"""Alive means registered: the reconcile loop of one instance, on a thread of its own.

The thread has its own event loop and its own connection to the registry, so that a busy service
does not lose its lease. It measures the service's loop as well: one that is stuck for longer
than a limit is shown as down, because a heartbeat that hides a hang is worse than none.
"""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import logging
import random
import threading
import time
from collections.abc import Callable

from meshkit.backoff import Backoff
from meshkit.errors import LeaseLost, MeshError, RegistryError
from meshkit.model import Instance, Status
from meshkit.registry import Lease, Registry

TURN_LIMIT = 10.0  # seconds for one register or renew
TURN_GRACE = 0.7  # for the one under way when the service stops
DEREGISTER_LIMIT = 2.0
STOP_LIMIT = 3.0
CONFIRM_LIMIT = 10.0
# Retries come no rarer than heartbeats do in good times: a registry that carries those carries
# these, and one that was emptied is filled again within a heartbeat.
RETRY_CAP = 3.0
LAG_PERIOD = 2.5
UNLISTED = "check what its users may read, and whether its servers have a leader"

log = logging.getLogger("meshkit.registration")


class Registration:
    """Keeps ``instance`` registered from :meth:`start` to :meth:`stop`.

    Args:
        open_registry: makes the registry; called on the thread.
        instance: what to register; its id is new with every start of a service, so that no
            write of an earlier life can be taken for this one's.
        lag_limit: seconds that the service's loop may be stuck.
        other_loop: a second one that must not be stuck either.
    """

    def __init__(
        self,
        open_registry: Callable[[], Registry],
        instance: Instance,
        *,
        lag_limit: float,
        other_loop: asyncio.AbstractEventLoop | None = None,
    ) -> None:
        self.instance = instance
        self.state = "not registered"
        self.lag = 0.0
        self._open = open_registry
        self._lag_limit = lag_limit
        self._other_loop = other_loop
        self._answered_at = 0.0
        self._lag_period = min(LAG_PERIOD, lag_limit / 2)
        self._healthy = True
        self._service_loop = asyncio.get_running_loop()
        self._first = asyncio.Event()
        self._done = asyncio.Event()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._wake = asyncio.Event()  # these two belong to the thread's loop
        self._stop = asyncio.Event()
        self._stopping = False
        self._shown: Instance | None = None
        self._lease: Lease | None = None
        self._failing = False
        self._attempted = False
        self._may_be_listed = False  # a write whose answer was lost may have been carried out
        self._confirmation: asyncio.Task[None] | None = None
        self._thread = threading.Thread(
            target=self._run, name=f"meshkit-registration-{instance.service}", daemon=True
        )

    def start(self) -> None:
        """Begin; returns at once."""
        self._thread.start()

    async def first(self, limit: float) -> bool:
        """Wait for the first registration. False when it took longer than ``limit`` seconds."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(limit):
                await self._first.wait()
        return self._first.is_set()

    def show(self, *, healthy: bool) -> None:
        """Register as up or down from now on; called on the service's loop."""
        self._healthy = healthy
        self._call(self._wake.set)

    async def stop(self) -> None:
        """End the heartbeat, then deregister; returns within about 3 s whatever the registry does.

        Nothing is written after it returns.
        """
        if not self._thread.is_alive():
            return
        self._stopping = True
        self._call(self._wake.set)
        self._call(self._stop.set)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(STOP_LIMIT):
                await self._done.wait()
                await asyncio.to_thread(self._thread.join)

    def _call(self, function: Callable[[], None]) -> None:
        """Run ``function`` on the thread's loop, if it still (or already) runs."""
        if self._loop is not None:
            with contextlib.suppress(RuntimeError):
                self._loop.call_soon_threadsafe(function)

    def _tell(self, event: asyncio.Event) -> None:
        with contextlib.suppress(RuntimeError):  # the service's loop is closed: nobody listens
            self._service_loop.call_soon_threadsafe(event.set)

    # Everything below runs on the thread.

    def _run(self) -> None:
        try:
            asyncio.run(self._main())
        except MeshError as error:
            log.error("%s", error)  # noqa: TRY400 - a user's mistake has no traceback
        except Exception:
            log.exception("registration of %s ended unexpectedly", self.instance.id)
        finally:
            self._tell(self._done)

    async def _main(self) -> None:
        self._loop = asyncio.get_running_loop()
        if self._stopping:  # before the loop could be told
            return
        async with self._open() as registry:
            reconcile = asyncio.create_task(self._reconcile(registry))
            lag = asyncio.create_task(self._watch_lag())
            await self._stop.wait()
            lag.cancel()
            if self._confirmation is not None:
                self._confirmation.cancel()
            # A write under way may end, so that it can't overtake the deregistration; a hung
            # registry must not hold up the stop.
            await asyncio.wait({reconcile}, timeout=TURN_GRACE)
            reconcile.cancel()
            await asyncio.gather(reconcile, lag, return_exceptions=True)
            await self._leave(registry)

    async def _reconcile(self, registry: Registry) -> None:
        """Compare what should be registered with what is, for ever; there is no last attempt."""
        backoff = Backoff(cap=RETRY_CAP)
        while not self._stopping:
            self._wake.clear()
            pause = await self._turn(registry, backoff)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(pause):
                    await self._wake.wait()

    async def _turn(self, registry: Registry, backoff: Backoff) -> float:
        """Register or renew once; return the seconds until the next turn."""
        wanted = self._wanted()
        try:
            async with asyncio.timeout(TURN_LIMIT):
                if self._lease is None or wanted != self._shown:
                    anew = self._lease is None
                    self._lease = await self._register(registry, wanted)
                    self._registered(registry, wanted, anew=anew)
                else:
                    await registry.renew(self._lease)
        except LeaseLost:
            log.info("%s is no longer known to %s; registering anew", wanted.id, registry.url)
            held, self._lease = self._lease, None
            # It answers, and those who come back have been spread by the pauses before.
            return 0.0 if held is not None else backoff.next()
        except (RegistryError, TimeoutError) as error:
            self._failed(registry, error)
            return backoff.next()
        except Exception as error:
            log.exception("registering %s failed unexpectedly", wanted.id)
            self._failed(registry, error)
            return backoff.next()
        backoff.reset()
        self._recovered(registry)
        return self._lease.interval * random.uniform(0.9, 1.0)  # noqa: S311 - no secret

    async def _register(self, registry: Registry, wanted: Instance) -> Lease:
        self._attempted = True
        undone = False
        try:
            return await registry.register(wanted)
        except RegistryError as error:
            undone = error.undone
            raise
        finally:
            self._may_be_listed = self._may_be_listed or not undone

    def _wanted(self) -> Instance:
        up = self._healthy and self.lag <= self._lag_limit
        return dataclasses.replace(self.instance, status=Status.UP if up else Status.DOWN)

    def _registered(self, registry: Registry, shown: Instance, *, anew: bool) -> None:
        again, self._shown = self._shown is not None, shown
        self.state = "registered"
        self._tell(self._first)
        if anew:
            if self._confirmation is not None:
                self._confirmation.cancel()
            self._confirmation = asyncio.create_task(self._confirm(registry, again=again))

    async def _confirm(self, registry: Registry, *, again: bool) -> None:
        """Warn loudly when others don't see us: an agent may accept what its servers refuse."""
        said = "does not list it"
        reason = await self._why_unlisted(registry)
        if reason is None and again:
            # What is listed may be what was registered before the loss.
            said = "may list an earlier state"
            await asyncio.sleep(CONFIRM_LIMIT)
            reason = await registry.why_unlisted() or None
        if reason is not None:
            log.warning(
                "%s accepted %s but %s after %.0f s: %s",
                registry.url,
                self.instance.id,
                said,
                CONFIRM_LIMIT,
                reason,
            )

    async def _why_unlisted(self, registry: Registry) -> str | None:
        """Return None once we are listed, and else what keeps us out."""
        deadline, reason = time.monotonic() + CONFIRM_LIMIT, ""
        while time.monotonic() < deadline:
            try:
                snapshot = await registry.instances(self.instance.service)
            except RegistryError as error:
                reason = str(error)
            else:
                if any(each.id == self.instance.id for each in snapshot.instances):
                    return None
                reason = ""
            await asyncio.sleep(0.5)
        return reason or await registry.why_unlisted() or UNLISTED

    def _failed(self, registry: Registry, error: Exception) -> None:
        reason = str(error) or f"no answer within {TURN_LIMIT:.0f} s"
        self.state = f"retrying: {reason}"
        if not self._failing:
            log.warning("can't register with %s: %s; serving and retrying", registry.url, reason)
        self._failing = True

    def _recovered(self, registry: Registry) -> None:
        self.state = "registered"
        if self._failing:
            log.info("registered with %s again", registry.url)
        self._failing = False

    async def _leave(self, registry: Registry) -> None:
        if not self._attempted:
            return
        self.state = "not registered"
        try:
            async with asyncio.timeout(DEREGISTER_LIMIT):
                await registry.deregister(self.instance.id)
        except (RegistryError, TimeoutError) as error:
            if not self._may_be_listed:  # and why it is not has been said
                return
            reason = str(error) or f"no answer within {DEREGISTER_LIMIT} s"
            log.warning(
                "could not deregister %s, its lease will end it: %s", self.instance.id, reason
            )

    async def _watch_lag(self) -> None:
        """Ask the service's loop to answer every so often, and see how long it takes."""
        while True:
            asked = time.monotonic()
            with contextlib.suppress(RuntimeError):
                self._service_loop.call_soon_threadsafe(self._ask_on)
            await asyncio.sleep(self._lag_period)
            while self._answered_at < asked:
                self._measured(time.monotonic() - asked)
                await asyncio.sleep(self._lag_period)
            self._measured(0.0)

    def _ask_on(self) -> None:
        """Runs on the service's loop; the second one answers after it, if there is one."""
        if self._other_loop is None:
            self._answer()
        elif not self._other_loop.is_closed():
            self._other_loop.call_soon_threadsafe(self._answer)

    def _answer(self) -> None:
        """Runs on the service's loop; it tells nobody, so that no thread is woken for it."""
        self._answered_at = time.monotonic()

    def _measured(self, lag: float) -> None:
        was_stuck, is_stuck = self.lag > self._lag_limit, lag > self._lag_limit
        self.lag = lag
        if is_stuck == was_stuck:
            return
        if is_stuck:
            log.warning("the event loop has been stuck for %.1f s: registered as down", lag)
        else:
            log.info("the event loop runs again: registered as up")
        self._wake.set()
