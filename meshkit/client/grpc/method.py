"""One method of a service, and whether it may run twice."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from meshkit.client.grpc.pool import Link
from meshkit.discovery.target import Pick

if TYPE_CHECKING:
    from meshkit.client.grpc.channel import MeshChannel

Codec = Callable[[Any], Any] | None


class Method:
    """What a stub keeps for each method; calling it makes a call (see the subclasses).

    Attributes:
        channel: to the service.
        path: ``/package.Service/Method``.
        idempotent: it may run twice.
    """

    kind = ""

    def __init__(
        self, channel: MeshChannel, path: str, serialize: Codec, deserialize: Codec, *, known: bool
    ) -> None:
        self.channel = channel
        self.path = path
        self.idempotent = channel.names_idempotent(path) or declares_idempotent(path)
        self._codecs = (serialize, deserialize)
        self._known = known  # to the generated code, which lets gRPC look it up in advance
        self._bound: dict[str, tuple[Link, Callable[..., Any]]] = {}

    def bind(self, pick: Pick) -> tuple[Link, Callable[..., Any]]:
        """Return the link to the picked instance, and gRPC's own form of the method on it."""
        instance = pick.instance
        link = self.channel.pool.link(instance, pick.endpoint)
        bound = self._bound.get(instance.id)
        if bound is None or bound[0] is not link:
            # Those of closed channels would keep them in memory.
            self._bound = {k: each for k, each in self._bound.items() if not each[0].retired}
            make: Callable[..., Any] = getattr(link.channel, self.kind)
            bound = link, make(self.path, *self._codecs, _registered_method=self._known)
            self._bound[instance.id] = bound
        return bound


@functools.cache
def declares_idempotent(path: str) -> bool:
    """Whether the method's proto sets ``idempotency_level`` to anything but unknown.

    Looked up in the default descriptor pool, where generated code registers; a method that is
    not there declares nothing.
    """
    from google.protobuf import descriptor_pb2, descriptor_pool  # noqa: PLC0415 - slow to import

    service, _, name = path.lstrip("/").rpartition("/")
    try:
        methods = descriptor_pool.Default().FindServiceByName(service).methods_by_name
        level = methods[name].GetOptions().idempotency_level
    except KeyError:
        return False
    return bool(level != descriptor_pb2.MethodOptions.IDEMPOTENCY_UNKNOWN)
