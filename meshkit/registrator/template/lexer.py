"""From a template's text to texts and actions, and from an action to tokens."""

from __future__ import annotations

import dataclasses
import json
import re

from meshkit.registrator.template.errors import TemplateError

# A comment, or an action; quotes hide braces, as in {{ "}}" }}.
BRACES = re.compile(
    r"""\{\{(?:-\s+)?/\*.*?\*/(?:\s+-)?\}\}
    |\{\{(?:-(?=\s))?
    (?P<body>(?:"(?:[^"\\]|\\.)*"|`[^`]*`|[^"`}]|\}(?!\}))*?)
    (?:(?<=\s)-)?\}\}""",
    re.DOTALL | re.VERBOSE,
)
LEFT_DASH = re.compile(r"\{\{-\s")
RIGHT_DASH = re.compile(r"\s-\}\}$")
TOKEN = re.compile(
    r"""(?P<space>\s+)
    |(?P<string>"(?:[^"\\\n]|\\.)*")
    |(?P<raw>`[^`]*`)
    |(?P<number>[+-]?(?:\d+\.\d*|\.?\d+))
    |(?P<variable>\$\w*)
    |(?P<field>\.[A-Za-z_]\w*)
    |(?P<dot>\.)
    |(?P<word>[A-Za-z_]\w*)
    |(?P<mark>:=|=|\||\(|\)|,)""",
    re.VERBOSE | re.ASCII,
)


@dataclasses.dataclass(frozen=True, slots=True)
class Token:
    """One word of an action; ``joined`` when no space stands before it."""

    kind: str
    text: str
    joined: bool = False


def split(source: str) -> list[tuple[str, str]]:
    """Return ("text" | "action", content) in order, spaces trimmed as the dashes ask."""
    parts: list[tuple[str, str]] = []
    end, trim = 0, False
    for match in BRACES.finditer(source):
        text = source[end : match.start()]
        text = text.rstrip() if LEFT_DASH.match(match.group()) else text
        _append_text(parts, text.lstrip() if trim else text)
        if match["body"] is not None:
            parts.append(("action", match["body"].strip()))
        end, trim = match.end(), bool(RIGHT_DASH.search(match.group()))
    text = source[end:]
    _append_text(parts, text.lstrip() if trim else text)
    return parts


def _append_text(parts: list[tuple[str, str]], text: str) -> None:
    if "{{" in text:
        raise TemplateError(f"-tags: an action is not closed: {text[text.index('{{') :]!r}")
    if text:
        parts.append(("text", text))


def tokens(action: str) -> list[Token]:
    """Return the tokens of an action. Raises TemplateError at what is none."""
    found: list[Token] = []
    position, spaced = 0, False
    while position < len(action):
        match = TOKEN.match(action, position)
        if match is None or match.lastgroup is None:
            raise TemplateError(f"-tags: {action[position:]!r} is not understood in {action!r}")
        position = match.end()
        if match.lastgroup == "space":
            spaced = True
            continue
        found.append(Token(match.lastgroup, match.group(), not spaced and bool(found)))
        spaced = False
    return found


def unquote(token: Token) -> str:
    """Return what a quoted string says."""
    if token.kind == "raw":
        return token.text[1:-1]
    try:
        return str(json.loads(token.text))
    except ValueError:
        raise TemplateError(f"-tags: {token.text} is not a string") from None
