"""Values that a call's headers have: of the call itself, or of the one being handled."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any

from meshkit import context
from meshkit.errors import ConfigError

COOKIE = "cookie:"
NAME = re.compile(r"[A-Za-z0-9!#$%&'*+.^_`|~-]+")

# Pairs of a name, in any case, and a value: headers, or gRPC's metadata.
Pairs = Iterable[Any]


def header(pairs: Pairs | None, name: str) -> str | None:
    """Return the value that the call has under this lower-case name, or that it came in with."""
    for key, value in pairs or ():
        if key.lower() == name:
            return value if isinstance(value, str) else bytes(value).decode("latin-1")
    return context.current().header(name)


def cookie(pairs: Pairs | None, name: str) -> str | None:
    """Return the value of a cookie, likewise."""
    text = header(pairs, "cookie")
    for part in (text or "").split(";"):
        key, equals, value = part.partition("=")
        if equals and key.strip() == name:
            return value.strip().strip('"')
    return None


class Sticky:
    """What keeps calls together: the value of a header, or of a cookie.

    Args:
        source: a header's name, or ``cookie:NAME``.

    Raises:
        ConfigError: it is neither.
    """

    def __init__(self, source: str) -> None:
        if not isinstance(source, str):
            raise ConfigError(f"sticky= must be a header's or cookie's name, not {source!r}")
        self._read = cookie if source.lower().startswith(COOKIE) else header
        name = source[len(COOKIE) :] if self._read is cookie else source.lower()
        if not NAME.fullmatch(name):
            raise ConfigError(
                f"sticky={source!r} is no header and no cookie: use a name such as 'x-user-id' "
                "or 'cookie:session'"
            )
        self._name = name

    def of(self, pairs: Pairs | None) -> str | None:
        """Return the key of a call with these headers; None when it has none."""
        return self._read(pairs, self._name) or None
