"""The ``meshkit`` command.

This file imports nothing heavy: ``meshkit --help`` answers as fast as Python starts, and each
command's module is imported when it is called.
"""

from __future__ import annotations

import difflib
import gc
import importlib
import os
import signal
import sys
from collections.abc import Callable, Sequence
from types import FrameType
from typing import TYPE_CHECKING

from meshkit.errors import MeshError

if TYPE_CHECKING:
    import typer

# name: (module, what `meshkit --help` says)
COMMANDS = {
    "run": ("meshkit.cli.run", "Run a service: bind, register, serve, drain."),
    "healthcheck": (
        "meshkit.cli.healthcheck",
        "Ask the service that runs here whether it is ready, for HEALTHCHECK.",
    ),
    "ps": ("meshkit.cli.ps", "Show the services and instances in the registry."),
    "explain": ("meshkit.cli.explain", "Show whom a caller of a service would call, and why."),
    "config": ("meshkit.cli.config", "Read and change values that running services follow."),
    "routes": ("meshkit.cli.routes", "Divide a service's calls among its instances, live."),
    "registrator": (
        "meshkit.cli.registrator",
        "Register the containers that Docker runs, whatever is in them.",
    ),
    "new": ("meshkit.cli.new", "Create a new service from a template."),
}
USAGE_ERROR = 2
EXIT_CODES = """\
Exit codes:
  0    done
  1    a mistake in what was asked for: settings, names, code that can't be imported
  2    wrong usage of the command line
  3    the service could not start: port in use, a failing hook
  4    the registry, or Docker, can't be reached or refused
  130  ended by a second Ctrl-C
  143  ended by a second SIGTERM"""


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line and exit with its code."""
    if os.getpid() == 1:
        signal.signal(signal.SIGTERM, end_at_once)
    try:
        code = dispatch(list(sys.argv[1:] if arguments is None else arguments))
        sys.stdout.flush()
    except BrokenPipeError:
        # Whoever read our output has gone, as with `meshkit --help | head`.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        code = 0
    sys.exit(code)


def end_at_once(number: int, _: FrameType | None) -> None:
    """Do what any process but the first of a container does by itself when it is told to end.

    The kernel keeps from process 1 what it has no handler for, so a container that is stopped
    while it still imports would be waited for in vain. A running service has a handler of its own.
    """
    os._exit(128 + number)


def dispatch(arguments: list[str]) -> int:
    """Run the command line; return the exit code."""
    complaints.json_line = None  # as long as no command has found out that it is to be JSON
    if not arguments or arguments[0] in ("--help", "-h", "help"):
        print(overview())
        return 0 if arguments else USAGE_ERROR
    if arguments[0] in ("--version", "-V"):
        from meshkit import __version__

        print(f"meshkit {__version__}")
        return 0
    debug = "--debug" in arguments
    name, *rest = [word for word in arguments if word != "--debug"] or [""]
    if name not in COMMANDS:
        return usage_error(f"no such command {name!r}{did_you_mean(name)}")
    try:
        return execute(name, rest)
    except MeshError as error:
        if debug:
            raise
        complain(str(error))
        return error.exit_code
    except KeyboardInterrupt:
        return 130


def execute(name: str, arguments: list[str]) -> int:
    """Import the command and run it; typer reports wrong usage itself, with exit code 2."""
    # Nothing that is imported becomes garbage: without the collector looking for it, FastAPI
    # is up a seventh faster. A command that lives on turns it on again.
    gc.disable()
    try:
        command: typer.Typer = importlib.import_module(COMMANDS[name][0]).app
        command(arguments, prog_name=f"meshkit {name}")
    except SystemExit as end:
        return end.code if isinstance(end.code, int) else 0
    finally:
        gc.enable()  # for whoever calls us in a process of theirs
    return 0


def overview() -> str:
    """Return what ``meshkit --help`` prints."""
    width = max(map(len, COMMANDS))
    commands = "\n".join(f"  {name:<{width}}  {text}" for name, (_, text) in COMMANDS.items())
    return f"""\
Usage: meshkit COMMAND [OPTIONS]

Python microservices with built-in registration.

Commands:
{commands}

Options:
  --version  Show the version.
  --help     Show this, or the options of a command: meshkit COMMAND --help.
  --debug    Show the traceback behind an error.

{EXIT_CODES}"""


class Complaints:
    """How errors are written.

    Attributes:
        json_line: writes one where every line is to be JSON; None for text.
    """

    json_line: Callable[[str], None] | None = None


complaints = Complaints()


def complain(message: str) -> None:
    """Print one line on stderr, whatever the message quotes."""
    message = " ".join(message.split())
    if complaints.json_line is not None:
        complaints.json_line(message)
        return
    red, plain = ("\033[31m", "\033[0m") if colored(sys.stderr.isatty()) else ("", "")
    print(f"{red}meshkit: error:{plain} {message}", file=sys.stderr, flush=True)


def colored(terminal: bool) -> bool:  # noqa: FBT001
    """Whether to colour; https://no-color.org and FORCE_COLOR overrule what the stream is."""
    if os.environ.get("NO_COLOR"):
        return False
    return bool(os.environ.get("FORCE_COLOR")) or terminal


def usage_error(message: str) -> int:
    """Complain and point to the help."""
    complain(f"{message}; see `meshkit --help`")
    return USAGE_ERROR


def did_you_mean(name: str) -> str:
    """Suggest the nearest command."""
    near = difflib.get_close_matches(name, COMMANDS, n=1)
    return f" (did you mean {near[0]!r}?)" if near else ""
