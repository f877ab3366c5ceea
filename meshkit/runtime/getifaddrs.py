"""getifaddrs(3), which Python does not offer: the addresses of all interfaces, IPv6 too."""

from __future__ import annotations

import ctypes
import ipaddress
import os
import socket
from collections.abc import Iterator

UP = 1  # IFF_UP, netdevice(7)
# Where the address starts within struct sockaddr_in and sockaddr_in6, and its length.
PLACES = {int(socket.AF_INET): (4, 4), int(socket.AF_INET6): (8, 16)}


class _Entry(ctypes.Structure):
    """The beginning of struct ifaddrs."""

    _fields_ = (
        ("next", ctypes.c_void_p),
        ("name", ctypes.c_char_p),
        ("flags", ctypes.c_uint),
        ("address", ctypes.c_void_p),
    )


def addresses() -> Iterator[tuple[str, ipaddress.IPv4Address | ipaddress.IPv6Address]]:
    """Yield the name of each interface that is up with each of its addresses, in no order.

    Raises:
        OSError: the system does not tell.
    """
    library = ctypes.CDLL(None, use_errno=True)
    first = ctypes.c_void_p()
    if library.getifaddrs(ctypes.byref(first)):
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
    try:
        at = first.value
        while at:
            found = _Entry.from_address(at)
            family = ctypes.c_ushort.from_address(found.address).value if found.address else 0
            if family in PLACES and found.flags & UP:
                start, length = PLACES[family]
                packed = ctypes.string_at(found.address + start, length)
                yield found.name.decode(), ipaddress.ip_address(packed)
            at = found.next
    finally:
        library.freeifaddrs(first)
