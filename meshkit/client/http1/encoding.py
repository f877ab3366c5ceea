"""Bodies that arrive compressed: gzip and deflate, which is what we say that we accept."""

from __future__ import annotations

import zlib

from meshkit.client.headers import Headers
from meshkit.errors import ConnectionLost

ACCEPTED = "gzip, deflate"
GZIP = zlib.MAX_WBITS | 16
RAW = -zlib.MAX_WBITS


class Decoder:
    """Decompresses one body, piece by piece."""

    __slots__ = ("_begun", "_gzip", "_inner")

    def __init__(self, *, gzip: bool) -> None:
        self._gzip = gzip
        self._begun = False
        self._inner = zlib.decompressobj(GZIP if gzip else zlib.MAX_WBITS)

    def decode(self, data: bytes, limit: int = 0) -> bytes:
        """Return what ``data`` holds: at most one byte more than ``limit``, if that is not 0.

        Raises:
            ConnectionLost: it is not what its header says.
        """
        found = b""
        try:
            while data:
                if self._inner.eof:  # several members of gzip may follow one another
                    self._inner = zlib.decompressobj(GZIP)
                found += self._inflate(data, limit + 1 - len(found) if limit else 0)
                if 0 < limit < len(found):
                    return found
                data = self._inner.unused_data
        except zlib.error as error:
            raise _invalid(str(error)) from None
        return found

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
        if self._begun and not self._inner.eof:
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
