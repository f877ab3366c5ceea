"""Each row of the matrix runs on every engine where its fault can happen; see ``backends``."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Generator, Iterator
from pathlib import Path

import pytest

from tests.conftest import APPS
from tests.faults.backends import BACKENDS, Backend
from tests.faults.report import Cell, Fault, Report
from tests.faults.world import World
from tests.support.processes import processes

PAGE = "TEST_FAULTS_PAGE"  # where to write the matrix; nowhere unless set
REPORT = pytest.StashKey[Report]()
ABOUT = pytest.StashKey[dict[str, str]]()


def pytest_configure(config: pytest.Config) -> None:
    config.stash[REPORT] = Report()
    config.stash[ABOUT] = {}


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    row = Fault.of(metafunc.function)
    if row is None:
        return
    engines = [
        pytest.param(name, marks=_marks(name))
        for name, backend in BACKENDS.items()
        if row.name not in backend.absent
    ]
    metafunc.parametrize("backend", engines, indirect=True, scope="session")


def _marks(engine: str) -> list[pytest.MarkDecorator]:
    """Say what an engine's cells need; where tests run side by side, one process has its column."""
    marks = [] if engine == "local" else [getattr(pytest.mark, engine), pytest.mark.slow]
    return [*marks, pytest.mark.xdist_group(f"faults-{engine}")]


@pytest.fixture(scope="session")
def backend(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Backend]:
    """One engine's cluster, for all cells of its column."""
    found = BACKENDS[request.param](tmp_path_factory.mktemp(request.param))
    try:
        found.start()
        request.config.stash[ABOUT][found.name] = found.about
        yield found
    finally:
        found.stop()


@pytest.fixture
def cell(request: pytest.FixtureRequest) -> Cell:
    """Where this cell notes what it measures."""
    row = Fault.of(request.function)
    assert row is not None, "a cell needs @fault(...)"
    return request.config.stash[REPORT].cell(row, request.node.callspec.params["backend"])


@pytest.fixture
async def world(backend: Backend, cell: Cell) -> AsyncIterator[World]:
    """Services on the backend, none of them started."""
    with processes(APPS, backend.url()) as running:
        yield World(backend, running)
    await asyncio.to_thread(backend.heal)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item,
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    report = yield
    cell = getattr(item, "funcargs", {}).get("cell")
    if isinstance(cell, Cell) and (report.when == "call" or report.outcome != "passed"):
        cell.outcome = report.outcome
    return report


def pytest_sessionfinish(session: pytest.Session) -> None:
    page = os.environ.get(PAGE)
    if not page:
        return
    absent = {
        (row, backend.name): reason
        for backend in BACKENDS.values()
        for row, reason in backend.absent.items()
    }
    session.config.stash[REPORT].write(
        Path(page),
        list(BACKENDS),
        absent=absent,
        servers=session.config.stash[ABOUT].values(),
        limits=", ".join(f"{backend.name} {backend.forgets:g} s" for backend in BACKENDS.values()),
    )
