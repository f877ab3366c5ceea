"""Tags: written with commas; a comma within a tag has a backslash before it."""

from __future__ import annotations

import re
from collections.abc import Iterable

SEPARATOR = re.compile(r"(?<!\\),")


def split_tags(text: str) -> list[str]:
    """Return the tags of one text in their order; empty ones are left out."""
    parts = (part.replace("\\,", ",").strip() for part in SEPARATOR.split(text))
    return [part for part in parts if part]


def join_tags(texts: Iterable[str]) -> tuple[str, ...]:
    """Return the tags of several texts, each tag once, in the order of first mention."""
    return tuple(dict.fromkeys(tag for text in texts for tag in split_tags(text)))
