"""The containers of docker-compose.yml under steady traffic, while they are killed and scaled.

Brings the cluster up, tells how long the first successful call took, and then, while calls go on,
kills a container of users, stops another, scales up and down, restarts the agent that the services
speak to (also with an emptied data folder), and kills the leader of the registry's servers. Ends
with a tally, and with 0 only when no call failed. Takes everything down again.

    python examples/docker/demo [--registry consul] [--seconds 60] [--rate 20] [--json]
"""

from __future__ import annotations

import argparse
import asyncio
import os
import secrets
import signal
import sys
from pathlib import Path
from typing import Any

from clusters import CLUSTERS
from compose import Compose, DemoError
from report import print_json, print_text
from script import Demo

SIGNALS = (signal.SIGINT, signal.SIGTERM)
REPOSITORY = Path(__file__).parents[3]


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    add = parser.add_argument
    add("--registry", choices=sorted(CLUSTERS), default="consul", help="profile to run (consul)")
    add("--seconds", type=float, default=60.0, help="least length of the traffic (60)")
    add("--rate", type=float, default=20.0, help="calls a second (20)")
    add("--leaders", type=int, default=2, help="how often the leader is killed (2)")
    add("--project", help="its name among Compose projects (a random one)")
    add("--json", action="store_true", help="print the tally as JSON; progress goes to stderr")
    options = parser.parse_args()
    if not (5 <= options.seconds <= 3600 and 1 <= options.rate <= 500 and options.leaders >= 0):
        parser.error("--seconds is 5 to 3600, --rate 1 to 500, --leaders 0 or more")
    return options


def environment(options: argparse.Namespace) -> dict[str, str]:
    """Ours, with what docker-compose.yml is told; other projects are not touched."""
    kept = {name: text for name, text in os.environ.items() if not name.startswith("MESHKIT_")}
    return {
        **kept,
        "COMPOSE_PROJECT_NAME": options.project or f"meshkit-demo-{secrets.token_hex(3)}",
        "COMPOSE_PROFILES": options.registry,
        "LOAD_RATE": f"{options.rate:g}",
    }


async def play(compose: Compose, options: argparse.Namespace) -> dict[str, Any]:
    task = asyncio.current_task()
    assert task is not None
    loop = asyncio.get_running_loop()

    def interrupt() -> None:
        """Cancel once: the second signal of somebody impatient must not cut the end short."""
        for number in SIGNALS:
            loop.remove_signal_handler(number)
            signal.signal(number, signal.SIG_IGN)
        task.cancel()

    for number in SIGNALS:
        loop.add_signal_handler(number, interrupt)
    demo = Demo(
        compose,
        CLUSTERS[options.registry](compose),
        seconds=options.seconds,
        leaders=options.leaders,
        output=sys.stderr if options.json else sys.stdout,
    )
    return await demo.run()


def main() -> int:
    options = parse_arguments()
    compose = Compose(REPOSITORY, environment(options))
    try:
        report = asyncio.run(play(compose, options))
    except DemoError as error:
        print(f"demo: error: {error}", file=sys.stderr)
        return 1
    except asyncio.CancelledError:
        print("demo: interrupted", file=sys.stderr)
        return 130
    finally:
        for number in SIGNALS:  # the clean-up must run to its end
            signal.signal(number, signal.SIG_IGN)
        compose.down()
    (print_json if options.json else print_text)(report)
    return 1 if report["problems"] else 0


if __name__ == "__main__":
    sys.exit(main())
