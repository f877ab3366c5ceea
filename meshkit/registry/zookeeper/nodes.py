"""Nodes that have to be there for others to be below them."""

from __future__ import annotations

import contextlib

from kazoo.exceptions import NodeExistsError, NoNodeError

from meshkit.registry.zookeeper.session import Session


async def ensure(session: Session, path: str) -> None:
    """Make the node and those above it, where they are missing."""
    if not path:  # the root
        return
    while True:
        try:
            with contextlib.suppress(NodeExistsError):
                await session.call("create", path, b"")
        except NoNodeError:
            await ensure(session, path.rpartition("/")[0])
        else:
            return
