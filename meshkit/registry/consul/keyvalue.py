"""Consul's key-value store. Reads are consistent: an election makes them fail, never outdated.

https://developer.hashicorp.com/consul/api-docs/kv
"""

from __future__ import annotations

import base64
import builtins
import contextlib
import dataclasses
import functools
import json
import logging
from collections.abc import AsyncGenerator, Mapping
from typing import Any

from meshkit.registry.consul import failures
from meshkit.registry.consul.hidden import Hidden
from meshkit.registry.consul.polling import follow
from meshkit.registry.consul.transport import Answer, Transport, seconds
from meshkit.registry.kv import ABSENT, KEY, Entry, KeyValue, check_key, check_value

TRANSACTION = "/v1/txn"
DENIED = "Permission denied"

log = logging.getLogger("meshkit.consul")


class ConsulKeyValue(KeyValue):
    """The keys under one prefix, in one datacenter.

    Other programs' keys under it that are none of ours, such as ``folder/``, are not shown.
    """

    propagation = 0.5

    def __init__(self, transport: Transport, hidden: Hidden, *, dc: str) -> None:
        self._transport = transport
        self._hidden = hidden
        self._dc = (("dc", dc),) if dc else ()
        prefix = transport.options.kv_prefix
        self._prefix = f"{prefix}/" if prefix else ""
        self._named: set[str] = set()  # foreign keys that were warned of

    async def get(self, key: str) -> Entry | None:
        answer = await self._read(check_key(key), ())
        found = self._entries(answer, key)
        return found[0] if found else None

    async def list(self, prefix: str = "") -> tuple[Entry, ...]:
        _, found = await self._list(prefix, None, "")
        return found

    async def put(self, key: str, value: bytes, *, expect: int | None = None) -> Entry | None:
        path = f"/v1/kv/{self._prefix}{check_key(key)}"
        condition = () if expect is None else (("cas", str(expect)),)
        # A write on a condition is not repeated: the second one would find the first one's value.
        answer = await self._transport.write(
            path,
            (*self._dc, *condition),
            body=check_value(key, value),
            repeat=expect is None,
        )
        if answer.status != 200 or answer.body.strip() not in ("true", "false"):
            raise self._transport.error(answer, f"PUT {path}", about="key")
        if answer.body.strip() == "false":
            return None
        # Consul does not say which revision it made. Where the value is ours, the revision read
        # is as good as that of our own write; else ours is outdated, and any older one says so.
        entry = await self.get(key)
        if entry is not None and entry.value == value:
            return entry
        return Entry(key=key, value=value, revision=entry.revision - 1 if entry else 1)

    async def delete(self, key: str, *, expect: int | None = None) -> bool:
        # Consul takes the deletion of what is not there for a success. In one transaction with
        # a look at the key it says what it did.
        path = f"{self._prefix}{check_key(key)}"
        look = {"Verb": "get"} if expect is None else {"Verb": "check-index", "Index": expect}
        steps = [{"KV": {"Key": path} | step} for step in (look, {"Verb": "delete"})]
        if expect == ABSENT:
            return False
        answer = await self._transport.write(
            TRANSACTION, self._dc, body=json.dumps(steps).encode(), repeat=False
        )
        if answer.status == 409 and DENIED not in answer.body:
            return False
        if answer.status != 200:
            if answer.status == 409:  # the refusal of one step, wrapped in JSON
                answer = dataclasses.replace(answer, status=403, body=DENIED)
            raise self._transport.error(answer, f"the deletion of {path}", about="key")
        return True

    async def watch(self, prefix: str = "") -> AsyncGenerator[tuple[Entry, ...], None]:
        seen: tuple[Entry, ...] | None = None
        async with contextlib.aclosing(follow(functools.partial(self._list, prefix))) as lists:
            async for found in lists:
                if found != seen:
                    yield (seen := found)

    async def _list(
        self, prefix: str, index: int | None, wait: str
    ) -> tuple[str, tuple[Entry, ...]]:
        blocking = (("index", str(index)), ("wait", wait)) if index else ()
        answer = await self._read(_clean(prefix), (("recurse", "1"), *blocking))
        found = [
            entry
            for entry in self._entries(answer, prefix)
            if entry.key.startswith(prefix) and self._is_key(entry.key)
        ]
        if not found:
            await self._hidden.hint(
                f"key that begins with {self._prefix}{prefix}", permission="key:read"
            )
        return answer.index, tuple(sorted(found, key=lambda entry: entry.key))

    async def _read(self, key: str, params: tuple[tuple[str, str], ...]) -> Answer:
        path = f"/v1/kv/{self._prefix}{key}"
        answer = await self._transport.read(
            path, (("consistent", "1"), *self._dc, *params), wait=seconds(params)
        )
        if answer.status not in (200, 404):
            raise self._transport.error(answer, f"GET {path}", about="key")
        if not answer.index.isdigit():
            raise failures.not_consul(self._transport.address, request=f"GET {path}")
        return answer

    def _entries(self, answer: Answer, about: str) -> builtins.list[Entry]:
        if answer.status == 404:
            return []
        try:
            return [self._entry(item) for item in json.loads(answer.body)]
        except (AttributeError, KeyError, TypeError, ValueError):
            raise failures.not_consul(
                self._transport.address, request=f"the value of {about!r}"
            ) from None

    def _is_key(self, key: str) -> bool:
        """Whether it can be asked for; one that can't is warned of once, if it is no folder."""
        if KEY.fullmatch(key):
            return True
        if not key.endswith("/") and key not in self._named:
            self._named.add(key)
            log.warning(
                "Consul at %s: skipping %r, which is no key of meshkit's",
                self._transport.address,
                f"{self._prefix}{key}"[:300],
            )
        return False

    def _entry(self, item: Mapping[str, Any]) -> Entry:
        return Entry(
            key=item["Key"].removeprefix(self._prefix),
            value=base64.b64decode(item["Value"] or ""),
            revision=item["ModifyIndex"],
        )


def _clean(prefix: str) -> str:
    """Return as much of a prefix as can be a path: Consul would "clean" others, to other keys."""
    while prefix:
        folder = prefix.removesuffix("/")
        if KEY.fullmatch(folder) and not {".", ".."} & set(folder.split("/")):
            break
        folder, slash, _ = prefix[:-1].rpartition("/")
        prefix = folder + slash
    return prefix
