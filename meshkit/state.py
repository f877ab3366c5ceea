"""The folder in which meshkit keeps what must outlive a call: the embedded registry and caches."""

from __future__ import annotations

import os
import stat
import tempfile
from pathlib import Path

from meshkit.errors import ConfigError

VARIABLE = "MESHKIT_STATE_DIR"
OTHERS_MAY_WRITE = stat.S_IWGRP | stat.S_IWOTH


def state_dir() -> Path:
    """Return the folder, made if needed, readable by its owner alone.

    ``MESHKIT_STATE_DIR`` when it is set, else ``meshkit-<uid>`` in the temporary folder, which
    is the same for all processes of a user unless they are given temporary folders of their own
    (``TMPDIR``, systemd's ``PrivateTmp``).

    Raises:
        ConfigError: it can't be made or written, or belongs to somebody else.
    """
    explicit = os.environ.get(VARIABLE)
    path = Path(explicit) if explicit else Path(tempfile.gettempdir()) / f"meshkit-{os.getuid()}"
    private_dir(path)
    return path


def private_dir(path: Path) -> None:
    """Make the folder with mode 0700; refuse one that others have prepared or may write to.

    Raises:
        ConfigError: it can't be made or written, or belongs (also) to somebody else.
    """
    try:
        path.mkdir(mode=0o700, parents=True, exist_ok=True)
        info = path.lstat()
    except OSError as error:
        raise _unusable(path, error.strerror or str(error)) from None
    if not stat.S_ISDIR(info.st_mode) or info.st_uid != os.getuid():
        raise _unusable(path, "it is not a folder of this user")
    if info.st_mode & OTHERS_MAY_WRITE:
        raise _unusable(path, f"others may write to it (chmod 700 {path} forbids it)")
    if not os.access(path, os.W_OK | os.X_OK):
        raise _unusable(path, "it is not writable")


def _unusable(path: Path, reason: str) -> ConfigError:
    return ConfigError(
        f"state folder {path} can't be used: {reason}; set {VARIABLE} to a folder you own"
    )
