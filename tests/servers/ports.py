"""Free ports for servers that can't be asked to choose their own."""

from __future__ import annotations

import random
import socket

# Below the range that systems give to outgoing connections: a server that is restarted on its
# port does not find it taken by somebody's call.
FIRST, LAST = 20_000, 32_000


def free_ports(count: int) -> list[int]:
    """Return ports of 127.0.0.1 on which nobody listens, over TCP or UDP."""
    found: list[int] = []
    for port in random.sample(range(FIRST, LAST), LAST - FIRST):
        if _is_free(port):
            found.append(port)
        if len(found) == count:
            return found
    raise RuntimeError(f"fewer than {count} free ports between {FIRST} and {LAST}")


def _is_free(port: int) -> bool:
    for kind in (socket.SOCK_STREAM, socket.SOCK_DGRAM):
        with socket.socket(socket.AF_INET, kind) as probe:
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                return False
    return True
