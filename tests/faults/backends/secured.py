"""Servers that ask for proof of who one is, where the proof can be spoiled and renewed."""

from __future__ import annotations

import abc
from pathlib import Path
from typing import ClassVar

from tests.faults.backends.base import Backend
from tests.faults.certificates import DAY, Certificates

ALWAYS, AT_TIMES = "always", "at-times"


class Secured(Backend):
    """One server; :meth:`url` is for those whose proof always holds.

    Attributes:
        told: whether an instance is told as well, by its heartbeat.
    """

    told: ClassVar[bool] = True

    def prepare(self, service: str) -> None:
        """Make what both kinds of users need to use this service."""

    @abc.abstractmethod
    def weak_url(self) -> str:
        """Return the registry URL for those whose proof does not hold when it is spoiled."""

    @abc.abstractmethod
    def spoil(self) -> None:
        """Make the weak proof worth nothing; who used it before is to notice."""

    @abc.abstractmethod
    def renew(self) -> None:
        """Make it good again, without touching those who use it."""


class ByCertificate(Secured):
    """A server that asks for a certificate: the weak one runs out and is written anew."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self.certificates = Certificates(folder / "certificates")
        for name in ("server", ALWAYS, AT_TIMES):
            self.certificates.issue(name)

    def weak_url(self) -> str:
        return self._url_with(AT_TIMES)

    def spoil(self) -> None:
        """A connection outlives its certificate; so the server is restarted."""
        self.certificates.issue(AT_TIMES, lasts=-DAY)
        for server in self.servers:
            server.restart()

    def renew(self) -> None:
        self.certificates.issue(AT_TIMES)

    @abc.abstractmethod
    def _url_with(self, name: str) -> str:
        """Return the URL with the certificate of this name."""

    def _parameters(self, name: str) -> str:
        known = self.certificates
        return f"ca={known.ca}&cert={known.cert(name)}&key={known.key(name)}"
