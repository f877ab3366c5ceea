"""What TLS tells that kazoo takes for a lost connection."""

from __future__ import annotations

import ssl


class TlsSocket(ssl.SSLSocket):
    """Remembers that the server has refused us after the handshake, which kazoo takes for a loss.

    In TLS 1.3 only then we hear what it thinks of our certificate.
    """

    refusal: ssl.SSLError | None = None

    def recv(self, buflen: int = 1024, flags: int = 0) -> bytes:
        """Read as usual."""
        try:
            return super().recv(buflen, flags)
        except ssl.SSLError as error:
            if is_refusal(error):
                self.refusal = error
            raise


def is_refusal(error: OSError | None) -> bool:
    """Whether one side of TLS does not take the other, so that trying again won't help."""
    return type(error) in (ssl.SSLError, ssl.SSLCertVerificationError)  # not e.g. SSLEOFError
