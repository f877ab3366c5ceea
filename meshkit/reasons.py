"""Why the user's code failed, in one line.

pydantic's message has several lines, a link, and the value, which may be secret: it is said anew,
above all for a settings class of the service's own.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import ValidationError

from meshkit.env_file import read_env_file
from meshkit.settings import PLAINER

if TYPE_CHECKING:
    from pydantic_settings import BaseSettings

SHOWN = 3  # problems; the next run tells the rest


def reason(error: BaseException) -> str:
    """Return the error's type and message, without line breaks.

    Of a settings class: ``Settings: HELLO_PAGE_SIZE should be a whole number; HELLO_URL is not
    set``.
    """
    if isinstance(error, ValidationError):
        return explain(error)
    return " ".join(f"{type(error).__name__}: {error}".rstrip(": ").split())


def explain(error: ValidationError) -> str:
    """Return the model's name and what it has refused."""
    problems = error.errors(include_url=False, include_context=False, include_input=False)
    cls = settings_class(error.title)
    lines = [describe(cls, problem) for problem in problems[:SHOWN]]
    more = f"; and {len(problems) - SHOWN} more" if len(problems) > SHOWN else ""
    return f"{error.title}: {'; '.join(lines)}{more}"


def describe(cls: type[BaseSettings] | None, problem: Any) -> str:
    """Return one problem, named by its variable where the model is a settings class."""
    path = [str(part) for part in problem["loc"]]
    name = variable(cls, path) if cls is not None and path else ".".join(path)
    if problem["type"] == "missing":
        return f"{name} is not set"
    message = PLAINER.get(problem["type"], problem["msg"])
    message = message.removeprefix("Value error, ").removeprefix("Input should be ")
    if message == problem["msg"]:  # a sentence of its own
        return f"{name}: {message}" if name else str(message)
    return f"{name} should be {message}"


def variable(cls: type[BaseSettings], path: list[str]) -> str:
    """Return the environment variable of a field, and where an env file sets it."""
    field, *inner = path
    known = cls.model_fields.get(field)
    # A field with an alias is reported by it, and it has no prefix.
    name = f"{cls.model_config.get('env_prefix', '')}{field}" if known is not None else field
    if delimiter := cls.model_config.get("env_nested_delimiter"):
        name, inner = delimiter.join([name, *inner]), []
    name = name if cls.model_config.get("case_sensitive") else name.upper()
    shown = ".".join([name, *inner])
    return shown if name in os.environ else in_file(cls, name) or shown


def in_file(cls: type[BaseSettings], name: str) -> str:
    """Return ``NAME in FILE:LINE`` when an env file of this class sets it."""
    files = cls.model_config.get("env_file") or ()
    for file in reversed([files] if isinstance(files, str | Path) else list(files)):
        try:
            if where := read_env_file(Path(file)).place(name.upper()):
                return where
        except (OSError, UnicodeDecodeError):
            continue
    return ""


def settings_class(name: str) -> type[BaseSettings] | None:
    """Return the settings class of this name; None when there is none, or several."""
    from pydantic_settings import BaseSettings  # noqa: PLC0415 - seldom

    found = [each for each in subclasses(BaseSettings) if each.__name__ == name]
    return found[0] if len(found) == 1 else None


def subclasses(cls: type[BaseSettings]) -> Iterator[type[BaseSettings]]:
    """Yield all that derive from it."""
    for each in cls.__subclasses__():
        yield each
        yield from subclasses(each)
