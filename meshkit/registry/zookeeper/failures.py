"""What can go wrong between us and ZooKeeper, as one line each."""

from __future__ import annotations

import ssl

from kazoo.exceptions import (
    AuthFailedError,
    ConnectionLoss,
    InvalidACLError,
    KazooException,
    NoAuthError,
    SessionClosedRequireSaslError,
    SessionExpiredError,
)

from meshkit.errors import RegistryDenied, RegistryError, RegistryUnavailable
from meshkit.os_errors import os_reason
from meshkit.registry.zookeeper.options import ZooKeeperOptions

# A message above the servers' jute.maxbuffer (1 MiB by default) ends the connection unanswered.
LARGE = 64 * 1024
IMPOSTOR = "what listens there may be no ZooKeeper"


def from_kazoo(
    error: Exception, options: ZooKeeperOptions, *, request: str, size: int = 0
) -> RegistryError:
    """Translate what a request failed with; ``size`` is the number of bytes that it wrote."""
    place = options.place
    if isinstance(error, NoAuthError):
        return RegistryDenied(
            f"ZooKeeper at {place} refused {request}: no permission; "
            "check user:password@ in the URL and the ACLs of that path"
        )
    if isinstance(error, (AuthFailedError, InvalidACLError, SessionClosedRequireSaslError)):
        return refused(options)
    if isinstance(error, ConnectionLoss) and size > LARGE:
        return RegistryUnavailable(
            f"ZooKeeper at {place} closed the connection at {request} with {size} bytes; "
            "if it does so again, raise the servers' jute.maxbuffer"
        )
    if isinstance(error, (ConnectionLoss, SessionExpiredError)):
        return RegistryUnavailable(f"the connection to ZooKeeper at {place} was lost at {request}")
    reason = str(error) or type(error).__name__.removesuffix("Error")
    kind = RegistryError if isinstance(error, KazooException) else RegistryUnavailable
    return kind(f"ZooKeeper at {place} failed at {request}: {reason}")


def refused(options: ZooKeeperOptions) -> RegistryError:
    """Return the error for credentials that the server does not take."""
    return RegistryDenied(
        f"ZooKeeper at {options.place} refused the session: check user:password@ in the URL"
    )


def unreachable(error: OSError | None, options: ZooKeeperOptions) -> RegistryError:
    """Return the error for a round in which no server gave us a session.

    Args:
        error: why the last server could not be connected to; None when that was no problem, or
            no name could be resolved.
        options: of the registry.
    """
    place = options.place
    if isinstance(error, ssl.SSLCertVerificationError):
        return RegistryDenied(
            f"no TLS with ZooKeeper at {place}: its certificate is not trusted "
            f"({error.verify_message}); check ca="
        )
    if isinstance(error, ssl.SSLError) or (error and options.certificates and _cut(error)):
        reason = (getattr(error, "reason", None) or str(error)).replace("_", " ").lower()
        return RegistryDenied(
            f"no TLS with ZooKeeper at {place}: {reason}; check that the port is the secure one "
            "(secureClientPort), and cert= and key="
        )
    if error is not None:
        hint = f"; {_tls_hint(options)}" if isinstance(error, TimeoutError) else ""
        return RegistryUnavailable(
            f"ZooKeeper at {place} can't be reached: {os_reason(error)}{hint}", undone=True
        )
    return RegistryUnavailable(
        f"ZooKeeper at {place} gives no session: its servers may have no leader; {IMPOSTOR}; "
        f"{_tls_hint(options)}",
        undone=True,
    )


def no_session(options: ZooKeeperOptions, limit: float) -> RegistryError:
    """Return the error for a first connection that did not come about in ``limit`` seconds."""
    return RegistryUnavailable(
        f"ZooKeeper at {options.place} gave no session within {limit:.0f} s; {IMPOSTOR}; "
        f"{_tls_hint(options)}",
        undone=True,
    )


def too_slow(options: ZooKeeperOptions, limit: float) -> RegistryError:
    """Return the error for what was not done within ``limit`` seconds."""
    return RegistryUnavailable(f"ZooKeeper at {options.place} did not answer within {limit:.0f} s")


def suspended(options: ZooKeeperOptions, limit: float) -> RegistryError:
    """Return the error for a connection that did not come back within ``limit`` seconds."""
    return RegistryUnavailable(
        f"the connection to ZooKeeper at {options.place} has been lost for {limit:.0f} s"
    )


def expired(options: ZooKeeperOptions) -> RegistryError:
    """Return the error for a session that the servers no longer know."""
    return RegistryUnavailable(f"the session with ZooKeeper at {options.place} has expired")


def emptied(options: ZooKeeperOptions) -> RegistryError:
    """Return the error for a session that has seen more than the servers have."""
    return RegistryUnavailable(
        f"ZooKeeper at {options.place} has come back without data that it had, so that the session "
        "is lost"
    )


def closed(options: ZooKeeperOptions) -> RegistryError:
    """Return the error for the use of a registry after its ``aclose``, or across it."""
    return RegistryError(f"the registry at {options.place} is closed")


def _tls_hint(options: ZooKeeperOptions) -> str:
    if options.certificates is None:
        return "if it expects TLS, use zookeeper+tls://"
    return "check that the port is the secure one, and whether cert= and key= are wanted"


def _cut(error: OSError) -> bool:
    """Whether the peer hung up in the middle of a handshake."""
    return isinstance(error, (ConnectionResetError, BrokenPipeError, ConnectionAbortedError))
