"""The headers of every answer, which uvicorn writes without a layer of ours in between."""

from __future__ import annotations

import time
from email.utils import formatdate

Header = tuple[bytes, bytes]


class DefaultHeaders:
    """A list that uvicorn's protocols read anew for each answer, so that it is changed in place.

    The date is renewed by the first request of each second; a timer would wake an idle service
    for nobody.

    Attributes:
        pairs: the date, and after it what was added.
    """

    def __init__(self) -> None:
        self.pairs: list[Header] = [(b"date", b"")]
        self._second = 0
        self.refresh()

    def refresh(self) -> None:
        """Let the date be now; to be called with each request."""
        second = int(time.time())
        if second != self._second:
            self._second = second
            self.pairs[0] = (b"date", formatdate(second, usegmt=True).encode())

    def add(self, *pairs: Header) -> None:
        """Send these with every answer from now on, also to requests under way."""
        self.pairs.extend(pairs)
