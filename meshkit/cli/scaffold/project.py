"""The names that a new project is made of, and which of them may not be used."""

from __future__ import annotations

import builtins
import dataclasses
import importlib.util
import keyword
import sys
from importlib.metadata import version
from pathlib import Path

from meshkit.errors import ConfigError
from meshkit.model import check_service_name

LINE_LENGTH = 100
FOLDERS = {"tests", "proto"}
# Classes that the template's modules define or import, beside the service's own.
CLASSES = {
    *("Annotated", "Any", "AsyncIterator", "BaseModel", "BaseSettings", "ConfigDict", "Context"),
    *("CreateItemRequest", "Field", "GetItemRequest", "HTTPException", "HttpClient", "Item"),
    *("ItemStore", "ListItemsRequest", "ListItemsResponse", "Mesh", "MeshService", "NewItem"),
    *("Query", "REGISTRY", "Runtime", "Settings", "SettingsConfigDict", "Stub", "ValidationError"),
}
# protoc writes names in upper case, so they may not differ in case alone.
TAKEN = {name.upper() for name in (*CLASSES, *dir(builtins), *keyword.kwlist)}


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Project:
    """A service project to be made.

    Attributes:
        name: of the service, one DNS label.
        root: its folder.
        http, grpc: the transports it serves, at least one.
    """

    name: str
    root: Path
    http: bool
    grpc: bool

    def __post_init__(self) -> None:
        try:
            check_service_name(self.name)
        except ValueError as error:
            raise ConfigError(str(error)) from None
        if not self.http and not self.grpc:
            raise ConfigError("a service needs a transport: leave out --no-http, or add --grpc")
        self._check_module(self.package)
        if self.grpc:
            self._check_module(self.api)

    @property
    def package(self) -> str:
        """The Python package of the service."""
        return self.name.replace("-", "_")

    @property
    def api(self) -> str:
        """The Python package of the generated stubs."""
        return f"{self.package}_api"

    @property
    def class_name(self) -> str:
        """The service's class, also its name in the proto."""
        name = "".join(part.capitalize() for part in self.name.split("-"))
        while name.upper() in TAKEN:
            name += "Service"
        return name

    def context(self) -> dict[str, object]:
        """Return what a template may use."""
        from google.protobuf import runtime_version as protobuf

        return {
            "name": self.name,
            "package": self.package,
            "api": self.api,
            "class_name": self.class_name,
            "env_prefix": f"{self.package.upper()}_",
            "http": self.http,
            "grpc": self.grpc,
            "line_length": LINE_LENGTH,
            "meshkit_version": version("meshkit"),
            # Like protoc, which lets stubs run on its own version and later.
            "grpc_version": version("grpcio"),
            # Their patch releases do not go together: grpcio 1.85.3 has no such grpcio-tools.
            "grpc_tools_version": version("grpcio").rpartition(".")[0],
            "protobuf_version": f"{protobuf.MAJOR}.{protobuf.MINOR}.{protobuf.PATCH}",
        }

    def _check_module(self, module: str) -> None:
        if reason := self._unusable(module):
            raise ConfigError(
                f"service name {self.name!r} can't be used: its Python package {module!r} "
                f"{reason}; choose another name"
            )

    def _unusable(self, module: str) -> str:
        if keyword.iskeyword(module):
            return "would be a keyword"
        if module in sys.stdlib_module_names:
            return "would hide a module of Python's standard library"
        if module in FOLDERS:
            return f"would be the project's {module}/ folder"
        place = installed(module)
        if place is not None and not place.is_relative_to(self.root.resolve()):
            return f"would hide the one at {place}"
        return ""


def installed(module: str) -> Path | None:
    """Return where a top-level module is imported from, None when there is none."""
    spec = importlib.util.find_spec(module)
    if spec is None:
        return None
    places = list(spec.submodule_search_locations or ()) or [spec.origin or module]
    return Path(places[0]).resolve()
