"""HTTP headers: read without regard to case, several values to a name, checked before sending."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import TypeVar, overload

from meshkit import identity
from meshkit.errors import ConfigError
from meshkit.propagation import DEADLINE

HeaderTypes = Mapping[str, str] | Sequence[tuple[str, str]]
Default = TypeVar("Default")

# https://www.rfc-editor.org/rfc/rfc9110#section-5.5: no control characters but the tab.
NAME = re.compile(r"[A-Za-z0-9!#$%&'*+.^_`|~-]+")
VALUE = re.compile(r"[^\x00-\x08\x0a-\x1f\x7f]*")
OF_ONE_CALL = frozenset({identity.TARGET, DEADLINE})
SECRETS = frozenset({"authorization", "cookie", "proxy-authorization", "set-cookie"})


class Headers(Mapping[str, str]):
    """An answer's headers. Names are looked up in any case and listed in lower case.

    As with httpx, ``headers["x"]`` joins several values with ``", "``; :meth:`get_list` keeps
    them apart.

    Args:
        pairs: in the order of arrival, with names in lower case.
    """

    __slots__ = ("_joined", "_pairs")

    def __init__(self, pairs: Iterable[tuple[str, str]] = ()) -> None:
        self._pairs = list(pairs)
        self._joined = dict(self._pairs)
        if len(self._joined) < len(self._pairs):
            self._joined = {name: ", ".join(self.get_list(name)) for name in self._joined}

    def __getitem__(self, name: str) -> str:
        return self._joined[name.lower()]

    def __iter__(self) -> Iterator[str]:
        return iter(self._joined)

    def __len__(self) -> int:
        return len(self._joined)

    def __contains__(self, name: object) -> bool:
        return isinstance(name, str) and name.lower() in self._joined

    def __repr__(self) -> str:
        shown = {name: "***" if name in SECRETS else self[name] for name in self}
        return f"Headers({shown!r})"

    @overload
    def get(self, name: str, /) -> str | None: ...
    @overload
    def get(self, name: str, /, default: str | Default) -> str | Default: ...
    def get(self, name: str, /, default: str | Default | None = None) -> str | Default | None:
        """Return the value, several joined with ``", "``, or ``default``."""
        return self._joined.get(name.lower(), default)

    def get_list(self, name: str) -> list[str]:
        """Return each value of this name in the order of arrival; empty when there is none."""
        wanted = name.lower()
        return [value for each, value in self._pairs if each == wanted]

    def multi_items(self) -> list[tuple[str, str]]:
        """Return every (name, value) pair, names repeated, in the order of arrival."""
        return list(self._pairs)


def check_headers(headers: HeaderTypes | None) -> list[tuple[str, str]]:
    """Return the pairs of headers to send. Raises ConfigError that names a bad one.

    Those that say something about a single call are left out, for a service that passes on the
    headers it received: it would ask for itself, and claim to have the time that it once had.
    """
    if not headers:
        return []
    pairs = list(headers.items() if isinstance(headers, Mapping) else headers)
    if not all(isinstance(pair, tuple | list) and len(pair) == 2 for pair in pairs):
        raise ConfigError("headers= must be a mapping, or pairs of name and value")
    for name, value in pairs:
        if not isinstance(name, str) or not NAME.fullmatch(name):
            raise ConfigError(f"invalid header name {name!r}")
        if not isinstance(value, str) or not VALUE.fullmatch(value):
            # The value may be a secret, so it is not shown.
            raise ConfigError(f"header {name!r}: the value must be text without line breaks")
    return [pair for pair in pairs if pair[0].lower() not in OF_ONE_CALL]


def merge_headers(
    defaults: Sequence[tuple[str, str]], own: Sequence[tuple[str, str]]
) -> list[tuple[str, str]]:
    """Return the defaults that ``own`` does not name, followed by ``own``."""
    if not own:
        return list(defaults)
    names = {name.lower() for name, _ in own}
    return [*((name, value) for name, value in defaults if name.lower() not in names), *own]
