"""What came of the demo: the tally, and what was wrong."""

from __future__ import annotations

import dataclasses
import json
from typing import Self

from processes import Child
from view import Scene


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One process: its instance, what became of it, and how many right answers it had a part in."""

    label: str
    instance: str
    state: str
    answers: int


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """The tally. Times are in seconds, latencies in milliseconds.

    Attributes:
        problems: what was lost or did not happen; empty when all is well.
        calls: made in all; each was answered or failed.
        retried: attempts on another instance that hid a failure from the caller.
        transports: right answers by the transport between orders and users.
        forgotten_after: from the kill until the registry no longer showed the instance as up.
        stopped_after: from SIGTERM until the process had ended.
        joined_after: from the start of the added process to its first answer.
    """

    problems: tuple[str, ...]
    seconds: float
    calls: int
    answered: int
    failed: int
    retried: int
    p50: float
    p99: float
    transports: dict[str, int]
    instances: tuple[Row, ...]
    forgotten_after: float | None
    stopped_after: float | None
    joined_after: float | None

    @classmethod
    def of(
        cls, scene: Scene, *, seconds: float, killed: Child, stopped: Child, added: Child
    ) -> Self:
        """Draw it up at the end of the traffic, before the remaining processes are ended."""
        tally = scene.tally
        first_answer = tally.first_answer.get(scene.census.instance_id(added.label))
        forgotten_after = _between(killed.signalled_at, scene.census.left_at.get(killed.label))
        joined_after = _between(added.started_at, first_answer)
        return cls(
            problems=tuple(_problems(scene, stopped, forgotten_after, joined_after)),
            seconds=seconds,
            calls=tally.issued,
            answered=tally.answered,
            failed=tally.failed,
            retried=tally.retried,
            p50=tally.percentile(50),
            p99=tally.percentile(99),
            transports=dict(tally.by_transport),
            instances=tuple(
                Row(
                    label=child.label,
                    instance=scene.census.instance_id(child.label),
                    state=child.state,
                    answers=scene.calls(child),
                )
                for child in scene.children.all
            ),
            forgotten_after=forgotten_after,
            stopped_after=_between(stopped.signalled_at, stopped.ended_at),
            joined_after=joined_after,
        )


def _between(start: float | None, end: float | None) -> float | None:
    return None if start is None or end is None else end - start


def _problems(
    scene: Scene, stopped: Child, forgotten_after: float | None, joined_after: float | None
) -> list[str]:
    tally, problems = scene.tally, []
    if tally.failed:
        problems.append(f"{tally.failed} calls failed")
        problems += [f"{count} x {error}" for error, count in tally.errors.most_common(5)]
    if unanswered := tally.issued - tally.answered - tally.failed:
        problems.append(f"{unanswered} calls got no answer")
    if forgotten_after is None:
        problems.append("the registry never forgot the killed instance")
    if joined_after is None:
        problems.append("the added instance never answered a call")
    if stopped.alive:
        problems.append(f"{stopped.label} did not end on SIGTERM")
    elif stopped.process.returncode != 0:
        problems.append(f"{stopped.label} ended with {stopped.process.returncode} on SIGTERM")
    for child in scene.children.all:
        if child.service == "orders" and not scene.calls(child):
            problems.append(f"{child.label} never answered a call")
    return problems


def print_json(report: Report) -> None:
    """Print one JSON object: the fields of :class:`Report`."""
    print(json.dumps(dataclasses.asdict(report), indent=2), flush=True)


def print_text(report: Report) -> None:
    """Print it for people."""
    transports = ", ".join(f"{count} over {name}" for name, count in report.transports.items())
    lines = [
        "",
        f"{report.calls} calls in {report.seconds:.1f} s: {report.answered} answered",
        f"  {report.failed} failed",
        f"  {report.retried} retried without the caller noticing",
        f"users answered {transports}",
        f"latency: p50 {report.p50:.1f} ms, p99 {report.p99:.1f} ms",
        *(f"  {row.label:9} {row.answers:6} answers  {row.state}" for row in report.instances),
        f"killed instance forgotten by the registry after {_seconds(report.forgotten_after)}",
        f"stopped instance drained and ended after {_seconds(report.stopped_after)}",
        f"added instance answered its first call {_seconds(report.joined_after)} after its start",
    ]
    print("\n".join(lines))
    for problem in report.problems:
        print(f"FAILED: {problem}")
    if not report.problems:
        print("OK: no call was lost")
    print(end="", flush=True)


def _seconds(value: float | None) -> str:
    return "(never)" if value is None else f"{value:.3f} s"
