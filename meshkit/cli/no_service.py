"""What is said when there is no service to run: what was probably meant, and what to do."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator

from meshkit.errors import ConfigError
from meshkit.places import place_of_class
from meshkit.service import MeshService


def no_service(modules: Iterable[str], where: str) -> ConfigError:
    """Return the error for these modules, which have been imported and hold no service.

    Args:
        modules: their names.
        where: for the message, as in "here" or "in users.service".
    """
    names = list(modules)
    for module in names:
        for cls in classes(module):
            if not cls.name:
                return nameless(cls)
    for module in names:
        if app := application(module):
            return ConfigError(
                f"{module}:{app} is a FastAPI application and no service yet: add "
                f'`service = MeshService.from_app({app}, name="...")` beside it'
            )
    return ConfigError(
        f"no MeshService found {where}: name it as in `meshkit run users.service:Users`, "
        "or set `service` in [tool.meshkit] of pyproject.toml"
    )


def classes(module: str) -> Iterator[type[MeshService]]:
    """Yield the services that this module defines, with a name or without."""
    for value in vars(sys.modules[module]).values():
        if not isinstance(value, type) or value.__module__ != module:
            continue
        if issubclass(value, MeshService):
            yield value


def nameless(cls: type[MeshService]) -> ConfigError:
    """Return the error for a class that has forgotten its name."""
    return ConfigError(
        f'{cls.__module__}:{cls.__qualname__} has no name: set `name = "..."` in its class'
        f"{place_of_class(cls)}"
    )


def application(module: str) -> str:
    """Return the name of a FastAPI application in this module; "" when it has none."""
    fastapi = sys.modules.get("fastapi")  # who has made one has imported it
    if fastapi is None:
        return ""
    found = vars(sys.modules[module]).items()
    return next((name for name, value in found if isinstance(value, fastapi.FastAPI)), "")
