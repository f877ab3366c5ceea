"""Finding the service to run: named, configured, or the only one there is."""

from __future__ import annotations

import difflib
import importlib
import inspect
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from types import ModuleType

from meshkit.cli.no_service import nameless, no_service
from meshkit.errors import ConfigError, MeshError
from meshkit.places import place, place_of_class
from meshkit.reasons import reason
from meshkit.service import MeshService

# Where a service is looked for when nothing names it, in a folder and in its packages.
MODULES = ("service", "app", "main", "api")
SKIPPED = {
    "src",
    "tests",
    "test",
    "docs",
    "build",
    "dist",
    "node_modules",
    "templates",
    "benchmarks",
}


def find_service(spec: str | None, *, configured: str | None) -> MeshService:
    """Return the service to run, made.

    Args:
        spec: ``module:Class``, ``module:object`` or ``module``, as given on the command line.
        configured: the same from ``[tool.meshkit] service`` or ``MESHKIT_SERVICE``.

    Raises:
        ConfigError: it can't be found or imported, or is not the only one.
    """
    for folder in (Path.cwd() / "src", Path.cwd()):
        if folder.is_dir() and str(folder) not in sys.path:
            sys.path.insert(0, str(folder))
    if named := spec or configured:
        return make(load(named))
    return make(the_only(likely_modules(), "here"))


def load(spec: str) -> type[MeshService] | MeshService:
    """Import ``module[:attribute]``; without an attribute the module must hold one service."""
    module_name, colon, attribute = spec.partition(":")
    named = all(part.isidentifier() for part in module_name.split("."))
    if not named or module_name.endswith(".py") or (colon and not attribute):
        likely = module_name.removesuffix(".py").strip("./").replace("/", ".")
        example = likely if module_name.endswith(".py") and likely else "users.service:Users"
        raise ConfigError(f"{spec!r}: name a module, as in `meshkit run {example}`")
    if not colon:
        return the_only([module_name], f"in {module_name}")
    module = import_module(module_name)
    value = getattr(module, attribute, None)
    if value is None:
        near = difflib.get_close_matches(attribute, candidates(module), n=1)
        hint = f"; did you mean {module_name}:{near[0]}?" if near else ""
        raise ConfigError(f"{module_name} has no {attribute!r}{hint}")
    if isinstance(value, MeshService) or (
        isinstance(value, type) and issubclass(value, MeshService)
    ):
        return value
    raise ConfigError(
        f"{spec} is not a MeshService; a FastAPI application becomes one with "
        "`service = MeshService.from_app(app, name=...)`"
    )


def candidates(module: ModuleType) -> dict[str, type[MeshService] | MeshService]:
    """Return the services that the module defines: its own named subclasses, and objects."""
    return {name: value for name, value in vars(module).items() if is_service(value, module)}


def is_service(value: object, module: ModuleType) -> bool:
    """Whether it is a service, or a named subclass that this very module defines."""
    if not isinstance(value, type):
        return isinstance(value, MeshService)
    own = issubclass(value, MeshService) and value.__module__ == module.__name__
    return own and bool(getattr(value, "name", ""))


def the_only(modules: Iterable[str], where: str) -> type[MeshService] | MeshService:
    """Return the single candidate of these modules.

    Raises:
        ConfigError: there is none, or several.
    """
    found: dict[str, type[MeshService] | MeshService] = {}
    names = list(modules)
    for module in names:
        for name, candidate in candidates(import_module(module)).items():
            found.setdefault(f"{module}:{name}", candidate)
    if not found:
        raise no_service(names, where)
    if len(found) > 1:
        raise ConfigError(f"several services found, name one of them: {', '.join(sorted(found))}")
    return next(iter(found.values()))


def make(service: type[MeshService] | MeshService) -> MeshService:
    """Return the service itself, calling its class without arguments if need be."""
    if isinstance(service, MeshService):
        return service
    if not service.name:
        raise nameless(service)
    check_arguments(service)
    try:
        return service()
    except MeshError:
        raise
    except Exception as error:
        raise ConfigError(
            f"{service.__module__}:{service.__qualname__} can't be made: "
            f"{reason(error)}{place(error)}"
        ) from error


def check_arguments(service: type[MeshService]) -> None:
    """Raise ConfigError when the class can't be called without arguments."""
    needed = [
        each.name
        for each in inspect.signature(service).parameters.values()
        if each.default is each.empty and each.kind not in (each.VAR_POSITIONAL, each.VAR_KEYWORD)
    ]
    if needed:
        name = service.__qualname__
        raise ConfigError(
            f"{service.__module__}:{name} needs {', '.join(needed)} to be made: give defaults, "
            f"or write `service = {name}(...)` in the module{place_of_class(service)}"
        )


def import_module(name: str) -> ModuleType:
    """Import a module, turning what goes wrong into one line that says where."""
    try:
        return importlib.import_module(name)
    except MeshError:
        raise
    except ModuleNotFoundError as error:
        if error.name and (name == error.name or name.startswith(f"{error.name}.")):
            raise ConfigError(f"no module named {name!r} in {Path.cwd()} or on sys.path") from error
        raise ConfigError(f"{name} can't be imported: {error}{place(error)}") from error
    except SyntaxError as error:
        where = f"{error.filename}:{error.lineno}"
        raise ConfigError(f"{name} can't be imported: {error.msg} ({where})") from error
    except (Exception, SystemExit) as error:  # a script without `if __name__ == "__main__"` exits
        raise ConfigError(f"{name} can't be imported: {reason(error)}{place(error)}") from error


def likely_modules() -> Iterator[str]:
    """Yield the modules of this folder (and its ``src``) that may hold a service."""
    for folder in (Path.cwd(), Path.cwd() / "src"):
        if not folder.is_dir():
            continue
        for module in MODULES:
            if (folder / f"{module}.py").is_file():
                yield module
        for package in sorted(folder.iterdir()):
            if package.name in SKIPPED or not package.name.isidentifier():
                continue
            for module in MODULES:
                if (package / f"{module}.py").is_file():
                    yield f"{package.name}.{module}"
