"""Keys in Consul in Registrator's form: ours are those whose flags are our mark.

Consul stores a number with each key, the flags, which means nothing to itself. So nothing has to
stand beside the keys, where their readers would take it for a service.
https://developer.hashicorp.com/consul/api-docs/kv#flags
"""

from __future__ import annotations

import base64
import json
import re
from typing import Any

from meshkit.errors import RegistryError
from meshkit.model import Status
from meshkit.registrator.backends.base import Backend, Held, digest
from meshkit.registrator.backends.layouts import Layout
from meshkit.registrator.record import Record
from meshkit.registry.consul import failures
from meshkit.registry.consul.transport import Transport


class ConsulKeys(Backend):
    """Writes what is up, removes what is not.

    Args:
        url: without secrets.
        owner: our host.
        transport: to the agent.
        layout: of keys and values.
        adopt: whether keys without a mark, but in Registrator's form of ids and with our host's
            name, are ours too.
    """

    def __init__(
        self, url: str, owner: str, transport: Transport, layout: Layout, *, adopt: bool = False
    ) -> None:
        super().__init__(url, owner)
        self._transport = transport
        self._layout = layout
        self._mark = digest(f"meshkit-registrator {owner}", bits=63)
        self._adopted = (
            re.compile(rf".*/{re.escape(self.host)}:[^:/]+:\d+(:udp)?") if adopt else None
        )
        self._foreign: set[str] = set()

    def id_of(self, record: Record) -> str:
        return self._layout.key(record)

    def state_of(self, record: Record) -> Any:
        return (self._layout.value(record), self._mark) if record.status is Status.UP else None

    async def owned(self) -> dict[str, Held]:
        path = f"/v1/kv/{self._layout.folder}"
        answer = await self._transport.read(path, (("recurse", "1"), ("consistent", "1")))
        if answer.status == 404:
            return {}
        if answer.status != 200:
            raise self._transport.error(answer, f"GET {path}", about="key")
        found: dict[str, Held] = {}
        self._foreign.clear()
        try:
            for item in json.loads(answer.body):
                key, flags = str(item["Key"]), item["Flags"]
                if flags == self._mark or self._is_adopted(key, flags):
                    found[key] = Held((base64.b64decode(item["Value"] or ""), flags))
                elif flags:
                    self._foreign.add(key)
        except (AttributeError, KeyError, TypeError, ValueError):
            raise failures.not_consul(self._transport.address, request=f"GET {path}") from None
        return found

    async def put(self, record: Record) -> None:
        key = self._layout.key(record)
        if key in self._foreign:
            raise RegistryError(
                f"{key} of container {record.container_name} in {self.url} belongs to another "
                "registrator: give each a SERVICE_ID of its own"
            )
        path, flags = f"/v1/kv/{key}", (("flags", str(self._mark)),)
        answer = await self._transport.write(path, flags, body=self._layout.value(record))
        if answer.status != 200 or answer.body.strip() != "true":
            raise self._transport.error(answer, f"PUT {path}", about="key")

    async def remove(self, entry_id: str) -> None:
        steps = [{"KV": {"Verb": "delete", "Key": entry_id}}]
        answer = await self._transport.write("/v1/txn", body=json.dumps(steps).encode())
        if answer.status != 200:
            raise self._transport.error(answer, f"the deletion of {entry_id}", about="key")

    async def aclose(self) -> None:
        await self._transport.aclose()

    def _is_adopted(self, key: str, flags: int) -> bool:
        return self._adopted is not None and not flags and bool(self._adopted.fullmatch(key))
