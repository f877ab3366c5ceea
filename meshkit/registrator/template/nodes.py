"""A template as it has been read: a tree of these."""

from __future__ import annotations

import dataclasses
from typing import Any


@dataclasses.dataclass(frozen=True, slots=True)
class Literal:
    """A string, number, boolean or nil."""

    value: Any


@dataclasses.dataclass(frozen=True, slots=True)
class Variable:
    """``$name``; the bare ``$`` is the whole data, and ``.`` what it speaks of at the moment."""

    name: str


@dataclasses.dataclass(frozen=True, slots=True)
class Field:
    """``base.Name``."""

    base: Expression
    name: str


@dataclasses.dataclass(frozen=True, slots=True)
class Call:
    """A function with its arguments; that of a pipe comes last."""

    function: str
    arguments: tuple[Expression, ...]


Expression = Literal | Variable | Field | Call


@dataclasses.dataclass(frozen=True, slots=True)
class Text:
    """What stands outside of the braces."""

    text: str


@dataclasses.dataclass(frozen=True, slots=True)
class Output:
    """An action whose value is printed, or kept under a name when there is one."""

    value: Expression
    assigned: str = ""
    declares: bool = True


@dataclasses.dataclass(frozen=True, slots=True)
class If:
    """``if``, and ``with`` when ``rebinds`` the dot."""

    condition: Output
    body: tuple[Node, ...]
    otherwise: tuple[Node, ...]
    rebinds: bool = False


@dataclasses.dataclass(frozen=True, slots=True)
class Range:
    """``range``: of a list, or of a map in the order of its keys."""

    over: Expression
    key: str
    value: str
    body: tuple[Node, ...]
    otherwise: tuple[Node, ...]


Node = Text | Output | If | Range
