"""Certificates to trust and to show, taken up anew when their files change."""

from __future__ import annotations

import logging
import os
import ssl

log = logging.getLogger("meshkit.consul")

Stamp = tuple[tuple[int, int, int, int], ...]


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
        ca: a PEM file of authorities; None for the system's own.
        cert: our certificate, a PEM file; None to show none.
        key: its private key, unencrypted.
        verify: False trusts whatever certificate the agent shows.

    Raises:
        Unusable: a file does not hold what it should.
    """

    def __init__(
        self,
        *,
        ca: str | None = None,
        cert: str | None = None,
        key: str | None = None,
        verify: bool = True,
    ) -> None:
        self._ca, self._cert, self._key, self._verify = ca, cert, key, verify
        self._stamp = self._look()
        self._context = self._make()

    def context(self) -> ssl.SSLContext:
        """Return the context for the next connection.

        Files that were changed are read again. While they don't fit together, as when only one
        of certificate and key has been replaced yet, the earlier ones stay in use.
        """
        stamp = self._look()
        if stamp != self._stamp:
            self._stamp = stamp  # one warning for each change
            try:
                self._context = self._make()
            except Unusable as error:
                log.warning(
                    "Consul's certificates have changed and the earlier ones stay in use: %s= %s",
                    error.parameter,
                    error,
                )
            else:
                log.info("Consul's certificates have changed: the new ones are used from now on")
        return self._context

    def _look(self) -> Stamp:
        """Tell files from later ones, also when a link was turned to another folder."""
        found = []
        for path in filter(None, (self._ca, self._cert, self._key)):
            try:
                seen = os.stat(path)  # noqa: PTH116 - no Path for each connection
            except OSError:
                found.append((0, 0, 0, 0))
            else:
                found.append((seen.st_mtime_ns, seen.st_ctime_ns, seen.st_size, seen.st_ino))
        return tuple(found)

    def _make(self) -> ssl.SSLContext:
        try:
            context = ssl.create_default_context(cafile=self._ca)
        except OSError as error:
            reason = f"names {self._ca}, which holds no certificate: {error}"
            raise Unusable("ca", reason) from None
        if not self._verify:
            context.check_hostname = False
            context.verify_mode = ssl.CERT_NONE
        if self._cert:
            try:
                # An encrypted key must not make us ask for its password on the terminal.
                context.load_cert_chain(self._cert, self._key, password="")
            except (OSError, ValueError) as error:
                reason = f"and the key in {self._key} can't be used together: {error}"
                raise Unusable("cert", reason) from None
        return context
