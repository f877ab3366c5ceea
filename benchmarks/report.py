"""The table on the terminal, and docs/benchmarks.md."""

from __future__ import annotations

import importlib
import inspect
import os
import platform
from collections.abc import Iterable, Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from kept import Kept
from measure import Result

DOCUMENT = Path(__file__).resolve().parent.parent / "docs" / "benchmarks.md"
METHOD = """\
The cases of a benchmark run in turn (A B A B ...) on one machine, over loopback, with nothing
pinned to a core. A value is the ratio within one round; the median of the rounds is judged.
Absolute figures belong to this machine and stand beside their counterpart; only the ratios carry
over."""
COLUMNS = ("name", "limit", "median", "min - max", "n", "", "both sides")
PACKAGES = (
    "meshkit",
    "fastapi",
    "starlette",
    "pydantic",
    "uvicorn",
    "uvloop",
    "httptools",
    "grpcio",
    "typer",
)


def row(result: Result) -> tuple[str, ...]:
    low, high = map(figure, (min(result.values), max(result.values)))
    verdict = "-" if result.limit is None else "pass" if result.passed else "FAIL"
    return (
        result.name,
        "-" if result.limit is None else f"{result.limit:.3g} {result.unit}",
        f"{figure(result.median)} {result.unit}",
        f"{low} - {high}",
        str(len(result.values)),
        verdict,
        result.note,
    )


def figure(value: float) -> str:
    """Return a value with what a comparison with its limit needs; counts as they are."""
    if float(value).is_integer():
        return f"{value:.0f}"
    return f"{value:.3f}" if abs(value) < 0.2 else f"{value:.2f}"


def table(results: Iterable[Result]) -> str:
    rows = [COLUMNS, *map(row, results)]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(cells, widths, strict=True)).rstrip()
        for cells in rows
    )


def write(kept: Sequence[Kept], document: Path = DOCUMENT) -> Path:
    """Write the document with results, machine and what each benchmark does; return its path."""
    results = [result for each in kept for result in each.results]
    rows = [COLUMNS, ("---",) * len(COLUMNS), *map(row, results)]
    parts = [
        "# Benchmarks",
        "Written by `python benchmarks/run.py --write` (or `make bench ARGS=--write`); don't edit.",
        METHOD,
        *quickly(kept),
        "\n".join(f"| {' | '.join(cells)} |" for cells in rows),
        *(result.page for result in results if result.page),
        "## Machine",
        *machines(kept),
        "## What is measured",
        *(f"### {each.name}\n\n{about(each.name)}\n\nTook {took(each.seconds)}." for each in kept),
    ]
    document.write_text("\n\n".join(parts) + "\n", encoding="utf-8")
    return document


def quickly(kept: Iterable[Kept]) -> Iterable[str]:
    """Say which had fewer rounds than they should."""
    if names := [each.name for each in kept if each.quick]:
        yield f"With few rounds, so less exact: {', '.join(names)}."


def machines(kept: Iterable[Kept]) -> Iterable[str]:
    """Yield the facts of each machine, and what ran there when there are several."""
    places: dict[tuple[str, ...], list[str]] = {}
    for each in kept:
        places.setdefault(tuple(each.machine), []).append(each.name)
    for facts, names in places.items():
        if len(places) > 1:
            yield f"{', '.join(names)}:"
        yield "\n".join(f"- {fact}" for fact in facts)


def took(seconds: float) -> str:
    return f"{seconds:.0f} s" if seconds < 100 else f"{seconds / 60:.0f} minutes"


def about(name: str) -> str:
    return inspect.getdoc(importlib.import_module(name)) or ""


def machine() -> list[str]:
    cores = len(os.sched_getaffinity(0))
    return [
        f"{processor()}, {cores} cores, {platform.system()} {platform.release()}",
        f"{platform.python_implementation()} {platform.python_version()}",
        ", ".join(f"{name} {installed(name)}" for name in PACKAGES),
    ]


def processor() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.machine()


def installed(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "not installed"
