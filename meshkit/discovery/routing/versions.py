"""Semantic versions: their order, and ranges of them.

The order is that of https://semver.org/#spec-item-11; fewer or more than three numbers are
understood too (``2`` is ``2.0.0``), a leading ``v``, and Python's short form ``2.0rc1``. Ranges are
written as for pip.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Callable

from meshkit.errors import ConfigError

# (numbers without trailing zeros, (1,) for a release or (0, its identifiers) for a pre-release)
Version = tuple[tuple[int, ...], tuple[object, ...]]
Test = Callable[[Version], bool]

VERSION = re.compile(
    r"v?(?P<numbers>\d+(?:\.\d+)*)"
    r"(?:-(?P<pre>[0-9A-Za-z-]+(?:\.[0-9A-Za-z-]+)*)|(?P<short>(?:a|b|rc)\d+))?"
    r"(?:\+[0-9A-Za-z.-]+)?"
)
CLAUSE = re.compile(r"(?P<operator>~=|==|!=|>=|<=|>|<)\s*(?P<version>\S+)")
LONGEST = 128  # of a text that is read; int() of a very long one takes long


@functools.lru_cache(maxsize=1024)
def parse_version(text: str) -> Version | None:
    """Return what ``text`` compares as; None when it is no version."""
    found = VERSION.fullmatch(text.strip()) if text.isascii() and len(text) <= LONGEST else None
    if found is None:
        return None
    numbers = [int(number) for number in found["numbers"].split(".")]
    while numbers and not numbers[-1]:
        numbers.pop()
    return tuple(numbers), _rank(found["pre"], found["short"])


def _rank(pre: str | None, short: str | None) -> tuple[object, ...]:
    if short is not None:
        letters = short.rstrip("0123456789")
        identifiers = [letters, short.removeprefix(letters)]
    elif pre is not None:
        identifiers = pre.split(".")
    else:
        return (1,)
    # Numbers are less than words; each sort is compared only with its own.
    return 0, tuple((0, int(each), "") if each.isdigit() else (1, 0, each) for each in identifiers)


def parse_range(text: str) -> tuple[Test, ...]:
    """Return the tests that a version in the range passes.

    Args:
        text: clauses joined by commas, each an operator and a version: ``>=2,<3``. ``~=2.1`` is
            ``>=2.1,<3``, and a version alone is ``==``. As with pip, ``<3`` does not let in
            pre-releases of 3 itself.

    Raises:
        ConfigError: a clause can't be read.
    """
    return tuple(_test(clause.strip(), text) for clause in text.split(","))


def _test(clause: str, text: str) -> Test:
    found = CLAUSE.fullmatch(clause)
    operator, written = ("==", clause) if found is None else (found["operator"], found["version"])
    limit = parse_version(written)
    if limit is None:
        raise ConfigError(
            f"version range {text!r}: {clause!r} is not an operator (==, !=, >=, <=, >, <, ~=) "
            "and a version such as 2.1.0; for example: '>=2,<3'"
        )
    if operator == "~=":
        return _compatible(limit, written, text)
    return TESTS[operator](limit)


def _compatible(limit: Version, written: str, text: str) -> Test:
    match = VERSION.fullmatch(written)
    assert match is not None
    numbers = [int(number) for number in match["numbers"].split(".")][:-1]
    if not numbers:
        raise ConfigError(f"version range {text!r}: ~= needs two numbers or more, as in ~=2.0")
    numbers[-1] += 1
    below = _less((tuple(numbers), (1,)))
    return lambda version: version >= limit and below(version)


def _less(limit: Version) -> Test:
    numbers, rank = limit
    if rank == (1,):  # not 3.0.0-rc.1, which is less than 3 and has what <3 is to keep out
        return lambda version: version[0] < numbers
    return lambda version: version < limit


TESTS: dict[str, Callable[[Version], Test]] = {
    "==": lambda limit: lambda version: version == limit,
    "!=": lambda limit: lambda version: version != limit,
    ">=": lambda limit: lambda version: version >= limit,
    "<=": lambda limit: lambda version: version <= limit,
    ">": lambda limit: lambda version: version > limit,
    "<": _less,
}
