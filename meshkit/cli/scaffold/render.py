"""Turning a template folder into files.

Every file of the folder is a Jinja template, and so is its path: ``{{ package }}/service.py``.
A path with a part that renders to nothing, such as ``{% if grpc %}proto{% endif %}``, is left out.
"""

from __future__ import annotations

import dataclasses
import stat
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path, PurePath
from typing import TYPE_CHECKING

import meshkit
from meshkit.cli.scaffold.project import LINE_LENGTH
from meshkit.cli.scaffold.stubs import descriptor
from meshkit.errors import ConfigError

if TYPE_CHECKING:
    from jinja2 import Environment

IGNORED = {".git", "__pycache__"}


@dataclasses.dataclass(frozen=True, slots=True)
class File:
    """A file to be made: its path within the project, content, and whether it can be run."""

    path: PurePath
    content: bytes
    executable: bool = False


def built_in(kind: str) -> Path:
    """Return the folder of one of our own templates, installed or in a checkout."""
    package = Path(meshkit.__file__).parent
    installed = package / "templates" / kind
    return installed if installed.is_dir() else package.parent / "templates" / kind


def render(template: Path, context: Mapping[str, object]) -> list[File]:
    """Render every file of a template folder.

    Raises:
        ConfigError: there is no such folder, a file in it is no valid template or uses an
            unknown name, or a path leads out of the project.
    """
    if not template.is_dir():
        raise ConfigError(f"template folder {template} does not exist")
    environment = _environment(template)
    files: dict[PurePath, File] = {}
    try:
        for source in sorted(_sources(template)):
            path = _target(environment, source.relative_to(template), context)
            if path in files:
                raise ConfigError(f"template folder {template} makes {path} twice")
            if path is not None:
                files[path] = _file(environment, template, source, path, context)
    except OSError as error:
        raise ConfigError(f"template {error.filename} can't be read: {error.strerror}") from None
    if not files:
        raise ConfigError(f"template folder {template} makes no file")
    return [files[path] for path in sorted(files)]


def _environment(template: Path) -> Environment:
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    environment = Environment(  # noqa: S701 - the output is source code, not HTML
        loader=FileSystemLoader(template),
        undefined=StrictUndefined,
        keep_trailing_newline=True,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.globals.update(descriptor=descriptor, fit=fit, import_line=import_line)
    return environment


def _sources(template: Path) -> Iterator[Path]:
    for path in template.rglob("*"):
        if path.is_file() and IGNORED.isdisjoint(path.relative_to(template).parts):
            yield path


def _target(
    environment: Environment, source: PurePath, context: Mapping[str, object]
) -> PurePath | None:
    parts = [_text(environment, source, part, context) for part in source.parts]
    if not all(parts):
        return None
    path = PurePath(*parts)
    if path.is_absolute() or ".." in path.parts:
        raise ConfigError(f"template {source} leads out of the project, to {path}")
    return path


def _file(
    environment: Environment,
    template: Path,
    source: Path,
    path: PurePath,
    context: Mapping[str, object],
) -> File:
    executable = bool(source.stat().st_mode & stat.S_IXUSR)
    try:
        text = source.read_text(encoding="utf-8")
    except UnicodeDecodeError:  # an image, say
        return File(path, source.read_bytes(), executable)
    rendered = _text(environment, source.relative_to(template), text, context)
    return File(path, rendered.encode(), executable)


def _text(
    environment: Environment, source: PurePath, text: str, context: Mapping[str, object]
) -> str:
    from jinja2 import TemplateError, TemplateSyntaxError

    try:
        return environment.from_string(text).render(context)
    except TemplateSyntaxError as error:
        raise ConfigError(f"template {source}, line {error.lineno}: {error.message}") from None
    except (TemplateError, ArithmeticError, LookupError, TypeError, ValueError) as error:
        raise ConfigError(f"template {source}: {error}") from None


def import_line(module: str, names: Sequence[str]) -> str:
    """Write ``from module import names`` as formatters do, on one line if it fits."""
    line = f"from {module} import {', '.join(names)}"
    return line if len(line) <= LINE_LENGTH else _exploded(f"from {module} import (", names, ")")


def fit(head: str, items: Sequence[str], tail: str, *, indent: int = 0) -> str:
    """Write ``head(items)tail`` as formatters do: on one line if it fits, else an item a line."""
    line = head + ", ".join(items) + tail
    if indent + len(line) <= LINE_LENGTH:
        return line
    return _exploded(head, items, tail).replace("\n", "\n" + " " * indent)


def _exploded(head: str, items: Sequence[str], tail: str) -> str:
    return "\n".join([head, *(f"    {item}," for item in items), tail])
