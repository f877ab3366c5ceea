"""The functions of templates: Registrator's own, and those of Go that are of use for tags."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from meshkit.registrator.template.fetch import http_get
from meshkit.registrator.template.values import printed

VERB = re.compile(r"%([%a-zA-Z])")


def str_slice(text: str, *bounds: int) -> str:
    """Return ``text[start:end]``; the whole text when the bounds are outside of it."""
    if len(bounds) not in (1, 2) or any(not 0 <= each <= len(text) for each in bounds):
        return text
    start, end = bounds[0], bounds[1] if len(bounds) == 2 else len(text)
    return text[start:end] if end >= start else text[start:]


def s_index(index: int, items: Sequence[Any] | None) -> Any:
    """Return an element, counted from the end when negative; the outermost when there is none."""
    if isinstance(items, str | Mapping):
        raise TypeError("the second is no list")
    if not items:
        return ""
    return items[max(-len(items), min(index, len(items) - 1))]


def m_index(key: str, map: Mapping[str, Any] | None) -> Any:
    """Return what a map has under a key."""
    return (map or {}).get(key, "")


def replace(count: int, old: str, new: str, text: str) -> str:
    """Replace the first ``count`` occurrences, all of them for -1."""
    return text.replace(old, new, count)


def split_index(index: int, separator: str, text: str) -> Any:
    """Return one part of a split text."""
    return s_index(index, text.split(separator))


def match_all_elements(pattern: str, items: Sequence[str] | None) -> list[str]:
    """Return the elements in which a pattern is found."""
    found = re.compile(pattern).search
    return [each for each in items or () if found(each)]


def match_first_element(pattern: str, items: Sequence[str] | None) -> str:
    """Return the first of them, empty when there is none."""
    return next(iter(match_all_elements(pattern, items)), "")


def json_parse(document: str, path: str) -> Any:
    """Return what stands at a path such as ``a::b::c``; empty when it is not there."""
    try:
        value = json.loads(document)
        for key in path.split("::"):
            value = value[int(key.strip("[]"))] if isinstance(value, list) else value[key]
    except (LookupError, TypeError, ValueError):
        return ""
    return value if isinstance(value, str) else json.dumps(value)


def index(value: Any, *keys: Any) -> Any:
    """Return ``value[key][key]...``; nil for a key that a map has not."""
    for key in keys:
        if isinstance(value, Mapping) or value is None:
            value = (value or {}).get(key)
        else:
            if not 0 <= key < len(value):
                raise IndexError(f"{key} is out of range")
            value = value[key]
    return value


def first_false(*values: Any) -> Any:
    """Return the first that is empty, else the last."""
    return next((each for each in values if not each), values[-1])


def first_true(*values: Any) -> Any:
    """Return the first that is not empty, else the last."""
    return next((each for each in values if each), values[-1])


def printf(pattern: str, *values: Any) -> str:
    """Format by %s, %v, %d, %q and %%; others, and too few or too many values, are an error."""
    left = iter(values)

    def fill(match: re.Match[str]) -> str:
        match match[1]:
            case "%":
                return "%"
            case "s" | "v":
                return printed(next(left))
            case "d":
                return str(int(next(left)))
            case "q":
                return json.dumps(printed(next(left)), ensure_ascii=False)
        raise ValueError(f"{match[0]} is not supported")

    try:
        text = VERB.sub(fill, pattern)
    except StopIteration:
        raise ValueError("there are too few values") from None
    if next(left, pattern) is not pattern:
        raise ValueError("there are too many values")
    return text


FUNCTIONS: Mapping[str, Callable[..., Any]] = {
    "strSlice": str_slice,
    "sIndex": s_index,
    "mIndex": m_index,
    "toUpper": lambda text: text.upper(),
    "toLower": lambda text: text.lower(),
    "replace": replace,
    "join": lambda separator, items: separator.join(items or ()),
    "split": lambda separator, text: text.split(separator),
    "splitIndex": split_index,
    "matchFirstElement": match_first_element,
    "matchAllElements": match_all_elements,
    "httpGet": http_get,
    "jsonParse": json_parse,
    "index": index,
    "len": len,
    "and": first_false,
    "or": first_true,
    "not": lambda value: not value,
    "eq": lambda value, *others: value in others,
    "ne": lambda one, other: one != other,
    "lt": lambda one, other: one < other,
    "le": lambda one, other: one <= other,
    "gt": lambda one, other: one > other,
    "ge": lambda one, other: one >= other,
    "print": lambda *values: "".join(map(printed, values)),
    "printf": printf,
}
