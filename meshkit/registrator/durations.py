"""Durations as Go, and so Consul and Registrator, write them."""

from __future__ import annotations

import re

SECONDS = {"ns": 1e-9, "us": 1e-6, "µs": 1e-6, "ms": 1e-3, "s": 1.0, "m": 60.0, "h": 3600.0}
PART = re.compile(r"(\d+(?:\.\d*)?|\.\d+)(ns|us|µs|ms|s|m|h)", re.ASCII)
LONGEST = 2**63 / 1e9  # Go counts nanoseconds in 64 bits


def seconds(text: str) -> float:
    """Return a duration such as ``10s``, ``1m30s`` or ``500ms`` in seconds, greater than 0.

    Raises ValueError, with a message that says what is allowed, for anything else.
    """
    parts = PART.findall(text)
    if not parts or "".join(number + unit for number, unit in parts) != text:
        raise ValueError(f"{text!r} is not a duration such as 10s, 500ms or 1m30s")
    total = sum(float(number) * SECONDS[unit] for number, unit in parts)
    if not 0 < total < LONGEST:
        raise ValueError(f"{text!r} is not a duration greater than 0 and below 292 years")
    return total
