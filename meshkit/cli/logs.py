"""Log lines for people on a terminal, and JSON lines for everything else."""

from __future__ import annotations

import contextlib
import json
import logging
import os
import sys
import time
from collections.abc import Iterator
from json.encoder import encode_basestring_ascii as quoted
from logging.handlers import BufferingHandler
from typing import TYPE_CHECKING, Literal

from meshkit.cli import colored, complaints
from meshkit.context import LogFilter

if TYPE_CHECKING:
    from meshkit.server.access_log import Entry

COLORS = {"WARNING": "\033[33m", "ERROR": "\033[31m", "CRITICAL": "\033[31m", "DEBUG": "\033[2m"}
PLAIN = "\033[0m"
# What they say at "info" is said better by our own lines.
NOISY = ("uvicorn", "uvicorn.error", "grpc", "asyncio", "watchfiles")
# Attributes that every record has; the rest is what the caller added by `extra`.
STANDARD = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName"}
CONTEXT = ("request_id", "trace_id")  # what LogFilter adds, empty outside of a call

HELD = 1000  # lines

LogFormat = Literal["auto", "text", "json"]


def is_json(format: LogFormat) -> bool:
    """Whether to write JSON: when asked for, or when nobody sits at a terminal."""
    return format == "json" or (format == "auto" and not sys.stdout.isatty())


def configure_access_log(format: LogFormat) -> None:
    """Write the lines of the access log without the detour of the logging module.

    Its record and its locks cost several times what the line does.
    """
    from meshkit.server.access_log import AccessLog

    AccessLog.write = staticmethod(_access_json if is_json(format) else _access_text)


def configure(level: str, format: LogFormat) -> None:
    """Send all logs to stderr in one of the two formats; replaces an earlier configuration."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonFormatter() if is_json(format) else TextFormatter())
    handler.addFilter(LogFilter())
    complaints.json_line = _log_error if format == "json" else None
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level.upper())
    logging.captureWarnings(is_json(format))  # of Python's warnings module, which prints text
    quiet = logging.WARNING if level != "debug" else logging.DEBUG
    for name in NOISY:
        logging.getLogger(name).setLevel(quiet)
    if level != "debug":
        logging.getLogger("meshkit.server.lifespan").setLevel(logging.CRITICAL)


@contextlib.contextmanager
def held() -> Iterator[list[logging.LogRecord]]:
    """Hold back what is logged before the settings tell its format, for `configure` to write.

    Yields what is held, of which some may be taken out. When the settings can't be read, what the
    environment says of the format has to do.
    """
    root = logging.getLogger()
    handler = BufferingHandler(HELD)
    root.handlers[:] = [handler]
    try:
        yield handler.buffer
    finally:
        if handler in root.handlers:
            named = os.environ.get("MESHKIT_LOG_FORMAT")
            configure("info", "json" if named == "json" else "text" if named == "text" else "auto")
        for record in handler.buffer:
            if record.levelno >= root.level:
                root.handle(record)


def _log_error(message: str) -> None:
    logging.getLogger("meshkit").error("%s", message)


class TextFormatter(logging.Formatter):
    """``12:00:01 warning meshkit.registration  message``, coloured on a terminal.

    While a call is handled its request id follows in brackets.
    """

    def __init__(self) -> None:
        super().__init__()
        self._colored = colored(sys.stderr.isatty())

    def format(self, record: logging.LogRecord) -> str:
        """See logging.Formatter."""
        clock = time.strftime("%H:%M:%S", time.localtime(record.created))
        line = f"{clock} {record.levelname.lower():<7} {record.name}  {record.getMessage()}"
        if request_id := getattr(record, "request_id", ""):
            line = f"{line} [{request_id}]"
        if self._colored and (color := COLORS.get(record.levelname)):
            line = f"{color}{line}{PLAIN}"
        if record.exc_info:
            line = f"{line}\n{self.formatException(record.exc_info)}"
        return line


class JsonFormatter(logging.Formatter):
    """One JSON object a line: time, level, logger, message, and what ``extra`` added.

    While a call is handled also its ``request_id``, and its ``trace_id`` if it has one.
    """

    def format(self, record: logging.LogRecord) -> str:
        """See logging.Formatter."""
        fields = {
            "time": round(record.created, 3),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
        }
        fields |= {
            key: value
            for key, value in vars(record).items()
            if key not in STANDARD and (value or key not in CONTEXT)
        }
        if record.exc_info:
            fields["exception"] = self.formatException(record.exc_info)
        return json.dumps(fields, default=str)


def _access_text(entry: Entry) -> None:
    clock = time.strftime("%H:%M:%S")
    sys.stderr.write(f"{clock} info    meshkit.access  {entry}\n")


def _access_json(entry: Entry) -> None:
    left = "" if entry.deadline_ms is None else f', "deadline_ms": {entry.deadline_ms}'
    sys.stderr.write(
        f'{{"time": {time.time():.3f}, "level": "info", "logger": "meshkit.access", '
        f'"method": {quoted(entry.method)}, "path": {quoted(entry.path)}, '
        f'"status": {entry.status if isinstance(entry.status, int) else quoted(entry.status)}, '
        f'"duration_ms": {entry.duration_ms}, "bytes": {entry.bytes}, '
        f'"request_id": {quoted(entry.request_id)}, "peer": {quoted(entry.peer)}, '
        f'"agent": {quoted(entry.agent)}{left}}}\n'
    )
