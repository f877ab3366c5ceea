"""Python microservices with built-in registration.

Subclass :class:`MeshService`, type ``meshkit run``, and the service binds a free port, registers
itself, is health-checked, found by name, balanced, drained and deregistered.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from meshkit.errors import (
    AnswerTooLarge,
    BindError,
    BreakerOpen,
    BulkheadFull,
    CallError,
    CallTimeout,
    ConfigError,
    ConnectError,
    ConnectionLost,
    HTTPStatusError,
    LeaseLost,
    MeshError,
    MissingExtraError,
    NoInstances,
    RegistryDenied,
    RegistryError,
    RegistryUnavailable,
    RegistryUrlError,
    StartError,
    Unsupported,
    WebSocketClosed,
    WrongInstance,
)

if TYPE_CHECKING:
    from meshkit import context
    from meshkit.client.breaker import BreakerPolicy
    from meshkit.client.bulkhead import BulkheadPolicy
    from meshkit.client.declared import grpc_client, http_client
    from meshkit.client.explanation import Explanation
    from meshkit.client.hedge import HedgePolicy
    from meshkit.client.http import HttpClient
    from meshkit.client.httpx_transport import MeshTransport
    from meshkit.client.mesh import Mesh
    from meshkit.client.response import Response
    from meshkit.client.retry import RetryPolicy
    from meshkit.config.declared import live_config
    from meshkit.config.live import LiveConfig
    from meshkit.context import CallContext, deadline_in, remaining
    from meshkit.discovery.balancing import Balancer, Candidate, Outcome
    from meshkit.discovery.ejection import EjectionPolicy
    from meshkit.discovery.routing.route import Route
    from meshkit.model import Endpoint, Instance, ServiceInfo, Snapshot, Status
    from meshkit.runtime import Runtime
    from meshkit.service import (
        MeshService,
        delete,
        get,
        health_check,
        patch,
        post,
        put,
        websocket,
    )
    from meshkit.settings import MeshSettings

__version__ = "0.1.0"

__all__ = [
    "AnswerTooLarge",
    "Balancer",
    "BindError",
    "BreakerOpen",
    "BreakerPolicy",
    "BulkheadFull",
    "BulkheadPolicy",
    "CallContext",
    "CallError",
    "CallTimeout",
    "Candidate",
    "ConfigError",
    "ConnectError",
    "ConnectionLost",
    "EjectionPolicy",
    "Endpoint",
    "Explanation",
    "HTTPStatusError",
    "HedgePolicy",
    "HttpClient",
    "Instance",
    "LeaseLost",
    "LiveConfig",
    "Mesh",
    "MeshError",
    "MeshService",
    "MeshSettings",
    "MeshTransport",
    "MissingExtraError",
    "NoInstances",
    "Outcome",
    "RegistryDenied",
    "RegistryError",
    "RegistryUnavailable",
    "RegistryUrlError",
    "Response",
    "RetryPolicy",
    "Route",
    "Runtime",
    "ServiceInfo",
    "Snapshot",
    "StartError",
    "Status",
    "Unsupported",
    "WebSocketClosed",
    "WrongInstance",
    "context",
    "deadline_in",
    "delete",
    "get",
    "grpc_client",
    "health_check",
    "http_client",
    "live_config",
    "patch",
    "post",
    "put",
    "remaining",
    "websocket",
]

# Imported on use: `meshkit --help` needs none of them, a script no server.
_HOME = {
    "meshkit.client.breaker": "BreakerPolicy",
    "meshkit.client.bulkhead": "BulkheadPolicy",
    "meshkit.client.declared": "grpc_client http_client",
    "meshkit.client.explanation": "Explanation",
    "meshkit.client.hedge": "HedgePolicy",
    "meshkit.client.http": "HttpClient",
    "meshkit.client.httpx_transport": "MeshTransport",
    "meshkit.client.mesh": "Mesh",
    "meshkit.client.response": "Response",
    "meshkit.client.retry": "RetryPolicy",
    "meshkit.config.declared": "live_config",
    "meshkit.config.live": "LiveConfig",
    "meshkit.context": "CallContext deadline_in remaining",
    "meshkit.discovery.balancing": "Balancer Candidate Outcome",
    "meshkit.discovery.ejection": "EjectionPolicy",
    "meshkit.discovery.routing.route": "Route",
    "meshkit.model": "Endpoint Instance ServiceInfo Snapshot Status",
    "meshkit.runtime": "Runtime",
    "meshkit.service": "MeshService delete get health_check patch post put websocket",
    "meshkit.settings": "MeshSettings",
}
_MODULE_OF = {name: module for module, names in _HOME.items() for name in names.split()}


def __getattr__(name: str) -> Any:
    if name == "context":
        return importlib.import_module("meshkit.context")  # a module, which Python keeps here
    if name not in _MODULE_OF:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(importlib.import_module(_MODULE_OF[name]), name)
    globals()[name] = value
    return value
