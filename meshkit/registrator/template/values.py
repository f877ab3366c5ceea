"""Values as Go prints them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


def printed(value: Any) -> str:
    """Return a value as text. What is missing prints nothing (Go: ``<no value>``)."""
    if value is None:
        return ""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, float):
        return f"{value:g}"
    if isinstance(value, Mapping):
        inside = " ".join(f"{key}:{printed(each)}" for key, each in sorted(value.items()))
        return f"map[{inside}]"
    if isinstance(value, list | tuple):
        return f"[{' '.join(map(printed, value))}]"
    return str(value)
