"""What a command that watches says when the registry is lost, and when it is back."""

from __future__ import annotations

import sys

from meshkit.cli import complain
from meshkit.errors import RegistryError


class Outage:
    """One line on stderr for each, for a watch that goes on.

    Args:
        url: the registry's.
    """

    def __init__(self, url: str) -> None:
        self._url = url
        self._reached = False
        self._lost = False

    def begins(self, error: RegistryError) -> None:
        """Hear that it can't be read. Raises the error when it never could: it may be mistyped."""
        if not self._reached:
            raise error
        if not self._lost:
            complain(f"{error}; waiting for it to come back")
        self._lost = True

    def ends(self) -> None:
        """Hear that it has been read."""
        if self._lost:
            print(f"meshkit: {self._url} is back", file=sys.stderr, flush=True)
        self._reached, self._lost = True, False
