"""One call: attempts on one instance after another, until one answers or none may be tried."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Coroutine
from time import monotonic
from typing import Any

from meshkit import identity
from meshkit.client.call import Answer, Call, Raw
from meshkit.client.guards import Guards
from meshkit.client.race import Race
from meshkit.client.stats import CallStats
from meshkit.client.transport import Request
from meshkit.client.verdict import identify, judge, retry_after, was_refused
from meshkit.discovery.balancing import Outcome
from meshkit.discovery.target import Pick, Target
from meshkit.errors import CallError, CallTimeout, ConnectError, ConnectionLost, NoInstances

TRANSPORT = "http"
# Looking up members of an enum is slow before Python 3.12.
OK, WRONG, SHED, TIMEOUT = Outcome.OK, Outcome.WRONG, Outcome.SHED, Outcome.TIMEOUT

log = logging.getLogger("meshkit.client")

Send = Callable[[Request], Awaitable[Raw]]


class Exchange:
    """Carries out the calls to one service.

    Args:
        target: the service that is called.
        guards: what the service's clients share.
        stats: the client's counters.

    Attributes:
        loop: the event loop of the calls.
    """

    def __init__(self, target: Target, guards: Guards, stats: CallStats) -> None:
        self.loop = asyncio.get_running_loop()
        self._target = target
        self._guards = guards
        self._budget = guards.budget
        self._stats = stats

    def run(self, call: Call, send: Send[Raw]) -> Coroutine[Any, Any, Answer[Raw]]:
        """Try instances until one answers well; return the last answer when none does.

        Whoever awaits it tells :meth:`failed` when it raises.

        Raises:
            NoInstances: nobody is known, or everybody that is known was tried.
            ConnectionLost, WrongInstance: an attempt failed, and may not be repeated.
            CallTimeout: the call's time is over.
        """
        self._stats.calls += 1
        self._budget.deposit()
        if call.timeout <= 0:
            reason = "not sent, as the deadline of the call being handled has passed"
            raise CallTimeout(self._line(call, reason))
        pick = call.picker.try_pick(TRANSPORT)
        if pick is None:
            return self._first(call, send)
        return self.attempts(call, send, pick)

    def failed(self, call: Call, error: BaseException) -> bool | None:
        """Note that a call raised; return what that says of the service, see ``Gate.judge``."""
        if call.kept is not None:
            call.kept.drop()
        if not isinstance(error, CallError):
            return None
        self._stats.failed += 1
        # That nobody is there fails fast by itself, and ends by itself; what was too late before
        # it began says nothing either.
        return None if isinstance(error, NoInstances) or call.timeout <= 0 else True

    async def _first(self, call: Call, send: Send[Raw]) -> Answer[Raw]:
        """Wait for the first list."""
        try:
            async with asyncio.timeout(call.left):
                pick = await call.picker.pick(TRANSPORT)
        except TimeoutError:
            reason = f"no list of instances within {call.limit}"
            raise CallTimeout(self._line(call, reason)) from None
        return await self.attempts(call, send, pick)

    async def attempts(self, call: Call, send: Send[Raw], pick: Pick) -> Answer[Raw]:
        """Try this instance, and further ones as long as that may help."""
        while True:
            began = monotonic()
            race = self._watch(call, send, pick, began)
            request = call.request(pick, began)
            answer: Answer[Raw] | None
            try:
                raw = await send(request)
            except BaseException as error:  # noqa: BLE001 - raised again if nothing makes up for it
                answer = self._errored(call, pick, race, error, monotonic() - began)
            else:
                outcome = judge(pick.instance, raw)
                answer = Answer(pick, request, raw, outcome)
                if outcome is OK and raw.status_code not in call.plan.statuses:  # as nearly all
                    self._guards.answered(monotonic() - began)
                elif not self.is_good(call, answer):
                    self._answered(call, answer, race)
                    answer = None
            finally:
                if race is not None:
                    self._unwatch(call, race)
            if answer is not None:
                if call.attempts > 1:
                    self._tidy(call, race)
                return answer
            following = await self._follow(call, race)
            if isinstance(following, Answer):
                return following
            pick = following

    def _watch(self, call: Call, send: Send[Raw], pick: Pick, began: float) -> Race[Raw] | None:
        """See to it that another instance is asked too if this one does not answer in time."""
        patience = call.patience()
        if patience is None:
            return None
        race = Race(self, call, send, pick)
        call.plan.overdue.add(race, began + patience)
        return race

    def _unwatch(self, call: Call, race: Race[Raw]) -> None:
        if race.rest is not None:
            race.end()
        call.plan.overdue.forget(race)

    def second(self, call: Call, pick: Pick) -> Pick | None:
        """Return whom to ask too when the attempt on ``pick`` is overdue; None: just wait on."""
        late = pick.instance.id
        call.exclude(late)
        if not self._budget.withdraw():
            return None
        other = self._another(call)
        if other is None:
            self._budget.give_back()
            return None
        call.out += (late,)
        call.sent += 1
        self._stats.hedged += 1
        self._begins(call, other, f"no answer from {late} so far")
        return other

    def is_good(self, call: Call, answer: Answer[Any]) -> bool:
        """Whether an answer ends the call."""
        outcome = answer.outcome
        return (
            outcome is not WRONG
            and outcome is not SHED
            and outcome is not TIMEOUT
            and answer.raw.status_code not in call.plan.statuses
        )

    def _tidy(self, call: Call, race: Race[Raw] | None) -> None:
        """Let go of everything that a good answer makes needless."""
        if race is not None:
            race.give_up()
        if call.kept is not None:
            call.kept.drop()

    def _errored(
        self,
        call: Call,
        pick: Pick,
        race: Race[Raw] | None,
        error: BaseException,
        seconds: float,
    ) -> Answer[Raw] | None:
        """Note an attempt that ended with an error, unless it is one of the caller's own.

        Returns the answer that came first, if the attempt was given up for it.
        """
        if isinstance(error, CallError):
            self._broke(call, pick, error, race)
            return None
        try_time = call.plan.try_time() if race is not None else None
        late = try_time is not None and seconds >= try_time
        pick.done(Outcome.TIMEOUT if late else Outcome.CANCELLED)
        if late:
            self._stats.note("timeout")
        if race is None:
            raise error
        if race.rest is None or not race.end() or not isinstance(error, asyncio.CancelledError):
            race.give_up()
            raise error
        if not late:
            self._guards.answered(seconds)  # at least so long, or hedging would breed hedging
        self._stats.won += 1
        answer, race.rest = race.rest.result(), None
        return answer

    async def _follow(self, call: Call, race: Race[Raw] | None) -> Pick | Answer[Raw]:
        """Return whom to try after a failed attempt, or what the rest of the call comes to."""
        if race is None or race.rest is None:
            return await self._next(call)
        try:
            answer = await race.rest
        except CallError:
            if call.kept is None:
                raise
            return call.kept
        except asyncio.CancelledError:
            race.give_up()
            raise
        if self.is_good(call, answer):
            self._stats.won += 1
        elif call.kept is not None:
            return call.kept  # a later one
        return answer

    def _broke(self, call: Call, pick: Pick, error: CallError, race: Race[Raw] | None) -> None:
        """Note an attempt without an answer."""
        if isinstance(error, ConnectError):
            outcome = Outcome.REFUSED
            call.out += (pick.instance.id,)
        elif isinstance(error, CallTimeout):
            outcome = Outcome.TIMEOUT
        else:
            outcome = Outcome.FAILED
        pick.done(outcome)
        call.over |= not isinstance(error, ConnectError | ConnectionLost)
        label = "lost" if outcome is Outcome.FAILED else outcome.value
        self._failed(call, pick, error, label, race, handled=outcome is not Outcome.REFUSED)

    def _answered(self, call: Call, answer: Answer[Raw], race: Race[Raw] | None) -> None:
        """Note an answer that is not good, and keep it if there may be no better one."""
        pick, raw, outcome = answer.pick, answer.raw, answer.outcome
        answer.done(outcome)
        stranger = identify(pick.instance, raw)
        if stranger is not None:
            answer.drop()
            call.out += (pick.instance.id,)
            self._failed(call, pick, stranger, "wrong", race, handled=not was_refused(raw))
            return
        if outcome is TIMEOUT:  # as if it had not answered
            answer.drop()
            call.over = True
            late = CallTimeout("gave it up, as its time was over")
            self._failed(call, pick, late, "timeout", race, handled=True)
            return
        worse, call.kept = call.kept, answer
        if worse is not None:
            worse.drop()
        call.over |= identity.NO_RETRY in raw.headers
        call.retry_after = retry_after(raw.headers)
        label = "shed" if outcome is SHED else str(raw.status_code)
        error = CallError(f"answered {raw.status_code}")
        self._failed(call, pick, error, label, race, handled=outcome is not SHED)

    def _failed(
        self,
        call: Call,
        pick: Pick,
        error: CallError,
        label: str,
        race: Race[Raw] | None,
        *,
        handled: bool,
    ) -> None:
        call.exclude(pick.instance.id)
        call.failures += (type(error)(f"{pick.instance.id} ({pick.endpoint}) {error}"),)
        call.handled = handled
        if handled and (race is None or race.rest is None):  # else it was counted when overdue
            call.sent += 1
        self._stats.note(label)

    async def _next(self, call: Call) -> Pick | Answer[Any]:
        """Return whom to try next, or the answer to be content with; raise if there is neither."""
        why = call.obstacle()
        if why is not None:
            return self._give_up(call, why)
        # A first refused connection costs the servers nothing.
        free = len(call.failures) == 1 and isinstance(call.failures[0], ConnectError)
        if not free and not self._budget.withdraw():
            return self._give_up(call, "not repeated, as the retry budget is used up")
        pick = self._another(call) or await self._later(call)
        if pick is None:
            if not free:
                self._budget.give_back()
            return self._nobody(call)
        self._begins(call, pick, str(call.failures[-1]))
        return pick

    def _begins(self, call: Call, pick: Pick, reason: str) -> None:
        """Note a further attempt."""
        self._stats.retried += 1
        log.debug("%s", self._line(call, f"{reason}; trying {pick.instance.id}"))

    def _another(self, call: Call) -> Pick | None:
        """Choose an instance that was not tried."""
        exclude = call.tried
        if call.kept is not None and call.kept.outcome is SHED:
            # Who was too busy is alive, and says when to ask again. Who is set aside may hang.
            exclude = (*exclude, *self._target.ejections.avoided)
        try:
            return call.picker.try_pick(TRANSPORT, exclude)
        except NoInstances:
            return None

    async def _later(self, call: Call) -> Pick | None:
        """Choose among those that were tried, after a pause, if that may help."""
        shed = call.kept is not None and call.kept.outcome is SHED
        retry = call.plan.retry
        if len(call.out) == len(call.tried) or call.pauses >= retry.attempts - 1:
            return None
        if call.retry_after > retry.backoff_cap and not shed:
            return None
        pause = retry.pause(call.pauses, call.retry_after)
        if pause >= call.left:
            return None
        call.pauses += 1
        await asyncio.sleep(pause)
        call.tried = call.out
        return self._another(call)

    def _give_up(self, call: Call, why: str) -> Answer[Any]:
        """Return the last answer; raise the last failure when there is none."""
        if call.kept is not None:
            return call.kept
        last = call.failures[-1]
        if isinstance(last, CallTimeout):
            reason = f"no answer within {call.limit}: {call.listed()}"
        else:
            reason = "; ".join(filter(None, (call.listed(), why)))
        raise type(last)(self._line(call, reason)) from None

    def _nobody(self, call: Call) -> Answer[Any]:
        """Do the same when everybody was tried."""
        if call.kept is not None:
            return call.kept
        reason = f"no instance left to try after {call.counted()}: {call.listed()}"
        error = NoInstances(self._line(call, reason))
        error.final = call.sent > 0
        raise error from call.failures[-1]

    def _line(self, call: Call, reason: str) -> str:
        return f"{self._target.service}: {call.method} {call.path}: {reason}"
