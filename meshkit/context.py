"""What the call that is being handled brought along: its id, its deadline, its trace, its baggage.

A service's handlers run with the context of the call that they answer, and the calls they make
take it along: nothing has to be passed from function to function, nor into tasks and threads
that asyncio starts. Outside of a call all of it is empty.

    left = context.remaining()               # seconds, or None without a deadline
    with context.deadline_in(0.2):           # calls in here may take 0.2 s together
        await self.users.get("/users/1")
"""

from __future__ import annotations

import contextlib
import dataclasses
import logging
import math
import re
import time
from collections.abc import Iterator, Mapping, Sequence
from contextvars import ContextVar
from random import getrandbits
from types import MappingProxyType
from typing import Any

from meshkit import w3c
from meshkit.errors import ConfigError

# Ids of others are taken over: UUIDs, hex, base64 and what proxies make. Nothing that could
# break a log line or a header.
REQUEST_ID = re.compile(r"[A-Za-z0-9._:/+=@~-]{1,128}")
EMPTY: Mapping[str, str] = MappingProxyType({})

Pairs = Sequence[tuple[Any, Any]]


@dataclasses.dataclass(slots=True, eq=False)
class CallContext:
    """One call's context. Shared by all that works for the call, so it is never copied for them.

    Only :meth:`end` changes it; for other values there is :func:`use`.

    Attributes:
        request_id: names the call in logs and answers, the same in all services it touches.
        deadline: when its answer must be there, in seconds of ``time.monotonic()``.
        traceparent: W3C trace context, version 00; ``""`` when there is none, and never malformed.
        tracestate: what belongs to it; likewise.
        baggage: the chosen members of the W3C baggage, decoded.
        incoming: all headers of the request as they came, unchecked: pairs of bytes (HTTP), or of
            text (gRPC).
        outgoing: kept by meshkit.propagation: the headers that carry this on.
    """

    request_id: str = ""
    deadline: float | None = None
    traceparent: str = ""
    tracestate: str = ""
    baggage: Mapping[str, str] = dataclasses.field(default_factory=dict, repr=False)
    incoming: Pairs = dataclasses.field(default=(), repr=False)
    outgoing: list[tuple[str, str]] | None = dataclasses.field(default=None, init=False, repr=False)

    @property
    def remaining(self) -> float | None:
        """Seconds until the deadline, 0 when it has passed; None without one."""
        if self.deadline is None:
            return None
        return max(0.0, self.deadline - time.monotonic())

    @property
    def trace_id(self) -> str:
        """32 hexadecimal digits, or ``""``."""
        return self.traceparent[3:35]

    def header(self, name: str) -> str | None:
        """Return the first value that the request has under this lower-case name, unchecked."""
        encoded = name.encode()
        for key, value in self.incoming:
            if key in (name, encoded):
                return value if isinstance(value, str) else bytes(value).decode("latin-1")
        return None

    def end(self) -> None:
        """Lift the deadline: the answer is there, what works on after it has all the time."""
        self.deadline = None


OUTSIDE = CallContext(baggage=EMPTY)

_current: ContextVar[CallContext] = ContextVar("meshkit-call", default=OUTSIDE)

# Called for each request and each outgoing call, so without a function of ours in between.
current = _current.get  # current() -> CallContext: that of the call being handled
enter = _current.set  # enter(context): from here on, for servers; they own the task


def remaining() -> float | None:
    """Return the seconds left for the call being handled: 0 when none are, None without limit."""
    return _current.get().remaining


@contextlib.contextmanager
def deadline_in(seconds: float) -> Iterator[CallContext]:
    """Give the calls made in this block ``seconds`` together, or what is left if that is less.

    They fail with :class:`~meshkit.CallTimeout` when it is over; other work goes on. A block
    within a block can only shorten.

    Raises:
        ConfigError: ``seconds`` is no number.
    """
    if math.isnan(seconds):
        raise ConfigError("deadline_in: seconds must be a number, not nan")
    call = _current.get()
    deadline = time.monotonic() + seconds
    if call.deadline is not None:
        deadline = min(deadline, call.deadline)
    with use(call, deadline=deadline) as shortened:
        yield shortened


@contextlib.contextmanager
def use(call: CallContext | None = None, /, **changes: Any) -> Iterator[CallContext]:
    """Make the calls in this block with another context.

    ::

        with context.use(request_id="import-7", baggage={"tenant": "acme"}): ...
        with context.use(deadline=None): ...    # work that outlives the call

    Args:
        call: what to start from; the current context when None.
        changes: attributes of :class:`CallContext` with their new values.

    Raises:
        ConfigError: a value could not be sent on.
    """
    call = _current.get() if call is None else call
    if changes:
        _check(**changes)
        call = dataclasses.replace(call, **changes)
    token = _current.set(call)
    try:
        yield call
    finally:
        _current.reset(token)


def new_request_id() -> str:
    """Return an id that nobody else has, 32 hexadecimal digits. No secret."""
    return getrandbits(128).to_bytes(16).hex()


class LogFilter(logging.Filter):
    """Gives log records ``request_id`` and ``trace_id``, empty outside of a call.

    ``meshkit run`` has it; with a configuration of your own, add it to your handlers.
    """

    def filter(self, record: logging.LogRecord) -> bool:
        """See logging.Filter."""
        call = _current.get()
        record.request_id = call.request_id
        record.trace_id = call.trace_id
        return True


def _check(
    *,
    request_id: str = "",
    deadline: float | None = None,
    traceparent: str = "",
    tracestate: str = "",
    baggage: Mapping[str, str] = EMPTY,
) -> None:
    """Raise ConfigError for a value that could not be sent on; TypeError for an unknown name."""
    if request_id and not REQUEST_ID.fullmatch(request_id):
        raise ConfigError(
            f"request id {request_id!r}: must be 1-128 letters, digits or any of ._:/+=@~-"
        )
    if deadline is not None and math.isnan(deadline):
        raise ConfigError("deadline must be a time of time.monotonic(), not nan")
    if traceparent and w3c.parse_traceparent(traceparent) != traceparent:
        raise ConfigError(f"traceparent {traceparent!r}: must be as W3C Trace Context has it")
    if tracestate and w3c.parse_tracestate(tracestate) != tracestate:
        raise ConfigError(f"tracestate {tracestate!r}: must be as W3C Trace Context has it")
    for key, value in baggage.items():
        if not w3c.is_key(key) or not isinstance(value, str):
            raise ConfigError(f"baggage {key!r}: must be a name without spaces, with a text")
    if not w3c.fits(baggage):
        raise ConfigError("baggage: at most 64 members and 8,192 bytes can be sent")
