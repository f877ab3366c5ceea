"""``local://[NAMESPACE][?dir=FOLDER]``: the embedded registry, which needs nothing started.

One JSON file per instance, in a folder per service, readable with ``ls`` and ``cat``:

    <state folder>/registry/<namespace, or "default">/<service>/<id>.json

An instance is there as long as its process lives: the process holds a lock on ``<id>.lock``,
which the kernel frees however the process ends. All processes of one user on one machine meet in
a namespace, also containers that share the folder; other users' folders are refused.

Values are files too, in the folder ``_kv`` beside those of the services.
"""

from __future__ import annotations

from pathlib import Path

from meshkit.model import SERVICE_NAME
from meshkit.registry.local.registry import LocalRegistry
from meshkit.registry.url import RegistryUrl
from meshkit.state import private_dir, state_dir

__all__ = ["LocalRegistry", "open_local"]

NAMESPACE = "default"


def open_local(url: RegistryUrl) -> LocalRegistry:
    """Open a ``local://`` URL.

    Raises:
        RegistryUrlError: the namespace is not a DNS label, or an unknown parameter is given.
        ConfigError: the folder can't be made or written, or others may write to it.
    """
    url.only("dir")
    if url.username or url.path.strip("/"):
        raise url.error("expected local://NAMESPACE, with ?dir=FOLDER for a folder of your own")
    namespace = url.host or NAMESPACE
    if not SERVICE_NAME.fullmatch(namespace):
        raise url.error(f"namespace {namespace!r} must be lower-case letters, digits and '-'")
    if folder := url.params.get("dir"):
        path = [_folder(url, folder)]
    else:
        state = state_dir()
        path = [state, state / "registry"]
    path.append(path[-1] / namespace)
    for each in path:
        private_dir(each)
    return LocalRegistry(url.text, *path)


def _folder(url: RegistryUrl, text: str) -> Path:
    if "\0" in text:
        raise url.error("a folder's name can't hold a null character")
    try:
        return Path(text).expanduser().absolute()
    except RuntimeError as error:  # ~nobody
        raise url.error(str(error)) from None
