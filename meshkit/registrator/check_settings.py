"""The health check that a container asks for with ``SERVICE_CHECK_*``."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any, get_args

from meshkit.registrator.durations import seconds
from meshkit.registrator.metadata import Setting, text
from meshkit.registrator.record import CHECK_INTERVAL, Check, CheckKind, InitialStatus, Protocol

PREFIX = "check_"
# Of several kinds in one scope the first of this order counts, as in Registrator.
KINDS: tuple[CheckKind, ...] = ("http", "https", "cmd", "script", "ttl", "tcp", "grpc")
SHORTEST_INTERVAL = 1.0  # as Consul has it
OVER_TCP = frozenset({"http", "https", "tcp", "grpc"})
OPTIONS = frozenset(
    {
        *("http_method", "https_method", "grpc_use_tls", "tls_skip_verify"),
        *("interval", "timeout", "initial_status", "deregister_after"),
    }
)
OFF = frozenset({"", "0", "false", "no", "off"})
METHOD = re.compile(r"[A-Z]+")

Settings = Mapping[str, Setting]
Warn = Callable[[str], None]


def check_of(
    settings: Settings, address: str, port: int, protocol: Protocol, warn: Warn
) -> Check | None:
    """Return the check that is asked for, None when there is none that can be made.

    Args:
        settings: what holds for this port.
        address: host that the service is registered under, as ``$SERVICE_IP`` of a command.
        port: port of the same, as ``$SERVICE_PORT``.
        protocol: over udp only what needs no connection is checked: a command or a TTL.
        warn: called with a line for each value that cannot be used.
    """
    _warn_of_unknown(settings, warn)
    kind = _kind(settings, protocol)
    if kind is None:
        return None
    reader = _Reader(settings, warn)
    ttl = reader.duration("ttl", "no check is made") if kind == "ttl" else None
    if kind == "ttl" and ttl is None:
        return None
    value = text(settings, PREFIX + kind)
    return Check(
        kind=kind,
        interval=reader.interval(),
        timeout=reader.duration("timeout", "using the registry's own"),
        ttl=ttl,
        initial_status=reader.initial_status(),
        deregister_after=reader.duration("deregister_after", "the entry stays"),
        **_of_kind(kind, value, address, port, reader),
    )


def _of_kind(
    kind: CheckKind, value: str, address: str, port: int, reader: _Reader
) -> dict[str, Any]:
    match kind:
        case "http" | "https":
            return {
                "path": value if value.startswith("/") else f"/{value}",
                "method": reader.method(f"{kind}_method"),
                "skip_verify": kind == "https" and reader.on("tls_skip_verify"),
            }
        case "grpc":
            use_tls = reader.on("grpc_use_tls")
            skip = use_tls and reader.on("tls_skip_verify")
            return {"use_tls": use_tls, "skip_verify": skip}
        case "script":
            command = value.replace("$SERVICE_IP", address).replace("$SERVICE_PORT", str(port))
            return {"command": command}
        case "cmd":
            return {"command": value}
        case "tcp" | "ttl":
            return {}


def _kind(settings: Settings, protocol: Protocol) -> CheckKind | None:
    """The kind of the narrowest scope, so that a port may differ from its container."""
    asked = [
        (settings[PREFIX + kind].scope, kind)
        for kind in KINDS
        if _asked(settings, kind) and not (protocol == "udp" and kind in OVER_TCP)
    ]
    return max(asked, key=lambda each: each[0])[1] if asked else None


def _asked(settings: Settings, kind: CheckKind) -> bool:
    value = text(settings, PREFIX + kind)
    return value.lower() not in OFF if kind in ("tcp", "grpc") else bool(value)


def _warn_of_unknown(settings: Settings, warn: Warn) -> None:
    for name, setting in settings.items():
        kind = name.removeprefix(PREFIX)
        if name.startswith(PREFIX) and kind not in KINDS and kind not in OPTIONS:
            known = ", ".join(f"CHECK_{each.upper()}" for each in KINDS)
            warn(f"{setting.written}: unknown check; known are {known}")


class _Reader:
    """Reads the options of a check; what is malformed is said, and left out."""

    def __init__(self, settings: Settings, warn: Warn) -> None:
        self._settings = settings
        self._warn = warn

    def on(self, name: str) -> bool:
        return text(self._settings, PREFIX + name).lower() not in OFF

    def duration(self, name: str, otherwise: str) -> float | None:
        value = text(self._settings, PREFIX + name)
        if not value:
            return None
        try:
            return seconds(value)
        except ValueError as error:
            self._say(name, f"{error}; {otherwise}")
            return None

    def interval(self) -> float:
        found = self.duration("interval", f"using {CHECK_INTERVAL:g}s") or CHECK_INTERVAL
        if found < SHORTEST_INTERVAL:
            self._say("interval", f"too short; using {SHORTEST_INTERVAL:g}s")
        return max(found, SHORTEST_INTERVAL)

    def method(self, name: str) -> str:
        value = text(self._settings, PREFIX + name).upper()
        if value and not METHOD.fullmatch(value):
            self._say(name, f"{value!r} is not an HTTP method; using GET")
            return ""
        return value

    def initial_status(self) -> InitialStatus:
        value = text(self._settings, f"{PREFIX}initial_status")
        for known in get_args(InitialStatus):
            if value == known:
                return known  # type: ignore[no-any-return]
        self._say("initial_status", f"{value!r} is none of passing, warning, critical; left out")
        return ""

    def _say(self, name: str, what: str) -> None:
        self._warn(f"{self._settings[PREFIX + name].written}: {what}")
