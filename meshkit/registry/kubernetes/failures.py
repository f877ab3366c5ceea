"""What can go wrong between us and the API server, as one line each."""

from __future__ import annotations

import json
import socket
import ssl
from collections.abc import Mapping
from typing import Any

from meshkit.connections import Closed, NotConnected
from meshkit.errors import RegistryDenied, RegistryError, RegistryUnavailable
from meshkit.model import Endpoint
from meshkit.os_errors import os_reason

DISCONNECTED = (Closed, ConnectionResetError, BrokenPipeError)
REASON_LENGTH = 300
# Who sends no token, where the API server answers anybody.
ANONYMOUS = "system:anonymous"
UNAUTHORIZED, FORBIDDEN, GONE, TOO_MANY = 401, 403, 410, 429
# Of an API server that is not asked for what it has, or is none.
UNKNOWN = (404, 405, 406)


class Expired(RegistryUnavailable):
    """The API server has forgotten what came after our resourceVersion: list again."""


def from_exchange(error: Exception, server: Endpoint) -> RegistryError:
    """Translate what broke an exchange."""
    if isinstance(error, ssl.SSLError):
        return _from_tls(error, server)
    if isinstance(error, DISCONNECTED):
        return RegistryUnavailable(f"Kubernetes' API server at {server} closed the connection")
    if isinstance(error, OSError):
        unsent = isinstance(error, (socket.gaierror, ConnectionRefusedError, NotConnected))
        return RegistryUnavailable(
            f"Kubernetes' API server at {server} can't be reached: {os_reason(error)}",
            undone=unsent,
        )
    return RegistryUnavailable(f"what answers at {server} does not speak HTTP: {error}")


def from_status(
    status: int, said: Mapping[str, Any] | None, server: Endpoint, *, namespace: str
) -> RegistryError:
    """Translate an answer, or an event, that is no success.

    Args:
        status: of HTTP, or of the event.
        said: the Status object that came with it; None when it was something else.
        server: who answered.
        namespace: that was asked about.

    https://kubernetes.io/docs/reference/kubernetes-api/common-definitions/status/
    """
    reason = _one_line(said.get("message") if said else None) or "no reason given"
    who = f"Kubernetes' API server at {server}"
    if status == UNAUTHORIZED or (status == FORBIDDEN and ANONYMOUS in reason):
        return RegistryDenied(
            f"{who} does not accept the token, or was sent none ({reason}); check token_file=, or "
            "that the pod has a service account (automountServiceAccountToken)"
        )
    if status == FORBIDDEN:
        return RegistryDenied(
            f"{who} refused: {reason}; the service account needs a Role in the namespace "
            f"{namespace} with the verbs list and watch for endpointslices in discovery.k8s.io, "
            "and a RoleBinding to it"
        )
    if status == GONE:
        return Expired(f"{who} has forgotten what happened since the last list ({reason})")
    if status == TOO_MANY or status >= 500:
        return RegistryUnavailable(f"{who} failed: {reason} ({status})")
    if status == 400 and said is None:
        return RegistryUnavailable(f"{who} did not understand the request; does it expect TLS?")
    if status in UNKNOWN or said is None:
        return not_kubernetes(server, how=f"with {status}")
    return RegistryError(f"{who} did not accept the request: {reason} ({status})")


def read_status(body: bytes) -> Mapping[str, Any] | None:
    """Return the Status object in the body of an answer, None when there is none."""
    try:
        found = json.loads(body)
    except ValueError:
        return None
    return found if isinstance(found, dict) and found.get("kind") == "Status" else None


def too_slow(server: Endpoint, limit: float) -> RegistryError:
    """Return the error for an answer that did not come within ``limit`` seconds."""
    return RegistryUnavailable(
        f"Kubernetes' API server at {server} did not answer within {limit:.0f} s"
    )


def silent(server: Endpoint, limit: float) -> RegistryError:
    """Return the error for a watch that neither said anything nor ended in time."""
    return RegistryUnavailable(
        f"Kubernetes' API server at {server} did not end a watch after {limit:.0f} s, as it was "
        "asked to: it hangs, or the connection is dead"
    )


def ended_early(server: Endpoint, seconds: float) -> RegistryError:
    """Return the error for a watch that the server ended long before it was asked to."""
    return RegistryUnavailable(
        f"Kubernetes' API server at {server} ended a watch after {seconds:.0f} s; is it stopping?"
    )


def not_kubernetes(server: Endpoint, *, how: str = "in another form") -> RegistryError:
    """Return the error for an answer that is none of Kubernetes', or of one before 1.21."""
    return RegistryError(
        f"what answers at {server} is not the API server of Kubernetes 1.21 or later: it answered "
        f"the request for EndpointSlices {how}",
        undone=True,
    )


def closed(url: str) -> RegistryError:
    """Return the error for the use of a registry after its ``aclose``, or across it."""
    return RegistryError(f"the registry {url} is closed")


def _from_tls(error: ssl.SSLError, server: Endpoint) -> RegistryError:
    if error.reason in ("WRONG_VERSION_NUMBER", "RECORD_LAYER_FAILURE"):
        return RegistryUnavailable(
            f"what answers at {server} does not speak TLS; for kubectl proxy add tls=false"
        )
    if isinstance(error, ssl.SSLCertVerificationError):
        reason = f"its certificate is not trusted ({error.verify_message}); check ca="
    else:
        text = (error.reason or str(error)).replace("_", " ").lower()
        reason = f"{text}; check cert= and key="
    return RegistryDenied(f"no TLS with Kubernetes' API server at {server}: {reason}")


def _one_line(text: Any) -> str:
    line = " ".join(text.split()) if isinstance(text, str) else ""
    return line if len(line) <= REASON_LENGTH else f"{line[:REASON_LENGTH]} ..."
