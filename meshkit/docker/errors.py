"""What can go wrong between us and a Docker engine, as one line each.

The errors are these::

DockerError              the engine answered with an error, or is none
├── DockerUnavailable    it did not answer: not running, gone, too slow
├── DockerDenied         we may not: permissions of the socket, certificates
└── DockerNotFound       it knows no such container
"""

from __future__ import annotations

import os
import ssl
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from meshkit.errors import MeshError
from meshkit.os_errors import os_reason

if TYPE_CHECKING:
    from meshkit.connections import Address

MOUNT_HINT = "start Docker, mount its socket into this container, or set DOCKER_HOST"
# Of a long reason, such as a web page.
REASON_LENGTH = 200


class DockerError(MeshError):
    """The Docker engine answered with an error, or what answered is none."""

    exit_code = 4


class DockerUnavailable(DockerError):
    """The Docker engine could not be reached, went away, or did not answer in time."""


class DockerDenied(DockerError):
    """The Docker engine may not be used: permissions of its socket, or certificates."""


class DockerNotFound(DockerError):
    """The Docker engine knows no such object, as after a container was removed."""


#: statuses of a proxy before the engine, which has no JSON to say why
BY_A_PROXY: Mapping[int, type[DockerError]] = {
    401: DockerDenied,
    403: DockerDenied,
    502: DockerUnavailable,
    503: DockerUnavailable,
    504: DockerUnavailable,
}


def from_exchange(error: Exception, address: Address) -> DockerError:
    """Translate what broke a connection or an exchange."""
    if isinstance(error, ssl.SSLError):
        return _from_tls(error, address)
    if isinstance(error, PermissionError):
        user = f"user {os.geteuid()}"
        return DockerDenied(
            f"no permission to use Docker at {address} as {user}: run as root or as a member of "
            f"the group that owns the socket"
        )
    if isinstance(error, ConnectionError) and not isinstance(error, ConnectionRefusedError):
        return DockerUnavailable(f"Docker at {address} closed the connection")
    if isinstance(error, OSError):
        reason = os_reason(error)
        if isinstance(address, Path):
            reason = f"{_lack(address) or reason}; {MOUNT_HINT}"
        return DockerUnavailable(f"Docker at {address} can't be reached: {reason}")
    return DockerError(f"what answers at {address} is not Docker: no HTTP ({error})")


def from_status(status: int, message: str, address: Address, *, request: str) -> DockerError:
    """Translate an answer that is no success.

    Args:
        status: of HTTP.
        message: the reason it gave.
        address: who answered.
        request: the path that was asked for.
    """
    reason = " ".join(message.split())[:REASON_LENGTH] or "no reason given"
    kind = DockerNotFound if status == 404 else BY_A_PROXY.get(status, DockerError)
    return kind(f"Docker at {address} did not answer {request}: {reason} ({status})")


def not_docker(address: Address, *, request: str) -> DockerError:
    """Return the error for an answer that is none of Docker's."""
    return DockerError(
        f"what answers at {address} is not Docker: {request} was answered in another form"
    )


def expects_tls(address: Address) -> DockerDenied:
    """Return the error for plain HTTP on a port of TLS."""
    return DockerDenied(
        f"Docker at {address} expects TLS: set DOCKER_TLS_VERIFY=1, and DOCKER_CERT_PATH to the "
        "folder of the certificates"
    )


def too_slow(address: Address, limit: float) -> DockerUnavailable:
    """Return the error for an answer that did not come within ``limit`` seconds."""
    return DockerUnavailable(f"Docker at {address} did not answer within {limit:g} s")


def stream_ended(address: Address) -> DockerUnavailable:
    """Return the error for events that end, as when the engine stops."""
    return DockerUnavailable(f"Docker at {address} ended its stream of events")


def closed(address: Address) -> DockerError:
    """Return the error for use after ``aclose``, or across it."""
    return DockerError(f"the connection to Docker at {address} is closed")


def _from_tls(error: ssl.SSLError, address: Address) -> DockerError:
    if error.reason in ("WRONG_VERSION_NUMBER", "RECORD_LAYER_FAILURE"):
        return DockerError(f"Docker at {address} does not speak TLS there; unset DOCKER_TLS_VERIFY")
    text = getattr(error, "verify_message", "") or (error.reason or str(error)).lower()
    return DockerDenied(
        f"no TLS with Docker at {address}: {text.replace('_', ' ')}; "
        f"check the certificates in DOCKER_CERT_PATH"
    )


def _lack(address: Path) -> str:
    """Return what stands there instead of a socket; "" for a socket."""
    if address.is_dir():  # Docker makes one where the socket to be mounted is not on the host
        return "it is a folder"
    return "" if address.exists() else "there is no such socket"
