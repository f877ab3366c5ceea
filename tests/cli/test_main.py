"""The command line around the commands: help, version, mistakes, colours and exit codes."""

import gc
import re
import subprocess
import sys
from pathlib import Path

import pytest

from meshkit import ConfigError, MeshSettings, StartError, __version__, cli
from meshkit.cli import COMMANDS, EXIT_CODES, colored, complain, dispatch, main
from meshkit.cli.run import app

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize("word", ["--help", "-h", "help"])
def test_help_lists_commands_and_exit_codes(word: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert dispatch([word]) == 0
    shown = capsys.readouterr().out
    for name, (_, text) in COMMANDS.items():
        assert f"  {name}" in shown
        assert text in shown
    assert EXIT_CODES in shown


def test_nothing_asked_for_is_wrong_usage(capsys: pytest.CaptureFixture[str]) -> None:
    assert dispatch([]) == 2
    assert capsys.readouterr().out.startswith("Usage: meshkit COMMAND")


def test_the_version_is_told() -> None:
    for command in (["-m", "meshkit"], ["-m", "meshkit.cli"]):
        done = subprocess.run(
            [sys.executable, *command, "--version"], capture_output=True, text=True, check=True
        )
        assert done.stdout == f"meshkit {__version__}\n"


def test_the_installed_command_is_the_same(capsys: pytest.CaptureFixture[str]) -> None:
    from importlib.metadata import entry_points

    (entry,) = entry_points(group="console_scripts", name="meshkit")
    assert entry.load() is main
    with pytest.raises(SystemExit) as ended:
        main(["--version"])
    assert ended.value.code == 0
    assert capsys.readouterr().out == f"meshkit {__version__}\n"


@pytest.mark.parametrize(
    ("word", "hint"),
    [("rum", " (did you mean 'run'?)"), ("news", " (did you mean 'new'?)"), ("frobnicate", "")],
)
def test_an_unknown_command_is_wrong_usage(
    word: str, hint: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert dispatch([word]) == 2
    shown = capsys.readouterr()
    assert shown.err == (f"meshkit: error: no such command {word!r}{hint}; see `meshkit --help`\n")
    assert shown.out == ""


@pytest.mark.parametrize("name", COMMANDS)
def test_each_command_has_help_with_its_own_words(
    name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert dispatch([name, "--help"]) == 0
    assert f"Usage: meshkit {name}" in capsys.readouterr().out


@pytest.mark.parametrize("arguments", [["run", "--prot", "1"], ["run", "--port", "x"]])
def test_wrong_options_are_wrong_usage(
    arguments: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert dispatch(arguments) == 2
    shown = capsys.readouterr().err
    assert "Usage: meshkit run" in shown
    assert arguments[1] in shown


def test_every_option_of_run_is_a_setting(capsys: pytest.CaptureFixture[str]) -> None:
    """So that each is a variable, a line of .env and a key of [tool.meshkit] too."""
    assert dispatch(["run", "--help"]) == 0
    options = set(re.findall(r"^  --([a-z-]+)", capsys.readouterr().out, re.MULTILINE))
    renamed = {"tag": "tags", "no-register": "registration"}
    settings = {renamed.get(option, option.replace("-", "_")) for option in options}
    assert settings - {"help", "env_file"} <= set(MeshSettings.model_fields)
    assert {"port", "grpc_port", "registry", "instances", "reload", "log_format"} <= settings
    assert app.registered_commands


def raising(monkeypatch: pytest.MonkeyPatch, error: BaseException) -> None:
    def execute(name: str, arguments: list[str]) -> int:
        raise error

    monkeypatch.setattr(cli, "execute", execute)


@pytest.mark.parametrize(
    ("error", "code"),
    [(ConfigError("a mistake"), 1), (StartError("a mistake"), 3)],
)
def test_an_error_is_one_line_and_its_code(
    error: Exception,
    code: int,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    raising(monkeypatch, error)
    assert dispatch(["run"]) == code
    assert capsys.readouterr().err == "meshkit: error: a mistake\n"


def test_debug_shows_the_traceback(monkeypatch: pytest.MonkeyPatch) -> None:
    raising(monkeypatch, ConfigError("a mistake"))
    for arguments in (["--debug", "run"], ["run", "--debug"]):
        with pytest.raises(ConfigError):
            dispatch(arguments)


def test_a_bug_is_not_taken_for_a_mistake_of_the_user(monkeypatch: pytest.MonkeyPatch) -> None:
    raising(monkeypatch, ZeroDivisionError())
    with pytest.raises(ZeroDivisionError):
        dispatch(["run"])


def test_the_garbage_collector_is_left_on(capsys: pytest.CaptureFixture[str]) -> None:
    for arguments in (["ps"], ["run", "--help"], ["run", "--prot"]):
        dispatch(arguments)
        assert gc.isenabled()


def test_ctrl_c_has_its_own_code(monkeypatch: pytest.MonkeyPatch) -> None:
    raising(monkeypatch, KeyboardInterrupt())
    assert dispatch(["ps"]) == 130


def test_who_stops_reading_is_no_error() -> None:
    for options in ("-u -m", "-m"):  # noticed at once, or only when the buffer is flushed
        done = subprocess.run(
            f"{sys.executable} {options} meshkit --help | true; echo ${{PIPESTATUS[0]}}",
            shell=True,
            executable="/bin/bash",
            capture_output=True,
            text=True,
            check=True,
        )
        assert (done.stdout, done.stderr) == ("0\n", "")


def test_a_message_of_several_lines_becomes_one(capsys: pytest.CaptureFixture[str]) -> None:
    complain("on_start failed: first\n  second\tthird")
    assert capsys.readouterr().err == "meshkit: error: on_start failed: first second third\n"


@pytest.mark.parametrize(
    ("variables", "terminal", "wanted"),
    [
        ({}, True, True),
        ({}, False, False),
        ({"NO_COLOR": "1"}, True, False),
        ({"FORCE_COLOR": "1"}, False, True),
        ({"NO_COLOR": "1", "FORCE_COLOR": "1"}, True, False),
        ({"NO_COLOR": ""}, True, True),
    ],
)
def test_colours_are_for_terminals_unless_told_otherwise(
    variables: dict[str, str],
    terminal: bool,  # noqa: FBT001 - a parameter of the table
    wanted: bool,  # noqa: FBT001
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    for name in ("NO_COLOR", "FORCE_COLOR"):
        monkeypatch.delenv(name, raising=False)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    assert colored(terminal) is wanted
    if not terminal:
        complain("a mistake")
        assert ("\033[31m" in capsys.readouterr().err) is wanted
