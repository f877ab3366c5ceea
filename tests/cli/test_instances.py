"""`meshkit run --instances N`: forked from one parent, replaced when they die, ended together."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import urllib.request
from collections.abc import Callable
from pathlib import Path

from tests.cli.command import Command, running
from tests.cli.test_run import listed
from tests.support.waiting import eventually

SERVICE = """
import os
from meshkit import MeshService, get
print_at_import = open("imports", "a").write("x")
class Hello(MeshService):
    name = "hello"
    @get("/pid")
    async def pid(self) -> int:
        return os.getpid()
    async def on_start(self) -> None:
        {on_start}
    async def on_stop(self) -> None:
        {on_stop}
"""


def write(folder: Path, *, on_start: str = "pass", on_stop: str = "pass") -> None:
    (folder / "service.py").write_text(SERVICE.format(on_start=on_start, on_stop=on_stop))


def gone(pid: int) -> bool:
    """Whether the process has ended; one that is not ours is reaped by its parent."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    with contextlib.suppress(OSError):
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    return False


def pids(command: Command) -> set[int]:
    return {line["pid"] for line in command.all_ready}


def all_gone(command: Command) -> Callable[[], bool]:
    return lambda: all(gone(pid) for pid in pids(command))


def test_three_are_three_and_one_that_is_killed_is_replaced(tmp_path: Path) -> None:
    write(tmp_path)
    with running("run", "--instances", "3", folder=tmp_path) as command:
        command.ready(3)
        up = command.all_ready
        assert len({line["instance"] for line in up}) == 3
        assert len({line["http"] for line in up}) == 3
        assert command.process.pid not in pids(command)
        for line in up:
            with urllib.request.urlopen(f"{line['http']}/pid", timeout=10) as answer:
                assert json.load(answer) == line["pid"]
        assert {each["id"] for each in listed(tmp_path)} == {line["instance"] for line in up}

        os.kill(up[0]["pid"], signal.SIGKILL)
        replacement = command.ready(4)
        assert replacement["instance"] not in {line["instance"] for line in up}
        assert "ended (-9); a new one starts in" in command.err
        wanted = {line["instance"] for line in (*up[1:], replacement)}
        assert {each["id"] for each in listed(tmp_path)} == wanted
        # The module was imported once, by the parent.
        assert (tmp_path / "imports").read_text() == "x"

        assert command.stop(signal.SIGTERM) == 0
        assert all_gone(command)()
        assert "Traceback" not in command.err
    assert listed(tmp_path) == []


def test_a_start_that_fails_ends_all_with_its_code(tmp_path: Path) -> None:
    write(tmp_path, on_start="raise OSError('no database')")
    with running("run", "--instances", "2", folder=tmp_path) as command:
        assert command.process.wait(30) == 3
        assert "meshkit: error: on_start of Hello failed: OSError: no database (" in command.err
        assert "could not start; stopping the others" in command.err
        assert "Traceback" not in command.err
        assert command.out == ""


def test_a_second_signal_ends_all_at_once(tmp_path: Path) -> None:
    write(tmp_path, on_stop="open('stopping', 'w').close(); import time; time.sleep(60)")
    with running("run", "--instances", "2", folder=tmp_path) as command:
        command.ready(2)
        command.process.send_signal(signal.SIGINT)
        eventually((tmp_path / "stopping").exists, within=20)
        assert command.process.poll() is None
        assert command.stop(signal.SIGINT) == 130
        eventually(all_gone(command), within=10)


def test_the_echo_of_a_signal_is_none(tmp_path: Path) -> None:
    """timeout(1) signals the process, and then its whole group."""
    write(tmp_path)
    with running("run", "--instances", "2", folder=tmp_path) as command:
        command.ready(2)
        command.process.send_signal(signal.SIGTERM)
        os.killpg(command.process.pid, signal.SIGTERM)
        assert command.process.wait(30) == 0
        assert command.err.count('"stopped"') == 2
        assert listed(tmp_path) == []


def test_on_a_terminal_each_gets_a_line(tmp_path: Path) -> None:
    write(tmp_path)
    arguments = ("run", "--instances", "2", "--log-format", "text")
    with running(*arguments, folder=tmp_path) as command:
        eventually(lambda: command.out.count("registered after") == 2, within=30)
        up = {each["id"]: each["endpoints"]["http"] for each in listed(tmp_path)}
        head, *lines = filter(None, command.out.splitlines())
        assert head == "  hello   2 instances. Ctrl-C stops all."
        for line in lines:
            number, instance, url, _ = line.split(maxsplit=3)
            assert number in ("1/2", "2/2")
            assert url == f"http://{up[instance]}"
        assert command.stop() == 0
