"""Certificates to trust and to show, taken up anew when their files change."""

from __future__ import annotations

import logging
import os
import ssl
import threading

log = logging.getLogger("meshkit.zookeeper")

Stamp = tuple[tuple[int, int, int, int] | None, ...]


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


class Unusable(Exception):
    """A certificate file can't be used. The text begins with the parameter that names it."""


class Certificates:
    """What TLS is spoken with.

    Args:
        ca: a PEM file of authorities; None for the system's own.
        cert: our certificate, a PEM file; None to show none.
        key: its private key, unencrypted.
        check_hostname: whether the server's certificate must be for the host of the URL.

    Raises:
        Unusable: a file does not hold what it should.
    """

    def __init__(
        self,
        *,
        ca: str | None = None,
        cert: str | None = None,
        key: str | None = None,
        check_hostname: bool = True,
    ) -> None:
        self._ca, self._cert, self._key = ca, cert, key
        self._check_hostname = check_hostname
        self._lock = threading.Lock()  # a session that ends and the next one may both connect
        self._stamp = self._look()
        self._context = self._make()

    def context(self) -> ssl.SSLContext:
        """Return the context for the next connection; from any thread.

        Files that were changed are read again. While they don't fit together, as when only one
        of certificate and key has been replaced yet, the earlier ones stay in use.
        """
        with self._lock:
            stamp = self._look()
            if stamp != self._stamp:
                self._stamp = stamp  # one line for each change
                self._renew()
            return self._context

    def _renew(self) -> None:
        try:
            self._context = self._make()
        except Unusable as error:
            log.warning(
                "certificates for ZooKeeper have changed and the earlier ones stay in use: %s",
                error,
            )
        else:
            log.info("certificates for ZooKeeper have changed: the new ones are used from now on")

    def _look(self) -> Stamp:
        """Tell files from later ones, also when a link was turned to another folder."""
        return tuple(_facts(path) for path in (self._ca, self._cert, self._key) if path)

    def _make(self) -> ssl.SSLContext:
        try:
            context = ssl.create_default_context(cafile=self._ca)
        except OSError as error:
            raise Unusable(
                f"ca= names {self._ca}, which holds no certificate: {_reason(error)}"
            ) from None
        context.sslsocket_class = TlsSocket
        context.check_hostname = self._check_hostname
        if self._cert:
            try:
                # An encrypted key must not make us ask for its password on the terminal.
                context.load_cert_chain(self._cert, self._key, password="")
            except (OSError, ValueError) as error:
                raise Unusable(
                    f"cert={self._cert} and key={self._key} can't be used together: "
                    f"{_reason(error)}"
                ) from None
        return context


def _facts(path: str) -> tuple[int, int, int, int] | None:
    try:
        seen = os.stat(path)  # noqa: PTH116 - no Path for each connection
    except OSError:
        return None
    return seen.st_mtime_ns, seen.st_ctime_ns, seen.st_size, seen.st_ino


def _reason(error: Exception) -> str:
    return (isinstance(error, OSError) and error.strerror) or str(error)
