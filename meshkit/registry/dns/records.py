"""SRV records and the addresses of their targets, as one server answers.

https://datatracker.ietf.org/doc/html/rfc2782
"""

from __future__ import annotations

import asyncio
import collections
import dataclasses
from collections.abc import Mapping
from typing import Any

import dns.exception
import dns.message
import dns.name
import dns.rcode
import dns.rdatatype
import dns.ttl

from meshkit.errors import RegistryUnavailable
from meshkit.model import Endpoint
from meshkit.registry.dns.exchange import ask

SRV, A, AAAA = dns.rdatatype.SRV, dns.rdatatype.A, dns.rdatatype.AAAA
ALIASES = 8  # CNAMEs followed from server answer to server answer
AT_ONCE = 8  # address queries

Name = dns.name.Name


@dataclasses.dataclass(frozen=True, slots=True)
class Record:
    """One SRV record.

    Attributes:
        target: the host's name, without the last dot.
        hosts: its addresses, or its name where the server knows none; never empty.
        port, priority, weight: as in RFC 2782; port 0 says that there is none.
    """

    target: str
    hosts: tuple[str, ...]
    port: int
    priority: int
    weight: int


@dataclasses.dataclass(frozen=True, slots=True)
class Answer:
    """All records of one name, and the seconds for which they may be taken as true."""

    records: tuple[Record, ...]
    ttl: int


class Server:
    """Reads records from one DNS server. Deadlines are the caller's.

    Every coroutine raises RegistryUnavailable when the server does not answer, or says that it
    can't. A name that does not exist has no records.
    """

    def __init__(self, endpoint: Endpoint) -> None:
        self._endpoint = endpoint
        self._turns = asyncio.Semaphore(AT_ONCE)

    async def services(self, text: str) -> Answer:
        """Return the SRV records of this name."""
        answer = await self._resolve(dns.name.from_text(text), SRV)
        found = [each for each in answer.data if each.target != dns.name.root]  # "." is nobody
        known, ttl = _additional(answer.messages)
        targets = {each.target for each in found}
        addresses, ttls = await self._addresses(targets - known.keys())
        known = {**known, **addresses}
        return Answer(
            records=tuple(
                Record(
                    target=each.target.to_text(omit_final_dot=True).lower(),
                    hosts=_preferred(known[each.target], each.target),
                    port=each.port,
                    priority=each.priority,
                    weight=each.weight,
                )
                for each in found
            ),
            ttl=min(answer.ttl, ttl, ttls),
        )

    async def _addresses(self, targets: set[Name]) -> tuple[dict[Name, list[str]], int]:
        """Ask for the addresses of hosts that the answer itself did not give."""

        async def look_up(target: Name, kind: dns.rdatatype.RdataType) -> _Resolved:
            async with self._turns:
                # One bad name must not cost the whole list: its host stays a name.
                return await self._resolve(target, kind, refusable=True)

        asked = [(target, kind) for target in targets for kind in (A, AAAA)]
        tasks = [asyncio.create_task(look_up(*each)) for each in asked]
        try:
            answers = await asyncio.gather(*tasks)
        finally:
            for task in tasks:
                task.cancel()
        found: dict[Name, list[str]] = {target: [] for target in targets}
        for (target, _), answer in zip(asked, answers, strict=True):
            found[target] += [each.address for each in answer.data]
        ttls = [answer.ttl for answer in answers if answer.data]
        return found, min(ttls, default=dns.ttl.MAX_TTL)

    async def _resolve(
        self, name: Name, kind: dns.rdatatype.RdataType, *, refusable: bool = False
    ) -> _Resolved:
        """Ask for a name's data, through aliases. ``refusable``: a refusal is no data."""
        ttl, messages = dns.ttl.MAX_TTL, []
        for _ in range(ALIASES):
            message = await ask(self._endpoint, name, kind)
            if message.rcode() not in (dns.rcode.NOERROR, dns.rcode.NXDOMAIN):
                if refusable:
                    return _Resolved((), ttl, ())
                raise self._refusal(name, message.rcode())
            messages.append(message)
            try:
                chain = message.resolve_chaining()
            except dns.exception.DNSException:
                raise RegistryUnavailable(
                    f"the DNS server at {self._endpoint} answered nonsense for {name}"
                ) from None
            ttl = min(ttl, chain.minimum_ttl if chain.answer or _tells_ttl(message) else 0)
            if chain.answer or not chain.cnames or message.rcode() == dns.rcode.NXDOMAIN:
                return _Resolved(tuple(chain.answer or ()), ttl, tuple(messages))
            name = chain.canonical_name
        raise RegistryUnavailable(
            f"the DNS server at {self._endpoint} leads from alias to alias, as far as {name}"
        )

    def _refusal(self, name: Name, code: dns.rcode.Rcode) -> RegistryUnavailable:
        hint = "; check the domain" if code == dns.rcode.REFUSED else ""
        word = dns.rcode.to_text(code)
        return RegistryUnavailable(
            f"the DNS server at {self._endpoint} answered {word} for {name}{hint}"
        )


@dataclasses.dataclass(frozen=True, slots=True)
class _Resolved:
    data: tuple[Any, ...]  # dnspython's classes are made at run time
    ttl: int
    messages: tuple[dns.message.Message, ...]


def _tells_ttl(message: dns.message.Message) -> bool:
    """Whether an answer without data says how long that is true (RFC 2308, section 5)."""
    return any(rrset.rdtype == dns.rdatatype.SOA for rrset in message.authority)


def _additional(messages: tuple[dns.message.Message, ...]) -> tuple[Mapping[Name, list[str]], int]:
    """Return the addresses that came along with an answer, and the smallest TTL of theirs."""
    found: dict[Name, list[str]] = collections.defaultdict(list)
    ttl = dns.ttl.MAX_TTL
    for message in messages:
        for rrset in message.additional:
            if rrset.rdtype in (A, AAAA):
                found[rrset.name] += [each.address for each in rrset]
                ttl = min(ttl, rrset.ttl)
    return found, ttl


def _preferred(addresses: list[str], target: Name) -> tuple[str, ...]:
    """Return the IPv4 addresses, else the IPv6 ones, else the name.

    One host with both must not be two instances, and IPv6 is the one that may lead nowhere.
    """
    four = sorted({each for each in addresses if ":" not in each})
    six = sorted({each for each in addresses if ":" in each})
    return tuple(four or six) or (target.to_text(omit_final_dot=True).lower(),)
