"""The head of a request, as bytes."""

from __future__ import annotations

from meshkit.client.http1.encoding import ACCEPTED
from meshkit.client.transport import Request
from meshkit.errors import ConfigError

SCHEME = "http://"
DEFAULTS = {"accept": "*/*", "accept-encoding": ACCEPTED, "user-agent": "meshkit"}
# How the message ends is ours to say: two answers to that are how requests are smuggled.
FRAMING = frozenset({"content-length", "transfer-encoding"})


def authority(url: str) -> str:
    """Return ``host:port`` of an absolute URL."""
    return url[len(SCHEME) :].partition("/")[0]


def encode_head(request: Request) -> tuple[bytes, int | None]:
    """Return the head with its empty line, and the length that a streamed body must have.

    The length is None for a body in chunks, and for one that is no stream.
    """
    host, _, target = request.url[len(SCHEME) :].partition("/")
    lines = [f"{request.method} /{target} HTTP/1.1"]
    names = set()
    length = None
    for name, value in request.headers:
        lower = name.lower()
        names.add(lower)
        if lower not in FRAMING:
            lines.append(f"{name}: {value}")
        elif lower == "content-length":
            length = value
    if "host" not in names:
        lines.insert(1, f"host: {host}")
    lines += [f"{name}: {value}" for name, value in DEFAULTS.items() if name not in names]
    content = request.content
    declared = None
    if isinstance(content, bytes):
        lines.append(f"content-length: {len(content)}")
    elif content is None:
        if length is not None:
            lines.append("content-length: 0")
    elif length is None:
        lines.append("transfer-encoding: chunked")
    else:
        declared = _checked(length)
        lines.append(f"content-length: {declared}")
    return "\r\n".join([*lines, "\r\n"]).encode(), declared


def _checked(length: str) -> int:
    if not (length.isascii() and length.isdecimal()):
        raise ConfigError(f"header 'content-length': {length!r} is not a number of bytes")
    return int(length)
