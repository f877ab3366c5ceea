"""What can go wrong between us and Consul, as one line each."""

from __future__ import annotations

import socket
import ssl

from meshkit.connections import Address, Closed, NotConnected, Refused
from meshkit.errors import RegistryDenied, RegistryError, RegistryUnavailable
from meshkit.os_errors import os_reason

# A connection beyond Consul's limit for one client address is accepted and closed at once,
# without an answer. One that ends later was lost with its server.
AT_ONCE = 1.0
DISCONNECTED = (Closed, ConnectionResetError, BrokenPipeError)
LIMIT_HINT = (
    "; if many watches are open on this host, raise Consul's limits.http_max_conns_per_client"
)
# Of a long reason the beginning and the end: what is wrong stands behind the value that is.
REASON_HEAD, REASON_TAIL = 120, 80


def from_exchange(error: Exception, address: Address, *, lasted: float) -> RegistryError:
    """Translate what broke an exchange that ``lasted`` so many seconds."""
    if isinstance(error, ssl.SSLError):
        return _from_tls(error, address)
    if isinstance(error, DISCONNECTED):
        hint = LIMIT_HINT if is_refusal(error, lasted=lasted) else ""
        return RegistryUnavailable(f"Consul at {address} closed the connection{hint}")
    if isinstance(error, OSError):
        unsent = isinstance(error, (socket.gaierror, ConnectionRefusedError, NotConnected))
        return RegistryUnavailable(
            f"Consul at {address} can't be reached: {os_reason(error)}", undone=unsent
        )
    return RegistryUnavailable(f"what answers at {address} does not speak HTTP: {error}")


def is_refusal(error: Exception, *, lasted: float) -> bool:
    """Whether it looks like one connection too many."""
    return isinstance(error, Refused) and lasted < AT_ONCE


def from_status(
    status: int, body: str, address: Address, *, request: str, about: str
) -> RegistryError:
    """Translate an answer that is no success.

    Args:
        status: of HTTP.
        body: the reason, or a web page.
        address: who answered.
        request: method and path.
        about: what was asked for, "service" or "key".
    """
    if body.lstrip().startswith("<"):  # a web page
        return not_consul(address, request=request)
    reason = " ".join(body.split()) or "no reason given"
    if len(reason) > REASON_HEAD + REASON_TAIL:
        reason = f"{reason[:REASON_HEAD]} ... {reason[-REASON_TAIL:]}"
    if status in (401, 403):
        return RegistryDenied(
            f"Consul at {address} refused {request}: {reason}; "
            f"check that the token (?token= or CONSUL_HTTP_TOKEN) may read and write this {about}"
        )
    # Where Consul itself answers 404, it says what is unknown.
    if status in (404, 405) and "unknown" not in reason.lower():
        return not_consul(address, request=request, how=f"with {status}")
    if status == 400 and "HTTPS" in reason:
        return RegistryUnavailable(f"Consul at {address} expects TLS; use consul+tls://")
    if status == 429 or status >= 500:
        return RegistryUnavailable(f"Consul at {address} failed at {request}: {reason} ({status})")
    return RegistryError(f"Consul at {address} did not accept {request}: {reason} ({status})")


def too_slow(address: Address, limit: float) -> RegistryError:
    """Return the error for an answer that did not come within ``limit`` seconds."""
    return RegistryUnavailable(f"Consul at {address} did not answer within {limit:.0f} s")


def not_consul(address: Address, *, request: str, how: str = "in another form") -> RegistryError:
    """Return the error for an answer that is none of Consul's."""
    return RegistryError(
        f"what answers at {address} is not Consul: {request} was answered {how}", undone=True
    )


def closed(address: Address) -> RegistryError:
    """Return the error for the use of a registry after its ``aclose``, or across it."""
    return RegistryError(f"the registry at {address} is closed")


def _from_tls(error: ssl.SSLError, address: Address) -> RegistryError:
    if error.reason in ("WRONG_VERSION_NUMBER", "RECORD_LAYER_FAILURE"):
        return RegistryUnavailable(f"Consul at {address} does not speak TLS there; use consul://")
    if isinstance(error, ssl.SSLCertVerificationError):
        reason = f"its certificate is not trusted ({error.verify_message}); check ca="
    else:
        text = (error.reason or str(error)).replace("_", " ").lower()
        reason = f"{text}; check cert= and key="
    return RegistryDenied(f"no TLS with Consul at {address}: {reason}")
