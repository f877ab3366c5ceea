"""`meshkit config`: read, change, list, watch, remove; and services that follow it."""

from __future__ import annotations

import asyncio
import base64
import io
import json
import os
import pty
import shlex
import signal
import subprocess
import sys
import urllib.request
from pathlib import Path
from types import SimpleNamespace

import pytest
from pydantic import BaseModel

from meshkit import ConfigError, LiveConfig
from meshkit.cli import dispatch, registries
from meshkit.registry import open_registry
from meshkit.registry.kv import VALUE_LIMIT
from tests.cli.command import meshkit, running
from tests.support.processes import Processes, environment
from tests.support.waiting import eventually

Captured = pytest.CaptureFixture[str]


def run(capsys: Captured, *arguments: str) -> str:
    assert dispatch(["config", *arguments]) == 0
    return capsys.readouterr().out


def fails(capsys: Captured, code: int, *arguments: str) -> str:
    assert dispatch(["config", *arguments]) == code
    shown = capsys.readouterr()
    assert shown.out == ""
    return shown.err


def revision(capsys: Captured, key: str) -> int:
    return int(json.loads(run(capsys, "get", key, "--json"))["revision"])


def stored(key: str) -> bytes | None:
    async def read() -> bytes | None:
        async with open_registry("local://") as registry:
            entry = await registry.kv.get(key)
            return entry.value if entry else None

    return asyncio.run(read())


def test_what_is_put_is_got(capsys: Captured) -> None:
    said = run(capsys, "put", "orders/max_items", "20")
    assert said.startswith("orders/max_items has revision ")
    assert said.endswith(" in local://\n")
    assert stored("config/orders/max_items") == b"20"
    assert run(capsys, "get", "orders/max_items") == "20\n"
    answer = json.loads(run(capsys, "put", "orders/max_items", "-5", "--json"))
    assert answer == {"key": "orders/max_items", "revision": revision(capsys, "orders/max_items")}
    assert run(capsys, "get", "orders/max_items") == "-5\n"
    run(capsys, "put", "orders/max_items", "")
    assert stored("config/orders/max_items") == b""


def test_only_a_negative_number_begins_with_a_dash(capsys: Captured) -> None:
    for value in ("-5", "-0.5", "-.5", "-1e-3"):
        run(capsys, "put", "a", value, "--json")
        assert stored("config/a") == value.encode()
    run(capsys, "put", "--if-absent", "-5", "-7")
    assert stored("config/-5") == b"-7"
    for value in ("-x", "--if-absnt", "-5 x", "--json"):
        run(capsys, "put", "a", "--", value)
        assert stored("config/a") == value.encode()
    for arguments in (
        ["a", "--if-absnt"],
        ["--if-absnt", "a", "1"],
        ["a", "1", "--if-absnt"],
        ["-x", "1"],
        ["a", "-x"],
        ["a", "-5x"],
        ["a", "--5"],
    ):
        assert dispatch(["config", "put", *arguments]) == 2
        said = capsys.readouterr().err
        assert "Usage: meshkit config put" in said
        assert "No such option: -" in said
        assert "--if-absnt" not in arguments or "Possible options: " in said
        assert "--if-absnt" not in arguments or "--if-absent" in said
    assert stored("config/a") == b"--json"
    assert stored("config/-x") is None


def test_of_several_registries_the_first_that_has_values_counts(
    capsys: Captured, tmp_path: Path
) -> None:
    several = [
        option
        for url in ("static://users=127.0.0.1:1", f"local://a?dir={tmp_path}", "local://")
        for option in ("--registry", url)
    ]
    run(capsys, "put", "orders/max_items", "20", *several)
    assert run(capsys, "get", "orders/max_items", *several) == "20\n"
    assert run(capsys, "ls", *several[:4]) == "orders/max_items = 20\n"
    assert stored("config/orders/max_items") is None


def test_stdin_is_stored_byte_by_byte_but_for_the_last_newline(
    capsys: Captured, monkeypatch: pytest.MonkeyPatch
) -> None:
    value = b"a\nb\xff\r\n"
    monkeypatch.setattr("sys.stdin", SimpleNamespace(buffer=io.BytesIO(value + b"\n")))
    run(capsys, "put", "orders/raw", "-")
    assert stored("config/orders/raw") == value
    answer = json.loads(run(capsys, "get", "orders/raw", "--json"))
    assert base64.b64decode(answer["base64"]) == value
    assert "value" not in answer


@pytest.mark.parametrize(
    ("text", "value"), [(b"33\n", b"33"), (b"33", b"33"), (b"\n\n", b"\n"), (b"", b"")]
)
def test_one_newline_at_the_end_of_stdin_is_left_out(
    capsys: Captured, monkeypatch: pytest.MonkeyPatch, text: bytes, value: bytes
) -> None:
    monkeypatch.setattr("sys.stdin", SimpleNamespace(buffer=io.BytesIO(text)))
    run(capsys, "put", "orders/max_items", "-")
    assert stored("config/orders/max_items") == value


def test_values_are_printed_byte_by_byte(tmp_path: Path) -> None:
    value = bytes(range(256))
    base = [sys.executable, "-m", "meshkit", "config"]
    env = environment()
    subprocess.run([*base, "put", "a", "-"], input=value, env=env, cwd=tmp_path, check=True)
    got = subprocess.run(
        [*base, "get", "a"], env=env, cwd=tmp_path, check=True, capture_output=True
    )
    assert got.stdout == value + b"\n"


def test_put_only_if(capsys: Captured) -> None:
    run(capsys, "put", "a/b", "1", "--if-absent")
    first = revision(capsys, "a/b")
    line = "meshkit: error: a/b in local:// is left as it is: "
    assert fails(capsys, 1, "put", "a/b", "2", "--if-absent") == f"{line}there is one already\n"
    assert fails(capsys, 1, "put", "a/b", "2", "--expect", "0") == f"{line}there is one already\n"
    run(capsys, "put", "a/b", "2", "--expect", str(first))
    refusal = fails(capsys, 1, "put", "a/b", "3", "--expect", str(first))
    assert refusal == f"{line}its revision is not {first}\n"
    assert run(capsys, "get", "a/b") == "2\n"


def test_lists_are_for_people_or_programs(capsys: Captured) -> None:
    assert run(capsys, "ls") == "no keys in local://\n"
    assert run(capsys, "ls", "orders/") == "no key begins with orders/ in local://\n"
    assert json.loads(run(capsys, "ls", "--json")) == []
    values = {
        "auth/limit": "7",
        "orders/api_token": "hush",
        "orders/long": "x" * 100,
        "orders/text": "two\nlines \033[31m",
    }
    for key, value in values.items():
        run(capsys, "put", key, value)
    assert run(capsys, "ls").splitlines() == [
        "auth/limit = 7",
        "orders/api_token = ***",
        f"orders/long = {'x' * 69}...",
        r"orders/text = two\nlines \x1b[31m",
    ]
    assert run(capsys, "ls", "orders/l") == f"orders/long = {'x' * 69}...\n"
    listed = json.loads(run(capsys, "ls", "--json"))
    assert {each["key"]: each["value"] for each in listed} == values
    assert all(isinstance(each["revision"], int) for each in listed)


def test_removing(capsys: Captured, monkeypatch: pytest.MonkeyPatch) -> None:
    for key in ("a", "a/b", "a/c", "ab", "b"):
        run(capsys, "put", key, "1")
    assert run(capsys, "rm", "a") == "removed a from local://\n"
    assert fails(capsys, 1, "rm", "a") == "meshkit: error: there is no a in local://\n"
    monkeypatch.setattr("sys.stdin", io.StringIO())
    needs = "meshkit: error: 2 keys would be removed: say so by --yes\n"
    assert fails(capsys, 1, "rm", "a/", "--prefix") == needs
    assert run(capsys, "rm", "a/", "--prefix", "--yes") == "removed 2 keys from local://\n"
    assert run(capsys, "ls") == "ab = 1\nb = 1\n"
    none = "meshkit: error: no key begins with a/ in local://\n"
    assert fails(capsys, 1, "rm", "a/", "--prefix", "-y") == none
    assert run(capsys, "rm", "b", "--prefix", "-y") == "removed 1 key from local://\n"


@pytest.mark.parametrize(("answer", "left"), [("y", 0), ("n", 12), ("\x04", 12)])
def test_removing_several_asks_on_a_terminal(tmp_path: Path, answer: str, left: int) -> None:
    async def keys(*made: str) -> int:
        async with open_registry("local://") as registry:
            for key in made:
                await registry.kv.put(key, b"1")
            return len(await registry.kv.list("config/a/"))

    assert asyncio.run(keys(*(f"config/a/{n:02}" for n in range(12)))) == 12
    ours, theirs = pty.openpty()
    process = subprocess.Popen(
        [sys.executable, "-m", "meshkit", "config", "rm", "a/", "--prefix"],
        stdin=theirs,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        cwd=tmp_path,
        env=environment(),
        text=True,
    )
    os.write(ours, f"{answer}\n".encode())
    shown, _ = process.communicate(timeout=30)
    os.close(ours)
    os.close(theirs)
    assert process.returncode == (0 if answer == "y" else 1)
    assert "\na/09\n... and 2 more\nRemove 12 keys?" in shown
    assert "Traceback" not in shown
    assert asyncio.run(keys()) == left


def test_changes_are_printed_as_they_come(capsys: Captured, tmp_path: Path) -> None:
    run(capsys, "put", "orders/a", "1")
    with (
        running("config", "watch", "orders/", "--json", folder=tmp_path) as programs,
        running("config", "watch", folder=tmp_path) as people,
    ):

        def seen() -> list[tuple[str, ...]]:
            lines = [json.loads(line) for line in programs.out.rpartition("\n")[0].splitlines()]
            return [
                tuple(map(str, [each[name] for name in each if name != "revision"]))
                for each in lines
            ]

        eventually(lambda: seen() == [("put", "orders/a", "1")])
        eventually(lambda: people.out == "put orders/a = 1\n")
        steps: list[tuple[str, ...]]
        steps = [("put", "orders/a", "2"), ("put", "orders/b", "1"), ("put", "other", "1")]
        steps += [("rm", "orders/a")]
        for step in steps:
            run(capsys, *step)
            text = " = ".join(step[1:])
            eventually(lambda: people.out.endswith(f"{step[0]:<3} {text}\n"))  # noqa: B023
        shown = [step for step in steps if step[1] != "other"]
        eventually(lambda: seen() == [("put", "orders/a", "1"), *shown])
        for command in (programs, people):
            assert command.stop(signal.SIGINT) == 0
            assert command.err == ""


@pytest.mark.parametrize(
    ("arguments", "code", "says"),
    [
        (["get", "nothing/here"], 1, "there is no nothing/here in local://"),
        (["get", "a b"], 1, "invalid key 'a b': use words of letters"),
        (["put", "a//b", "1"], 1, "invalid key 'a//b'"),
        (["put", "/orders/x", "1"], 1, "invalid key '/orders/x'"),
        (["rm", "../a"], 1, "invalid key '../a'"),
        (["put", "config/a", "1"], 1, "all keys are under config/: leave it out of 'config/a'"),
        (["get", "config/a"], 1, "leave it out of 'config/a'"),
        (["ls", "config/"], 1, "leave it out of 'config/'"),
        (["watch", "config/a"], 1, "leave it out of 'config/a'"),
        (
            ["rm", "orders/"],
            1,
            "'orders/' is no key; to remove all that begin with it, add --prefix",
        ),
        (["rm", "config/", "--prefix"], 1, "leave it out of 'config/'"),
        (
            ["put", "a", "1", "--registry", "memory://"],
            1,
            "keeps nothing; choose another by --registry",
        ),
        (["ls", "--registry", "memory://a local://"], 1, "memory:// lives within one process"),
        (
            ["put", "a", "x" * (VALUE_LIMIT // 8) * 2, "--registry", "nowhere"],
            1,
            "malformed registry",
        ),
        (["ls", "--registry", "nowhere://"], 1, "unknown registry scheme 'nowhere://'"),
        (
            ["ls", "--registry", "static://a=127.0.0.1:1"],
            1,
            "static://a=127.0.0.1:1 has no key-value",
        ),
        (["watch", "--registry", "static://a=127.0.0.1:1"], 1, "has no key-value store"),
        (["get", "a", "--registry", "local://?dir=/dev/null/a"], 1, "Not a directory"),
    ],
)
def test_mistakes_are_one_line(
    capsys: Captured, arguments: list[str], code: int, says: str
) -> None:
    line = fails(capsys, code, *arguments)
    assert line.startswith("meshkit: error: ")
    assert line.count("\n") == 1
    assert says in line


def test_a_value_that_is_too_large_is_refused(
    capsys: Captured, monkeypatch: pytest.MonkeyPatch
) -> None:
    raw = io.BytesIO(bytes(VALUE_LIMIT + 1))
    monkeypatch.setattr("sys.stdin", SimpleNamespace(buffer=raw))
    line = fails(capsys, 1, "put", "a", "-")
    size = f"has {VALUE_LIMIT + 1} bytes; a registry holds at most {VALUE_LIMIT}"
    assert line == f"meshkit: error: the value of 'a' {size}\n"


def test_wrong_usage_is_said(capsys: Captured) -> None:
    for arguments in (
        ["put", "a"],
        ["put", "a", "1", "--expect", "-1"],
        ["put", "a", "1", "--expect", "5", "--if-absent"],
        ["frobnicate"],
        [],
    ):
        assert dispatch(["config", *arguments]) == 2
        assert "Usage: meshkit config" in capsys.readouterr().err


def test_a_registry_that_hangs_is_said_to(
    capsys: Captured, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from meshkit.registry.local.lock import LockFile

    run(capsys, "put", "a", "1")
    monkeypatch.setattr(registries, "LIMIT", 0.2)
    path = tmp_path / "state" / "registry" / "default" / "_kv" / ":lock"
    lock = LockFile.acquire(path, announce=False)
    assert lock
    line = fails(capsys, 4, "put", "a", "2")
    assert line == "meshkit: error: local://: no answer within 0 s\n"
    lock.release()


class Needy(BaseModel):
    region: str


def test_the_command_that_an_error_shows_mends_it(capsys: Captured, tmp_path: Path) -> None:
    async def started(url: str) -> str:
        async with LiveConfig(Needy, url, "orders/place") as config:
            return config.value.region

    for url in ("local://", f"static://users=127.0.0.1:1 local://a?dir={tmp_path}"):
        with pytest.raises(ConfigError) as caught:
            asyncio.run(started(url))
        command = str(caught.value).partition("set it by: meshkit config ")[2]
        run(capsys, *shlex.split(command.replace("VALUE", "north")))
        assert asyncio.run(started(url)) == "north"


def test_running_services_follow_what_is_put(any_services: Processes, tmp_path: Path) -> None:
    """Two processes, whose value is changed by the command; it shows in their answers."""

    def change(*arguments: str) -> None:
        url = any_services.registry
        done = meshkit("config", *arguments, "--registry", url, folder=tmp_path)
        assert done.returncode == 0, done.stderr

    def limits() -> list[bytes]:
        return [urllib.request.urlopen(f"{each.url}/limit").read() for each in shops]

    change("put", "shop/max_items", "20")
    shops = any_services.start_all("limits:Shop", 2)
    assert limits() == [b"20", b"20"]
    change("put", "shop/max_items", "30")
    eventually(lambda: limits() == [b"30", b"30"])
    change("put", "shop/max_items", "many")
    for each in shops:
        eventually(lambda: "config/shop/max_items is refused: " in each.output)  # noqa: B023
    assert limits() == [b"30", b"30"]
    change("rm", "shop/max_items")
    eventually(lambda: limits() == [b"10", b"10"])
    for each in shops:
        eventually(lambda: "resized from 30 to 10" in each.output)  # noqa: B023
        each.send(signal.SIGTERM)
        assert each.wait() == 0
        assert each.output.count("refused") == 1
        assert "Traceback" not in each.output


def test_a_service_that_nobody_is_is_noted_and_written(capsys: Captured) -> None:
    assert dispatch(["config", "put", "nobody/x", "1"]) == 0
    noted = "meshkit: note: nobody is registered as nobody in local:// yet\n"
    assert capsys.readouterr().err == noted
    assert stored("config/nobody/x") == b"1"
    assert dispatch(["config", "put", "anything", "1"]) == 0
    assert capsys.readouterr().err == ""
