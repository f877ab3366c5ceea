"""From what Docker says of a container to what the registry shall show of it."""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

from meshkit.model import METADATA_KEY, METADATA_PAIRS, METADATA_VALUE_LENGTH, Status
from meshkit.registrator.addresses import Address, Place, addresses_of, known_ports
from meshkit.registrator.check_settings import PREFIX as CHECK, check_of
from meshkit.registrator.metadata import PREFIX, Setting, for_port, settings_of, text
from meshkit.registrator.naming import image_name, is_path, record_id
from meshkit.registrator.options import Host, Options
from meshkit.registrator.ports import Port
from meshkit.registrator.record import Record
from meshkit.registrator.swarm import service_labels
from meshkit.registrator.tags import join_tags
from meshkit.registrator.template import Template, TemplateError

Inspect = Mapping[str, Any]
Warn = Callable[[str], None]

# What steers the registrator is no attribute. (Registrator lets CHECK_* through to Consul's meta.)
STEERING = frozenset({"name", "id", "tags", "ignore"})
HEALTH = {"starting": Status.STARTING, "unhealthy": Status.DOWN}


def records(
    container: Inspect,
    options: Options,
    *,
    host: Host,
    peer: Inspect | None = None,
    service: Inspect | None = None,
    warn: Warn,
) -> tuple[Record, ...]:
    """Return what a container offers now, sorted by id; nothing when it does not run.

    Args:
        container: the answer of ``GET /containers/<id>/json``.
        options: what the user asked for.
        host: the machine that it runs on.
        peer: the same of the container whose network it shares (``network_mode: container:X``).
        service: of a Swarm task: the answer of ``GET /services/<id>``; its labels count too.
        warn: called with one line for each label or variable that cannot be used, without the
            container's name. Again with each call: it is the caller who says a line once.

    Waits for nothing, unless the tags' template fetches (``Template.of(options.tags).fetches``).
    """
    status = status_of(container)
    if status is None:
        return ()
    named = _Named(container, warn)
    place = Place(
        container=container,
        options=options,
        host=host,
        settings=settings_of(container, service_labels(service)),
        peer=peer,
        service=service,
        warn=named.warn,
    )
    named.warn_of_ports(place)
    reader = _Reader(place, named, status)
    return tuple(sorted(_told_apart(reader.records(), named), key=lambda each: each.id))


def status_of(container: Inspect) -> Status | None:
    """Return what a container's state means for its services; None when it does not run."""
    state = container.get("State") or {}
    if not state.get("Running") or state.get("Restarting") or state.get("Dead"):
        return None
    if state.get("Paused"):
        return Status.DOWN
    return HEALTH.get((state.get("Health") or {}).get("Status", ""), Status.UP)


class _Named:
    """The container by name, and what is wrong with it."""

    def __init__(self, container: Inspect, warn: Warn) -> None:
        self.name = str(container["Name"]).removeprefix("/")
        self.id = str(container["Id"])
        self._warn = warn
        self._said: set[str] = set()

    def warn(self, what: str) -> None:
        """Say a line, once however many ports it is about."""
        if what not in self._said:
            self._said.add(what)
            self._warn(what)

    def warn_of_ports(self, place: Place) -> None:
        numbers = {port.number for port in known_ports(place)}
        for setting in place.settings:
            if setting.port is not None and setting.port not in numbers:
                known = ", ".join(map(str, sorted(numbers))) or "none"
                self.warn(f"{setting.written}: it has no port {setting.port}; its ports: {known}")


class _Reader:
    """Makes the records of one container."""

    def __init__(self, place: Place, named: _Named, status: Status) -> None:
        self._place = place
        self._named = named
        self._status = status
        self._tags = self._from_template()

    def records(self) -> Iterator[Record]:
        addresses = addresses_of(self._place)
        for port, found in addresses.items():
            settings = for_port(self._place.settings, port.number, port.protocol)
            name = self._name(settings, port, several=len(addresses) > 1)
            if name and not text(settings, "ignore"):
                for order, address in enumerate(found):
                    yield self._record(name, port, address, settings, first=order == 0)

    def _record(
        self,
        name: str,
        port: Port,
        address: Address,
        settings: Mapping[str, Setting],
        *,
        first: bool,
    ) -> Record:
        options, named = self._place.options, self._named
        host, number = address
        usual = record_id(
            options.hostname or self._place.host.name,
            named.name,
            port.number,
            port.protocol,
            host_port=None if first else number,
        )
        return Record(
            id=self._path_of(settings, "id") or usual,
            name=name,
            host=host,
            port=number,
            protocol=port.protocol,
            tags=self._tags_of(settings, port),
            attributes=self._attributes(settings),
            check=check_of(settings, host, number, port.protocol, named.warn),
            container_id=named.id,
            container_name=named.name,
            private_port=port.number,
            status=self._status,
            ttl=options.ttl,
        )

    def _name(self, settings: Mapping[str, Setting], port: Port, *, several: bool) -> str:
        name = self._path_of(settings, "name")
        if not name and self._place.options.explicit:
            return ""
        config = self._place.container.get("Config") or {}
        base = name or image_name(str(config.get("Image") or "")) or self._named.name
        suffix = several and not (name and settings["name"].scope)
        return f"{base}-{port.number}" if suffix else base

    def _path_of(self, settings: Mapping[str, Setting], name: str) -> str:
        """Return a setting that becomes a part of paths; empty when it can't."""
        value = text(settings, name)
        if value and not is_path(value):
            self._named.warn(
                f"{settings[name].written}: {value!r} can't be used in a path; left out"
            )
            return ""
        return value

    def _tags_of(self, settings: Mapping[str, Setting], port: Port) -> tuple[str, ...]:
        udp = "udp" if port.protocol == "udp" else ""
        return join_tags((text(settings, "tags"), self._tags, udp))

    def _from_template(self) -> str:
        try:
            return Template.of(self._place.options.tags).render(self._place.container)
        except TemplateError as error:
            self._named.warn(f"{error}; it goes without these tags")
            return ""

    def _attributes(self, settings: Mapping[str, Setting]) -> dict[str, str]:
        label = self._place.options.network_label.removeprefix(PREFIX).lower()
        attributes: dict[str, str] = {}
        for name, setting in settings.items():
            if name in STEERING or name == label or name.startswith(CHECK):
                continue
            if self._fits(setting, len(attributes)):
                attributes[name] = setting.value
        return attributes

    def _fits(self, setting: Setting, number: int) -> bool:
        """Whether Consul takes it, the strictest; it would refuse the whole entry otherwise."""
        if not METADATA_KEY.fullmatch(setting.name):
            self._named.warn(f"{setting.written}: use letters, digits, '-' and '_'; left out")
        elif len(setting.value.encode()) > METADATA_VALUE_LENGTH:
            self._named.warn(
                f"{setting.written}: longer than {METADATA_VALUE_LENGTH} bytes; left out"
            )
        elif number >= METADATA_PAIRS:
            self._named.warn(f"{setting.written}: more than {METADATA_PAIRS} attributes; left out")
        else:
            return True
        return False


def _told_apart(found: Iterable[Record], named: _Named) -> Iterator[Record]:
    """Make ids differ that SERVICE_ID gave to several; Registrator kept the last of them alone."""
    found = tuple(found)
    times = Counter(each.id for each in found)
    seen: Counter[str] = Counter()
    for record in found:
        own = record.id
        if times[own] > 1:
            named.warn(f"the id {own!r} is of {times[own]} addresses; told apart by the port")
            own = f"{own}-{record.private_port}" + ("-udp" if record.protocol == "udp" else "")
            seen[own] += 1
            own = own if seen[own] == 1 else f"{own}-{record.port}"
        yield dataclasses.replace(record, id=own)
