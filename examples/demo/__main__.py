"""Services under steady traffic, while instances of them die, leave and arrive.

Starts three instances of users and two of orders as separate processes, calls orders by name,
and meanwhile kills one users instance, stops one and adds one. Ends with a tally, and with 0
only when no call was lost (1: something was, with the reason; 130 or 143: interrupted). Leaves
no process and no file behind.

    python examples/demo [--seconds 20] [--rate 100] [--registry local://] [--json]
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable

from interrupt import Interrupt


def number(low: float, high: float) -> Callable[[str], float]:
    """Make an argument type: a number within limits."""

    def parse(text: str) -> float:
        value = float(text)
        if not low <= value <= high:
            raise argparse.ArgumentTypeError(f"{text} is not between {low:g} and {high:g}")
        return value

    parse.__name__ = "number"  # argparse shows it when float() fails
    return parse


def parse_arguments(arguments: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    add = parser.add_argument
    add("--seconds", type=number(2, 600), default=20.0, help="length of the traffic (20)")
    add("--rate", type=number(1, 1000), default=100.0, help="calls a second (100)")
    add("--registry", default="local://", help="registry URL (local://)")
    add("--json", action="store_true", help="print the tally as JSON; progress goes to stderr")
    return parser.parse_args(arguments)


def main() -> int:
    interrupt = Interrupt()  # before all that takes time
    options = parse_arguments()

    from script import play  # noqa: PLC0415 - imports what takes time

    return play(
        interrupt,
        registry=options.registry,
        seconds=options.seconds,
        rate=options.rate,
        as_json=options.json,
    )


if __name__ == "__main__":
    sys.exit(main())
