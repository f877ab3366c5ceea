"""What can go wrong between us and etcd, as one line each."""

from __future__ import annotations

import re

import grpc
import grpc.aio

from meshkit.errors import LeaseLost, RegistryDenied, RegistryError, RegistryUnavailable
from meshkit.model import Endpoint

LENGTH = 200  # of a reason in other words than ours
# etcd's own errors: https://github.com/etcd-io/etcd/blob/main/api/v3rpc/rpctypes/error.go
NO_LEADER = "etcdserver: no leader"
NO_AUTHENTICATION = "authentication is not enabled"
LOGIN_REFUSED = "authentication failed"
NO_USER = "user name is empty"
STALE_TOKEN = ("invalid auth token", "revision of auth store is old", NO_USER)
LEASE_UNKNOWN = "requested lease not found"
RAFT_DROPPED = "raft proposal dropped"  # there is no leader at this moment
# grpc.aio's own, for a write on a stream that is just being ended; the reason is lost then.
WRITE_FAILED = "Internal error from Core"

ELSEWHERE = (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED)


def text_of(error: grpc.aio.AioRpcError) -> str:
    """Return the error's details in one line."""
    return " ".join((error.details() or "").split())


def is_elsewhere_better(error: grpc.aio.AioRpcError) -> bool:
    """Whether another endpoint may answer what this one did not."""
    return error.code() in ELSEWHERE or RAFT_DROPPED in text_of(error)


def is_surely_undone(error: grpc.aio.AioRpcError) -> bool:
    """Whether the request had no effect, so that even one that must not be repeated may be."""
    beginnings = ("failed to connect", "errors resolving", NO_LEADER)
    return text_of(error).startswith(beginnings) or RAFT_DROPPED in text_of(error)


def is_stale_token(error: grpc.aio.AioRpcError) -> bool:
    """Whether a new login helps; nothing was done."""
    text = text_of(error)
    return error.code() is grpc.StatusCode.UNAUTHENTICATED or any(s in text for s in STALE_TOKEN)


def translate(
    error: grpc.aio.AioRpcError, endpoint: Endpoint, *, request: str, tls: bool, limit: float = 0.0
) -> RegistryError:
    """Return the error as ours.

    Args:
        error: of gRPC or of etcd.
        endpoint: who was asked.
        request: what for, as ``Txn``.
        tls: whether we spoke TLS.
        limit: seconds that were given.
    """
    code, text = error.code(), text_of(error)
    if code is grpc.StatusCode.DEADLINE_EXCEEDED:
        return too_slow(endpoint, limit)
    if text == WRITE_FAILED:
        return lost(endpoint, "etcd has ended it")
    if code is grpc.StatusCode.UNAVAILABLE and "etcdserver" not in text:
        return _no_connection(text, endpoint, tls=tls)
    return from_text(text, endpoint, request=request, code=code)


def from_text(
    text: str, endpoint: Endpoint, *, request: str, code: grpc.StatusCode | None = None
) -> RegistryError:
    """Return the error for a refusal in etcd's own words."""
    reason = text.replace("etcdserver: ", "")[:LENGTH] or (code.name.lower() if code else "unknown")
    if NO_LEADER in text or RAFT_DROPPED in text:
        return RegistryUnavailable(
            f"etcd at {endpoint} has no leader: most of its cluster's members have to run"
        )
    if LEASE_UNKNOWN in text:
        return LeaseLost(f"etcd at {endpoint} has ended the lease")
    if LOGIN_REFUSED in text:
        return RegistryDenied(f"etcd at {endpoint} refused the login: check user and password")
    if NO_USER in text:
        return RegistryDenied(f"etcd at {endpoint} asks for a user: etcd://USER:PASSWORD@host")
    if "permission denied" in text:
        return RegistryDenied(
            f"etcd at {endpoint} refused {request}: permission denied; "
            "grant the user's role readwrite on the prefix"
        )
    if code in (grpc.StatusCode.UNAUTHENTICATED, grpc.StatusCode.PERMISSION_DENIED):
        return RegistryDenied(f"etcd at {endpoint} refused {request}: {reason}")
    if code is grpc.StatusCode.UNAVAILABLE:
        return RegistryUnavailable(f"etcd at {endpoint} failed at {request}: {reason}")
    if code in (grpc.StatusCode.UNIMPLEMENTED, grpc.StatusCode.UNKNOWN, grpc.StatusCode.INTERNAL):
        return RegistryError(f"what answers at {endpoint} failed at {request}: {reason}")
    return RegistryError(f"etcd at {endpoint} did not accept {request}: {reason}")


def too_slow(endpoint: Endpoint, limit: float) -> RegistryError:
    """Return the error for an answer that did not come within ``limit`` seconds."""
    return RegistryUnavailable(f"etcd at {endpoint} did not answer within {limit:g} s")


def lost(endpoint: Endpoint, reason: str) -> RegistryError:
    """Return the error for a stream that has ended."""
    return RegistryUnavailable(f"the connection to etcd at {endpoint} is lost: {reason}")


def closed(place: object) -> RegistryError:
    """Return the error for the use of a registry after its ``aclose``, or across it."""
    return RegistryError(f"the registry at {place} is closed")


def all_of(errors: list[RegistryError]) -> RegistryError:
    """Return one error for those of all endpoints."""
    if len(errors) == 1:
        return errors[0]
    worst = next((each for each in errors if isinstance(each, RegistryUnavailable)), errors[-1])
    text = "; ".join(dict.fromkeys(map(str, errors)))
    return type(worst)(text, undone=all(error.undone for error in errors))


def _no_connection(text: str, endpoint: Endpoint, *, tls: bool) -> RegistryError:
    connecting = text.startswith("failed to connect")
    if "errors resolving" in text or "DNS resolution failed" in text:
        return RegistryUnavailable(
            f"etcd at {endpoint} can't be reached: its name is unknown", undone=True
        )
    if tls and (fault := _tls_fault(text)):
        return RegistryDenied(f"no TLS with etcd at {endpoint}: {fault}")
    if tls and "andshake" in text:
        return RegistryUnavailable(f"etcd at {endpoint} does not speak TLS there; use etcd://")
    if connecting and ("Socket closed" in text or "reset by peer" in text):
        hint = "" if tls else "; if it expects TLS, use etcd+tls://"
        return RegistryUnavailable(f"etcd at {endpoint} closed the connection{hint}")
    if "HTTP/2" in text:
        return RegistryUnavailable(f"what answers at {endpoint} does not speak gRPC")
    if "timed out" in text or "ping timeout" in text:
        return RegistryUnavailable(f"etcd at {endpoint} does not answer")
    # What counts stands at the end, behind the address.
    reason = re.sub(r"^failed to connect .*(?:remote host|ipv[46]:\S+): ", "", text)[:LENGTH]
    return (
        RegistryUnavailable(f"etcd at {endpoint} can't be reached: {reason}", undone=True)
        if connecting
        else lost(endpoint, reason)
    )


def _tls_fault(text: str) -> str:
    if found := re.search(r"CERTIFICATE_VERIFY_FAILED(?:: ([\w ]+))?", text):
        return f"its certificate is not trusted ({found[1] or 'no reason given'}); check ca="
    if re.search(r"[Hh]ost ?name [Vv]erif|peer name|Peer name", text):
        return "its certificate is for another name or address"
    if "TSI_DATA_CORRUPTED" in text or "ALERT" in text:
        return "it refuses the certificate that we show, or asks for one; check cert= and key="
    return ""
