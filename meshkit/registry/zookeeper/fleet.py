"""All services with their instances, counted: a folder of folders."""

from __future__ import annotations

import asyncio
import functools
from collections.abc import Callable
from types import TracebackType
from typing import Any, Self

from meshkit.model import Instance, ServiceInfo
from meshkit.registry.base import summarize
from meshkit.registry.zookeeper.folder import Folder, together
from meshkit.registry.zookeeper.session import Session

# Takes the service's name, then as folder's.
Decode = Callable[[str, str, bytes, Any], Instance | None]


class Fleet:
    """Follows the folder of services and each one in it. A context manager."""

    def __init__(self, session: Session, path: str, decode: Decode, *, watch: bool = True) -> None:
        self.changed = asyncio.Event()
        self._session = session
        self._decode = decode
        self._watch = watch
        self._names: Folder[None] = Folder(session, path, None, watch=watch, changed=self.changed)
        self._services: dict[str, Folder[Instance]] = {}

    async def read(self) -> tuple[ServiceInfo, ...]:
        """Read what has changed; return all services that have instances. Raises RegistryError."""
        await self._names.read()
        for gone in self._services.keys() - self._names.names:
            self._services.pop(gone).close()
        for name in self._names.names - self._services.keys():
            self._services[name] = self._follow(name)
        await together(folder.read() for folder in self._services.values() if folder.dirty)
        return summarize(
            instance for folder in self._services.values() for instance in folder.entries.values()
        )

    def _follow(self, name: str) -> Folder[Instance]:
        folder = Folder(
            self._session,
            f"{self._names.path}/{name}",
            functools.partial(self._decode, name),
            watch=self._watch,
            changed=self.changed,
        )
        folder.open()
        return folder

    def __enter__(self) -> Self:
        self._names.open()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._names.close()
        for folder in self._services.values():
            folder.close()
