"""Certificates to trust and to show, taken up anew when their files change; for any engine."""

from __future__ import annotations

import logging
import os
import ssl
import threading

log = logging.getLogger("meshkit.registry")

Stamp = tuple[tuple[int, int, int, int] | None, ...]


class Unusable(Exception):
    """A certificate file can't be used.

    Attributes:
        parameter: ``ca`` or ``cert``, which names it.
    """

    def __init__(self, parameter: str, reason: str) -> None:
        super().__init__(reason)
        self.parameter = parameter


class Certificates:
    """What TLS is spoken with.

    Args:
        server: what is spoken to, for the log.
        ca: a PEM file of authorities; None for the system's own.
        cert: our certificate, a PEM file; None to show none.
        key: its private key, unencrypted.
        verify: False trusts whatever certificate the server shows.
        check_hostname: whether that must be for the host of the URL.
        socket_class: of the sockets that are made.

    Raises:
        Unusable: a file does not hold what it should.
    """

    def __init__(
        self,
        server: str,
        *,
        ca: str | None = None,
        cert: str | None = None,
        key: str | None = None,
        verify: bool = True,
        check_hostname: bool = True,
        socket_class: type[ssl.SSLSocket] = ssl.SSLSocket,
    ) -> None:
        self._server = server
        self._ca, self._cert, self._key = ca, cert, key
        self._verify, self._check_hostname = verify, verify and check_hostname
        self._socket_class = socket_class
        self._lock = threading.Lock()
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
        changed = f"certificates for {self._server} have changed"
        try:
            self._context = self._make()
        except Unusable as error:
            log.warning(
                "%s and the earlier ones stay in use: %s= %s", changed, error.parameter, error
            )
        else:
            log.info("%s: the new ones are used from now on", changed)

    def _look(self) -> Stamp:
        """Tell files from later ones, also when a link was turned to another folder."""
        return tuple(_facts(path) for path in (self._ca, self._cert, self._key) if path)

    def _make(self) -> ssl.SSLContext:
        try:
            context = ssl.create_default_context(cafile=self._ca)
        except OSError as error:
            reason = f"names {self._ca}, which holds no certificate: {_reason(error)}"
            raise Unusable("ca", reason) from None
        context.sslsocket_class = self._socket_class
        context.check_hostname = self._check_hostname
        if not self._verify:
            context.verify_mode = ssl.CERT_NONE
        if self._cert:
            try:
                # An encrypted key must not make us ask for its password on the terminal.
                context.load_cert_chain(self._cert, self._key, password="")
            except (OSError, ValueError) as error:
                reason = (
                    f"names {self._cert}, and it and the key in {self._key} can't be used "
                    f"together: {_reason(error)}"
                )
                raise Unusable("cert", reason) from None
        return context


def _facts(path: str) -> tuple[int, int, int, int] | None:
    try:
        seen = os.stat(path)  # noqa: PTH116 - no Path for each connection
    except OSError:
        return None
    return seen.st_mtime_ns, seen.st_ctime_ns, seen.st_size, seen.st_ino


def _reason(error: Exception) -> str:
    return (isinstance(error, OSError) and error.strerror) or str(error)
