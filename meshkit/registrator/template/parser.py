"""From tokens to the tree."""

from __future__ import annotations

from collections.abc import Sequence

from meshkit.registrator.template.errors import TemplateError
from meshkit.registrator.template.functions import FUNCTIONS
from meshkit.registrator.template.lexer import Token, split, tokens, unquote
from meshkit.registrator.template.nodes import (
    Call,
    Expression,
    Field,
    If,
    Literal,
    Node,
    Output,
    Range,
    Text,
    Variable,
)

CONSTANTS = {"true": True, "false": False, "nil": None}
BLOCKS = ("if", "with", "range")
UNSUPPORTED = ("define", "template", "block", "break", "continue")


def parse(source: str) -> tuple[Node, ...]:
    """Return the nodes of a template. Raises TemplateError when it is malformed."""
    return _Template(source).nodes()


class _Template:
    """Reads texts and actions; blocks by recursion."""

    def __init__(self, source: str) -> None:
        self._parts = split(source)
        self._next = 0

    def nodes(self) -> tuple[Node, ...]:
        nodes, end = self._until_end()
        if end:
            raise TemplateError(f"-tags: {{{{{end}}}}} without a block that it belongs to")
        return nodes

    def _until_end(self) -> tuple[tuple[Node, ...], str]:
        """Return the nodes up to an ``end`` or ``else`` (which is returned), or up to the last."""
        nodes: list[Node] = []
        while self._next < len(self._parts):
            kind, content = self._parts[self._next]
            self._next += 1
            word = content.partition(" ")[0]
            if kind == "text":
                nodes.append(Text(content))
            elif word in ("end", "else"):
                return tuple(nodes), content
            elif word in BLOCKS:
                nodes.append(self._block(word, content.removeprefix(word)))
            elif word in UNSUPPORTED:
                raise TemplateError(f"-tags: {{{{{word}}}}} is not supported")
            else:
                nodes.append(_Action(content).output())
        return tuple(nodes), ""

    def _block(self, word: str, head: str) -> Node:
        body, end = self._until_end()
        otherwise: tuple[Node, ...] = ()
        further = end.removeprefix("else").strip()
        if end.startswith("else") and further:
            kind, _, rest = further.partition(" ")
            if kind not in ("if", "with"):
                raise TemplateError(f"-tags: {{{{{end}}}}} is not understood")
            otherwise, end = (self._block(kind, rest),), "end"
        elif end == "else":
            otherwise, end = self._until_end()
        if end != "end":
            raise TemplateError(f"-tags: {{{{{word}{head}}}}} has no {{{{end}}}}")
        if word == "range":
            return _Action(head).range(body, otherwise)
        return If(_Action(head).output(), body, otherwise, rebinds=word == "with")


class _Action:
    """Reads the inside of one pair of braces."""

    def __init__(self, source: str) -> None:
        self._source = source.strip()
        self._tokens = tokens(self._source)
        self._next = 0

    def output(self) -> Output:
        names, declares = self._assignment()
        if len(names) > 1:
            raise self._error("only range sets two variables")
        value = self._pipeline()
        self._end()
        return Output(value, names[0] if names else "", declares)

    def range(self, body: tuple[Node, ...], otherwise: tuple[Node, ...]) -> Range:
        names, _ = self._assignment()
        value = self._pipeline()
        self._end()
        key, element = ("", *names) if len(names) == 1 else names or ("", "")
        return Range(value, key, element, body, otherwise)

    def _assignment(self) -> tuple[Sequence[str], bool]:
        """Read ``$a :=``, ``$a =`` or ``$a, $b :=``; nothing when there is none."""
        shape = [token.text if token.kind == "mark" else token.kind for token in self._tokens[:4]]
        names = [token.text for token in self._tokens[:3] if token.kind == "variable"]
        if shape[:2] in (["variable", ":="], ["variable", "="]):
            self._next = 2
            return names[:1], shape[1] == ":="
        if shape == ["variable", ",", "variable", ":="]:
            self._next = 4
            return names, True
        return (), True

    def _pipeline(self) -> Expression:
        value = self._command(())
        while self._take("|"):
            value = self._command((value,))
        return value

    def _command(self, piped: tuple[Expression, ...]) -> Expression:
        token = self._peek()
        if token is not None and token.kind == "word" and token.text not in CONSTANTS:
            self._next += 1
            if token.text not in FUNCTIONS:
                known = ", ".join(sorted(FUNCTIONS))
                raise self._error(f"unknown function {token.text!r}; known are {known}")
            return Call(token.text, (*self._operands(), *piped))
        operand = self._operand()
        if piped or self._starts_operand():
            raise self._error("only a function takes arguments")
        return operand

    def _operands(self) -> list[Expression]:
        found = []
        while self._starts_operand():
            found.append(self._operand())
        return found

    def _starts_operand(self) -> bool:
        token = self._peek()
        return token is not None and (token.kind != "mark" or token.text == "(")

    def _operand(self) -> Expression:
        value = self._primary()
        while (token := self._peek()) is not None and token.kind == "field" and token.joined:
            self._next += 1
            value = Field(value, token.text[1:])
        return value

    def _primary(self) -> Expression:
        token = self._peek()
        if token is None:
            raise self._error("something is missing at the end")
        self._next += 1
        match token.kind:
            case "string" | "raw":
                return Literal(unquote(token))
            case "number":
                return Literal(float(token.text) if "." in token.text else int(token.text))
            case "variable" | "dot":
                return Variable(token.text)
            case "field":
                return Field(Variable("."), token.text[1:])
            case "word" if token.text in CONSTANTS:
                return Literal(CONSTANTS[token.text])
            case "word" if token.text in FUNCTIONS:
                return Call(token.text, ())
        if token.text != "(":
            raise self._error(f"{token.text!r} is out of place")
        value = self._pipeline()
        if not self._take(")"):
            raise self._error("a parenthesis is not closed")
        return value

    def _peek(self) -> Token | None:
        return self._tokens[self._next] if self._next < len(self._tokens) else None

    def _take(self, mark: str) -> bool:
        token = self._peek()
        taken = token is not None and token.kind == "mark" and token.text == mark
        self._next += taken
        return taken

    def _end(self) -> None:
        token = self._peek()
        if token is not None:
            raise self._error(f"{token.text!r} is out of place")

    def _error(self, what: str) -> TemplateError:
        return TemplateError(f"-tags: {{{{{self._source}}}}}: {what}")
