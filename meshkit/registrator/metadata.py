"""``SERVICE_*`` variables and labels: what a container says of the services in it.

Three scopes, the narrower wins: ``SERVICE_X`` is meant for all ports of the container,
``SERVICE_<port>_X`` for one port as the container has it, and ``SERVICE_<port>_UDP_X`` (or
``_TCP_X``) for one protocol of it. Within a scope labels win over variables.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping
from typing import Any

PREFIX = "SERVICE_"
PROTOCOLS = ("tcp", "udp")


@dataclasses.dataclass(frozen=True, slots=True)
class Setting:
    """One variable or label.

    Attributes:
        written: its name as the user wrote it, for messages.
        name: what it sets, in lower case (``name``, ``check_http``, ``region``).
        value: as written.
        port: the container port it is meant for; None: all.
        protocol: the protocol of that port; empty: both.
    """

    written: str
    name: str
    value: str
    port: int | None = None
    protocol: str = ""

    @property
    def scope(self) -> int:
        """How narrow it is: 0 for a container, 1 for a port, 2 for one protocol of a port."""
        return (self.port is not None) + bool(self.protocol)

    def meant_for(self, port: int, protocol: str) -> bool:
        """Whether it speaks of this port."""
        return self.port in (None, port) and self.protocol in ("", protocol)


def settings_of(container: Mapping[str, Any], *others: Mapping[str, str]) -> tuple[Setting, ...]:
    """Return all settings of an inspected container, those that win last.

    ``others`` are labels that count between its variables and its own labels: those of the
    Swarm service that the container belongs to.
    """
    config = container.get("Config") or {}
    pairs = [entry.partition("=")[::2] for entry in config.get("Env") or () if "=" in entry]
    for labels in (*others, config.get("Labels") or {}):
        pairs.extend(labels.items())
    return tuple(_read(key, value) for key, value in pairs if key.startswith(PREFIX))


def _read(written: str, value: str) -> Setting:
    name = written.removeprefix(PREFIX).lower()
    first, underscore, rest = name.partition("_")
    if not (underscore and first.isascii() and first.isdigit()):
        return Setting(written, name, value)
    protocol, underscore, narrower = rest.partition("_")
    if underscore and protocol in PROTOCOLS:
        return Setting(written, narrower, value, int(first), protocol)
    return Setting(written, rest, value, int(first))


def for_port(settings: Iterable[Setting], port: int, protocol: str) -> dict[str, Setting]:
    """Return what holds for one port: name to the setting that won."""
    won: dict[str, Setting] = {}
    for setting in settings:
        if not setting.meant_for(port, protocol):
            continue
        known = won.get(setting.name)
        if known is None or setting.scope >= known.scope:
            won[setting.name] = setting
    return won


def text(settings: Mapping[str, Setting], name: str) -> str:
    """Return the value of a setting; empty when it is not set, or set to nothing."""
    setting = settings.get(name)
    return setting.value if setting is not None else ""
