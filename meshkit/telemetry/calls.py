"""What was asked of other services, as metric families; imported when first asked for."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.metrics_core import Metric

from meshkit.client.breaker import State as BreakerState
from meshkit.client.explanation import Explanation

PREFIX = "meshkit_client_"
Labels = tuple[str, ...]


class Families:
    """Families by name.

    A service that is called from two event loops comes twice: counters are added up, and of
    gauges the greater one is shown.
    """

    def __init__(self) -> None:
        self._kinds: dict[str, tuple[str, str, Labels]] = {}
        self._values: dict[str, dict[Labels, float]] = {}

    def count(self, name: str, text: str, value: float, **labels: str) -> None:
        """Add to a counter."""
        values = self._of(name, "counter", text, tuple(labels))
        key = tuple(labels.values())
        values[key] = values.get(key, 0) + value

    def gauge(self, name: str, text: str, value: float, **labels: str) -> None:
        """Let a gauge be at least this."""
        values = self._of(name, "gauge", text, tuple(labels))
        key = tuple(labels.values())
        values[key] = max(values.get(key, 0), value)

    def _of(self, name: str, kind: str, text: str, labels: Labels) -> dict[Labels, float]:
        self._kinds.setdefault(name, (kind, text, labels))
        return self._values.setdefault(name, {})

    def all(self) -> Iterator[Metric]:
        """Yield what was added."""
        for name, (kind, text, names) in self._kinds.items():
            make = CounterMetricFamily if kind == "counter" else GaugeMetricFamily
            family = make(PREFIX + name, text, labels=names)
            for labels, value in self._values[name].items():
                family.add_metric(labels, value)
            yield family


def called(explanations: Iterable[Explanation]) -> Iterator[Metric]:
    """Yield what the calls to each service came to, and how its instances look from here."""
    families = Families()
    for each in explanations:
        _add_calls(families, each)
        _add_list(families, each)
        _add_instances(families, each)
        _add_limits(families, each)
    yield from families.all()


def _add_calls(families: Families, each: Explanation) -> None:
    for transport, stats in each.stats.items():
        of = {"service": each.service, "transport": transport}
        families.count("calls", "Calls made.", stats.calls, **of)
        families.count("failed", "Calls that raised an error to their caller.", stats.failed, **of)
        families.count("retries", "Further attempts, hedges included.", stats.retried, **of)
        families.count("hedges", "Further attempts while one went on.", stats.hedged, **of)
        families.count("hedges_won", "Hedges whose answer came first.", stats.won, **of)
        for reason, count in stats.failures.items():
            families.count("attempt_failures", "Attempts that failed.", count, **of, reason=reason)


def _add_list(families: Families, each: Explanation) -> None:
    of = {"service": each.service}
    families.gauge("list_known", "1 when there is a list of instances.", each.known, **of)
    families.gauge("list_stale", "1 while the registry is away.", each.stale, **of)
    families.gauge("list_age_seconds", "Since it was confirmed; 0 if followed.", each.age, **of)


def _add_instances(families: Families, each: Explanation) -> None:
    of = {"service": each.service}
    listed = {seen.id: seen for view in each.views for seen in view.instances}
    states = dict.fromkeys(("up", "aside", "down"), 0)
    for seen in listed.values():
        state = "aside" if seen.aside else "up" if seen.status == "up" else "down"
        states[state] += 1
        if seen.aside:
            text = "1 for each instance that is set aside now."
            families.gauge("aside", text, 1, **of, instance=seen.id, reason=seen.aside)
    for state, count in states.items():
        families.gauge("instances", "Instances that are listed.", count, **of, state=state)
    panic = any(view.panic for view in each.views)
    families.gauge("panic", "1 while too many deserve to be set aside.", panic, **of)
    for reason, count in each.ejected.items():
        families.count("ejections", "Instances set aside.", count, **of, reason=reason)


def _add_limits(families: Families, each: Explanation) -> None:
    of = {"service": each.service}
    families.gauge("retry_budget_left", "Further attempts possible now.", each.budget, **of)
    families.count("retry_budget_refused", "Further attempts not allowed.", each.refused, **of)
    if each.breakers:
        for state in (known.value for known in BreakerState):
            text, count = "Circuit breakers in this state.", each.breakers.count(state)
            families.gauge("breaker_state", text, count, **of, state=state)
        families.count("breaker_opened", "Circuit breakers opened.", each.opened, **of)
    if each.bulkheads:
        busy, waiting, refused = (sum(column) for column in zip(*each.bulkheads, strict=True))
        families.gauge("bulkhead_busy", "Calls in bulkheads.", busy, **of)
        families.gauge("bulkhead_waiting", "Calls that wait for a place.", waiting, **of)
        families.count("bulkhead_refused", "Calls that found no place.", refused, **of)
