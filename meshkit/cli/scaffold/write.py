"""Writing a project's files: all of them or none."""

from __future__ import annotations

import contextlib
import os
import tempfile
from collections.abc import Sequence
from pathlib import Path

from meshkit.cli.scaffold.render import File
from meshkit.errors import ConfigError


def check(files: Sequence[File], root: Path, *, force: bool) -> None:
    """Find out whether the files can be written, before the first one is.

    Raises:
        ConfigError: one exists and ``force`` is not given, something else is in its place, or
            its folder can't be written.
    """
    targets = [root / file.path for file in files]
    for target in targets:
        folder = _existing(target.parent)
        if not folder.is_dir():
            raise ConfigError(f"{folder} is in the way: it has to be a folder")
        if not os.access(folder, os.W_OK | os.X_OK):
            raise ConfigError(f"folder {folder} is not writable")
        if target.is_dir():
            raise ConfigError(f"{target} is in the way: it has to be a file")
    taken = [target for target in targets if os.path.lexists(target)]
    if taken and not force:
        more = f" (and {len(taken) - 1} more)" if len(taken) > 1 else ""
        raise ConfigError(
            f"{taken[0]} exists{more}: nothing was written; choose another name or folder, "
            "or overwrite with --force"
        )


def write(files: Sequence[File], root: Path) -> None:
    """Write the files, replacing existing ones; after a failure everything is as before.

    Raises:
        ConfigError: the disk is full, or changed since ``check``.
    """
    try:
        with tempfile.TemporaryDirectory(prefix=".meshkit-new-", dir=_existing(root)) as staging:
            for number, file in enumerate(files):
                _stage(file, Path(staging, f"{number}.new"))
            with contextlib.ExitStack() as undo:
                for number, file in enumerate(files):
                    _put(Path(staging, str(number)), root / file.path, undo)
                undo.pop_all()
    except OSError as error:
        raise ConfigError(
            f"can't write to {root}: {error.strerror or error}; nothing was changed"
        ) from None


def _stage(file: File, path: Path) -> None:
    path.write_bytes(file.content)
    if file.executable:
        path.chmod(path.stat().st_mode | 0o111)


def _put(staged: Path, target: Path, undo: contextlib.ExitStack) -> None:
    for folder in reversed([each for each in target.parents if not each.exists()]):
        folder.mkdir()
        undo.callback(folder.rmdir)
    if os.path.lexists(target):
        old = target.rename(staged.with_suffix(".old"))
        undo.callback(old.replace, target)
    staged.with_suffix(".new").rename(target)
    undo.callback(target.unlink)


def _existing(path: Path) -> Path:
    while not os.path.lexists(path):
        path = path.parent
    return path
