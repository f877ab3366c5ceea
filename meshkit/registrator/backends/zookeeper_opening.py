"""Opens nodes in ZooKeeper, without kazoo as long as it is not there."""

from __future__ import annotations

import dataclasses

from meshkit.errors import MissingExtraError
from meshkit.registrator.backends.base import Opener
from meshkit.registrator.backends.layouts import Nodes
from meshkit.registrator.options import Options
from meshkit.registry.url import RegistryUrl
from meshkit.registry.zookeeper.options import read_options


def open_nodes(url: RegistryUrl, options: Options) -> Opener:  # noqa: ARG001 - as the others
    """Open ``zookeeperkv://HOST[:PORT],.../BASE``."""
    scheme = url.scheme.replace("zookeeperkv", "zookeeper")
    zookeeper = read_options(dataclasses.replace(url, scheme=scheme, path=url.path or "/"))
    try:
        from meshkit.registrator.backends.zookeeper import ZooKeeperNodes  # noqa: PLC0415
    except ImportError:
        raise MissingExtraError(f"{url.scheme}://", "zookeeper") from None
    return lambda owner: ZooKeeperNodes(url.text, owner, zookeeper, Nodes(zookeeper.path))
