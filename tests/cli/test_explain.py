"""`meshkit explain`: whom a caller that starts now would call, and why not the others."""

import json

import pytest

from meshkit.cli import dispatch
from meshkit.cli.explain import explained
from meshkit.model import Endpoint, Instance, Status
from meshkit.registry import open_registry
from tests.servers.ports import free_ports

USERS = "static://users=127.0.0.1:8000/9000,127.0.0.1:8001"


def test_both_transports_and_who_is_not_called(capsys: pytest.CaptureFixture[str]) -> None:
    assert dispatch(["explain", "users", "--registry", USERS]) == 0
    shown = capsys.readouterr()
    assert shown.out.startswith(f"users in {USERS}: the list is up to date\n")
    rows = [line.split() for line in shown.out.splitlines() if "127-0-0-1-800" in line]
    assert [row[:2] for row in rows[:2]] == [
        ["users-127-0-0-1-8000", "127.0.0.1:8000"],
        ["users-127-0-0-1-8001", "127.0.0.1:8001"],
    ]
    assert "100%" in rows[2]
    assert "it does not serve grpc" in " ".join(rows[3])
    assert shown.err == ""


def test_a_tag_and_json(capsys: pytest.CaptureFixture[str]) -> None:
    assert dispatch(["explain", "users@v2", "--json", "--registry", USERS]) == 0
    found = json.loads(capsys.readouterr().out)
    assert {each["transport"] for each in found["views"]} == {"http", "grpc"}
    for seen in found["views"]:
        assert seen["route"] == "tag v2"
        assert not any(each["called"] for each in seen["instances"])


async def test_an_instance_that_leaves() -> None:
    async with open_registry("memory://explain") as registry:
        for number, status in enumerate((Status.UP, Status.DRAINING)):
            endpoints = {"http": Endpoint("127.0.0.1", 8000 + number)}
            await registry.register(
                Instance(id=f"u-{number}", service="users", endpoints=endpoints, status=status)
            )
        (seen,) = (await explained(registry, "users")).views
    assert [(each.called, each.why) for each in seen.instances] == [
        (True, ""),
        (False, "its status is draining"),
    ]


def test_nobody_by_that_name(capsys: pytest.CaptureFixture[str]) -> None:
    assert dispatch(["explain", "user", "--registry", USERS]) == 0
    shown = capsys.readouterr()
    assert "no instance" in shown.out
    assert "nobody is registered as user" in shown.err
    assert "did you mean users?" in shown.err


def test_mistakes_are_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    (port,) = free_ports(1)
    cases = (
        (["users", "--registry", f"consul://127.0.0.1:{port}"], 4, "can't be reached"),
        (["Users", "--registry", USERS], 1, "invalid service name 'Users'"),
    )
    for arguments, code, part in cases:
        assert dispatch(["explain", *arguments]) == code
        shown = capsys.readouterr()
        assert part in shown.err
        assert shown.err.count("\n") == 1
        assert shown.out == ""
