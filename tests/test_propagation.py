"""A context goes out as headers and comes in as the same context."""

from __future__ import annotations

import time

import pytest
from hypothesis import given, strategies as st

from meshkit import propagation
from meshkit.context import OUTSIDE, REQUEST_ID, CallContext
from meshkit.propagation import incoming, outgoing

TRACEPARENT = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"


def test_what_goes_out_comes_in() -> None:
    call = CallContext(
        "job-7", None, TRACEPARENT, "rojo=1", {"tenant": "Amélie", "user": "1"}, ((b"a", b"b"),)
    )
    sent = outgoing(call)
    assert outgoing(call) is sent
    arrived = incoming(dict(sent), ("tenant",), ())
    assert arrived.request_id == "job-7"
    assert arrived.traceparent == TRACEPARENT
    assert arrived.tracestate == "rojo=1"
    assert arrived.baggage == {"tenant": "Amélie"}
    assert arrived.deadline is None


def test_outside_of_a_call_nothing_goes_out() -> None:
    assert outgoing(OUTSIDE) == []


@pytest.mark.parametrize("text", ["", "two words", "x" * 129, "a\nb", "é"])
def test_a_request_id_is_made_when_none_came_that_can_be_taken_over(text: str) -> None:
    ids = {incoming({propagation.REQUEST: text}, (), ()).request_id for _ in range(1000)}
    ids |= {incoming({}, (), ()).request_id for _ in range(1000)}
    assert len(ids) == 2000
    assert all(REQUEST_ID.fullmatch(each) for each in ids)


@pytest.mark.parametrize("text", ["A-b_c.d:e/f+g=h@i~j", "x" * 128])
def test_a_request_id_is_taken_over(text: str) -> None:
    assert incoming({propagation.REQUEST: text}, (), ()).request_id == text


def test_tracestate_alone_means_nothing() -> None:
    found = {propagation.TRACEPARENT: "no", propagation.TRACESTATE: "rojo=1"}
    assert incoming(found, (), ()).tracestate == ""
    assert incoming({propagation.TRACESTATE: "rojo=1"}, (), ()).tracestate == ""


def test_a_deadline_is_what_is_left_on_our_clock() -> None:
    before = time.monotonic()
    deadline = propagation.parse_deadline("1500")
    assert deadline is not None
    assert before + 1.5 <= deadline <= time.monotonic() + 1.5
    assert propagation.parse_deadline("0") is not None


@pytest.mark.parametrize("text", ["", "-1", "1.5", "1e3", "1s", " 1", "9" * 11, "\u0661", "\u00b2"])
def test_a_malformed_deadline_is_none(text: str) -> None:
    assert propagation.parse_deadline(text) is None


@pytest.mark.parametrize(
    ("seconds", "text"), [(1.5, "1500"), (0.0129, "12"), (0.0001, "1"), (86400.0, "86400000")]
)
def test_a_deadline_is_sent_in_milliseconds_rounded_down_and_never_0(
    seconds: float, text: str
) -> None:
    assert propagation.format_deadline(seconds) == text


@given(st.dictionaries(st.sampled_from(sorted(propagation.NAMES)), st.text(max_size=200)))
def test_hostile_headers_never_raise_and_are_never_passed_on(found: dict[str, str]) -> None:
    call = incoming(found, ("*",), ())
    for name, value in outgoing(call):
        assert name in propagation.NAMES
        assert value.isascii()
        assert value.isprintable()
    again = incoming(dict(outgoing(call)), ("*",), ())
    assert again.request_id == call.request_id
    assert again.traceparent == call.traceparent
    assert again.tracestate == call.tracestate
