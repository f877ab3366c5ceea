"""Measure meshkit against plain FastAPI, uvicorn and a hand-written registration.

What each has found is kept in .cache/benchmarks, so that one can be repeated and the page be
written anew: `run.py chain --write`.

Exit codes: 0 all limits kept, 1 a limit was missed, 2 a measurement could not be made (the others
are, all the same), 130 interrupted.
"""

from __future__ import annotations

import argparse
import asyncio
import importlib
import os
import signal
import sys
import tempfile
from pathlib import Path

import uvloop

# The starter of real servers is the one that the tests use; stubs are those of the examples.
sys.path.insert(1, str(Path(__file__).resolve().parent.parent))
sys.path.insert(1, str(Path(__file__).resolve().parent.parent / "examples" / "users"))

from kept import FOLDER, Kept, keep, read
from measure import BenchmarkError, now, pace
from report import DOCUMENT, machine, table, write

NAMES = (
    "startup_http",
    "cpu_http",
    "cpu_context",
    "instances",
    "join_consul",
    "help",
    "idle",
    "watch_latency",
    "watch_many",
    "registry_load",
    "call_http",
    "call_grpc",
    "chain",
    "second_loop",
    "failover",
    "pick",
    "access_log",
    "limits",
    "tracing",
)
QUICK = 3
SERVERS = {"TEST_CONSUL", "TEST_ETCD", "TEST_ZOOKEEPER", "TEST_SERVERS"}


def main() -> int:
    options = arguments()
    forget_settings()
    measured: list[Kept] = []
    failed: list[str] = []
    with tempfile.TemporaryDirectory(prefix="meshkit-bench-state-") as folder:
        os.environ["MESHKIT_STATE_DIR"] = folder
        try:
            uvloop.run(measure_all(options, measured, failed))
        except (KeyboardInterrupt, asyncio.CancelledError):
            return 130
    results = [result for each in measured for result in each.results]
    if results:
        print(table(results))
    if options.write:
        write_page(options)
    if failed:
        return 2
    return 0 if all(result.passed for result in results) else 1


def write_page(options: argparse.Namespace) -> None:
    """Compose the page from what was found last by each, now or before."""
    found = read(NAMES, options.kept)
    missing = ", ".join(sorted(set(NAMES) - {each.name for each in found}))
    print(f"\nwritten to {write(found, options.page)}" + f"; not in it: {missing}" * bool(missing))


def forget_settings() -> None:
    """Let no variable of this shell reach the services; those for finding servers stay."""
    for name in list(os.environ):
        if name == "PORT" or (name.startswith("MESHKIT_") and name not in SERVERS):
            del os.environ[name]


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"of {', '.join(NAMES)}")
    parser.add_argument("--rounds", type=int, help="pairs for each (default: its own number)")
    parser.add_argument(
        "--quick", action="store_true", help="a third of the rounds, and shorter waits"
    )
    parser.add_argument(
        "--write", action="store_true", help="write the page, from these and from those kept"
    )
    parser.add_argument(
        "--kept", type=Path, default=FOLDER, help="folder of the results (%(default)s)"
    )
    parser.add_argument("--page", type=Path, default=DOCUMENT, help="the page (%(default)s)")
    options = parser.parse_args()
    if unknown := set(options.names) - set(NAMES):
        parser.error(f"no such benchmark: {', '.join(sorted(unknown))}")
    if options.rounds is not None and options.rounds < 1:
        parser.error("--rounds must be at least 1")
    return options


async def measure_all(options: argparse.Namespace, measured: list[Kept], failed: list[str]) -> None:
    """Run them in turn; append what they find, and who could not be measured, as it comes."""
    task = asyncio.current_task()
    assert task is not None
    # As Ctrl-C does, so that the processes we started end with us.
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, task.cancel)
    for name in options.names or NAMES:
        try:
            measured.append(await measure(name, options))
        except BenchmarkError as error:
            failed.append(name)
            print(f"\nbenchmarks: error: {name}: {error}", file=sys.stderr)


async def measure(name: str, options: argparse.Namespace) -> Kept:
    """Run one benchmark and keep what it finds."""
    print(f"{name} ...", end="", file=sys.stderr, flush=True)
    module = importlib.import_module(name)
    full: int = module.ROUNDS
    rounds = options.rounds or (max(full // QUICK, min(full, 3)) if options.quick else full)
    pace.quick = options.quick
    began = now()
    results = await module.run(rounds)
    seconds = now() - began
    print(f" {seconds:.0f} s", file=sys.stderr, flush=True)
    kept = Kept(
        name=name,
        results=results,
        seconds=seconds,
        machine=machine(),
        quick=options.quick or rounds < full or bool(os.environ.get("FAILOVER")),  # a part of it
    )
    full_before = any(not each.quick for each in read([name], options.kept))
    if options.write or not kept.quick or not full_before:
        keep(kept, options.kept)
    return kept


if __name__ == "__main__":
    sys.exit(main())
