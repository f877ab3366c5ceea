"""`meshkit --help`, as a module and as the installed script, against `python -c pass`."""

from __future__ import annotations

import functools
import subprocess
import sys
from pathlib import Path

from measure import BenchmarkError, Result, alternate, compare, now
from processes import SERVICES, environment, meshkit

ROUNDS = 21
LIMIT = 4.0


async def run(rounds: int) -> list[Result]:
    script = Path(sys.executable).parent / "meshkit"
    if not script.is_file():
        raise BenchmarkError(f"no {script}: install the project into this interpreter first")
    module, installed, bare = await alternate(
        rounds,
        functools.partial(duration, meshkit("--help")),
        functools.partial(duration, [str(script), "--help"]),
        functools.partial(duration, [sys.executable, "-c", "pass"]),
    )
    return [
        compare("help", module, bare, limit=LIMIT, unit="ms"),
        compare("help_script", installed, bare, limit=LIMIT, unit="ms"),
    ]


async def duration(command: list[str]) -> float:
    began = now()
    subprocess.run(
        command, check=True, cwd=SERVICES, env=environment({}), stdout=subprocess.DEVNULL
    )
    return (now() - began) * 1000
