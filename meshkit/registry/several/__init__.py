"""Several registries as one, so that a company can move from one to the other without downtime.

``zookeeper://a,b,c/mesh consul://127.0.0.1:8500``: a service registers in all of them, and is found
in any of them. A member with ``?register=false`` is only read.

Parts: ``member`` (one of them, and whether it works), ``upkeep`` (one instance's registrations),
``follower`` (one member's watch), ``departures`` (who has left while one is away), ``union`` (what
all of them say together) and ``registry``.
"""

from meshkit.registry.several.registry import Several, open_several

__all__ = ["Several", "open_several"]
