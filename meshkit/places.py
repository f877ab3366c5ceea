"""Where in the user's code something went wrong."""

from __future__ import annotations

import inspect
import os
from pathlib import Path

LIBRARIES = (f"{Path(os.__file__).parent}/", f"{Path(__file__).parent}/")
INSTALLED = ("site-packages", "dist-packages")


def place(error: BaseException) -> str:
    """Return " (file:line)" of the last line of the user's that the error came through.

    When there is none, the last line of Python.
    """
    traceback = error.__traceback__
    own = last = ""
    while traceback is not None:
        filename = traceback.tb_frame.f_code.co_filename
        if not filename.startswith("<") and "importlib" not in filename:
            last = f" ({filename}:{traceback.tb_lineno})"
            if not is_library(filename):
                own = last
        traceback = traceback.tb_next
    return own or last


def is_library(filename: str) -> bool:
    """Whether it is a file of Python, of what was installed, or of ours."""
    return filename.startswith(LIBRARIES) or any(part in filename for part in INSTALLED)


def place_of_class(cls: type) -> str:
    """Return " (file:line)" of a class; "" when its source is not at hand."""
    try:
        return f" ({inspect.getsourcefile(cls)}:{inspect.getsourcelines(cls)[1]})"
    except (OSError, TypeError):
        return ""
