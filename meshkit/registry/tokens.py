"""Tokens that a registry's server wants to see with each request; for any engine."""

from __future__ import annotations

from pathlib import Path

from meshkit.errors import RegistryDenied


def is_word(text: str) -> bool:
    """Whether it can stand in a header."""
    return bool(text) and text.isascii() and text.isprintable() and " " not in text


def read_token_file(file: Path, *, whose: str) -> str:
    """Return the token in the file. Raises RegistryDenied, which never shows what is in it.

    Args:
        file: read anew each time, as tokens rotate.
        whose: such as ``Consul's``, for the error.
    """
    try:
        token = file.read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not text"
        raise RegistryDenied(f"{whose} token file {file} can't be read: {reason}") from None
    if not token:
        raise RegistryDenied(f"{whose} token file {file} holds no token")
    if not is_word(token):
        raise RegistryDenied(f"{whose} token file {file} holds characters that can't be sent")
    return token
