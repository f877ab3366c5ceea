"""The demo for real: its tally, its verdict, and what it leaves behind (nothing)."""

import fcntl
import json
import os
import pty
import re
import shutil
import signal
import subprocess
import sys
import termios
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO, Any

import pytest

EXAMPLES = Path(__file__).parents[1] / "examples"
LIMIT = 180  # seconds for a whole demo, on a machine that is busy with other things

# Makes its standard input the controlling terminal, so that Ctrl-C there is a signal here.
IN_TERMINAL = (
    "import fcntl, os, sys, termios\n"
    "fcntl.ioctl(0, termios.TIOCSCTTY, 0)\n"
    "os.execv(sys.executable, [sys.executable, *sys.argv[1:]])\n"
)


@pytest.fixture
def environment(tmp_path: Path) -> Iterator[dict[str, str]]:
    """An environment whose temporary folder is ours; nothing may be left of it."""
    temporary = tmp_path / "tmp"
    temporary.mkdir()
    # The demo has to do without the settings of whoever starts it.
    yield {**os.environ, "TMPDIR": str(temporary), "MESHKIT_PORT": "1", "TERM": "xterm"}
    assert not list(temporary.iterdir())
    assert not Path(os.environ["MESHKIT_STATE_DIR"]).exists()
    assert not processes_with(str(temporary))


def processes_with(text: str) -> list[str]:
    """Return the command lines of processes that have the text in their environment."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            if text.encode() in (folder / "environ").read_bytes():
                found.append((folder / "cmdline").read_bytes().replace(b"\0", b" ").decode())
        except (OSError, PermissionError):
            continue
    return found


def demo(*arguments: str, examples: Path = EXAMPLES) -> list[str]:
    return [sys.executable, str(examples / "demo"), *arguments]


def run(command: list[str], environment: dict[str, str]) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command,
        check=False,
        env=environment,
        capture_output=True,
        text=True,
        timeout=LIMIT,
        cwd=EXAMPLES,
    )


@pytest.fixture(params=["local", pytest.param("consul", marks=pytest.mark.consul)])
def registry(request: pytest.FixtureRequest) -> str:
    if request.param == "local":
        return "local://"
    return str(request.getfixturevalue("consul").url)


@pytest.mark.slow
def test_no_call_is_lost_while_instances_die_leave_and_arrive(
    environment: dict[str, str], registry: str
) -> None:
    arguments = ("--seconds", "6", "--rate", "30", "--registry", registry, "--json")
    result = run(demo(*arguments), environment)
    assert result.returncode == 0, result.stdout + result.stderr
    tally = json.loads(result.stdout)
    check_tally(tally)
    assert tally["calls"] >= 180
    assert tally["seconds"] >= 6
    for event in ("SIGKILL to users-1", "SIGTERM to users-2", "start users-4"):
        assert event in result.stderr


def check_tally(tally: dict[str, Any]) -> None:
    assert tally["problems"] == []
    assert tally["failed"] == 0
    assert tally["answered"] == tally["calls"]
    # In turn over one transport and the other.
    assert abs(tally["transports"]["http"] - tally["transports"]["grpc"]) <= 1
    rows = {row["label"]: row for row in tally["instances"]}
    assert list(rows) == ["users-1", "users-2", "users-3", "orders-1", "orders-2", "users-4"]
    assert len({row["instance"] for row in rows.values()}) == 6
    for service in ("users", "orders"):
        answers = [row["answers"] for row in rows.values() if row["label"].startswith(service)]
        assert min(answers) > 0
        assert sum(answers) == tally["answered"]
    assert rows["users-1"]["state"] == "killed: SIGKILL"
    assert rows["users-2"]["state"] == "stopped: exit 0"
    assert rows["users-4"]["state"] == "running"
    assert 0 < tally["p50"] <= tally["p99"]
    assert 0 < tally["forgotten_after"] < 30
    assert 0 < tally["stopped_after"] < 30
    assert tally["joined_after"] > 0


class Started:
    """A demo under way whose lines are read as they come."""

    def __init__(self, process: subprocess.Popen[str], output: IO[str]) -> None:
        self.process = process
        self.output = output
        self.text = ""

    def read_until(self, pattern: str) -> None:
        while not re.search(pattern, self.text):
            line = self.output.readline()
            assert line, f"it ended before {pattern!r}:\n{self.text}"
            self.text += line

    def wait(self) -> int:
        try:
            return self.process.wait(LIMIT)
        finally:
            self.process.kill()
            self.output.close()


@pytest.fixture
def start(environment: dict[str, str]) -> Iterator[Callable[..., Started]]:
    started: list[Started] = []

    def begin(*arguments: str) -> Started:
        process = subprocess.Popen(
            demo(*arguments),
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        assert process.stdout
        started.append(Started(process, process.stdout))
        return started[-1]

    yield begin
    for each in started:
        each.process.terminate()
        each.wait()


@pytest.mark.parametrize(
    ("number", "moment"),
    [
        pytest.param(signal.SIGINT, r"start users-2", id="while-starting"),
        pytest.param(signal.SIGTERM, r"\d+ calls", id="under-traffic"),
        pytest.param(signal.SIGINT, r"start users-4", id="while-one-is-added"),
    ],
)
@pytest.mark.slow
def test_an_interrupt_leaves_nothing_behind(
    start: Callable[..., Started], number: signal.Signals, moment: str
) -> None:
    demo = start("--seconds", "6", "--rate", "30")
    demo.read_until(moment)
    demo.process.send_signal(number)
    time.sleep(0.1)
    demo.process.send_signal(number)  # the impatient's second one must not cut the clean-up short
    assert demo.wait() == 128 + number
    assert "Traceback" not in demo.text


@pytest.mark.slow
def test_ctrl_c_in_a_terminal_restores_it(environment: dict[str, str]) -> None:
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, b"\x28\x00\x78\x00\0\0\0\0")  # 40 x 120
    process = subprocess.Popen(
        [sys.executable, "-c", IN_TERMINAL, *demo("--seconds", "30")[1:]],
        env=environment,
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
        start_new_session=True,
    )
    os.close(theirs)
    screen = b""
    with os.fdopen(ours, "r+b", buffering=0) as terminal:
        while not re.search(rb"\n\s+[1-9]\d* calls  0 failed", screen):
            screen += terminal.read(4096)
        terminal.write(b"\x03")
        while chunk := read_or_end(terminal):
            screen += chunk
    assert process.wait(LIMIT) == 130
    for text in (b"users-1", b"orders-2", b"registry", b"running"):
        assert text in screen
    assert b"Traceback" not in screen
    assert screen.rfind(b"\x1b[?25h") > screen.rfind(b"\x1b[?25l")  # the cursor is back


def read_or_end(terminal: IO[bytes]) -> bytes:
    try:
        return terminal.read(4096)
    except OSError:  # Linux says EIO when the other side has closed
        return b""


@pytest.fixture
def sabotage(tmp_path: Path) -> Callable[[str, str], Path]:
    """Copy the examples and change the users service."""

    def change(old: str, new: str) -> Path:
        examples = tmp_path / "examples"
        shutil.copytree(EXAMPLES, examples, ignore=shutil.ignore_patterns(".*_cache", "*.pyc"))
        service = examples / "users" / "users" / "service.py"
        assert old in service.read_text()
        service.write_text(service.read_text().replace(old, new))
        return examples

    return change


@pytest.mark.slow
def test_a_lost_call_is_found_out(
    environment: dict[str, str], sabotage: Callable[[str, str], Path]
) -> None:
    examples = sabotage("return await self.store.get(user_id)", "return await self.store.get(1)")
    result = run(demo("--seconds", "3", "--rate", "20", examples=examples), environment)
    assert result.returncode == 1, result.stdout
    assert re.search(r"^FAILED: \d+ calls failed$", result.stdout, re.MULTILINE)
    assert re.search(r"^FAILED: \d+ x wrong answer for user \d+: ", result.stdout, re.MULTILINE)
    assert "OK" not in result.stdout
    assert "Traceback" not in result.stdout + result.stderr


@pytest.mark.slow
def test_a_service_that_does_not_start_shows_its_log(
    environment: dict[str, str], sabotage: Callable[[str, str], Path]
) -> None:
    examples = sabotage("self.store = UserStore()", "raise OSError('the disk is on fire')")
    result = run(demo(examples=examples), environment)
    assert result.returncode == 1
    assert re.search(r"^demo: error: users-\d ended by itself \(exit \d\)", result.stderr)
    assert "the disk is on fire" in result.stderr
    assert "Traceback" not in result.stderr.partition("log ends with")[0]


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["--registry", "nowhere://"], 1, "demo: error: unknown registry scheme 'nowhere://'"),
        (["--seconds", "0"], 2, "argument --seconds: 0 is not between 2 and 600"),
        (["--rate", "many"], 2, "argument --rate: invalid number value: 'many'"),
    ],
)
def test_bad_arguments_are_one_line(
    environment: dict[str, str], arguments: list[str], code: int, message: str
) -> None:
    result = run(demo(*arguments), environment)
    assert result.returncode == code
    assert message in result.stderr
    assert "Traceback" not in result.stderr
