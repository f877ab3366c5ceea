"""Measure meshkit against plain FastAPI, uvicorn and a hand-written registration.

Exit codes: 0 all limits kept, 1 a limit was missed, 2 a measurement could not be made,
130 interrupted.
"""

from __future__ import annotations

import argparse
import asyncio
import importlib
import os
import signal
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

import uvloop

# The starter of real servers is the one that the tests use; stubs are those of the examples.
sys.path.insert(1, str(Path(__file__).resolve().parent.parent))
sys.path.insert(1, str(Path(__file__).resolve().parent.parent / "examples" / "users"))

from measure import BenchmarkError, Result
from report import table, write

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
SERVERS = {"TEST_CONSUL", "TEST_ETCD", "TEST_ZOOKEEPER", "TEST_SERVERS"}


def main() -> int:
    options = arguments()
    forget_settings()
    with tempfile.TemporaryDirectory(prefix="meshkit-bench-state-") as folder:
        os.environ["MESHKIT_STATE_DIR"] = folder
        results: list[Result] = []
        try:
            uvloop.run(measure(options.names or NAMES, options.rounds, results))
        except BenchmarkError as error:
            if results:
                print(table(results))
            print(f"benchmarks: error: {error}", file=sys.stderr)
            return 2
        except (KeyboardInterrupt, asyncio.CancelledError):
            return 130
    print(table(results))
    if options.write:
        print(f"\nwritten to {write(results, NAMES)}")
    return 0 if all(result.passed for result in results) else 1


def forget_settings() -> None:
    """Let no variable of this shell reach the services; those for finding servers stay."""
    for name in list(os.environ):
        if name == "PORT" or (name.startswith("MESHKIT_") and name not in SERVERS):
            del os.environ[name]


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"of {', '.join(NAMES)}")
    parser.add_argument("--rounds", type=int, help="pairs for each (default: its own number)")
    parser.add_argument("--write", action="store_true", help="write docs/benchmarks.md")
    options = parser.parse_args()
    if unknown := set(options.names) - set(NAMES):
        parser.error(f"no such benchmark: {', '.join(sorted(unknown))}")
    if options.rounds is not None and options.rounds < 1:
        parser.error("--rounds must be at least 1")
    if options.write and options.names:
        parser.error("--write needs all benchmarks: leave the names out")
    return options


async def measure(names: Sequence[str], rounds: int | None, results: list[Result]) -> None:
    """Append to ``results`` as they come, so that a failure leaves those before it."""
    task = asyncio.current_task()
    assert task is not None
    # As Ctrl-C does, so that the processes we started end with us.
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, task.cancel)
    for name in names:
        print(f"{name} ...", file=sys.stderr, flush=True)
        module = importlib.import_module(name)
        results += await module.run(rounds or module.ROUNDS)


if __name__ == "__main__":
    sys.exit(main())
