"""Whether a server has less than its client has seen: its data is lost, and with it the session.

Such a server hangs up on the client whenever it comes (ZOOKEEPER-832), and says why in its own log
only. One that has no leader yet hangs up just so, but does not say how far it has come.
"""

from __future__ import annotations

import re
import socket

# One of the "four letter words"; of all it is the one that servers answer by default.
# https://zookeeper.apache.org/doc/current/zookeeperAdmin.html (4lw.commands.whitelist)
QUESTION = b"srvr"
LONGEST = 4096  # bytes; an answer has some 200
ZXID = re.compile(rb"^Zxid: 0x([0-9a-f]{1,16})\r?$", re.MULTILINE)


def newest_change(connection: socket.socket) -> int | None:
    """Return the number (zxid) of the last change that a server has, None when it does not say.

    Args:
        connection: to the server, new, with a limit of time; it is of no use afterwards.

    Raises OSError.
    """
    connection.sendall(QUESTION)
    answer = b""
    while len(answer) < LONGEST and (part := connection.recv(LONGEST)):
        answer += part
    found = ZXID.search(answer)
    return int(found[1], 16) if found else None
