"""`meshkit routes`: the rules that clients follow, set a part at a time."""

from __future__ import annotations

import asyncio
import io
import json
import sys
from collections.abc import Iterator
from types import SimpleNamespace

import pytest

from meshkit import Instance
from meshkit.cli import dispatch
from meshkit.discovery.routing.rules import parse_rules
from meshkit.registry import Registry, open_registry

Captured = pytest.CaptureFixture[str]


@pytest.fixture(autouse=True)
def _users() -> Iterator[None]:
    """An instance of users with a tag, in local://."""
    users = Instance(id="users-1", service="users", tags=("canary", "v2"))
    with asyncio.Runner() as runner:
        registry = runner.run(opened())
        runner.run(registry.register(users))
        yield
        runner.run(registry.aclose())


async def opened() -> Registry:
    return open_registry("local://")


def run(capsys: Captured, *arguments: str) -> str:
    assert dispatch(["routes", *arguments]) == 0
    return capsys.readouterr().out


def fails(capsys: Captured, *arguments: str) -> str:
    assert dispatch(["routes", *arguments]) == 1
    shown = capsys.readouterr()
    assert shown.out == ""
    assert shown.err.count("\n") == 1
    return shown.err


def stored(key: str) -> bytes:
    async def read() -> bytes:
        async with open_registry("local://") as registry:
            entry = await registry.kv.get(key)
            assert entry is not None
            return entry.value

    return asyncio.run(read())


def test_shares_are_set_read_listed_and_removed(capsys: Captured) -> None:
    said = run(capsys, "set", "users", "users=95", "users@canary=5")
    assert said == "users: users 95 %, users@canary 5 % in local://\n"
    value = stored("meshkit/routes/users")
    assert json.loads(value) == {"split": {"users": 95, "users@canary": 5}}
    assert parse_rules("users", value).shares == {"users": 95, "users@canary": 5}
    assert run(capsys, "get", "users") == value.decode() + "\n"
    run(capsys, "set", "orders", "orders=1", "orders@v2=2")
    listed = run(capsys, "ls").splitlines()
    assert listed == [
        "orders: orders 33.33 %, orders@v2 66.67 %",
        "users: users 95 %, users@canary 5 %",
    ]
    assert json.loads(run(capsys, "ls", "--json"))["users"] == value.decode()
    assert "users has no rules any more in local://" in run(capsys, "rm", "users")
    assert "users has no rules in local://" in fails(capsys, "rm", "users")
    assert "users has no rules in local://" in fails(capsys, "get", "users")


def test_what_is_not_given_stays(capsys: Captured) -> None:
    run(capsys, "set", "users", "--match", "x-beta=1:users@canary")
    said = run(capsys, "set", "users", "users=95", "users@canary=5")
    assert said.startswith("users: x-beta=1 to users@canary; users 95 %, users@canary 5 % in ")
    run(capsys, "set", "users", "--match", "x-beta=*:users@canary", "--match", "a=b:c:users")
    rules = json.loads(run(capsys, "get", "users"))
    assert rules["split"] == {"users": 95, "users@canary": 5}
    assert [each["header"] for each in rules["match"]] == [{"x-beta": "*"}, {"a": "b:c"}]


def test_all_may_be_given_as_json(capsys: Captured, monkeypatch: pytest.MonkeyPatch) -> None:
    rules = '{"split": {"users": 1, "users@v2": 1}}'
    run(capsys, "set", "users", rules)
    assert run(capsys, "get", "users") == rules + "\n"
    other = b'{"match": [{"header": {"x": "1"}, "to": "users@v2"}]}\n'
    monkeypatch.setattr(sys, "stdin", SimpleNamespace(buffer=io.BytesIO(other)))
    run(capsys, "set", "users", "-")
    assert stored("meshkit/routes/users") == other.strip()


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        ([], "no shares: give some, as in users=95 users@canary=5"),
        (["95"], "'95' is no share of its own: write GROUP=NUMBER"),
        (["users=9.5"], "'users=9.5' is no share of its own"),
        (["users=1", "users=2"], "'users=2' is no share of its own"),
        (["orders=1"], "the rules of users stay as they are: 'orders' is no group of users"),
        (["users=0"], "the rules of users stay as they are: every share is 0"),
        (["{}"], "the rules of users stay as they are: must be an object"),
        (["--match", "x-beta"], "'x-beta' is no match: write HEADER=VALUE:GROUP"),
        (["--match", "x-beta=1:orders"], "'orders' is no group of users"),
    ],
)
def test_bad_rules_are_refused_with_a_line(
    capsys: Captured, arguments: list[str], line: str
) -> None:
    assert line in fails(capsys, "set", "users", *arguments)
    assert "has no rules" in fails(capsys, "get", "users")


def test_a_name_that_is_none_is_refused(capsys: Captured) -> None:
    for name in ("get", "rm"):
        assert "invalid service name 'Users'" in fails(capsys, name, "Users")


def test_rules_that_are_not_usable_are_shown_as_that(capsys: Captured) -> None:
    async def write() -> None:
        async with open_registry("local://") as registry:
            await registry.kv.put("meshkit/routes/users", b"{")

    asyncio.run(write())
    assert run(capsys, "ls").startswith("users: not usable: not JSON: ")
    assert run(capsys, "get", "users") == "{\n"
    run(capsys, "set", "users", "users@canary=1")
    assert run(capsys, "ls") == "users: users@canary 100 %\n"


@pytest.mark.parametrize(
    ("service", "shares", "note"),
    [
        ("users", ("users=95", "users@canary=5"), ""),
        ("users", ("users=95", "users@soon=0"), ""),
        ("users", ("users=9", "users@canry=1"), "no instance of users has the tag 'canry' yet"),
        (
            "user",
            ("user=1",),
            "nobody is registered as user in local:// yet; did you mean users?",
        ),
    ],
)
def test_names_that_nobody_has_are_noted_and_written(
    capsys: Captured, service: str, shares: tuple[str, ...], note: str
) -> None:
    assert dispatch(["routes", "set", service, *shares]) == 0
    assert capsys.readouterr().err == (f"meshkit: note: {note}\n" if note else "")
    assert parse_rules(service, stored(f"meshkit/routes/{service}")).shares
