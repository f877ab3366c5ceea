"""Accepting connections in bulk, so that under load they are refused or served, not kept waiting.

uvloop accepts one connection in each turn of the loop (libuv, since 1.45). When turns are long,
those who connect anew wait for seconds in the kernel, while whoever has a connection is served.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable


class Backlog:
    """What has connected to a listening socket and is not accepted yet."""

    def __init__(self, sock: socket.socket) -> None:
        self._socket = sock
        self._tasks: set[asyncio.Task[object]] = set()

    def accept(self, protocol: Callable[[], asyncio.Protocol]) -> None:
        """Accept all that waits; to be called when the loop has accepted one.

        It costs one system call that finds nobody, except when somebody waits.
        """
        loop = asyncio.get_running_loop()
        while True:
            try:
                connection, _ = self._socket.accept()
            except OSError:  # nobody waits; or no file descriptors, of which the loop tells
                return
            connection.setblocking(False)
            task = loop.create_task(loop.connect_accepted_socket(protocol, connection))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)
