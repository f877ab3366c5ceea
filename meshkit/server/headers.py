"""The headers of every answer, which are written without a layer of ours in between."""

from __future__ import annotations

import time
from email.utils import formatdate

Header = tuple[bytes, bytes]
CLOSE: Header = (b"connection", b"close")


class DefaultHeaders(list[Header]):
    """The date, and after it what was added: read anew for each answer, so changed in place.

    The date is renewed by the first request of each second; a timer would wake an idle service
    for nobody.

    Attributes:
        lines: all of them as they are sent.
        closing: whether they say that the connection is closed after the answer.
    """

    def __init__(self) -> None:
        super().__init__([(b"date", b"")])
        self.lines = b""
        self.closing = False
        self._second = 0
        self.refresh()

    def refresh(self) -> None:
        """Let the date be now; to be called with each request."""
        now = time.time()
        if not self._second <= now < self._second + 1:
            self._second = int(now)
            self[0] = (b"date", formatdate(self._second, usegmt=True).encode())
            self._write()

    def add(self, *pairs: Header) -> None:
        """Send these with every answer from now on, also to requests under way."""
        self.extend(pairs)
        self._write()

    def _write(self) -> None:
        self.lines = b"".join(b"%b: %b\r\n" % pair for pair in self)
        self.closing = CLOSE in self
