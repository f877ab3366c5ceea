"""One question to one DNS server: over UDP, and over TCP where that is not enough.

Over UDP we offer EDNS with room for 4096 bytes. Consul leaves out at random what finds no room, and
does not set the flag that says so (measured with 1.8: without EDNS three of forty instances are
left, with it 67 of 80). So an answer without EDNS, or one that fills much of the room, is asked
for again over TCP, which gives all.
"""

from __future__ import annotations

import asyncio
import contextlib
import struct

import dns.exception
import dns.flags
import dns.message
import dns.name
import dns.rcode
import dns.rdatatype

from meshkit.errors import RegistryUnavailable
from meshkit.model import Endpoint
from meshkit.os_errors import os_reason

PAYLOAD = 4096
COMPLETE = PAYLOAD // 2  # bytes; no record is so large that it would not have found room beside
UDP_LIMIT = 1.0  # seconds; then it was lost on the way, or is too large for the way
# Of a server that does not know EDNS.
NO_EDNS = {dns.rcode.FORMERR, dns.rcode.NOTIMP, dns.rcode.BADVERS}
LENGTH = struct.Struct("!H")


async def ask(
    server: Endpoint, name: dns.name.Name, kind: dns.rdatatype.RdataType
) -> dns.message.QueryMessage:
    """Return the server's whole answer, whatever its code. Bound it by your own timeout.

    Raises:
        RegistryUnavailable: the server can't be reached, or what answers does not speak DNS.
    """
    query = dns.message.make_query(name, kind, use_edns=0, payload=PAYLOAD)
    try:
        answer, size = await _over_udp(server, query)
        if answer is None or size > COMPLETE or _may_be_partial(answer):
            query.use_edns(edns=False)
            answer = await _over_tcp(server, query)
    except (asyncio.IncompleteReadError, ConnectionResetError):
        raise RegistryUnavailable(
            f"what answers at {server} closed the connection without an answer; is it a DNS server?"
        ) from None
    except OSError as error:
        raise RegistryUnavailable(
            f"the DNS server at {server} can't be reached: {os_reason(error)}"
        ) from None
    except dns.exception.DNSException:
        raise RegistryUnavailable(f"what answers at {server} does not speak DNS") from None
    assert isinstance(answer, dns.message.QueryMessage), "it has the query's opcode"
    return answer


def _may_be_partial(answer: dns.message.Message) -> bool:
    truncated = bool(answer.flags & dns.flags.TC)
    return truncated or answer.edns < 0 or answer.rcode() in NO_EDNS


class _Listener(asyncio.DatagramProtocol):
    """Takes the first datagram that answers the query; others are late, forged, or no DNS."""

    def __init__(self, query: dns.message.Message) -> None:
        self.answer: asyncio.Future[tuple[dns.message.Message, int]] = (
            asyncio.get_running_loop().create_future()
        )
        self._query = query
        self._transport: asyncio.DatagramTransport | None = None
        self._closed = False

    def connection_made(self, transport: asyncio.DatagramTransport) -> None:  # type: ignore[override]
        self._transport = transport
        if self._closed:
            transport.abort()

    def datagram_received(self, data: bytes, addr: object) -> None:  # noqa: ARG002
        with contextlib.suppress(dns.exception.DNSException, ValueError):
            message = dns.message.from_wire(data, ignore_trailing=True)
            if self._query.is_response(message) and not self.answer.done():
                self.answer.set_result((message, len(data)))

    def error_received(self, error: Exception) -> None:
        if not self.answer.done():
            self.answer.set_exception(error)

    def close(self) -> None:
        """Close the socket, also one that is still to come: uvloop does not when cancelled."""
        self._closed = True
        if self._transport is not None:
            self._transport.abort()


async def _over_udp(
    server: Endpoint, query: dns.message.Message
) -> tuple[dns.message.Message | None, int]:
    """Return the answer and its size in bytes; None when none came."""
    listener = _Listener(query)
    try:
        # Connected, so that the system tells us when nobody listens, and takes answers from the
        # server alone.
        transport, _ = await asyncio.get_running_loop().create_datagram_endpoint(
            lambda: listener, remote_addr=(server.host, server.port)
        )
        transport.sendto(query.to_wire())
        async with asyncio.timeout(UDP_LIMIT):
            return await listener.answer
    except OSError:  # TimeoutError is one; TCP tries all addresses of a host, not only the first
        return None, 0
    finally:
        listener.close()


async def _over_tcp(server: Endpoint, query: dns.message.Message) -> dns.message.Message:
    reader, writer = await asyncio.open_connection(server.host, server.port)
    try:
        wire = query.to_wire()
        writer.write(LENGTH.pack(len(wire)) + wire)
        await writer.drain()
        (length,) = LENGTH.unpack(await reader.readexactly(LENGTH.size))
        answer = dns.message.from_wire(await reader.readexactly(length))
    finally:
        writer.transport.abort()
    if not query.is_response(answer):
        raise dns.exception.FormError
    return answer
