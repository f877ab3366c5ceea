"""What the cells of the matrix found, and the page that is written from it.

The page is never written by hand: ``make faults`` runs every cell and writes docs/faults.md from
what they measured.
"""

from __future__ import annotations

import dataclasses
import inspect
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import TypeVar

Function = TypeVar("Function", bound=Callable[..., object])

HEAD = """# Faults

What happens when something fails, on each engine. `make faults` has measured it and written this
page: real service processes, and a consumer that calls them all the time, on real servers, all on
one machine:

{servers}

Each cell is a test in `tests/faults/`; `make test` runs them too. Times are those of one run. What
the tests insist on is written below the table, and the time to forget, which is how long an
instance that died without a word may be listed: {limits}.
A caller that is refused a connection by the dead goes on to the next at once.

"""
APPLIES_NOT = "-"


# In which order the page has the modules' rows.
MODULES = (
    "test_instances",
    "test_identity",
    "test_registry",
    "test_partitions",
    "test_access",
    "test_churn",
)


@dataclasses.dataclass(frozen=True, slots=True)
class Fault:
    """A row of the matrix: what fails, and what then holds on every engine.

    Attributes:
        name: the fault.
        promise: what holds.
        place: of the row in the page.
    """

    name: str
    promise: str
    place: tuple[int, int] = (0, 0)

    @classmethod
    def of(cls, function: object) -> Fault | None:
        """Return what :func:`fault` has noted on a test, if it did."""
        found = getattr(function, "fault", None)
        return found if isinstance(found, cls) else None


def fault(name: str) -> Callable[[Function], Function]:
    """Make a test a row of the matrix; its docstring is the promise."""

    def mark(function: Function) -> Function:
        module = MODULES.index(function.__module__.rpartition(".")[2])
        place = module, inspect.getsourcelines(function)[1]
        promise = inspect.getdoc(function) or ""
        function.fault = Fault(name, promise, place)  # type: ignore[attr-defined]
        return function

    return mark


@dataclasses.dataclass(slots=True)
class Cell:
    """One fault on one engine: what was measured, in the order it was noted."""

    fault: Fault
    engine: str
    outcome: str = "not run"
    notes: dict[str, str] = dataclasses.field(default_factory=dict)

    def took(self, what: str, seconds: float) -> None:
        """Note a time."""
        self.notes[what] = f"{seconds:.1f} s" if seconds >= 0.1 else f"{seconds * 1000:.0f} ms"

    def note(self, what: str, value: object) -> None:
        """Note anything else that was found."""
        self.notes[what] = str(value)

    def __str__(self) -> str:
        if self.outcome != "passed":
            return f"**{self.outcome}**"
        return "<br>".join(["ok", *(f"{what} {value}" for what, value in self.notes.items())])


class Stopwatch:
    """Seconds since it was made."""

    def __init__(self) -> None:
        self._started = time.monotonic()

    @property
    def seconds(self) -> float:
        return time.monotonic() - self._started


class Report:
    """All cells of one run."""

    def __init__(self) -> None:
        self.cells: dict[tuple[str, str], Cell] = {}

    def cell(self, row: Fault, engine: str) -> Cell:
        """Return the cell, made on first use."""
        return self.cells.setdefault((row.name, engine), Cell(row, engine))

    def write(
        self,
        path: Path,
        engines: Sequence[str],
        *,
        absent: Mapping[tuple[str, str], str],
        servers: Iterable[str],
        limits: str,
    ) -> None:
        """Write the page.

        Args:
            path: the page.
            engines: the columns.
            absent: (row, engine) to why the fault can't happen there.
            servers: what was run against.
            limits: the engines' times to forget.
        """
        rows = sorted({cell.fault for cell in self.cells.values()}, key=lambda row: row.place)
        lines = [
            "| fault | " + " | ".join(f"{engine}" for engine in engines) + " |",
            "|---" * (len(engines) + 1) + "|",
        ]
        reasons: list[str] = []
        for row in rows:
            columns = [self._column(row, engine, absent, reasons) for engine in engines]
            lines.append("| " + " | ".join([row.name, *columns]) + " |")
        promises = ["", "What each row insists on:", ""]
        promises += [f"- **{row.name}**: {' '.join(row.promise.split())}" for row in rows]
        notes = [f"{number}. {reason}" for number, reason in enumerate(reasons, 1)]
        why = ["", "Where a cell has none:", "", *notes] if notes else []
        head = HEAD.format(
            servers="\n".join(f"- {each}" for each in servers),
            limits=limits,
        )
        path.write_text(head + "\n".join([*lines, *promises, *why, ""]))

    def _column(
        self,
        row: Fault,
        engine: str,
        absent: Mapping[tuple[str, str], str],
        reasons: list[str],
    ) -> str:
        if reason := absent.get((row.name, engine)):
            if reason not in reasons:
                reasons.append(reason)
            return f"{APPLIES_NOT} ({reasons.index(reason) + 1})"
        cell = self.cells.get((row.name, engine))
        return str(cell) if cell else "**not run**"
