"""Where the Docker engine is: DOCKER_HOST and its companions, as Docker's own tools read them."""

from __future__ import annotations

import dataclasses
import os
import ssl
from collections.abc import Mapping
from pathlib import Path
from typing import Self

from meshkit.connections import Address
from meshkit.errors import ConfigError
from meshkit.model import Endpoint

SOCKET = Path("/var/run/docker.sock")
#: where Registrator's users mount it
REGISTRATOR_SOCKET = Path("/tmp/docker.sock")  # noqa: S108
PORT, TLS_PORT = 2375, 2376


@dataclasses.dataclass(frozen=True, slots=True)
class DockerHost:
    """How to reach a Docker engine.

    Attributes:
        address: its Unix socket, or host and port.
        certificates: the folder of ``ca.pem``, ``cert.pem`` and ``key.pem`` to speak TLS with;
            None to speak without.
    """

    address: Address = SOCKET
    certificates: Path | None = None

    @classmethod
    def from_environment(cls, environ: Mapping[str, str] = os.environ) -> Self:
        """Read DOCKER_HOST, DOCKER_TLS_VERIFY and DOCKER_CERT_PATH.

        Without DOCKER_HOST it is ``/var/run/docker.sock``, or ``/tmp/docker.sock`` when there is
        only that. Raises ConfigError.
        """
        url = environ.get("DOCKER_HOST", "")
        if not url:
            mounted = not SOCKET.exists() and REGISTRATOR_SOCKET.exists()
            return cls(REGISTRATOR_SOCKET if mounted else SOCKET)
        scheme, _, rest = url.partition("://")
        if scheme == "unix" and rest.startswith("/"):
            return cls(Path(rest))
        if scheme not in ("tcp", "http", "https") or not rest:
            raise _malformed(url)
        secure = scheme == "https" or bool(environ.get("DOCKER_TLS_VERIFY"))
        folder = Path(environ.get("DOCKER_CERT_PATH") or Path.home() / ".docker")
        return cls(_endpoint(url, rest, TLS_PORT if secure else PORT), folder if secure else None)

    def context(self) -> ssl.SSLContext:
        """Return what TLS is spoken with. Raises ConfigError."""
        assert self.certificates is not None
        folder = self.certificates
        try:
            context = ssl.create_default_context(cafile=str(folder / "ca.pem"))
            context.load_cert_chain(folder / "cert.pem", folder / "key.pem")
        except OSError as error:  # ssl's errors are too
            reason = error.strerror or str(error)
            raise ConfigError(
                f"TLS with Docker needs ca.pem, cert.pem and key.pem in {folder} "
                f"(DOCKER_CERT_PATH): {reason}"
            ) from None
        return context


def _endpoint(url: str, rest: str, port: int) -> Endpoint:
    authority = rest.rstrip("/")
    bare = authority.endswith("]") or ":" not in authority
    try:
        return Endpoint.parse(f"{authority}:{port}" if bare else authority)
    except ValueError:
        raise _malformed(url) from None


def _malformed(url: str) -> ConfigError:
    return ConfigError(
        f"DOCKER_HOST={url} can't be used: write unix:///var/run/docker.sock or tcp://host:port"
    )
