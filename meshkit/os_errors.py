"""Why a connection failed, as the system names it."""

from __future__ import annotations

import os
import re
import socket


def os_reason(error: OSError) -> str:
    """Return the reason alone, such as ``Connection refused``.

    asyncio's messages name address after address; the first one's number says what happened.
    """
    if isinstance(error, socket.gaierror):
        return error.strerror or str(error)
    number = re.search(r"\[Errno (\d+)\]", str(error))
    return os.strerror(int(number[1])) if number else str(error)
