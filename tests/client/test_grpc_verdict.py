"""What the end of an attempt means. The table is the safety of retries: pinned row by row."""

from __future__ import annotations

import asyncio
import contextlib
import pickle
import socket
from typing import Any

import grpc
import grpc.aio
import pytest

from meshkit import identity
from meshkit.client.grpc.errors import (
    CANCELLED_HERE,
    RpcConnectError,
    RpcConnectionLost,
    RpcFailure,
    RpcNoInstances,
    RpcTimeout,
    RpcWrongInstance,
)
from meshkit.client.grpc.pool import ChannelPool
from meshkit.client.grpc.verdict import (
    NEVER,
    RETRYABLE,
    Ending,
    Next,
    Verdict,
    assess,
    finished,
    judge,
    pushback,
)
from meshkit.discovery.balancing import Outcome
from meshkit.errors import (
    CallError,
    CallTimeout,
    ConnectError,
    ConnectionLost,
    NoInstances,
    WrongInstance,
)
from meshkit.model import Endpoint, Instance
from tests.client.grpc_servers import bad_server, describe, plain_serving
from tests.client.http_servers import Handler, never_answer, refusing

Code = grpc.StatusCode
Metadata = grpc.aio.Metadata
NAME = "echo-a"
REFUSED = "failed to connect to all addresses; last error: UNKNOWN: ipv4:127.0.0.1:1: refused"
WE = (identity.INSTANCE, NAME)
OTHER = (identity.INSTANCE, "echo-b")
MISDIRECTED = (identity.MISDIRECTED, "1")
LEAVING = (identity.DRAINING, NAME)


def verdict(
    code: grpc.StatusCode,
    *trailing: tuple[str, str],
    details: str = "",
    connected: bool = True,
    named: bool = True,
) -> tuple[Outcome, Next, type[RpcFailure] | None]:
    instance = describe(NAME, Endpoint("127.0.0.1", 1), named=named)
    found = judge(instance, Ending(code, details, Metadata(*trailing), connected))
    return found.outcome, found.next, found.error


@pytest.mark.parametrize(
    ("code", "outcome"),
    [
        (Code.OK, Outcome.OK),
        (Code.INVALID_ARGUMENT, Outcome.OK),
        (Code.NOT_FOUND, Outcome.OK),
        (Code.UNIMPLEMENTED, Outcome.OK),
        (Code.PERMISSION_DENIED, Outcome.OK),
        (Code.UNKNOWN, Outcome.FAILED),
        (Code.INTERNAL, Outcome.FAILED),
        (Code.DATA_LOSS, Outcome.FAILED),
        (Code.RESOURCE_EXHAUSTED, Outcome.FAILED),
        (Code.DEADLINE_EXCEEDED, Outcome.FAILED),
    ],
)
def test_an_answer_is_final_whatever_it_says(code: grpc.StatusCode, outcome: Outcome) -> None:
    assert verdict(code, WE) == (outcome, Next.NOTHING, None)


def test_unavailable_from_the_handler_may_be_repeated_when_idempotent() -> None:
    assert verdict(Code.UNAVAILABLE, WE) == (Outcome.FAILED, Next.IF_IDEMPOTENT, None)
    assert verdict(Code.UNAVAILABLE, named=False) == (Outcome.FAILED, Next.IF_IDEMPOTENT, None)


def test_refused_needs_the_words_and_a_connection_that_is_not_there() -> None:
    refused = (Outcome.REFUSED, Next.ELSEWHERE, RpcConnectError)
    lost = (Outcome.FAILED, Next.IF_IDEMPOTENT, RpcConnectionLost)
    for named in (True, False):
        assert verdict(Code.UNAVAILABLE, details=REFUSED, connected=False, named=named) == refused
        assert (
            verdict(Code.UNAVAILABLE, details="Socket closed", connected=False, named=named) == lost
        )


def test_refused_is_not_believed_from_somebody_who_is_connected() -> None:
    # A handler that passes on the error of a call of its own has had an effect.
    answered = (Outcome.FAILED, Next.IF_IDEMPOTENT, None)
    lost = (Outcome.FAILED, Next.IF_IDEMPOTENT, RpcConnectionLost)
    assert verdict(Code.UNAVAILABLE, details=REFUSED, connected=True, named=False) == answered
    assert verdict(Code.UNAVAILABLE, details=REFUSED, connected=True) == lost
    assert verdict(Code.UNAVAILABLE, WE, details=REFUSED, connected=False) == answered


def test_a_refusal_by_somebody_else_had_no_effect() -> None:
    wrong = (Outcome.WRONG, Next.ELSEWHERE, RpcWrongInstance)
    assert verdict(Code.UNAVAILABLE, OTHER, MISDIRECTED) == wrong
    assert verdict(Code.UNAVAILABLE, MISDIRECTED) == wrong


def test_an_unknown_method_without_our_name_is_somebody_else() -> None:
    wrong = (Outcome.WRONG, Next.ELSEWHERE, RpcWrongInstance)
    assert verdict(Code.UNIMPLEMENTED) == wrong
    assert verdict(Code.UNIMPLEMENTED, named=False) == (Outcome.OK, Next.NOTHING, None)


@pytest.mark.parametrize("code", [Code.OK, Code.NOT_FOUND, Code.UNAVAILABLE, Code.UNKNOWN])
def test_an_answer_by_somebody_else_may_have_had_an_effect(code: grpc.StatusCode) -> None:
    assert verdict(code, OTHER) == (Outcome.WRONG, Next.IF_IDEMPOTENT, RpcWrongInstance)


def test_a_name_says_nothing_when_the_registered_one_is_not_its_own() -> None:
    assert verdict(Code.OK, OTHER, named=False) == (Outcome.OK, Next.NOTHING, None)


def test_draining_is_noted_with_every_answer() -> None:
    assert verdict(Code.OK, WE, LEAVING) == (Outcome.DRAINING, Next.NOTHING, None)
    assert verdict(Code.NOT_FOUND, WE, LEAVING) == (Outcome.DRAINING, Next.NOTHING, None)
    assert verdict(Code.UNAVAILABLE, WE, LEAVING) == (Outcome.DRAINING, Next.IF_IDEMPOTENT, None)


def test_a_gateway_passes_on_the_marks_of_whom_it_called() -> None:
    elsewhere = (identity.DRAINING, "echo-b")
    assert verdict(Code.OK, OTHER, WE, elsewhere) == (Outcome.OK, Next.NOTHING, None)
    answered = (Outcome.FAILED, Next.IF_IDEMPOTENT, None)
    assert verdict(Code.UNAVAILABLE, WE, OTHER, MISDIRECTED) == answered


def test_cancelling_says_nothing_of_the_instance() -> None:
    given_up = (Outcome.CANCELLED, Next.NOTHING, None)
    assert verdict(Code.CANCELLED, details=CANCELLED_HERE) == given_up


def test_a_server_that_cancels_is_ending() -> None:
    lost = (Outcome.FAILED, Next.IF_IDEMPOTENT, RpcConnectionLost)
    assert verdict(Code.CANCELLED, details="CANCELLED") == lost
    assert verdict(Code.CANCELLED, WE, details=CANCELLED_HERE) == (Outcome.OK, Next.NOTHING, None)


def test_a_timeout_counts_against_the_instance() -> None:
    assert verdict(Code.DEADLINE_EXCEEDED) == (Outcome.TIMEOUT, Next.NOTHING, RpcTimeout)


def test_a_call_that_was_shed_was_not_handled() -> None:
    shed = (Outcome.SHED, Next.ELSEWHERE, None)
    assert verdict(Code.RESOURCE_EXHAUSTED, WE, (identity.SHED, NAME)) == shed
    # A gateway passes on what it got; it has handled the call itself.
    passed_on = (Outcome.FAILED, Next.NOTHING, None)
    assert verdict(Code.RESOURCE_EXHAUSTED, WE, (identity.SHED, "echo-b")) == passed_on


def test_the_users_statuses_may_be_repeated() -> None:
    instance = describe(NAME, Endpoint("127.0.0.1", 1))
    ending = Ending(Code.ABORTED, "try again", Metadata(WE), connected=True)
    assert judge(instance, ending).next is Next.NOTHING
    found = judge(instance, ending, frozenset({Code.ABORTED}))
    assert (found.next, found.reason) == (Next.IF_IDEMPOTENT, "said aborted (try again)")


@pytest.mark.parametrize(
    ("text", "seconds"), [("0", 0.0), ("250", 0.25), ("-1", NEVER), ("-9", NEVER), ("soon", NEVER)]
)
def test_pushback_is_read_as_a6_has_it(text: str, seconds: float) -> None:
    assert (pushback(text) < 0) is (seconds < 0)
    assert pushback(text) == seconds or seconds < 0


class Pool(ChannelPool):
    """Closed with a block."""

    aclose = ChannelPool.close


async def _assessed(address: Endpoint | str) -> Verdict:
    """Call an address for real, through the channel that calls use."""
    if isinstance(address, str):
        address = Endpoint(address, 50051)
    instance = describe(NAME, address)
    async with contextlib.aclosing(Pool()) as pool:
        link = pool.link(instance, address)
        method: Any = link.channel.unary_unary("/x.Y/Z")
        call = method(b"", timeout=15.0)
        with pytest.raises(grpc.aio.AioRpcError):
            await call
        return assess(link, call, RETRYABLE)


async def test_grpc_words_for_a_closed_port() -> None:
    with refusing() as endpoint:
        found = await _assessed(endpoint)
    assert found == Verdict(
        Outcome.REFUSED, Next.ELSEWHERE, RpcConnectError, "can't be reached (Connection refused)"
    )


async def test_grpc_words_for_a_name_that_does_not_exist() -> None:
    found = await _assessed("no-such-host.invalid")
    assert (found.outcome, found.next) == (Outcome.REFUSED, Next.ELSEWHERE)


async def _close(reader: asyncio.StreamReader, _writer: asyncio.StreamWriter) -> None:
    await reader.read(10)


async def _http1(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    await reader.read(10)
    writer.write(b"HTTP/1.1 400 Bad Request\r\ncontent-length: 0\r\n\r\n")
    await writer.drain()


@pytest.mark.parametrize("handler", [_close, _http1, never_answer])
async def test_nothing_is_sent_before_the_peer_has_greeted_us(handler: Handler) -> None:
    async with bad_server(handler) as endpoint:
        found = await _assessed(endpoint)
    assert (found.outcome, found.next) == (Outcome.REFUSED, Next.ELSEWHERE)


async def test_a_host_that_never_accepts_is_given_up_in_time_for_another_one() -> None:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen(0)
        filling = [socket.socket() for _ in range(3)]
        for each in filling:
            each.setblocking(False)
            each.connect_ex(listener.getsockname())
        started = asyncio.get_running_loop().time()
        found = await _assessed(Endpoint(*listener.getsockname()))
        for each in filling:
            each.close()
    assert (found.outcome, found.next) == (Outcome.REFUSED, Next.ELSEWHERE)
    assert asyncio.get_running_loop().time() - started < 10  # gRPC's default is 20


async def test_a_connection_that_breaks_under_a_call_may_have_had_an_effect() -> None:
    async with plain_serving(NAME) as running:
        address = running.instance.endpoints["grpc"]
        async with contextlib.aclosing(Pool()) as pool:
            link = pool.link(running.instance, address)
            method: Any = link.channel.unary_unary("/meshkit.tests.Echo/Say")
            call = method(b"\x0a\x08sleep 30", timeout=15.0)
            await asyncio.sleep(0.2)
            assert running.echo.texts == ["sleep 30"]
            await running.server.stop(None)
            with pytest.raises(grpc.aio.AioRpcError):
                await call
            found = assess(link, call, RETRYABLE)
    assert (found.outcome, found.next) == (Outcome.FAILED, Next.IF_IDEMPOTENT)


@pytest.mark.parametrize(
    ("made", "ours"),
    [
        (RpcNoInstances("nobody"), NoInstances),
        (RpcConnectError("nobody"), ConnectError),
        (RpcConnectionLost("nobody"), ConnectionLost),
        (RpcWrongInstance("nobody"), WrongInstance),
        (RpcTimeout("nobody"), CallTimeout),
    ],
    ids=lambda value: type(value).__name__,
)
def test_an_error_is_meshkits_and_grpcs(made: RpcFailure, ours: type[CallError]) -> None:
    late = ours is CallTimeout
    for error in (made, pickle.loads(pickle.dumps(made))):
        assert isinstance(error, ours)
        assert isinstance(error, CallError)
        assert isinstance(error, grpc.aio.AioRpcError)
        assert isinstance(error, TimeoutError) is late
        assert str(error) == error.details() == "nobody"
        assert error.code() is (Code.DEADLINE_EXCEEDED if late else Code.UNAVAILABLE)
        assert list(error.trailing_metadata()) == list(error.initial_metadata()) == []
        assert "nobody" in repr(error)


def test_a_call_that_is_not_done_is_noticed() -> None:
    async def waiting() -> None:
        await asyncio.sleep(0)

    with pytest.raises(RuntimeError, match="waits for a call that is done"):
        finished(waiting())


def test_instances_that_prove_nothing_are_taken_as_they_are() -> None:
    instance = Instance(id=NAME, service="echo")
    assert (
        judge(instance, Ending(Code.OK, "", Metadata(OTHER), connected=True)).outcome is Outcome.OK
    )
