"""The methods of HTTP, as httpx has them, and what they take beside a URL."""

from __future__ import annotations

import abc
from collections.abc import Coroutine, Mapping
from typing import Any, TypedDict, Unpack

from meshkit.client.headers import HeaderTypes
from meshkit.client.hedge import HedgePolicy
from meshkit.client.request import ContentTypes, ParamTypes, Values
from meshkit.client.response import Response
from meshkit.client.retry import IDEMPOTENT_METHODS, RetryPolicy
from meshkit.discovery.routing import Route

# Methods that always announce a body, if an empty one.
# https://www.rfc-editor.org/rfc/rfc9110#section-8.6
WITH_BODY = frozenset({"PATCH", "POST", "PUT"})
USUAL_METHODS = IDEMPOTENT_METHODS | WITH_BODY

# Of functions that only pass on a coroutine: one of their own would cost each call a little.
Answered = Coroutine[Any, Any, Response]


class Options(TypedDict, total=False):
    """What every method takes beside the URL.

    Keys:
        params: query parameters: a mapping, pairs or text; None is an empty value, a list
            repeats the name. They are merged into the query that the URL has.
        headers: a mapping or pairs; they replace the client's headers of the same names.
        timeout: seconds for the whole call, retries included; the client's when None.
        route: the instances that this call may go to, instead of the client's route.
        key: what the call is about (a user, a cart): calls with one key go to one instance, if
            the balancer is hash, and to one side of a split; instead of the client's ``sticky``.
        retry: when another instance is tried; the client's when None.
        hedge: when another instance is asked too; the client's when None.
        idempotent: whether the call may be made twice; by the method when None.
    """

    params: ParamTypes | None
    headers: HeaderTypes | None
    timeout: float | None
    route: Route | None
    key: str | None
    retry: RetryPolicy | None
    hedge: HedgePolicy | None
    idempotent: bool | None


class BodyOptions(Options, total=False):
    """What methods with a body take; at most one of the three.

    Keys:
        json: anything that JSON has a form for; pydantic models may stand anywhere in it.
        content: bytes, text or an async iterable of bytes, which is sent only once.
        data: a form.
    """

    json: Any
    content: ContentTypes | None
    data: Mapping[str, Values] | None


class Verbs(abc.ABC):
    """A function for each method, on top of the one for all."""

    @abc.abstractmethod
    def request(self, method: str, url: str, **options: Unpack[BodyOptions]) -> Answered:
        """Send a request and read the whole answer."""

    def get(self, url: str, **options: Unpack[Options]) -> Answered:
        """Send a GET request."""
        return self.request("GET", url, **options)

    def head(self, url: str, **options: Unpack[Options]) -> Answered:
        """Send a HEAD request."""
        return self.request("HEAD", url, **options)

    def options(self, url: str, **options: Unpack[Options]) -> Answered:
        """Send an OPTIONS request."""
        return self.request("OPTIONS", url, **options)

    def delete(self, url: str, **options: Unpack[Options]) -> Answered:
        """Send a DELETE request; with a body as ``request("DELETE", url, json=...)``."""
        return self.request("DELETE", url, **options)

    def post(self, url: str, **options: Unpack[BodyOptions]) -> Answered:
        """Send a POST request."""
        return self.request("POST", url, **options)

    def put(self, url: str, **options: Unpack[BodyOptions]) -> Answered:
        """Send a PUT request."""
        return self.request("PUT", url, **options)

    def patch(self, url: str, **options: Unpack[BodyOptions]) -> Answered:
        """Send a PATCH request."""
        return self.request("PATCH", url, **options)
