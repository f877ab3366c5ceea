"""Instances as etcd's entries: ``<prefix>/services/<service>/<id>`` = a JSON object."""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping
from typing import Any

from meshkit.model import INSTANCE_ID, SERVICE_NAME, Instance

BROKEN = (ValueError, KeyError, TypeError, AttributeError, OverflowError, RecursionError)

log = logging.getLogger("meshkit.etcd")


class Records:
    """Writes and reads the entries under one prefix.

    What others have put there, or what is no record any more, is left out; each such key is
    named once.
    """

    def __init__(self, prefix: str, place: str) -> None:
        self.folder = f"{prefix}/services/".encode()
        self._place = place
        self._named: set[bytes] = set()

    def service_folder(self, service: str) -> bytes:
        """Return what the keys of the service's instances begin with."""
        # The closing slash: else users would be found with users-admin.
        return self.folder + f"{service}/".encode()

    def key(self, service: str, instance_id: str) -> bytes:
        """Return the instance's key."""
        return self.service_folder(service) + instance_id.encode()

    def split(self, key: bytes) -> tuple[str, str]:
        """Return service and id. Raises ValueError when it is no key of ours."""
        service, _, instance_id = key.removeprefix(self.folder).decode("ascii").partition("/")
        if not SERVICE_NAME.fullmatch(service) or not INSTANCE_ID.fullmatch(instance_id):
            raise ValueError("the key is not SERVICE/ID")
        return service, instance_id

    def read(self, key: bytes, value: bytes) -> Instance | None:
        """Return the instance, or None for what is none."""
        try:
            instance = self._decode(key, value)
        except BROKEN as error:
            self._name(key, error)
            return None
        self._named.discard(key)
        return instance

    def _decode(self, key: bytes, value: bytes) -> Instance:
        data = json.loads(value)
        if not isinstance(data, dict):
            raise ValueError("not a JSON object")  # noqa: TRY004 - as all that is wrong with it
        instance = Instance.from_dict(data)
        if (instance.service, instance.id) != self.split(key):
            raise ValueError("the key and the record do not agree")
        texts = [instance.version, instance.zone, *instance.tags]
        texts += [*instance.metadata, *instance.metadata.values()]
        if not all(isinstance(text, str) for text in texts):
            raise ValueError("what should be text is something else")
        if not 0 < instance.weight < 65536:
            raise ValueError("the weight is not between 1 and 65535")
        return instance

    def _name(self, key: bytes, error: Exception) -> None:
        if key in self._named:
            return
        self._named.add(key)
        # A KeyError's text is the missing field alone.
        reason = f"no field {error}" if isinstance(error, KeyError) else str(error)
        log.warning(
            "etcd at %s: skipping %s, which is no instance of meshkit's: %s",
            self._place,
            shown(key),
            " ".join(reason.split())[:100],
        )


class Reader:
    """Reads the entries under a prefix again and again; only what has changed is decoded."""

    def __init__(self, records: Records) -> None:
        self._records = records
        self._read: dict[bytes, tuple[Any, Instance | None]] = {}

    def read(self, entries: Mapping[bytes, Any]) -> tuple[Instance, ...]:
        """Return the instances, sorted by service and id."""
        old = self._read
        self._read = {
            key: old[key]
            if key in old and old[key][0] is entry
            else (entry, self._records.read(key, entry.value))
            for key, entry in entries.items()
        }
        found = (instance for _, instance in self._read.values() if instance is not None)
        return tuple(sorted(found, key=lambda each: (each.service, each.id)))


def encode(instance: Instance) -> bytes:
    """Return the instance's record."""
    return json.dumps(instance.to_dict(), ensure_ascii=False, separators=(",", ":")).encode()


def shown(key: bytes) -> str:
    """Return a key of any bytes as a word for the log."""
    return key.decode("ascii", errors="backslashreplace")[:300].encode("unicode_escape").decode()
