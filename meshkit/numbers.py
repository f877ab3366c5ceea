"""Wrong types in policies, said in one line: not every project runs a type checker."""

from __future__ import annotations

import dataclasses
import functools
from typing import Any

from meshkit.errors import ConfigError


def check_numbers(policy: Any) -> None:
    """Check the fields of a dataclass that are declared as int or float, some with ``| None``.

    Raises:
        ConfigError: one is something else.
    """
    for name, kinds, whole in _numbers(policy.__class__):
        value = getattr(policy, name)
        if not isinstance(value, kinds) or isinstance(value, bool):
            kind = "a whole number" if whole else "a number"
            raise ConfigError(f"{type(policy).__name__}: {name} must be {kind}, not {value!r}")


@functools.cache
def _numbers(cls: type) -> tuple[tuple[str, tuple[type, ...], bool], ...]:
    """Return name, types and "is whole" of each such field; once, as calls may make policies."""
    found = []
    for field in dataclasses.fields(cls):
        words = str(field.type).split(" | ")  # as written: annotations are not evaluated
        if "int" in words or "float" in words:
            whole = "float" not in words
            kinds = (int,) if whole else (int, float)
            found.append((field.name, (*kinds, type(None)) if "None" in words else kinds, whole))
    return tuple(found)
