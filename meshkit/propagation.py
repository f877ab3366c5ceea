"""How a call's context travels: headers over HTTP, metadata over gRPC, the same names for both."""

from __future__ import annotations

import time
from collections.abc import Collection, Mapping

from meshkit import w3c
from meshkit.context import EMPTY, REQUEST_ID, CallContext, Pairs, new_request_id

REQUEST = "x-request-id"
# Milliseconds left to the caller, as clocks differ between machines; over gRPC it is grpc-timeout.
# On an answer: the id of the instance that gave the call up, as none were left.
DEADLINE = "x-meshkit-deadline"
TRACEPARENT = "traceparent"
TRACESTATE = "tracestate"
BAGGAGE = "baggage"

NAMES = frozenset({REQUEST, DEADLINE, TRACEPARENT, TRACESTATE, BAGGAGE})
DIGITS = 10  # 115 days, and cheap to convert


def incoming(found: Mapping[str, str], chosen: Collection[str], headers: Pairs) -> CallContext:
    """Return the context of a call that just came in.

    Args:
        found: those of its headers that are in ``NAMES``, several of one name joined by commas.
        chosen: keys of baggage that travel, ``"*"`` for all.
        headers: all of them.
    """
    if not found:  # nothing came along, as with most calls from outside
        return CallContext(new_request_id(), None, "", "", EMPTY, headers)
    request_id = found.get(REQUEST, "")
    if not REQUEST_ID.fullmatch(request_id):
        request_id = new_request_id()
    deadline = parse_deadline(found[DEADLINE]) if DEADLINE in found else None
    call = CallContext(request_id, deadline, "", "", EMPTY, headers)
    if TRACEPARENT in found:
        call.traceparent = w3c.parse_traceparent(found[TRACEPARENT])
        if call.traceparent and TRACESTATE in found:
            call.tracestate = w3c.parse_tracestate(found[TRACESTATE])
    if chosen and BAGGAGE in found:
        call.baggage = w3c.parse_baggage(found[BAGGAGE], chosen)
    return call


def outgoing(call: CallContext) -> list[tuple[str, str]]:
    """Return what carries a context on, but for the deadline. Made once, so do not change it."""
    pairs = call.outgoing
    if pairs is None:
        values = {
            REQUEST: call.request_id,
            TRACEPARENT: call.traceparent,
            TRACESTATE: call.tracestate,
            BAGGAGE: w3c.format_baggage(call.baggage) if call.baggage else "",
        }
        pairs = call.outgoing = [(name, value) for name, value in values.items() if value]
    return pairs


def parse_deadline(text: str) -> float | None:
    """Return the deadline on our clock; None when the text is no number of milliseconds."""
    if not text.isdecimal() or not text.isascii() or len(text) > DIGITS:
        return None
    return time.monotonic() + int(text) / 1000


def format_deadline(seconds: float) -> str:
    """Return the header's text for this many seconds left; never 0, which would be too late."""
    return str(max(1, int(seconds * 1000)))
