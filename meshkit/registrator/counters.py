"""What the registrator counts and knows of itself, for its health and metrics pages."""

from __future__ import annotations

import collections
import dataclasses
import time


@dataclasses.dataclass(slots=True)
class Counters:
    """Plain numbers, changed as things happen.

    Attributes:
        containers: running containers that Docker lists.
        records: what they offer.
        owned: entries of ours in the registry, as of the last comparison.
        written, removed: entries, since the start.
        events: of Docker's that concerned us, since the start.
        errors: by where they came from: "docker", "registry" or "label".
        docker_up, registry_up: whether the last request to each was answered.
        reconciled_at: when Docker and the registry last agreed, on the monotonic clock; None
            before they first did.
    """

    containers: int = 0
    records: int = 0
    owned: int = 0
    written: int = 0
    removed: int = 0
    events: int = 0
    errors: collections.Counter[str] = dataclasses.field(default_factory=collections.Counter)
    docker_up: bool = False
    registry_up: bool = False
    reconciled_at: float | None = None

    @property
    def age(self) -> float | None:
        """Seconds since Docker and the registry last agreed; None before they first did."""
        return None if self.reconciled_at is None else time.monotonic() - self.reconciled_at
