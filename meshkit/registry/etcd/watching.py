"""What is under a prefix, kept current: list, then watch from the list's revision on.

https://etcd.io/docs/v3.5/learning/api/#watch-api
"""

from __future__ import annotations

import asyncio
import dataclasses
from collections.abc import AsyncGenerator, Mapping
from typing import Any

from meshkit.errors import RegistryDenied, RegistryUnavailable
from meshkit.registry.etcd import failures
from meshkit.registry.etcd.client import LIMIT, Client
from meshkit.registry.etcd.link import Stream
from meshkit.registry.etcd.messages import PUT, RANGE, WATCH, make, prefix_end


@dataclasses.dataclass(frozen=True, slots=True)
class Contents:
    """All of a prefix's entries, etcd's ``KeyValue`` messages by key, at one revision."""

    revision: int
    entries: Mapping[bytes, Any]


async def read(client: Client, prefix: bytes, *, keys_only: bool = False) -> Contents:
    """Read what is under the prefix, as it was last written."""
    request = make(RANGE.request, key=prefix, range_end=prefix_end(prefix), keys_only=keys_only)
    answer = await client.call(RANGE, request)
    return Contents(answer.header.revision, {each.key: each for each in answer.kvs})


async def follow(client: Client, prefix: bytes) -> AsyncGenerator[Contents, None]:
    """Yield what is under the prefix, at once and after each change.

    Whatever disturbs the watch ends it by an error. No revision is taken over to the next one,
    which starts from a list: a server that was restored from a backup or emptied would never
    reach it, and be silent for ever.
    """
    listed = await read(client, prefix)
    yield listed
    entries = dict(listed.entries)
    async with client.streaming(WATCH) as stream:
        await _start(stream, prefix, listed.revision)
        while True:
            answer = await stream.receive()
            _check(stream, answer)
            for event in answer.events:
                if event.type == PUT:
                    entries[event.kv.key] = event.kv
                else:
                    entries.pop(event.kv.key, None)
            if answer.events:
                yield Contents(answer.header.revision, entries)


async def _start(stream: Stream, prefix: bytes, revision: int) -> None:
    create = make(
        "WatchCreateRequest",
        key=prefix,
        range_end=prefix_end(prefix),
        start_revision=revision + 1,
    )
    try:
        async with asyncio.timeout(LIMIT):
            await stream.send(make(WATCH.request, create_request=create))
            answer = await stream.receive()
    except TimeoutError:
        raise failures.too_slow(stream.link.endpoint, LIMIT) from None
    _check(stream, answer)
    if not answer.created or answer.header.revision < revision:
        # It lags behind, or has lost what the list was read from, and would be silent until then.
        raise RegistryUnavailable(
            f"etcd at {stream.link.endpoint} is behind the list that was read before"
        )


def _check(stream: Stream, answer: Any) -> None:
    """Raise the error that ended the watch."""
    if not answer.canceled:
        return
    if answer.compact_revision:
        raise failures.lost(stream.link.endpoint, "the watch fell behind etcd's history")
    reason = answer.cancel_reason
    error = failures.from_text(reason, stream.link.endpoint, request=WATCH.name)
    if isinstance(error, RegistryDenied):
        raise error
    raise failures.lost(stream.link.endpoint, reason or "etcd has ended the watch")
