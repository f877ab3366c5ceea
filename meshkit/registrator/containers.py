"""From what Docker says of a container to what the registry shall show of it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from meshkit.registrator.options import Host, Options
from meshkit.registrator.record import Record

Inspect = Mapping[str, Any]
Warn = Callable[[str], None]


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
        warn: called with one line for each label or variable that cannot be used.
    """
    raise NotImplementedError
