"""What the end of an attempt means: for its instance, and for the call.

The hard question is whether an attempt may have had an effect. gRPC has one status for all of
it, UNAVAILABLE, so the answer is "perhaps" unless there is proof that the call never left.
"""

from __future__ import annotations

import dataclasses
import enum
from collections.abc import Coroutine
from typing import Any, TypeVar

import grpc
import grpc.aio

from meshkit import identity
from meshkit.client.grpc.errors import (
    CANCELLED_HERE,
    RpcConnectError,
    RpcConnectionLost,
    RpcFailure,
    RpcTimeout,
    RpcWrongInstance,
)
from meshkit.client.grpc.pool import Link
from meshkit.discovery.balancing import Outcome
from meshkit.model import Instance

Result = TypeVar("Result")

UNAVAILABLE = grpc.StatusCode.UNAVAILABLE
OK = grpc.StatusCode.OK  # looking up members of an enum is slow before Python 3.12

# How gRPC's core begins the details of a call for which no connection could be made.
NEVER_LEFT = ("failed to connect to all addresses", "errors resolving ")

# From a server that says when it may be asked again, in milliseconds, or that it may not be
# (https://github.com/grpc/proposal, A6).
PUSHBACK = "grpc-retry-pushback-ms"
NEVER = -1.0
RETRYABLE = frozenset({grpc.StatusCode.UNAVAILABLE})

# Statuses that speak against the instance rather than against the request.
FAULTS = frozenset(
    {
        grpc.StatusCode.DATA_LOSS,
        grpc.StatusCode.DEADLINE_EXCEEDED,
        grpc.StatusCode.INTERNAL,
        grpc.StatusCode.RESOURCE_EXHAUSTED,
        grpc.StatusCode.UNAVAILABLE,
        grpc.StatusCode.UNKNOWN,
    }
)


class Next(enum.Enum):
    """What may follow an attempt."""

    NOTHING = "nothing"  # it was answered, for better or worse
    IF_IDEMPOTENT = "if idempotent"  # it may have had an effect
    ELSEWHERE = "elsewhere"  # it surely had none


@dataclasses.dataclass(frozen=True, slots=True)
class Ending:
    """How an attempt ended.

    Attributes:
        code, details, trailing: the status and the trailing metadata, as the instance sent them
            or gRPC made them up.
        connected: the connection is still there, so that somebody must have sent the status.
    """

    code: grpc.StatusCode
    details: str
    trailing: grpc.aio.Metadata
    connected: bool


@dataclasses.dataclass(frozen=True, slots=True)
class Verdict:
    """What follows from an ending.

    Attributes:
        outcome: for the instance's statistics.
        next: for the call.
        error: the class of error that the caller gets; None for what the server said itself.
        reason: a predicate for messages, whose subject is the instance.
        pushback: seconds after which the server may be asked again; negative: never.
    """

    outcome: Outcome
    next: Next = Next.NOTHING
    error: type[RpcFailure] | None = None
    reason: str = ""
    pushback: float | None = None


GOOD = Verdict(Outcome.OK)
LEAVING = Verdict(Outcome.DRAINING)
FAULTY = Verdict(Outcome.FAILED)
GIVEN_UP = Verdict(Outcome.CANCELLED)


# What grpc.aio says of a call that ends while a message is written, until it has the true status.
BROKEN_OFF = "Internal error from Core."


def is_provisional(call: grpc.aio.Call) -> bool:
    """Whether the status of a call that is done is going to be replaced by the true one."""
    return (
        finished(call.code()) is grpc.StatusCode.INTERNAL
        and finished(call.details()) == BROKEN_OFF
        and not len(finished(call.trailing_metadata()))
    )


def assess(link: Link, call: grpc.aio.Call, codes: frozenset[grpc.StatusCode]) -> Verdict:
    """Decide what the end of a call means, which is done and was made over this link.

    Args:
        link: to the instance.
        call: gRPC's own.
        codes: statuses after which an idempotent call may be repeated.
    """
    code = finished(call.code())
    trailing = finished(call.trailing_metadata())
    if code is OK:  # nearly all calls, at the least cost
        names = trailing.get_all(identity.INSTANCE)
        if names == link.names and not trailing.get_all(identity.DRAINING):
            return GOOD
    connected = link.channel.get_state() is grpc.ChannelConnectivity.READY
    ending = Ending(code, finished(call.details()), trailing, connected)
    verdict = judge(link.instance, ending, codes)
    if verdict.next is Next.NOTHING:
        return verdict
    if trailing.get_all(identity.NO_RETRY):  # it was repeated further down
        return dataclasses.replace(verdict, next=Next.NOTHING)
    told = trailing.get_all(PUSHBACK)
    return dataclasses.replace(verdict, pushback=pushback(str(told[0]))) if told else verdict


def pushback(text: str) -> float:
    """Return the seconds that a server asks for; NEVER for what is no number, as A6 has it."""
    try:
        return max(int(text) / 1000, NEVER)
    except ValueError:
        return NEVER


def judge(
    instance: Instance, ending: Ending, codes: frozenset[grpc.StatusCode] = RETRYABLE
) -> Verdict:
    """Decide what an attempt's ending means."""
    # Several names: a gateway may pass on what it got, with all marks of whom it called.
    names = ending.trailing.get_all(identity.INSTANCE)
    if identity.proves_identity(instance.metadata) and instance.id not in names:
        stranger = _judge_stranger(ending, str(names[0]) if names else None)
        if stranger is not None:
            return stranger
    if not names:
        unanswered = _judge_unanswered(instance, ending)
        if unanswered is not None:
            return unanswered
    if instance.id in ending.trailing.get_all(identity.SHED):
        return Verdict(Outcome.SHED, Next.ELSEWHERE, reason="has too much to do")
    leaving = instance.id in ending.trailing.get_all(identity.DRAINING)
    verdict = LEAVING if leaving else FAULTY if ending.code in FAULTS else GOOD
    if ending.code in codes:
        said = ending.code.name.lower().replace("_", " ")
        reason = f"is {said}" if ending.code is UNAVAILABLE else f"said {said}"
        reason = f"{reason} ({one_line(ending.details)})"
        return dataclasses.replace(verdict, next=Next.IF_IDEMPOTENT, reason=reason)
    return verdict


def _judge_stranger(ending: Ending, name: str | None) -> Verdict | None:
    """Return the verdict when the answer is somebody else's."""
    if ending.trailing.get_all(identity.MISDIRECTED):
        following = Next.ELSEWHERE  # whoever it was, it refused to handle the call
    elif name is not None:
        following = Next.IF_IDEMPOTENT
    elif ending.code is grpc.StatusCode.UNIMPLEMENTED:
        following = Next.ELSEWHERE  # a server that is none of ours, and has no such method
    else:
        return None  # gRPC's own statuses name nobody
    reason = f"was answered for by {name or 'somebody who gives no name'}"
    return Verdict(Outcome.WRONG, following, RpcWrongInstance, reason)


def _judge_unanswered(instance: Instance, ending: Ending) -> Verdict | None:
    """Return the verdict when gRPC itself made up the status."""
    if ending.code is grpc.StatusCode.CANCELLED:
        if ending.details == CANCELLED_HERE:
            return GIVEN_UP
        # A server that ends cancels the calls which it has received and not begun.
        reason = "cancelled the call, as a server does that ends"
        return Verdict(Outcome.FAILED, Next.IF_IDEMPOTENT, RpcConnectionLost, reason)
    if ending.code is grpc.StatusCode.DEADLINE_EXCEEDED:
        return Verdict(Outcome.TIMEOUT, error=RpcTimeout, reason="did not finish")
    if ending.code is not grpc.StatusCode.UNAVAILABLE:
        return None
    # A handler may pass on an UNAVAILABLE that it got itself, words and all: only the words
    # together with a connection that is not there prove that nothing was sent.
    if not ending.connected and ending.details.startswith(NEVER_LEFT):
        cause = one_line(ending.details).rpartition(": ")[2].rstrip("]")
        reason = f"can't be reached ({cause})"
        return Verdict(Outcome.REFUSED, Next.ELSEWHERE, RpcConnectError, reason)
    # One of ours would have named itself. The channel tells of a lost connection a little late.
    if not ending.connected or identity.proves_identity(instance.metadata):
        reason = f"lost the connection ({one_line(ending.details)})"
        return Verdict(Outcome.FAILED, Next.IF_IDEMPOTENT, RpcConnectionLost, reason)
    return None


def one_line(text: str) -> str:
    """Return the text without line breaks."""
    return " ".join(text.split())


def finished(coroutine: Coroutine[Any, Any, Result]) -> Result:
    """Return the result of a coroutine that has nothing to wait for.

    gRPC tells the status of a call only to coroutines, also when it is known; a callback can't
    await, and a task for each call would cost more than the rest of our work.
    """
    try:
        coroutine.send(None)
    except StopIteration as end:
        result: Result = end.value
        return result
    coroutine.close()
    raise RuntimeError(f"{coroutine!r} waits for a call that is done")
