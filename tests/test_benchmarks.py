"""`benchmarks/run.py`: what each finds is kept, and the page is composed from all that are."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

from tests.support.processes import ROOT, environment


def bench(folder: Path, *arguments: str, cores: set[int] | None = None) -> Any:
    """Run some with one round; whether they keep their limits is not asked here."""
    return subprocess.run(
        [
            sys.executable,
            str(ROOT / "benchmarks" / "run.py"),
            *("--rounds", "1", "--kept", str(folder / "kept"), "--page", str(folder / "page.md")),
            *arguments,
        ],
        env=environment(),
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
        preexec_fn=None if cores is None else lambda: os.sched_setaffinity(0, cores),
    )


def test_one_is_repeated_and_the_page_is_composed_from_all(tmp_path: Path) -> None:
    done = bench(tmp_path, "help", "--write")
    assert done.returncode in (0, 1), done.stderr
    assert "not in it: access_log, " in done.stdout
    kept = json.loads((tmp_path / "kept" / "help.json").read_text())
    assert [row["name"] for row in kept["results"]] == ["help", "help_script"]
    assert kept["quick"]
    kept["results"][0]["values"] = [0, 3]  # whole numbers, as of failed calls
    (tmp_path / "kept" / "help.json").write_text(json.dumps(kept))

    done = bench(tmp_path, "pick", "--write")
    assert done.returncode in (0, 1), done.stderr
    page = (tmp_path / "page.md").read_text()
    shown = ("| help | 4 x | 1.50 x | 0 - 3 |", "| pick_p2c |", "### help", "### pick")
    assert [name for name in shown if name not in page] == []
    assert page.index("| help |") < page.index("| pick_p2c |"), "in the order of the benchmarks"
    assert "With few rounds, so less exact: help, pick." in page
    assert "### chain" not in page


def test_a_try_does_not_replace_what_was_measured_in_full(tmp_path: Path) -> None:
    bench(tmp_path, "help")
    path = tmp_path / "kept" / "help.json"
    full = json.loads(path.read_text()) | {"quick": False, "seconds": 1234}
    path.write_text(json.dumps(full))
    bench(tmp_path, "help")
    assert json.loads(path.read_text()) == full
    bench(tmp_path, "help", "--write")  # asked for
    assert json.loads(path.read_text())["quick"]


def test_one_that_can_not_be_made_leaves_the_others(tmp_path: Path) -> None:
    core = min(os.sched_getaffinity(0))
    done = bench(tmp_path, "second_loop", "help", cores={core})
    assert done.returncode == 2
    assert "benchmarks: error: second_loop: two cores are needed\n" in done.stderr
    assert "Traceback" not in done.stderr
    assert [each.name for each in (tmp_path / "kept").iterdir()] == ["help.json"]
    assert "help_script" in done.stdout
