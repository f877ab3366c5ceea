"""The file of variables (``.env``): where each is set, and which lines can't be understood."""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Mapping
from pathlib import Path

log = logging.getLogger("meshkit")


@dataclasses.dataclass(frozen=True, slots=True)
class EnvFile:
    """What a file sets.

    Attributes:
        path: as it was given.
        lines: name of each variable, in upper case, to the line it is set on, from 1.
    """

    path: Path
    lines: Mapping[str, int] = dataclasses.field(default_factory=dict)

    def place(self, variable: str) -> str:
        """Return ``NAME in FILE:LINE``; ``""`` when the file does not set it."""
        line = self.lines.get(variable)
        return f"{variable} in {self.path}:{line}" if line else ""


def read_env_file(path: Path) -> EnvFile:
    """Read the names that a file sets; a warning for each line that means nothing.

    Raises:
        OSError: it can't be read.
        UnicodeDecodeError: it is not UTF-8.
    """
    if not path.is_file():
        return EnvFile(path)
    from dotenv.parser import parse_stream  # noqa: PLC0415 - most projects have no such file

    lines: dict[str, int] = {}
    with path.open(encoding="utf-8") as stream:
        for binding in parse_stream(stream):
            text = binding.original.string
            blank = text[: len(text) - len(text.lstrip())].count("\n")
            line = binding.original.line + blank
            if binding.error:
                _said.tell(path, line, told_as=binding.original.line)
            elif binding.key:
                lines[binding.key.upper()] = line
    return EnvFile(path, lines)


class _Said(logging.Filter):
    """Bad lines that were told with the file's name; python-dotenv, which has none, is quiet."""

    def __init__(self) -> None:
        super().__init__()
        self._places: set[tuple[Path, int]] = set()
        self._lines: set[int] = set()

    def tell(self, path: Path, line: int, *, told_as: int) -> None:
        """Warn of this line once; ``told_as`` is what python-dotenv takes for its number."""
        place = (path.absolute(), line)
        if place not in self._places:
            log.warning("%s:%d is left out: it is not NAME=value, or a quote is not closed", *place)
        self._places.add(place)
        self._lines.add(told_as)
        logging.getLogger("dotenv.main").addFilter(self)

    def filter(self, record: logging.LogRecord) -> bool:
        """See logging.Filter."""
        return "could not parse" not in str(record.msg) or not (
            isinstance(record.args, tuple) and set(record.args) <= self._lines
        )


_said = _Said()
