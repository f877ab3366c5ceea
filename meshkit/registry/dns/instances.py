"""SRV records as instances."""

from __future__ import annotations

import collections
import dataclasses
import hashlib
import ipaddress
import re
from collections.abc import Iterable, Iterator, Mapping

from meshkit.model import Endpoint, Instance, Status
from meshkit.registry.dns.records import Record

ID_LENGTH = 63
DIGEST_LENGTH = 8


@dataclasses.dataclass(frozen=True, slots=True)
class Offer:
    """A record at one address of its target."""

    transport: str
    host: str
    record: Record

    @property
    def endpoint(self) -> Endpoint:
        """Where it is; its port may be 0."""
        return Endpoint(self.host, self.record.port)


def to_instances(service: str, records: Mapping[str, Iterable[Record]]) -> tuple[Instance, ...]:
    """Make instances of the records of each transport; sorted by id, each id once.

    Records of two transports are one instance where each has just one port at an address. Only
    those of the best (lowest) priority that a transport has are up: RFC 2782 wants the others
    left alone as long as one of the best can be reached, and who can't be reached leaves the DNS.
    """
    offers = {transport: _offers(transport, found) for transport, found in records.items()}
    best = {
        transport: min((each.record.priority for each in found), default=0)
        for transport, found in offers.items()
    }
    made = (
        _instance(service, group, up=group[0].record.priority == best[group[0].transport])
        for group in _paired(offer for found in offers.values() for offer in found)
    )
    return tuple(sorted(made, key=lambda each: each.id))


def _offers(transport: str, records: Iterable[Record]) -> list[Offer]:
    """Return one offer for each address and port, by the record of best priority and weight."""
    found: dict[Endpoint, Offer] = {}
    for record in sorted(records, key=lambda each: (each.priority, -each.weight, each.target)):
        for host in record.hosts:
            offer = Offer(transport, host, record)
            found.setdefault(offer.endpoint, offer)
    return list(found.values())


def _paired(offers: Iterable[Offer]) -> Iterator[list[Offer]]:
    """Group the offers into instances."""
    hosts: dict[str, list[Offer]] = collections.defaultdict(list)
    for offer in offers:
        hosts[offer.host].append(offer)
    for group in hosts.values():
        if len({each.transport for each in group}) == len(group):
            yield group
        else:
            yield from ([each] for each in group)


def _instance(service: str, offers: list[Offer], *, up: bool) -> Instance:
    first = offers[0]
    return Instance(
        id=_id(service, offers),
        service=service,
        endpoints={each.transport: each.endpoint for each in offers if each.record.port},
        metadata={"target": first.record.target, "priority": str(first.record.priority)},
        weight=max(first.record.weight, 1),
        status=Status.UP if up else Status.DOWN,
    )


def _id(service: str, offers: list[Offer]) -> str:
    """Say service, address and port as one DNS label.

    All but short IPv4 ones end in a digest, which no port looks like: ``a.b`` and ``a-b`` read
    the same in a label.
    """
    first = offers[0].endpoint
    text = f"{service}-{first.host}-{first.port}".lower()
    slug = re.sub(r"[^a-z0-9]+", "-", text).strip("-")
    if _is_ipv4(first.host) and len(slug) <= ID_LENGTH:
        return slug
    digest = hashlib.sha256(text.encode()).hexdigest()[:DIGEST_LENGTH]
    return f"{slug[: ID_LENGTH - DIGEST_LENGTH - 1].rstrip('-')}-{digest}"


def _is_ipv4(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).version == 4
    except ValueError:
        return False
