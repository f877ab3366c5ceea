"""The page says what was measured, what failed, what was not run, and why a cell is empty."""

from __future__ import annotations

import importlib
from pathlib import Path

from tests.faults.backends import BACKENDS
from tests.faults.report import MODULES, Fault, Report


def test_each_column_leaves_out_only_rows_that_exist() -> None:
    modules = [importlib.import_module(f"tests.faults.{module}") for module in MODULES]
    found = [Fault.of(value) for module in modules for value in vars(module).values()]
    rows = {each.name for each in found if each}
    assert len(rows) > 15
    for backend in BACKENDS.values():
        assert backend.absent.keys() <= rows
        assert all(backend.absent.values()), "each says why"


def test_page(tmp_path: Path) -> None:
    later, first = Fault("fire", "It burns.", (1, 1)), Fault("flood", "It floats.", (0, 5))
    report = Report()
    for row, outcome in ((later, "failed"), (first, "passed")):
        cell = report.cell(row, "one")
        cell.outcome = outcome
        cell.took("over after", 0.0213)
        cell.took("dry after", 12.34)
        cell.note("lost", 0)
    path = tmp_path / "page.md"
    report.write(
        path,
        ["one", "two", "three"],
        absent={("flood", "three"): "it is on a hill", ("fire", "two"): "it is under water"},
        servers=["One 1.0"],
        limits="one 5 s",
    )
    lines = path.read_text().splitlines()
    assert [line for line in lines if line.startswith("| ")] == [
        "| fault | one | two | three |",
        "| flood | ok<br>over after 21 ms<br>dry after 12.3 s<br>lost 0 | **not run** | - (1) |",
        "| fire | **failed** | - (2) | **not run** |",
    ]
    assert "2. it is under water" in lines
    assert "- **flood**: It floats." in lines
    assert "- One 1.0" in lines
