"""Key-value stores: what an engine that has one offers beside its services.

Keys are paths such as ``config/orders/limit``; values are bytes. As with instances, a watch yields
the whole truth each time and raises when it is lost.
"""

from __future__ import annotations

import abc
import dataclasses
import re
from collections.abc import AsyncGenerator
from typing import ClassVar

from meshkit.errors import ConfigError

KEY = re.compile(r"[A-Za-z0-9._-]+(/[A-Za-z0-9._-]+)*")
KEY_LENGTH = 512
# Consul's limit, the strictest; by default etcd takes 1.5 MiB and ZooKeeper 1 MiB.
# https://developer.hashicorp.com/consul/api-docs/kv#create-update-key
VALUE_LIMIT = 512 * 1024
ABSENT = 0


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """A key with its value.

    Attributes:
        key: see :func:`check_key`.
        value: at most ``VALUE_LIMIT`` bytes.
        revision: another number after each change, also of a key that was removed and made again;
            never ``ABSENT``, opaque otherwise. Writing the value that is there may change nothing.
    """

    key: str
    value: bytes
    revision: int

    @property
    def text(self) -> str:
        """The value as UTF-8; bytes that are none are replaced."""
        return self.value.decode(errors="replace")


class KeyValue(abc.ABC):
    """A store of small values, shared by all who use the registry.

    Every coroutine raises :class:`~meshkit.errors.RegistryError` (or a subclass) when the registry
    fails, and :class:`~meshkit.errors.ConfigError` for a key or value that no registry would take.
    """

    #: seconds until the slowest watcher knows of a change
    propagation: ClassVar[float] = 1.0

    @abc.abstractmethod
    async def get(self, key: str) -> Entry | None:
        """Return the key's entry as last written, or None."""

    @abc.abstractmethod
    async def list(self, prefix: str = "") -> tuple[Entry, ...]:
        """All entries whose key begins with ``prefix``, sorted by key. Any text is a prefix."""

    @abc.abstractmethod
    async def put(self, key: str, value: bytes, *, expect: int | None = None) -> Entry | None:
        """Write the value.

        Args:
            key: see :func:`check_key`.
            value: see :func:`check_value`.
            expect: write only if the key still has this revision; ``ABSENT``: only if there is no
                such key yet. None writes whatever there is.

        Returns:
            The new entry, or None when ``expect`` no longer held and nothing was written.
        """

    @abc.abstractmethod
    async def delete(self, key: str, *, expect: int | None = None) -> bool:
        """Remove the key, if ``expect`` is None or its revision. True when it was removed."""

    @abc.abstractmethod
    def watch(self, prefix: str = "") -> AsyncGenerator[tuple[Entry, ...], None]:
        """Yield what :meth:`list` returns, at once and after each change; raise when it is lost."""


def check_key(key: str) -> str:
    """Return ``key`` when every registry can hold it. Raises ConfigError otherwise."""
    parts = key.split("/") if isinstance(key, str) else []
    if not parts or not KEY.fullmatch(key) or len(key) > KEY_LENGTH or {".", ".."} & set(parts):
        raise ConfigError(
            f"invalid key {key!r}: use words of letters, digits, '.', '_' and '-', "
            f"joined by single slashes, at most {KEY_LENGTH} characters"
        )
    return key


def check_value(key: str, value: bytes) -> bytes:
    """Return ``value`` when every registry can hold it. Raises ConfigError otherwise."""
    if len(value) > VALUE_LIMIT:
        raise ConfigError(
            f"the value of {key!r} has {len(value)} bytes; a registry holds at most {VALUE_LIMIT}"
        )
    return value
