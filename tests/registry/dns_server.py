"""A DNS server inside the test's process, which answers right or as wrong as a test wants."""

from __future__ import annotations

import asyncio
import contextlib
import struct
from collections.abc import AsyncIterator, Callable, Iterable
from typing import cast

import dns.message
import dns.name
import dns.rcode
import dns.rdatatype
import dns.rrset

from tests.servers.ports import free_ports

UDP, TCP = "udp", "tcp"

# Takes the query, the right answer, and over which of the two it goes; None answers nothing.
Twist = Callable[
    [dns.message.Message, dns.message.Message, str], dns.message.Message | bytes | None
]


class DnsServer:
    """Serves records over UDP and TCP of one port.

    Attributes:
        records: zone-file lines, such as ``"users.test. 5 IN SRV 0 1 80 a.test."``.
        additional: whether addresses of SRV targets come along.
        edns: whether it knows EDNS.
        twist: changes answers on their way, or replaces them.
        asked: (name, type, "udp" or "tcp") of each query so far.
    """

    def __init__(self, records: Iterable[str] = ()) -> None:
        self.records = list(records)
        self.additional = True
        self.edns = True
        self.twist: Twist | None = None
        self.asked: list[tuple[str, str, str]] = []
        (self.port,) = free_ports(1)

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.port}"

    @contextlib.asynccontextmanager
    async def serving(self) -> AsyncIterator[None]:
        loop = asyncio.get_running_loop()
        transport, _ = await loop.create_datagram_endpoint(
            lambda: _Udp(self), local_addr=("127.0.0.1", self.port)
        )
        server = await asyncio.start_server(self._over_tcp, "127.0.0.1", self.port)
        try:
            yield
        finally:
            transport.close()
            server.close()

    def reply(self, wire: bytes, way: str) -> bytes | None:
        query = dns.message.from_wire(wire)
        question = query.question[0]
        self.asked.append((question.name.to_text(), dns.rdatatype.to_text(question.rdtype), way))
        answer: dns.message.Message | bytes | None = self._answer(query)
        if self.twist:
            assert isinstance(answer, dns.message.Message)
            answer = self.twist(query, answer, way)
        return answer.to_wire() if isinstance(answer, dns.message.Message) else answer

    def _answer(self, query: dns.message.Message) -> dns.message.Message:
        answer = dns.message.make_response(query)
        if not self.edns:
            answer.use_edns(edns=False)
        name, kind = query.question[0].name, query.question[0].rdtype
        for _ in range(3):  # chains are longer in no good zone
            if found := self._find(name, kind):
                answer.answer.append(found)
                break
            alias = self._find(name, dns.rdatatype.CNAME)
            if alias is None:
                break
            answer.answer.append(alias)
            name = alias[0].target
        if not answer.answer and not self._exists(name):
            answer.set_rcode(dns.rcode.NXDOMAIN)
        if self.additional and kind == dns.rdatatype.SRV and found:
            for target in dict.fromkeys(each.target for each in found):
                for address in (dns.rdatatype.A, dns.rdatatype.AAAA):
                    if rrset := self._find(target, address):
                        answer.additional.append(rrset)
        return answer

    def _find(self, name: dns.name.Name, kind: dns.rdatatype.RdataType) -> dns.rrset.RRset | None:
        rrset = None
        for line in self.records:
            owner, ttl, _, word, data = line.split(maxsplit=4)
            if dns.name.from_text(owner) == name and dns.rdatatype.from_text(word) == kind:
                one = dns.rrset.from_text(owner, int(ttl), "IN", word, data)
                if rrset is None:
                    rrset = one
                else:
                    rrset.add(one[0])
        return rrset

    def _exists(self, name: dns.name.Name) -> bool:
        return any(dns.name.from_text(line.split()[0]) == name for line in self.records)

    async def _over_tcp(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError):
            (length,) = struct.unpack("!H", await reader.readexactly(2))
            wire = self.reply(await reader.readexactly(length), TCP)
            if wire is None:
                await reader.read()
            else:
                writer.write(struct.pack("!H", len(wire)) + wire)
        writer.close()


class _Udp(asyncio.DatagramProtocol):
    def __init__(self, server: DnsServer) -> None:
        self._server = server

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.DatagramTransport", transport)

    def datagram_received(self, data: bytes, addr: tuple[str, int]) -> None:
        if (wire := self._server.reply(data, UDP)) is not None:
            self._transport.sendto(wire, addr)
