"""What came of the demo."""

from __future__ import annotations

import json
from typing import Any


def print_json(report: dict[str, Any]) -> None:
    """Print one JSON object."""
    print(json.dumps(report, indent=2), flush=True)


def print_text(report: dict[str, Any]) -> None:
    """Print it for people."""
    print(
        "",
        f"first successful call {report['first_call_after']:.1f} s after a cold start",
        f"{report['calls']} calls in {report['seconds']:.1f} s: {report['answered']} answered",
        f"  {report['failed']} failed",
        f"  {report['retried']} retried by the load generator without being noticed",
        f"{report['users']} instances of users answered in turn",
        f"latency: p50 {report['p50_ms']} ms, p99 {report['p99_ms']} ms",
        *(f"FAILED: {problem}" for problem in report["problems"]),
        *(() if report["problems"] else ("OK: no call was lost",)),
        sep="\n",
        flush=True,
    )
