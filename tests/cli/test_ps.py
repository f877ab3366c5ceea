"""`meshkit ps`: the registry as a table or as JSON, once or as it changes."""

from __future__ import annotations

import asyncio
import dataclasses
import json
import re
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from meshkit import Endpoint, Instance, Status
from meshkit.cli import dispatch
from meshkit.cli.ps import COLUMNS, duration, nobody, table
from meshkit.registry import Registry, open_registry
from tests.cli.command import running
from tests.support.waiting import eventually

USERS = Instance(
    id="users-host-8000-abc123",
    service="users",
    version="1.2.3",
    tags=("v1", "blue"),
    endpoints={"http": Endpoint("127.0.0.1", 8000), "grpc": Endpoint("127.0.0.1", 9000)},
    started_at=time.time() - 3700,
)
LEDGER = Instance(
    id="ledger-host-9100-abc123",
    service="ledger",
    endpoints={"grpc": Endpoint("::1", 9100)},
    status=Status.DOWN,
)


@pytest.fixture
def registered() -> Iterator[Callable[..., Registry]]:
    """Registers instances in local:// for as long as the test runs."""
    with asyncio.Runner() as runner:
        registry = runner.run(opened())

        def register(*instances: Instance) -> Registry:
            for each in instances:
                runner.run(again(registry, each))
            return registry

        yield register
        runner.run(registry.aclose())


async def opened() -> Registry:
    return open_registry("local://")


async def again(registry: Registry, instance: Instance) -> None:
    await registry.register(instance)


def ps(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    assert dispatch(["ps", *arguments]) == 0
    return capsys.readouterr().out


def test_an_empty_registry_says_so(capsys: pytest.CaptureFixture[str]) -> None:
    assert ps(capsys) == "no instance is registered in local://\n"
    assert json.loads(ps(capsys, "--json")) == []


def test_a_table_for_people(
    registered: Callable[..., Registry], capsys: pytest.CaptureFixture[str]
) -> None:
    registered(USERS, LEDGER)
    head, *rows = ps(capsys).splitlines()
    assert head.split() == list(COLUMNS)
    assert [re.split(r"  +", row) for row in rows] == [
        ["ledger", LEDGER.id, "down", "-", "-", "[::1]:9100", "-", "-"],
        ["users", USERS.id, "up", "1.2.3", "127.0.0.1:8000", "127.0.0.1:9000", "v1,blue", "1h"],
    ]
    assert head.index("STATUS") == rows[0].index("down") == rows[1].index("up")


def test_json_for_programs(
    registered: Callable[..., Registry], capsys: pytest.CaptureFixture[str]
) -> None:
    registered(USERS, LEDGER)
    ledger, users = json.loads(ps(capsys, "--json"))
    assert ledger.pop("age") == 0
    assert users.pop("age") == pytest.approx(time.time() - USERS.started_at, abs=60)
    assert (Instance.from_dict(ledger), Instance.from_dict(users)) == (LEDGER, USERS)


def test_one_service_alone(
    registered: Callable[..., Registry], capsys: pytest.CaptureFixture[str]
) -> None:
    registered(USERS, LEDGER)
    assert [each["id"] for each in json.loads(ps(capsys, "ledger", "--json"))] == [LEDGER.id]
    said = "no instance of nobody is registered in local://; there are: ledger, users\n"
    assert ps(capsys, "nobody") == said


async def test_not_every_registry_can_list_the_others() -> None:
    async with open_registry("dns://127.0.0.1:1/test") as registry:
        assert await nobody(registry, "users") == (
            f"no instance of users is registered in {registry.url}"
        )


def test_another_registry(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    url = "static://users=127.0.0.1:8000,127.0.0.1:8001"
    assert len(json.loads(ps(capsys, "--json", "--registry", url))) == 2
    monkeypatch.setenv("MESHKIT_REGISTRY", url)
    assert len(json.loads(ps(capsys, "--json"))) == 2


def test_the_status_is_coloured_and_columns_stay_in_line() -> None:
    plain = table([USERS, LEDGER], color=False)
    coloured = table([USERS, LEDGER], color=True)
    assert "\033[32mup" in coloured
    assert "\033[31mdown" in coloured
    assert re.sub(r"\033\[\d*m", "", coloured) == plain


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0, "0s"),
        (59.4, "59s"),
        (60, "1m"),
        (3599, "59m"),
        (3600, "1h"),
        (86399, "23h"),
        (2e6, "23d"),
    ],
)
def test_ages_are_short_and_never_too_old(seconds: float, text: str) -> None:
    assert duration(seconds) == text


def test_watching_prints_a_line_for_each_change(
    registered: Callable[..., Registry], tmp_path: Path
) -> None:
    registered(LEDGER)
    with running("ps", "--watch", "--json", folder=tmp_path) as command:

        def shown() -> list[list[str]]:
            lines = command.out.rpartition("\n")[0].splitlines()
            return [[each["id"] for each in json.loads(line)] for line in lines]

        eventually(lambda: shown() == [[LEDGER.id]])
        registered(USERS)
        eventually(lambda: shown() == [[LEDGER.id], [LEDGER.id, USERS.id]])
        assert command.stop(signal.SIGINT) == 0
        assert command.err == ""


def test_watching_prints_no_table_twice(
    registered: Callable[..., Registry], tmp_path: Path
) -> None:
    """Of what a table does not show, and of ages, a log is not to be filled."""
    registered(USERS)
    with running("ps", "--watch", folder=tmp_path) as command:
        eventually(lambda: USERS.id in command.out)
        registered(dataclasses.replace(USERS, metadata={"a": "b"}))
        time.sleep(2.5)  # two reads more, at least
        registered(LEDGER)
        eventually(lambda: LEDGER.id in command.out)
        assert command.out.count("SERVICE") == 2
