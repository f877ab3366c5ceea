"""Nodes that are written: an ephemeral one of ours, and those that have to be there above it."""

from __future__ import annotations

import contextlib

from kazoo.exceptions import BadVersionError, NodeExistsError, NoNodeError

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


async def write_own(session: Session, path: str, data: bytes) -> bool:
    """Make the node ephemeral and this session's, with this content.

    Returns False when another client came in between: try again.

    Raises NotEmptyError when the node has others below it, so that it can't be ephemeral.
    """
    try:
        await session.call("create", path, data, ephemeral=True)
    except NoNodeError:  # of the folder; it may be removed by others at any time
        await ensure(session, path.rpartition("/")[0])
    except NodeExistsError:
        return await _take_over(session, path, data)
    else:
        return True
    return False


async def _take_over(session: Session, path: str, data: bytes) -> bool:
    """Replace a node: ours, of an earlier session, or of whoever has the same id.

    Watchers see one node become another, and none missing in between.
    """
    facts = await session.call("exists", path)
    if facts is None:
        return False
    try:
        if facts.ephemeralOwner == session.id:
            await session.call("set", path, data, version=facts.version)
        else:
            await session.commit(
                path,
                lambda change: change.delete(path, version=facts.version),
                lambda change: change.create(path, data, ephemeral=True),
            )
    except (BadVersionError, NoNodeError, NodeExistsError):
        return False
    return True
