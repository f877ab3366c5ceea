"""Power of two choices: of two drawn at random, the one where a call would wait less."""

from __future__ import annotations

import math
import random as random_module
import time
from collections.abc import Callable, Collection, Sequence

from meshkit.discovery.balancing.base import Candidate, Done, Known, Outcome
from meshkit.discovery.balancing.memory import Clock, Memory
from meshkit.discovery.balancing.sampling import Table, alias_table, draw
from meshkit.model import Instance

GAIN = 0.2  # how much one answer counts in the average
TIE = 2.0  # latencies less than so many times apart are equal: noise must not decide,
NOISE = 0.001  # nor must seconds that a busy event loop or a garbage collection costs
HALF = 0.5  # of a call on the lighter of two
UNKNOWN = 1e-4  # seconds: less than any real answer, so that those not known yet are tried
FAILURE = 5.0  # a failure counts as an answer that took so many times as long as usual,
FAILURE_LEAST = 0.02  # seconds, at least this long
FAILURE_MOST = 60.0  # and no longer, so that the averages of an outage stay finite
DECAY = 1.5  # seconds; 20 times slower counts as 3 times after them, 600 times as 10 times
STEP = 16  # calls at least between two looks at everybody,
STEP_EACH = 4  # or so many for each instance
STEP_MOST = 0.4  # of DECAY, in one step, for those who are seldom called
EARLY = 8  # calls until the first look, should somebody hang from the start
DRAWS = 16  # until two are found that are not excluded
OFTEN = 0.25  # of all draws: from here on an instance has a table of its rivals

OK = Outcome.OK  # looking up members of an enum is slow before Python 3.12


class Load:
    """What is known of one instance.

    Attributes:
        chosen: what a pick returns, made once.
        latency: seconds, a moving average in which failures count as slow.
        outstanding: calls that have not ended.
        weight: its capacity in relation to others.
        rivals: whom the second draw is from.
        looked: the latency at the last look; the same now means that nobody has answered.
        waited: calls were under way at the last look.
        is_new: no call has ended yet.
    """

    __slots__ = (
        "chosen",
        "is_new",
        "latency",
        "looked",
        "outstanding",
        "rivals",
        "waited",
        "weight",
    )

    def __init__(self, latency: float) -> None:
        self.chosen: tuple[Instance, Done]
        self.latency = latency
        self.looked = latency
        self.waited = False
        self.is_new = True
        self.outstanding = 0
        self.weight = 1.0
        self.rivals: Table[Load] = []

    def choose(self, instance: Instance) -> None:
        """Make what a pick returns."""
        self.chosen = (instance, self.first_done if self.is_new else self.done)

    def first_done(self, outcome: Outcome, seconds: float) -> None:
        """Learn how the first call ended: it connected and loaded code, so its time says little."""
        self.outstanding -= 1
        self.chosen = (self.chosen[0], self.done)
        self.is_new = False
        if outcome is not OK:
            self._learn_from(outcome, seconds)

    def done(self, outcome: Outcome, seconds: float) -> None:
        """Learn how a call ended."""
        self.outstanding -= 1
        if outcome is OK:
            self.latency += GAIN * (seconds - self.latency)
        else:
            self._learn_from(outcome, seconds)

    def _learn_from(self, outcome: Outcome, seconds: float) -> None:
        usual = self.latency
        if outcome is Outcome.CANCELLED:
            seconds = max(seconds, usual)  # it would have taken at least so long
        elif outcome is not Outcome.DRAINING:
            slow = min(max(FAILURE * usual, FAILURE_LEAST), FAILURE_MOST)
            seconds = max(seconds, usual, slow)
        self.latency += GAIN * (seconds - usual)

    def cost(self) -> float:
        """Return how long a call would wait here, in relation to others."""
        return self.latency * (1.0 + self.outstanding / self.weight)


def is_better(two: Load, one: Load) -> bool:
    """Whether a call had better go to the second than to the first that was drawn.

    One call on the lighter is the measure. A heavy one has to be half of that ahead, or each of
    its calls would send the next one to a light one that is idle.
    """
    lighter = min(one.weight, two.weight)
    ones = 1.0 + one.outstanding * lighter / one.weight
    twos = 1.0 + two.outstanding * lighter / two.weight
    if one.latency <= TIE * two.latency + NOISE and two.latency <= TIE * one.latency + NOISE:
        return twos + HALF < ones
    return two.latency * twos < one.latency * ones


class PowerOfTwo:
    """Draws two by weight and calls the one with the lower cost: latency x (1 + outstanding).

    The count makes a hung instance lose its calls within a few of them, without any timer; the
    latency makes a slow one lose them before its queue grows. A failure counts as slow (rule of
    Finagle's and Linkerd's peak EWMA, whose time to decay is 10 s; ingress-nginx learnt it the
    hard way: https://github.com/kubernetes/ingress-nginx/issues/6632). One that is slow is
    tried again with a single call when its bad name has decayed, never for more than about one
    call in a hundred. Nobody looks for the best of all, so that many callers do not run there
    together: https://www.eecs.harvard.edu/~michaelm/postscripts/handbook2001.pdf

    Args:
        clock: seconds, for the decay.
        random: a number between 0 and 1, 1 excluded.
    """

    def __init__(
        self, *, clock: Clock = time.monotonic, random: Callable[[], float] = random_module.random
    ) -> None:
        self._clock = clock
        self._random = random
        self._memory = Memory(lambda _: Load(self._typical), clock)
        self._loads: list[Load] = []
        self._table: Table[Load] = []
        self._typical = UNKNOWN
        self._looked_at = clock()
        self._until_look = EARLY

    def update(self, candidates: Sequence[Candidate]) -> None:
        """See :class:`Balancer`. A new instance is taken for a typical one."""
        if self._loads:  # the median: one slow one must not make newcomers look slow
            self._typical = sorted(load.latency for load in self._loads)[
                (len(self._loads) - 1) // 2
            ]
        self._loads = self._memory.update([each.instance.id for each in candidates])
        weights = [each.weight for each in candidates]
        total = sum(weights)
        for load, each in zip(self._loads, candidates, strict=True):
            load.choose(each.instance)
            load.weight = each.weight
        self._table = alias_table(self._loads, weights)
        for load, weight in zip(self._loads, weights, strict=True):
            load.rivals = self._table
            if weight > OFTEN * total:  # at most three; the others seldom meet themselves
                others = [each for each in range(len(weights)) if self._loads[each] is not load]
                load.rivals = alias_table(
                    [self._loads[each] for each in others], [weights[each] for each in others]
                )

    def describe(self) -> dict[str, Known]:
        """See :class:`Describing`. There is no latency of those that were never called."""
        return {
            load.chosen[0].id: Known(
                load.outstanding, None if load.latency == UNKNOWN else load.latency
            )
            for load in self._loads
        }

    def pick(  # noqa: C901 - a call for each draw and comparison would double its cost
        self,
        exclude: Collection[str],
        key: str | None,  # noqa: ARG002 - see Balancer
    ) -> tuple[Instance, Done] | None:
        """See :class:`Balancer`."""
        table = self._table
        if exclude or len(table) < 2:
            if exclude or not table:
                return self._pick_besides(exclude)
            only = self._loads[0]
            only.outstanding += 1
            return only.chosen
        random = self._random
        number = random() * len(table)
        cut, one, other = table[int(number)]
        if number >= cut:
            one = other
        two, rivals = one, one.rivals
        while two is one:
            number = random() * len(rivals)
            cut, two, other = rivals[int(number)]
            if number >= cut:
                two = other
        if one.weight != two.weight:
            if is_better(two, one):
                one = two
        elif one.latency <= TIE * two.latency + NOISE and two.latency <= TIE * one.latency + NOISE:
            if two.outstanding < one.outstanding:
                one = two
        elif two.latency * (1.0 + two.outstanding) < one.latency * (1.0 + one.outstanding):
            one = two
        one.outstanding += 1
        self._until_look -= 1
        if not self._until_look:
            self._look()
        return one.chosen

    def _pick_besides(self, exclude: Collection[str]) -> tuple[Instance, Done] | None:
        """Return one of those left, after a failed attempt or when there are no two."""
        left: set[Load] = set()
        for _ in range(DRAWS if len(self._table) > 1 else 0):
            load = draw(self._table, self._random)
            if load.chosen[0].id not in exclude:
                left.add(load)
                if len(left) == 2:
                    break
        if not left:
            left.update(load for load in self._loads if load.chosen[0].id not in exclude)
        if not left:
            return None
        best = min(left, key=Load.cost)
        best.outstanding += 1
        return best.chosen

    def _look(self) -> None:
        """Judge those from whom there was no answer since the last look.

        A call that is still under way is slow already; without one, a bad name fades.
        """
        now = self._clock()
        passed = now - self._looked_at
        self._looked_at = now
        self._until_look = max(STEP, STEP_EACH * len(self._loads))
        known = (load.latency for load in self._loads if load.latency != UNKNOWN)
        fastest = max(min(known, default=UNKNOWN), UNKNOWN)
        keep = math.exp(-min(passed / DECAY, STEP_MOST))
        for load in self._loads:
            # One that is not known, and has not answered yet, is not the fastest.
            latency = max(load.latency, fastest) if load.outstanding else load.latency
            if load.latency == load.looked:
                if load.outstanding and load.waited:
                    latency += passed
                elif latency > fastest and not load.outstanding:
                    latency = fastest * (latency / fastest) ** keep
            load.latency = load.looked = max(latency, UNKNOWN)
            load.waited = load.outstanding > 0
