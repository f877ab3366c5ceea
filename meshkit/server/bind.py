"""Listening sockets, bound before anybody is told of them."""

from __future__ import annotations

import errno
import os
import socket

from meshkit.errors import BindError

BACKLOG = 2048


def bind(host: str, port: int, *, flag: str = "--port") -> socket.socket:
    """Return a listening TCP socket; port 0 takes any free one.

    Raises:
        BindError: the port is taken, or the address is not one of this machine.
    """
    family, address = _resolve(host, port)
    # IPPROTO_TCP: asyncio sets TCP_NODELAY only on sockets that say they are TCP, and with
    # Nagle's algorithm on, each keep-alive answer waits 40 ms for an acknowledgement.
    sock = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    try:
        if port:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6:
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
        sock.bind(address)
        sock.listen(BACKLOG)
    except (OSError, OverflowError) as error:
        sock.close()
        raise BindError(bind_message(host, port, error, flag=flag)) from None
    sock.setblocking(False)
    return sock


def bind_message(host: str, port: int, error: Exception, *, flag: str) -> str:
    """Say in one line why (host, port) can't be listened on, and what to do."""
    code = error.errno if isinstance(error, OSError) else None
    if code == errno.EADDRINUSE:
        return (
            f"port {port} on {host} is already in use: "
            f"stop the process that holds it, or let {flag} 0 choose a free one"
        )
    if code == errno.EADDRNOTAVAIL:
        return f"{host} is not an address of this machine: choose another --host"
    if code == errno.EACCES:
        return f"port {port} on {host} needs more permissions: choose a {flag} above 1023"
    reason = os.strerror(code) if code else str(error)
    return f"can't listen on {host} port {port}: {reason}"


def _resolve(host: str, port: int) -> tuple[socket.AddressFamily, tuple[str, int]]:
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    except OSError as error:
        raise BindError(f"--host {host}: {error.strerror}") from None
    except UnicodeError as error:
        raise BindError(f"--host {host}: {error}") from None
    family, _, _, _, address = found[0]
    return family, (str(address[0]), port)
