"""A wrong option fails where it is written, in one line."""

from __future__ import annotations

import re
from typing import Any

import pytest

from meshkit import (
    BreakerPolicy,
    BulkheadPolicy,
    EjectionPolicy,
    HedgePolicy,
    Mesh,
    MeshTransport,
    NoInstances,
    RetryPolicy,
    Route,
    grpc_client,
    http_client,
)
from meshkit.client.policy import CallPolicy
from meshkit.errors import ConfigError

WRONG: list[tuple[dict[str, Any], str]] = [
    ({"timeout": 0}, "timeout must be more than 0 s, not 0"),
    ({"retry": 3}, "retry= must be a RetryPolicy, not 3"),
    ({"retry": None}, "retry= must be a RetryPolicy, not None"),
    ({"hedge": 0.1}, "hedge= must be a HedgePolicy, not 0.1"),
    ({"breaker": True}, "breaker= must be a BreakerPolicy, not True"),
    ({"bulkhead": 10}, "bulkhead= must be a BulkheadPolicy, not 10"),
    ({"retries": 3}, "no option 'retries'; did you mean retry?"),
    ({"timeout": "2"}, "timeout must be a number, not '2'"),
    ({"subset": 1.5}, "subset must be a whole number, not 1.5"),
    ({"max_answer": "1MB"}, "max_answer must be a whole number, not '1MB'"),
    ({"ejection": False}, "ejection= must be an EjectionPolicy, not False"),
    ({"route": "v2"}, "route= must be a Route, as in Route(tags=('v2',)), not 'v2'"),
    ({"sticky": True}, "sticky= must be a header's or cookie's name, not True"),
]


@pytest.mark.parametrize(("options", "words"), WRONG)
def test_a_wrong_option_fails_in_the_class_body(options: dict[str, Any], words: str) -> None:
    with pytest.raises(ConfigError) as caught:

        class _Orders:
            users = http_client("users", **options)

    assert str(caught.value) == f"http_client('users'): {words}"
    with pytest.raises(ConfigError, match=re.escape(f"grpc_client('ledger'): {words}")):
        grpc_client(lambda channel: channel, "ledger", **options)


WRONG_TYPES: list[tuple[type, dict[str, Any], str]] = [
    (RetryPolicy, {"attempts": "3"}, "attempts must be a whole number, not '3'"),
    (RetryPolicy, {"statuses": 503}, "statuses must be a set, as in {503}"),
    (RetryPolicy, {"statuses": {"503"}}, "statuses must be from 400 to 599, not '503'"),
    (RetryPolicy, {"codes": "UNAVAILABLE"}, "codes must be a set, as in {'UNAVAILABLE'}"),
    (HedgePolicy, {"delay": "0.1"}, "delay must be a number, not '0.1'"),
    (BreakerPolicy, {"failures": True}, "failures must be a number, not True"),
    (BulkheadPolicy, {"concurrent": 1.5}, "concurrent must be a whole number, not 1.5"),
    (EjectionPolicy, {"pause": None}, "pause must be a number, not None"),
    (Route, {"version": 2}, "version must be text such as '>=2,<3', not 2"),
    (Route, {"metadata": ["eu"]}, "metadata must be a mapping, not ['eu']"),
]


@pytest.mark.parametrize(("kind", "options", "words"), WRONG_TYPES)
def test_a_value_of_a_wrong_type_is_named_in_one_line(
    kind: type, options: dict[str, Any], words: str
) -> None:
    with pytest.raises(ConfigError) as caught:
        kind(**options)
    assert str(caught.value) == f"{kind.__name__}: {words}"


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"retry": 3}, "retry= must be a RetryPolicy, not 3"),
        ({"hedge": 0.1}, "hedge= must be a HedgePolicy, not 0.1"),
        ({"timeout": "1"}, "users: timeout must be more than 0 s, not '1'"),
        ({"route": "v2"}, "users: route= must be a Route, as in Route(tags=('v2',)), not 'v2'"),
        ({"headers": ["x"]}, "headers= must be a mapping, or pairs of name and value"),
    ],
)
async def test_a_wrong_option_of_a_call_is_named_in_one_line(
    options: dict[str, Any], words: str
) -> None:
    async with Mesh("static://users=127.0.0.1:1") as mesh:
        with pytest.raises(ConfigError) as caught:
            await mesh.http("users").get("/", **options)
    assert str(caught.value) == words


async def test_events_without_the_block_that_opens_them_do_not_wait_forever() -> None:
    async with Mesh("static://users=127.0.0.1:1") as mesh:
        with pytest.raises(ConfigError, match=r"users: the stream is not open: async with"):
            await anext(mesh.http("users").sse("/events"))


async def test_a_client_says_that_its_mesh_is_closed() -> None:
    async with Mesh("static://users=127.0.0.1:1") as mesh:
        users = mesh.http("users")
    with pytest.raises(NoInstances, match="users: not called, as the mesh is closed"):
        await users.get("/")


async def test_the_httpx_transport_asks_for_a_mesh() -> None:
    with pytest.raises(ConfigError, match="MeshTransport takes a Mesh, not 'users'"):
        MeshTransport("users")  # type: ignore[arg-type] # the mistake


def test_equal_options_make_equal_policies() -> None:
    options: dict[str, Any] = {"retry": RetryPolicy(statuses=[503]), "hedge": HedgePolicy()}
    assert CallPolicy(**options) == CallPolicy(**options)
    assert hash(CallPolicy(**options)) == hash(CallPolicy(**options))
