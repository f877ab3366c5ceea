"""What the protobuf compiler computes and a text template can't: a descriptor's bytes.

The rest of a stub is text in which names are replaced, so a project with gRPC is made without
protoc; a test holds the result against the real one.
"""

from __future__ import annotations

import dataclasses
import string
from typing import Any

ESCAPES = {ord(char): f"\\{mark}" for char, mark in zip("\n\r\t\"'\\", "nrt\"'\\", strict=True)}
PRINTABLE = range(0x20, 0x7F)
HEX_DIGITS = set(string.hexdigits.encode())


@dataclasses.dataclass(frozen=True, slots=True)
class Span:
    """Where a message or service stands within its file's serialized descriptor, in bytes."""

    name: str
    start: int
    end: int


@dataclasses.dataclass(frozen=True, slots=True)
class Descriptor:
    """A serialized file descriptor: the content of a bytes literal, and its top-level parts."""

    literal: str
    spans: tuple[Span, ...]


def descriptor(text: str) -> Descriptor:
    """Serialize a ``FileDescriptorProto`` given in protobuf's text format.

    Raises:
        ValueError: the text is not one.
    """
    from google.protobuf.descriptor_pb2 import FileDescriptorProto
    from google.protobuf.text_format import Parse, ParseError

    try:
        file = Parse(text, FileDescriptorProto())
    except ParseError as error:
        raise ValueError(f"not a FileDescriptorProto: {error}") from None
    data = file.SerializeToString(deterministic=True)
    parts = (*file.message_type, *file.service)
    return Descriptor(escape(data), tuple(_span(part, data) for part in parts))


def _span(part: Any, data: bytes) -> Span:
    serialized = part.SerializeToString(deterministic=True)
    start = data.index(serialized)
    return Span(part.name, start, start + len(serialized))


def escape(data: bytes) -> str:
    r"""Write bytes as protoc does: a hex digit after ``\xNN`` is escaped too, as C needs it."""
    written = []
    after_hex = False
    for byte in data:
        hexadecimal = byte not in ESCAPES and (
            byte not in PRINTABLE or (after_hex and byte in HEX_DIGITS)
        )
        written.append(f"\\x{byte:02x}" if hexadecimal else ESCAPES.get(byte, chr(byte)))
        after_hex = hexadecimal
    return "".join(written)
