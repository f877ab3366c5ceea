"""MeshService and its decorators: what a service is. Declaration only; nothing here does I/O."""

from __future__ import annotations

import dataclasses
import functools
import inspect
import logging
import sys
import threading
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, ClassVar, TypedDict, TypeVar, Unpack, overload

from meshkit import identity
from meshkit.config.declared import check_settings
from meshkit.errors import (
    BreakerOpen,
    BulkheadFull,
    CallError,
    CallTimeout,
    ConfigError,
    NoInstances,
)
from meshkit.model import check_metadata, check_service_name

if TYPE_CHECKING:
    from fastapi import FastAPI, Request, Response
    from fastapi.params import Depends

    from meshkit.client.mesh import Mesh

F = TypeVar("F", bound=Callable[..., Any])

log = logging.getLogger("meshkit.service")

ROUTES = "__meshkit_routes__"
CHECK = "__meshkit_check__"
WEBSOCKET = "WEBSOCKET"


class RouteOptions(TypedDict, total=False):
    """What FastAPI's ``app.get()`` and its kin take beside the path."""

    response_model: Any
    status_code: int | None
    tags: list[str] | None
    dependencies: Sequence[Depends] | None
    summary: str | None
    description: str | None
    response_description: str
    responses: dict[int | str, dict[str, Any]] | None
    deprecated: bool | None
    operation_id: str | None
    response_model_include: Any
    response_model_exclude: Any
    response_model_by_alias: bool
    response_model_exclude_unset: bool
    response_model_exclude_defaults: bool
    response_model_exclude_none: bool
    include_in_schema: bool
    response_class: Any
    name: str | None
    openapi_extra: dict[str, Any] | None


@dataclasses.dataclass(frozen=True, slots=True)
class Route:
    """A route declared on a method: its HTTP method (or WEBSOCKET), path and FastAPI options."""

    method: str
    path: str
    options: Mapping[str, Any]


@dataclasses.dataclass(frozen=True, slots=True)
class Check:
    """A health check: its name and its own time limit in seconds, if it has one."""

    name: str
    timeout: float | None
    run: Callable[[], object]


def _route(method: str, path: str, options: Mapping[str, Any]) -> Callable[[F], F]:
    if callable(path):  # the decorator was used without parentheses
        name = getattr(path, "__qualname__", path)
        raise ConfigError(f'@{method.lower()} of {name} needs a path: @{method.lower()}("/...")')

    def mark(function: F) -> F:
        routes = (*getattr(function, ROUTES, ()), Route(method, path, options))
        setattr(function, ROUTES, routes)
        return function

    return mark


def get(path: str, **options: Unpack[RouteOptions]) -> Callable[[F], F]:
    """Serve GET requests for ``path`` with this method; options as in FastAPI's ``app.get``."""
    return _route("GET", path, options)


def post(path: str, **options: Unpack[RouteOptions]) -> Callable[[F], F]:
    """Serve POST requests for ``path`` with this method; options as in FastAPI's ``app.post``."""
    return _route("POST", path, options)


def put(path: str, **options: Unpack[RouteOptions]) -> Callable[[F], F]:
    """Serve PUT requests for ``path`` with this method; options as in FastAPI's ``app.put``."""
    return _route("PUT", path, options)


def patch(path: str, **options: Unpack[RouteOptions]) -> Callable[[F], F]:
    """Serve PATCH requests for ``path`` with this method; options as in FastAPI's ``app.patch``."""
    return _route("PATCH", path, options)


def delete(path: str, **options: Unpack[RouteOptions]) -> Callable[[F], F]:
    """Serve DELETE requests for ``path`` with this method; options as in ``app.delete``."""
    return _route("DELETE", path, options)


def websocket(
    path: str, *, name: str | None = None, dependencies: Sequence[Depends] | None = None
) -> Callable[[F], F]:
    """Serve WebSocket connections to ``path`` with this method (extra ``meshkit[websocket]``)."""
    return _route(WEBSOCKET, path, {"name": name, "dependencies": dependencies})


@overload
def health_check(function: F, /) -> F: ...
@overload
def health_check(*, name: str | None = None, timeout: float | None = None) -> Callable[[F], F]: ...
def health_check(
    function: F | None = None, /, *, name: str | None = None, timeout: float | None = None
) -> F | Callable[[F], F]:
    """Mark a method without arguments as a readiness check.

    It fails by raising, by returning False, or by taking longer than ``timeout`` seconds (the
    setting ``check_timeout`` when None). While one check fails the service is not ready: it
    answers 503 on ``/health/ready`` and other services do not call it.
    """

    def mark(function: F) -> F:
        setattr(function, CHECK, (name or function.__name__, timeout))
        return function

    return mark(function) if function is not None else mark


class MeshService:
    """Base class of a service.

    Class attributes:
        name: what others find it by; one DNS label. Required, except on a base class.
        version: free text, by convention a semantic version.
        tags: short words that consumers filter by.
        metadata: text pairs; see :func:`meshkit.model.check_metadata` for the limits.
        weight: share of traffic relative to the other instances, 1-65535.

    Methods marked with ``@get`` and its kin are FastAPI routes, generated gRPC servicers among
    the base classes are served, and ``self.app`` is the FastAPI application.
    """

    name: ClassVar[str] = ""
    version: ClassVar[str] = ""
    tags: ClassVar[Sequence[str]] = ()
    metadata: ClassVar[Mapping[str, str]] = MappingProxyType({})
    weight: ClassVar[int] = 1

    _mesh: Mesh | None = None
    _lent: Mapping[int, Mesh] = MappingProxyType(
        {}
    )  # by thread, for those with a loop of their own

    def __init_subclass__(cls, **options: Any) -> None:
        super().__init_subclass__(**options)
        check_declaration(cls)

    @staticmethod
    def from_app(
        app: FastAPI,
        *,
        name: str,
        version: str | None = None,
        tags: Sequence[str] = (),
        metadata: Mapping[str, str] = MappingProxyType({}),
        weight: int = 1,
    ) -> MeshService:
        """Put an existing FastAPI application on the mesh without subclassing.

        Its version is the application's, and none where that is just FastAPI's default.

        Raises:
            ConfigError: the name, a tag or the metadata is not usable.
        """
        from fastapi import FastAPI  # noqa: PLC0415 - a gRPC-only service never needs it

        if version is None:
            default = inspect.signature(FastAPI).parameters["version"].default
            version = "" if app.version == default else app.version
        attributes = {
            "name": name,
            "version": version,
            "tags": tuple(tags),
            "metadata": metadata,
            "weight": weight,
        }
        service: MeshService = type("AppService", (MeshService,), attributes)()
        service.__dict__["app"] = app
        return service

    @functools.cached_property
    def app(self) -> FastAPI:
        """The FastAPI application with this class's routes; add routers and middleware to it.

        Raises:
            ConfigError: FastAPI can't make a route of a method.
        """
        from fastapi import FastAPI  # noqa: PLC0415 - a gRPC-only service never needs it

        app = FastAPI(title=self.name or type(self).__name__, version=self.version or "0.0.0")
        app.add_exception_handler(CallError, answer_call_error)
        for attribute, route in routes(type(self)):
            endpoint = getattr(self, attribute)
            try:
                if route.method == WEBSOCKET:
                    app.add_api_websocket_route(route.path, endpoint, **route.options)
                else:
                    app.add_api_route(route.path, endpoint, methods=[route.method], **route.options)
            except Exception as error:
                method = f"{type(self).__qualname__}.{attribute}"
                reason = " ".join(str(error).split())
                raise ConfigError(f"{method}: FastAPI refuses the route: {reason}") from error
        return app

    @property
    def mesh(self) -> Mesh:
        """The way to other services; there while the service runs.

        Raises:
            ConfigError: the service is not running.
        """
        if self._mesh is None:
            raise ConfigError(
                f"{type(self).__name__} is not running, so it can't call other services; "
                "run it with `meshkit run` or `async with Runtime(service):`"
            )
        return self._lent.get(threading.get_ident(), self._mesh) if self._lent else self._mesh

    @mesh.setter
    def mesh(self, mesh: Mesh | None) -> None:
        self._mesh = mesh

    def lend(self, mesh: Mesh | None, thread: int) -> None:
        """Let code that runs in this thread have a mesh of its own; None to end that."""
        others = {key: each for key, each in self._lent.items() if key != thread}
        self._lent = others if mesh is None else {**others, thread: mesh}

    async def on_start(self) -> None:
        """Prepare what handlers need. Runs after the ports are bound, before the first call."""

    async def on_stop(self) -> None:
        """Undo ``on_start``. Runs after the last call; outgoing clients still work."""


async def answer_call_error(_request: Request, error: Exception) -> Response:
    """Answer for a handler that let the error of an outgoing call pass: 503, 504 or 502.

    The detail names the service that was called, not its instances. The answer tells meshkit's
    callers not to repeat it when the call has had its retries down here.
    """
    from fastapi.responses import JSONResponse  # noqa: PLC0415 - a gRPC-only service never needs it

    log.warning("answering for a failed call: %s", error)
    service = str(error).partition(":")[0]
    headers = {}
    if isinstance(error, CallError) and error.final:
        headers[identity.NO_RETRY] = "1"
    if isinstance(error, NoInstances | BulkheadFull | BreakerOpen):
        detail, headers["retry-after"] = f"{service} is not available", "1"
        return JSONResponse({"detail": detail}, 503, headers)
    if isinstance(error, CallTimeout):
        return JSONResponse({"detail": f"{service} did not answer in time"}, 504, headers)
    return JSONResponse({"detail": f"the call to {service} failed"}, 502, headers)


def routes(cls: type[MeshService]) -> Iterator[tuple[str, Route]]:
    """Yield (attribute, route) for each declared route, base classes first.

    An override without a decorator keeps the route of the method it overrides.
    """
    declared: dict[str, tuple[Route, ...]] = {}
    for base in reversed(cls.__mro__):
        for attribute, value in vars(base).items():
            if found := getattr(value, ROUTES, ()):
                declared[attribute] = found
    for attribute, found in declared.items():
        for route in found:
            yield attribute, route


def servicers(cls: type[MeshService]) -> list[Callable[[Any, Any], None]]:
    """Return ``add_XServicer_to_server`` of each generated servicer among the bases."""
    found = []
    for base in cls.__mro__:
        if base.__name__.endswith("Servicer"):
            module = sys.modules.get(base.__module__)
            add = getattr(module, f"add_{base.__name__}_to_server", None)
            if callable(add):
                found.append(add)
    return found


def serves_http(service: MeshService) -> bool:
    """Whether it has anything to say over HTTP: routes, or an application that was touched."""
    declared = next(routes(type(service)), None) is not None
    return declared or "app" in vars(service) or not servicers(type(service))


def health_checks(service: MeshService) -> list[Check]:
    """Return the service's health checks, bound and ready to run."""
    checks = []
    for attribute in dir(type(service)):
        mark = getattr(getattr(type(service), attribute, None), CHECK, None)
        if mark is not None:
            checks.append(Check(mark[0], mark[1], getattr(service, attribute)))
    return checks


def check_declaration(cls: type[MeshService]) -> None:
    """Raise ConfigError for what is wrong in a class body, naming the class."""
    try:
        if cls.name:
            check_service_name(cls.name)
        if not isinstance(cls.version, str):
            raise ValueError(  # noqa: TRY004 - told as all that is wrong here
                f"version {cls.version!r} must be text, as in '1.2.0'"
            )
        check_metadata(cls.metadata)
        tags: object = cls.tags
        if not isinstance(tags, list | tuple) or not all(isinstance(tag, str) for tag in tags):
            raise ValueError("tags must be a sequence of words, as in ('v1', 'blue')")
        if cls.weight not in range(1, 65536):
            raise ValueError(f"weight {cls.weight!r} must be a whole number from 1 to 65535")
        check_settings(cls, cls.name)
    except ValueError as error:
        raise ConfigError(f"{cls.__qualname__}: {error}") from None
    _check_routes(cls)


def _check_routes(cls: type[MeshService]) -> None:
    seen: dict[tuple[str, str], str] = {}
    for attribute, route in routes(cls):
        if not route.path.startswith("/"):
            raise ConfigError(
                f"{cls.__qualname__}.{attribute}: the path {route.path!r} must start with '/'"
            )
        other = seen.setdefault((route.method, route.path), attribute)
        if other != attribute:
            raise ConfigError(
                f"{cls.__qualname__}: duplicate route {route.method} {route.path}, "
                f"declared by {other} and {attribute}"
            )


HealthCheck = Callable[[], object | Awaitable[object]]
