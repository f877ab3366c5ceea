"""What the end of an attempt means: for its instance, and for the call.

The hard question is whether an attempt may have had an effect. gRPC has one status for all of
it, UNAVAILABLE, so the answer is "perhaps" unless there is proof that the call never left.
"""

from __future__ import annotations

import dataclasses
import enum
from collections.abc import Coroutine, Mapping
from typing import Any, TypeVar

import grpc
import grpc.aio

from meshkit import identity
from meshkit.client.grpc.errors import (
    RpcConnectError,
    RpcConnectionLost,
    RpcFailure,
    RpcTimeout,
    RpcWrongInstance,
)
from meshkit.discovery.balancer import Outcome
from meshkit.model import Instance

Result = TypeVar("Result")

OK = grpc.StatusCode.OK  # looking up members of an enum is slow before Python 3.12

# How gRPC's core begins the details of a call for which no connection could be made.
NEVER_LEFT = ("failed to connect to all addresses", "errors resolving ")

# The details that grpc.aio gives a call which its own caller has cancelled.
CANCELLED_HERE = "Locally cancelled by application!"

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
    trailing: Mapping[str, str | bytes]
    connected: bool


@dataclasses.dataclass(frozen=True, slots=True)
class Verdict:
    """What follows from an ending.

    Attributes:
        outcome: for the instance's statistics.
        next: for the call.
        error: the class of error that the caller gets; None for what the server said itself.
        reason: a predicate for messages, whose subject is the instance.
    """

    outcome: Outcome
    next: Next = Next.NOTHING
    error: type[RpcFailure] | None = None
    reason: str = ""


GOOD = Verdict(Outcome.OK)
LEAVING = Verdict(Outcome.DRAINING)
FAULTY = Verdict(Outcome.FAILED)
GIVEN_UP = Verdict(Outcome.CANCELLED)


def assess(instance: Instance, call: grpc.aio.Call, channel: grpc.aio.Channel) -> Verdict:
    """Decide what the end of a call means, which is done and was made on this channel."""
    code = finished(call.code())
    trailing = finished(call.trailing_metadata())
    if (
        code is OK
        and trailing.get(identity.INSTANCE) == instance.id
        and identity.DRAINING not in trailing.keys()  # noqa: SIM118 - it iterates over pairs
    ):
        return GOOD  # nearly all calls, at the least cost
    connected = channel.get_state() is grpc.ChannelConnectivity.READY
    # dict() alone would take it for a mapping, and look up key after key.
    return judge(instance, Ending(code, finished(call.details()), dict(iter(trailing)), connected))


def judge(instance: Instance, ending: Ending) -> Verdict:
    """Decide what an attempt's ending means."""
    if identity.proves_identity(instance.metadata):
        stranger = _judge_name(instance, ending)
        if stranger is not None:
            return stranger
    if ending.code is grpc.StatusCode.CANCELLED and ending.details == CANCELLED_HERE:
        return GIVEN_UP
    if identity.INSTANCE not in ending.trailing:
        if ending.code is grpc.StatusCode.CANCELLED:
            # A server that ends cancels the calls which it has received and not begun.
            reason = "cancelled the call, as a server does that ends"
            return Verdict(Outcome.FAILED, Next.IF_IDEMPOTENT, RpcConnectionLost, reason)
        if ending.code is grpc.StatusCode.UNAVAILABLE and not ending.connected:
            return _judge_connection(ending.details)
        if ending.code is grpc.StatusCode.DEADLINE_EXCEEDED:
            return Verdict(Outcome.FAILED, error=RpcTimeout, reason="did not finish")
    outcome = _judge_answer(ending)
    if ending.code is grpc.StatusCode.UNAVAILABLE:
        reason = f"is unavailable ({one_line(ending.details)})"
        return Verdict(outcome.outcome, Next.IF_IDEMPOTENT, reason=reason)
    return outcome


def _judge_name(instance: Instance, ending: Ending) -> Verdict | None:
    """Return the verdict when somebody else than ``instance`` answered."""
    named = ending.trailing.get(identity.INSTANCE)
    if identity.MISDIRECTED in ending.trailing:
        following = Next.ELSEWHERE  # whoever it was, it refused to handle the call
    elif named is not None:
        if named == instance.id:
            return None
        following = Next.IF_IDEMPOTENT
    elif ending.code is grpc.StatusCode.UNIMPLEMENTED:
        following = Next.ELSEWHERE  # a server that is none of ours, and has no such method
    else:
        return None  # gRPC's own statuses name nobody
    name = "somebody who gives no name" if named is None else str(named)
    reason = f"was answered for by {name}"
    return Verdict(Outcome.WRONG, following, RpcWrongInstance, reason)


def _judge_connection(details: str) -> Verdict:
    # A handler may pass on an UNAVAILABLE that it got itself, words and all: only the words
    # together with a connection that is not there prove that nothing was sent.
    if details.startswith(NEVER_LEFT):
        cause = one_line(details).rpartition(": ")[2].rstrip("]")
        reason = f"can't be reached ({cause})"
        return Verdict(Outcome.REFUSED, Next.ELSEWHERE, RpcConnectError, reason)
    reason = f"lost the connection ({one_line(details)})"
    return Verdict(Outcome.FAILED, Next.IF_IDEMPOTENT, RpcConnectionLost, reason)


def _judge_answer(ending: Ending) -> Verdict:
    if identity.DRAINING in ending.trailing:
        return LEAVING
    return FAULTY if ending.code in FAULTS else GOOD


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
