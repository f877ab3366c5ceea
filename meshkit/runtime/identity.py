"""The instance that a service registers as."""

from __future__ import annotations

import re
import secrets
import socket
import time
from collections.abc import Mapping

from meshkit import __version__, identity
from meshkit.model import Endpoint, Instance
from meshkit.service import MeshService
from meshkit.settings import MeshSettings


def new_instance_id(service: str, host: str, port: int) -> str:
    """Return name, host, port and randomness as one DNS label: readable, unique per start."""
    machine = re.sub(r"[^a-z0-9]+", "-", host.lower()).strip("-")
    name = service[:24].rstrip("-")
    return f"{name}-{machine[:20].strip('-') or 'host'}-{port}-{secrets.token_hex(3)}"


def new_instance(
    service: MeshService, settings: MeshSettings, endpoints: Mapping[str, Endpoint]
) -> Instance:
    """Describe the running service; ``endpoints`` hold the advertised addresses."""
    port = next(iter(endpoints.values())).port
    return Instance(
        id=new_instance_id(service.name, socket.gethostname(), port),
        service=service.name,
        version=service.version,
        tags=tuple(dict.fromkeys((*service.tags, *settings.tags))),
        metadata={**service.metadata, identity.MARK: __version__},
        endpoints=dict(endpoints),
        weight=service.weight,
        zone=settings.zone,
        started_at=round(time.time(), 3),
    )
