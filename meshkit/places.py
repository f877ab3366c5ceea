"""Where in the user's code something went wrong."""

from __future__ import annotations


def place(error: BaseException) -> str:
    """Return " (file:line)" of the last line of Python that the error came through."""
    traceback = error.__traceback__
    found = ""
    while traceback is not None:
        filename = traceback.tb_frame.f_code.co_filename
        if not filename.startswith("<") and "importlib" not in filename:
            found = f" ({filename}:{traceback.tb_lineno})"
        traceback = traceback.tb_next
    return found
