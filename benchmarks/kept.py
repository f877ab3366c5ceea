"""What each benchmark found last, in .cache/benchmarks: one may be repeated, all make the page."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from measure import Result

FOLDER = Path(__file__).resolve().parent.parent / ".cache" / "benchmarks"


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Kept:
    """The results of one benchmark.

    Attributes:
        name: the benchmark's.
        results: its rows.
        seconds: how long it took.
        machine: where it ran, and with what.
        quick: it ran with fewer rounds than it should.
    """

    name: str
    results: Sequence[Result]
    seconds: float
    machine: Sequence[str]
    quick: bool


def keep(kept: Kept, folder: Path = FOLDER) -> None:
    """Write one down, in place of what it found before."""
    folder.mkdir(parents=True, exist_ok=True)
    text = json.dumps(dataclasses.asdict(kept), indent=1)
    path = folder / f"{kept.name}.json"
    path.with_suffix(".new").write_text(text + "\n", encoding="utf-8")
    path.with_suffix(".new").replace(path)


def read(names: Iterable[str], folder: Path = FOLDER) -> list[Kept]:
    """Return those that have been measured, in this order."""
    paths = (folder / f"{name}.json" for name in names)
    return [_parse(json.loads(path.read_text())) for path in paths if path.is_file()]


def _parse(fields: dict[str, Any]) -> Kept:
    return Kept(**{**fields, "results": [Result(**each) for each in fields["results"]]})
