"""Certificates for gRPC, read from files that are renewed while we run."""

from __future__ import annotations

import dataclasses
import ssl
from pathlib import Path

import grpc

from meshkit.errors import RegistryDenied
from meshkit.registry.url import RegistryUrl


@dataclasses.dataclass(frozen=True, slots=True)
class Material:
    """What the files held at one moment: PEM, or None for what is not used."""

    ca: bytes | None
    cert: bytes | None
    key: bytes | None = dataclasses.field(repr=False)

    def credentials(self) -> grpc.ChannelCredentials:
        """Return it as gRPC takes it; it stays the same as long as the channel lives."""
        return grpc.ssl_channel_credentials(self.ca, self.key, self.cert)


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Tls:
    """PEM files: the authorities to trust, and our own certificate with its key.

    ``ca`` is None for the system's authorities, ``cert`` and ``key`` to show none.
    """

    ca: Path | None = None
    cert: Path | None = None
    key: Path | None = None

    @classmethod
    def read(cls, url: RegistryUrl) -> Tls:
        """Read the URL's parameters. Raises RegistryUrlError when a file is not usable."""
        ca, cert, key = (
            Path(url.params[name]) if url.params.get(name) else None
            for name in ("ca", "cert", "key")
        )
        if (cert is None) != (key is None):
            given, missing = ("cert", "key") if cert else ("key", "cert")
            raise url.error(f"{given}= needs {missing}= too")
        tls = cls(ca=ca, cert=cert, key=key)
        try:
            tls.load()
        except RegistryDenied as error:
            raise url.error(str(error)) from None
        return tls

    def load(self) -> Material:
        """Read and check the files. Raises RegistryDenied that names the one that is wrong.

        gRPC itself would only say that there is no connection.
        """
        try:
            context = ssl.create_default_context(cafile=self.ca)
        except OSError as error:
            raise RegistryDenied(f"ca={self.ca} holds no certificate: {_reason(error)}") from None
        if self.cert is not None and self.key is not None:
            try:
                # An encrypted key must not make us ask for its password on the terminal.
                context.load_cert_chain(self.cert, self.key, password="")
            except (OSError, ValueError) as error:
                raise RegistryDenied(
                    f"cert={self.cert} and key={self.key} can't be used together: {_reason(error)}"
                ) from None
        try:
            return Material(_bytes(self.ca or _system()), _bytes(self.cert), _bytes(self.key))
        except OSError as error:
            raise RegistryDenied(f"{error.filename} can't be read: {_reason(error)}") from None


def _system() -> Path | None:
    """Return the system's list of authorities; without one gRPC has its own."""
    path = ssl.get_default_verify_paths().cafile
    return Path(path) if path else None


def _bytes(path: Path | None) -> bytes | None:
    return path.read_bytes() if path else None


def _reason(error: Exception) -> str:
    return (isinstance(error, OSError) and error.strerror) or str(error)
