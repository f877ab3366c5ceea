"""What a caller passes, made into what goes over the wire: path and query, and body."""

from __future__ import annotations

import json
import re
from collections.abc import AsyncIterable, AsyncIterator, Iterable, Mapping, Sequence
from typing import Any
from urllib.parse import parse_qsl, quote, urlencode

from meshkit.client.transport import Content
from meshkit.errors import ConfigError

Primitive = str | int | float | bool | None
Values = Primitive | Sequence[Primitive]
ParamTypes = Mapping[str, Values] | Sequence[tuple[str, Values]] | str
ContentTypes = str | bytes | AsyncIterable[bytes]

JSON = "application/json"
FORM = "application/x-www-form-urlencoded"

METHOD = re.compile(r"[A-Z][A-Z-]*")
ORIGIN = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*)://([^/?#]*)")
# What may stand in a path and in a query as it is; '%' because it may be encoded already.
# https://www.rfc-editor.org/rfc/rfc3986#section-3.3
PATH = "/:@!$&'()*+,;=~-._%"
QUERY = PATH + "?"
PLAIN = re.compile(r"/[A-Za-z0-9/_~:@,;=+-]*")  # most paths: nothing to encode or to refuse
DOTS = re.compile(r"/(\.|%2e){1,2}(/|$)", re.IGNORECASE)


def encode_url(service: str, url: str, params: ParamTypes | None = None) -> tuple[str, str]:
    """Return the encoded path and the query with its ``?`` (empty when there is none).

    Args:
        service: the name that an absolute URL has to have as its host.
        url: a path, or ``http://<service>/path``; a query in it is kept, a fragment is not.
        params: merged into the query; a name given here replaces its values there.

    Raises:
        ConfigError: the URL names another host or scheme, or its path has ``.`` or ``..`` in it.
    """
    if not params and PLAIN.fullmatch(url):
        return url, ""
    if (origin := ORIGIN.match(url)) is not None:
        if origin.groups() != ("http", service):
            host = origin[2].rpartition("@")[2]  # without credentials
            raise ConfigError(
                f"{service}: {origin[1]}://{host} is not this service: give a path, as in "
                f"'/users/1' (or http://{service}/...), or make a client for the other one"
            )
        url = url[origin.end() :]
    path, _, query = url.partition("#")[0].partition("?")
    path = quote(path if path.startswith("/") else f"/{path}", safe=PATH)
    if DOTS.search(path):
        # Resolved on the way, it would reach another resource than the one that was written:
        # f"/users/{name}" with a name of "..".
        raise ConfigError(f"{service}: the path {path!r} must not have '.' or '..' as a part")
    query = quote(query, safe=QUERY)
    if params:
        query = _merge(query, params)
    return path, f"?{query}" if query else ""


def _merge(query: str, params: ParamTypes) -> str:
    grouped: dict[str, list[str]] = {}
    for name, value in parse_qsl(query, keep_blank_values=True):
        grouped.setdefault(name, []).append(value)
    own: dict[str, list[str]] = {}
    for name, value in _pairs(params):
        own.setdefault(name, []).append(value)
    return urlencode(grouped | own, doseq=True)


def _pairs(params: ParamTypes) -> Iterable[tuple[str, str]]:
    if isinstance(params, str):
        yield from parse_qsl(params, keep_blank_values=True)
        return
    for name, value in params.items() if isinstance(params, Mapping) else params:
        if isinstance(value, list | tuple):
            yield from ((str(name), _text(each)) for each in value)
        else:
            yield str(name), _text(value)


def _text(value: object) -> str:
    if value is None:
        return ""
    if isinstance(value, bool):
        return "true" if value else "false"
    return str(value)


def encode_body(
    value: Any, content: ContentTypes | None, data: Mapping[str, Values] | None
) -> tuple[Content, str | None]:
    """Return the body and its content type, from the one of ``json``, ``content``, ``data`` given.

    Raises:
        ConfigError: more than one is given, or one is of a type that can't be sent.
    """
    if value is None and content is None and data is None:
        return None, None
    if (value is not None) + (content is not None) + (data is not None) > 1:
        raise ConfigError("give only one of json=, content= and data=: a request has one body")
    if value is not None:
        return encode_json(value), JSON
    if data:
        return urlencode(list(_pairs(data))).encode() or None, FORM
    if content is None:
        return None, None
    if isinstance(content, str):
        return content.encode() or None, None
    if isinstance(content, bytes | bytearray | memoryview):
        return bytes(content) or None, None
    if isinstance(content, AsyncIterable):
        return StreamedBody(content), None
    raise ConfigError(
        f"content= must be bytes, str or an async iterable of bytes, not {type(content).__name__}"
    )


def _plain(value: Any) -> Any:
    """Make a pydantic model into what JSON knows, with the names that FastAPI reads and writes."""
    dump = getattr(value, "model_dump", None)
    if dump is None:
        raise TypeError(f"{type(value).__name__} can't be sent as JSON")
    return dump(mode="json", by_alias=True)


_encode = json.JSONEncoder(
    ensure_ascii=False, separators=(",", ":"), allow_nan=False, default=_plain
).encode


def encode_json(value: Any) -> bytes:
    """Encode as httpx does (compact, UTF-8); pydantic models may stand anywhere in ``value``.

    Raises:
        ConfigError: it holds something that JSON has no form for.
    """
    try:
        return _encode(value).encode()
    except (TypeError, ValueError) as error:
        raise ConfigError(f"json= can't be encoded: {error}") from error


class StreamedBody:
    """A body that comes in pieces, from a source that can be read only once."""

    __slots__ = ("_source", "started")

    def __init__(self, source: AsyncIterable[bytes]) -> None:
        self._source = source
        self.started = False

    async def __aiter__(self) -> AsyncIterator[bytes]:
        # A generator, so that it starts with the first piece asked for, not with the asking
        # for an iterator: a refused connection leaves the source untouched.
        self.started = True
        async for piece in self._source:
            yield piece


def is_replayable(content: Content) -> bool:
    """Whether the body can be sent from its beginning (still, or once more)."""
    return not (isinstance(content, StreamedBody) and content.started)
