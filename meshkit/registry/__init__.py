"""Registries: the contract, the URL that chooses an engine, and one file per engine."""

from meshkit.registry.base import Datacenters, Lease, Registry, summarize
from meshkit.registry.kv import Entry, KeyValue
from meshkit.registry.url import RegistryUrl, open_registry

__all__ = [
    "Datacenters",
    "Entry",
    "KeyValue",
    "Lease",
    "Registry",
    "RegistryUrl",
    "open_registry",
    "summarize",
]
