"""From the URL to the registry, without kazoo as long as it is not there."""

from __future__ import annotations

from typing import TYPE_CHECKING

from meshkit.errors import MissingExtraError
from meshkit.registry.url import RegistryUrl
from meshkit.registry.zookeeper.options import read_options

if TYPE_CHECKING:
    from meshkit.registry.zookeeper.engine import ZooKeeperRegistry


def open_zookeeper(url: RegistryUrl) -> ZooKeeperRegistry:
    """Open ``zookeeper://HOST[:PORT],...[/PATH]`` or ``zookeeper+tls://``; see ``read_options``.

    Raises:
        RegistryUrlError: the URL, or a file it names, is not usable.
        MissingExtraError: kazoo is not installed.
    """
    options = read_options(url)
    try:
        import kazoo  # noqa: F401, PLC0415 - optional
    except ImportError:
        raise MissingExtraError(f"{url.scheme}://", "zookeeper") from None
    from meshkit.registry.zookeeper.engine import ZooKeeperRegistry  # noqa: PLC0415 - needs kazoo

    return ZooKeeperRegistry(url.text, options)
