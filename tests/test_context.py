"""The context of a call: who sees it, how it is shortened, what may be put into it."""

from __future__ import annotations

import asyncio
import dataclasses
import logging
import math
import time

import pytest

from meshkit import ConfigError, context
from meshkit.context import CallContext

TRACEPARENT = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"


def left() -> float:
    seconds = context.remaining()
    assert seconds is not None
    return seconds


def test_outside_of_a_call_all_is_empty() -> None:
    call = context.current()
    assert call is context.OUTSIDE
    assert (call.request_id, call.deadline, call.traceparent, call.tracestate) == ("", None, "", "")
    assert dict(call.baggage) == {}
    assert call.trace_id == ""
    assert context.remaining() is None


def test_what_is_left_is_never_negative() -> None:
    with context.use(deadline=time.monotonic() - 1):
        assert context.remaining() == 0.0
    with context.use(deadline=time.monotonic() + 100):
        assert 90 < left() <= 100


def test_a_block_can_only_shorten_and_ends_with_its_block() -> None:
    with context.deadline_in(100):
        assert 90 < left() <= 100
        with context.deadline_in(50) as inner:
            assert 40 < left() <= 50
            assert context.current() is inner
            with context.deadline_in(3600):
                assert left() <= 50
        assert left() > 50
        with context.deadline_in(-1):
            assert left() == 0.0
        with pytest.raises(RuntimeError), context.deadline_in(1):
            raise RuntimeError
        assert left() > 50
    assert context.remaining() is None


def test_what_a_block_changes_leaves_the_rest() -> None:
    with context.use(request_id="job-7", baggage={"tenant": "acme"}) as outer:
        with context.deadline_in(5) as inner:
            assert inner.request_id == "job-7"
            assert inner.baggage == {"tenant": "acme"}
        with context.use(traceparent=TRACEPARENT, deadline=None) as traced:
            assert traced.trace_id == TRACEPARENT[3:35]
            assert traced.request_id == "job-7"
        assert context.current() is outer
        with context.use(CallContext("other")):
            assert context.current().request_id == "other"


async def test_tasks_and_threads_take_it_along() -> None:
    async def read() -> str:
        return context.current().request_id

    with context.use(request_id="job-7"):
        task = asyncio.create_task(read())
        thread = asyncio.to_thread(lambda: context.current().request_id)
        assert await thread == "job-7"
    assert await task == "job-7"
    assert await read() == ""


async def test_with_the_answer_the_deadline_is_lifted_for_all_that_goes_on() -> None:
    answered = asyncio.Event()

    async def goes_on() -> float | None:
        await answered.wait()
        return context.remaining()

    with context.use(deadline=time.monotonic()) as call:
        task = asyncio.create_task(goes_on())
        assert context.remaining() == 0.0
        call.end()
        answered.set()
        assert await task is None


@pytest.mark.parametrize(
    "changes",
    [
        {"request_id": "two words"},
        {"request_id": "x" * 129},
        {"request_id": "a\nb"},
        {"deadline": math.nan},
        {"traceparent": "00-1-2-3"},
        {"traceparent": "cc" + TRACEPARENT[2:]},
        {"tracestate": "A=1"},
        {"baggage": {"a b": "c"}},
        {"baggage": {"a": 1}},
        {"baggage": {"a": "x" * 9000}},
    ],
    ids=str,
)
def test_what_could_not_be_sent_on_is_refused_in_one_line(changes: dict[str, object]) -> None:
    with pytest.raises(ConfigError) as refused, context.use(**changes):
        pass
    assert "\n" not in str(refused.value)
    assert next(iter(changes)).replace("_", " ") in str(refused.value)
    assert context.current() is context.OUTSIDE


def test_a_deadline_that_is_no_number_is_refused_and_so_is_an_unknown_name() -> None:
    with pytest.raises(ConfigError, match="must be a number"), context.deadline_in(math.nan):
        pass
    with pytest.raises(TypeError, match="tenant"), context.use(tenant="acme"):
        pass


def test_headers_of_the_request_are_found_over_http_and_grpc() -> None:
    http = CallContext(incoming=[(b"x-user", b"\xe9"), (b"x-user", b"2")])
    grpc = CallContext(incoming=(("x-user", "1"), ("x-bin", b"\x00")))
    assert (http.header("x-user"), http.header("x-other")) == ("\xe9", None)
    assert (grpc.header("x-user"), grpc.header("x-bin")) == ("1", "\x00")


def test_secrets_are_not_shown() -> None:
    call = CallContext("id", baggage={"a": "hush"}, incoming=[(b"authorization", b"hush")])
    assert "id" in repr(call)
    assert "hush" not in repr(call)


def test_a_changed_copy_is_sent_anew() -> None:
    call = CallContext("id")
    call.outgoing = [("x-request-id", "id")]
    assert dataclasses.replace(call, request_id="other").outgoing is None


def test_log_records_tell_the_call(caplog: pytest.LogCaptureFixture) -> None:
    caplog.handler.addFilter(marks := context.LogFilter())
    try:
        log = logging.getLogger("shop")
        log.warning("outside")
        with context.use(request_id="job-7", traceparent=TRACEPARENT):
            log.warning("inside")
    finally:
        caplog.handler.removeFilter(marks)
    outside, inside = (vars(record) for record in caplog.records)
    assert (outside["request_id"], outside["trace_id"]) == ("", "")
    assert (inside["request_id"], inside["trace_id"]) == ("job-7", TRACEPARENT[3:35])
