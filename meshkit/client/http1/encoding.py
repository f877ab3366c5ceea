"""Bodies that arrive compressed: gzip and deflate, which is what we say that we accept."""

from __future__ import annotations

import zlib

from meshkit.client.headers import Headers
from meshkit.errors import ConnectionLost

ACCEPTED = "gzip, deflate"
GZIP = zlib.MAX_WBITS | 16
RAW = -zlib.MAX_WBITS
ENVELOPE = 2  # bytes, by which zlib's is known
# Decompressed at once: what follows a member is copied, and a body may have members without end.
WINDOW = 8192


class Decoder:
    """Decompresses one body, piece by piece.

    Attributes:
        pending: more can be had without more data.
    """

    __slots__ = ("_begun", "_gzip", "_inner", "_rest", "pending")

    def __init__(self, *, gzip: bool) -> None:
        self._gzip = gzip
        self._begun = False
        self._inner = zlib.decompressobj(GZIP if gzip else zlib.MAX_WBITS)
        self._rest = b""  # not decompressed yet
        self.pending = False

    def decode(self, data: bytes, limit: int = 0) -> bytes:
        """Return what ``data`` holds: at most one byte more than ``limit``, if that is not 0.

        What is left then is had with the next call.

        Raises:
            ConnectionLost: it is not what its header says.
        """
        data = self._rest + data
        if not (self._gzip or self._begun) and len(data) < ENVELOPE:
            self._rest = data
            return b""
        found: list[bytes] = []
        room = limit + 1 if limit else 0
        taken = 0
        try:
            while taken < len(data) or self.pending:
                if self._inner.eof:  # several members of gzip may follow one another
                    self._inner = zlib.decompressobj(GZIP)
                window = data[taken : taken + WINDOW]
                part = self._inflate(window, room)
                found.append(part)
                inner = self._inner
                taken += len(window) - len(inner.unused_data) - len(inner.unconsumed_tail)
                room -= len(part) if room else 0
                if limit and not room:  # the decompressor may hold back more
                    self.pending = taken < len(data) or not inner.eof
                    break
                self.pending = False
        except zlib.error as error:
            raise _invalid(str(error)) from None
        self._rest = data[taken:]
        return b"".join(found)

    def _inflate(self, data: bytes, limit: int) -> bytes:
        try:
            found = self._inner.decompress(data, limit)
        except zlib.error:
            if self._gzip or self._begun:
                raise
            # Some send deflate without the zlib envelope that the standard asks for.
            self._inner = zlib.decompressobj(RAW)
            found = self._inner.decompress(data, limit)
        self._begun = True
        return found

    def finish(self) -> None:
        """Raise ConnectionLost when the body ended too early; an empty one is fine."""
        if self._rest or (self._begun and not self._inner.eof):
            raise _invalid("the compressed body is cut short")


def _invalid(reason: str) -> ConnectionLost:
    return ConnectionLost(f"sent no valid answer ({reason})")


def decoding(pairs: list[tuple[str, str]]) -> tuple[Headers, Decoder | None]:
    """Return the headers to show, and what decompresses the body if anything has to.

    The headers that describe the compressed body are left out with it: who passes on headers
    and content would announce something else than it sends.
    """
    headers = Headers(pairs)
    coding = headers.get("content-encoding", "").strip().lower()
    if coding not in ("gzip", "x-gzip", "deflate"):
        return headers, None
    gone = ("content-encoding", "content-length")
    return Headers([pair for pair in pairs if pair[0] not in gone]), Decoder(gzip="gzip" in coding)
