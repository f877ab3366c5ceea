"""The registry object on the folders of one namespace."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import sys
from collections.abc import AsyncGenerator, Iterator
from pathlib import Path

from meshkit.errors import ConfigError, LeaseLost, RegistryError, RegistryUnavailable
from meshkit.model import INSTANCE_ID, SERVICE_NAME, Instance, ServiceInfo, Snapshot
from meshkit.registry.base import Lease, Registry, summarize
from meshkit.registry.local.folder import FileId, Folder, folders
from meshkit.registry.local.heartbeats import TTL
from meshkit.registry.local.keyvalue import LocalKeyValue
from meshkit.registry.local.lock import LockFile
from meshkit.registry.local.notifier import POLL_ALONE, Changes, Notifier
from meshkit.registry.local.values import ValueFolder
from meshkit.state import private_dir

VALUES = "_kv"  # no service's name
# Who sweeps or looks holds a free lock for microseconds, or for as long as a busy machine lets
# it wait in between: try again.
LOCK_TRIES, LOCK_PAUSE = 150, 0.01


@dataclasses.dataclass(frozen=True, slots=True)
class Registration:
    """An instance that is ours: where it is, the lock, and the file that was written last."""

    folder: Folder
    lock: LockFile
    written: FileId


class LocalRegistry(Registry):
    """``local://``: see the package.

    Args:
        url: for messages.
        path: private folders, each in the one before; the last one is the namespace's and
            holds a folder for each service and one for values.
        inotify: False to rely on the poll alone, as on systems without inotify.
    """

    propagation = 0.2 if sys.platform == "linux" else POLL_ALONE + 0.2
    settle = 4.0  # a wiped folder is full again after one interval of renewals

    def __init__(self, url: str, *path: Path, inotify: bool = True) -> None:
        super().__init__(url)
        self._path = path
        self._own: dict[str, Registration] = {}
        self._notifier = Notifier(inotify=inotify)
        self._kv = LocalKeyValue(url, self._values, self._notifier, self._errors)
        self._closed = False

    @property
    def kv(self) -> LocalKeyValue:
        return self._kv

    async def register(self, instance: Instance) -> Lease:
        """Register, for as long as this process lives or until it is deregistered.

        Raises RegistryError when another living process has registered this id.
        """
        if not INSTANCE_ID.fullmatch(instance.id):
            raise ConfigError(f"invalid instance id {instance.id!r}: use [a-z0-9-], at most 63")
        with self._errors(f"register {instance.id}"):
            folder = self._folder(instance.service)
            lock = await self._lock(folder, instance.id)
            try:
                lock.beat()
                written = folder.write(instance)
            except Exception:
                if instance.id not in self._own:  # else what was written before still holds
                    with contextlib.suppress(OSError):
                        folder.remove(instance.id, lock)
                raise
            self._own[instance.id] = Registration(folder, lock, written)
        return Lease(instance_id=instance.id, ttl=TTL)

    async def renew(self, lease: Lease) -> None:
        own = self._own.get(lease.instance_id)
        with self._errors(f"renew {lease.instance_id}"):
            if not own or not own.lock.held or not own.folder.has(lease.instance_id, own.written):
                raise LeaseLost(f"{self.url} no longer knows {lease.instance_id}: register anew")
            own.lock.beat()

    async def deregister(self, instance_id: str) -> None:
        """Remove the instance.

        Raises RegistryError when it is another living process's: only its owner may end it.
        """
        with self._errors(f"deregister {instance_id}"):
            if own := self._own.pop(instance_id, None):
                own.folder.remove(instance_id, own.lock)
            elif owner := self._owner(instance_id):
                raise RegistryError(
                    f"{self.url}: {instance_id} belongs to {owner}; stop that to deregister it"
                )

    async def watch(self, service: str) -> AsyncGenerator[Snapshot, None]:
        seen: tuple[Instance, ...] | None = None
        revision = 0
        with self._notifier.changes() as changes:
            while changes.open:
                now = self._read(service, changes)
                if now != seen:
                    seen, revision = now, revision + 1
                    yield Snapshot(service=service, instances=now, revision=revision)
                await changes.wait()

    async def instances(self, service: str) -> Snapshot:
        return Snapshot(service=service, instances=self._read(service), revision=1)

    async def watch_services(self) -> AsyncGenerator[tuple[ServiceInfo, ...], None]:
        seen: tuple[ServiceInfo, ...] | None = None
        with self._notifier.changes() as changes:
            while changes.open:
                now = self._read_services(changes)
                if now != seen:
                    yield (seen := now)
                await changes.wait()

    async def services(self) -> tuple[ServiceInfo, ...]:
        return self._read_services()

    async def aclose(self) -> None:
        """End the watches and deregister what is registered: its locks end with this object."""
        self._closed = True
        self._notifier.close()
        for instance_id in tuple(self._own):
            with contextlib.suppress(RegistryError):  # what can't be removed is swept by others
                await self.deregister(instance_id)

    def _read(self, service: str, changes: Changes | None = None) -> tuple[Instance, ...]:
        with self._errors(f"list {service}"):
            folder = self._folder(service)
            if changes:
                changes.follow(folder.path)
            found, beats = folder.look()
            if changes:
                changes.heartbeats.follow(beats)
            return found

    def _read_services(self, changes: Changes | None = None) -> tuple[ServiceInfo, ...]:
        with self._errors("list the services"):
            root = self._root()
            if changes:
                changes.follow(root)  # first, or a folder made in between would be missed
            paths = [path for path in folders(root) if SERVICE_NAME.fullmatch(path.name)]
            if changes:
                changes.follow(root, *paths)
            return summarize(each for path in paths for each in Folder(path).instances())

    def _folder(self, service: str) -> Folder:
        if not SERVICE_NAME.fullmatch(service):
            raise ConfigError(f"invalid service name {service!r}")
        folder = Folder(self._root() / service)
        self._make(folder.path)
        return folder

    def _values(self) -> ValueFolder:
        folder = ValueFolder(self._root() / VALUES)
        self._make(folder.path)
        return folder

    def _root(self) -> Path:
        """Return the namespace's folder, made anew if somebody removed it."""
        self._check_open()
        for path in self._path:
            self._make(path)
        return self._path[-1]

    def _check_open(self) -> None:
        if self._closed:
            raise RegistryError(f"{self.url} is closed")

    @staticmethod
    def _make(path: Path) -> None:
        try:
            private_dir(path)
        except ConfigError as error:  # it was usable when the registry was opened
            raise RegistryUnavailable(str(error)) from None

    async def _lock(self, folder: Folder, instance_id: str) -> LockFile:
        if own := self._own.get(instance_id):
            if own.folder.path == folder.path and own.lock.linked:
                return own.lock
            del self._own[instance_id]
            own.folder.remove(instance_id, own.lock)
        for _ in range(LOCK_TRIES):
            if lock := folder.lock(instance_id):
                return lock
            await asyncio.sleep(LOCK_PAUSE)
            self._check_open()
        raise RegistryError(
            f"{self.url}: {instance_id} is already registered by {folder.owner(instance_id)}"
        )

    def _owner(self, instance_id: str) -> str | None:
        """Name the living process that registered the instance."""
        if not INSTANCE_ID.fullmatch(instance_id):
            return None
        for path in folders(self._path[-1]):
            folder = Folder(path)
            if folder.alive(instance_id):
                return folder.owner(instance_id)
        return None

    @contextlib.contextmanager
    def _errors(self, doing: str) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            where = error.filename or self._path[-1]
            raise RegistryUnavailable(
                f"{self.url} can't {doing}: {where}: {error.strerror or error}"
            ) from error
