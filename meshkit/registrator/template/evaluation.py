"""Filling a template in."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from meshkit.registrator.template.errors import TemplateError
from meshkit.registrator.template.functions import FUNCTIONS
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
from meshkit.registrator.template.values import printed

UNFIT = (AttributeError, LookupError, TypeError, ValueError, re.error)


class Evaluation:
    """One filling in of a template with an inspected container."""

    def __init__(self, data: Mapping[str, Any]) -> None:
        root: dict[str, Any] = {"$": data, ".": data}
        self._scopes = [root]

    def render(self, nodes: Iterable[Node]) -> str:
        """Return the text. Raises TemplateError when a value does not fit."""
        return "".join(map(self._node, nodes))

    def _node(self, node: Node) -> str:
        match node:
            case Text():
                return node.text
            case Output():
                value = self._output(node)
                return "" if node.assigned else printed(value)
            case If():
                with self._scope():
                    value = self._output(node.condition)
                    if not value:
                        return self.render(node.otherwise)
                    if node.rebinds:
                        self._scopes[-1]["."] = value
                    return self.render(node.body)
            case Range():
                return self._range(node)

    def _range(self, node: Range) -> str:
        over = self._value(node.over)
        if not isinstance(over, Mapping | list | tuple | type(None)):
            raise TemplateError(f"-tags: range over {printed(over)!r}, which is no list and no map")
        pairs = sorted(over.items()) if isinstance(over, Mapping) else enumerate(over or ())
        parts = []
        for key, element in pairs:
            with self._scope() as scope:
                scope["."] = element
                scope.update({node.key: key} if node.key else {})
                scope.update({node.value: element} if node.value else {})
                parts.append(self.render(node.body))
        return "".join(parts) if parts else self.render(node.otherwise)

    @contextlib.contextmanager
    def _scope(self) -> Iterator[dict[str, Any]]:
        self._scopes.append({})
        yield self._scopes[-1]
        self._scopes.pop()

    def _output(self, node: Output) -> Any:
        value = self._value(node.value)
        if node.assigned:
            scope = self._scopes[-1] if node.declares else self._holder(node.assigned)
            scope[node.assigned] = value
        return value

    def _value(self, expression: Expression) -> Any:
        match expression:
            case Literal():
                return expression.value
            case Variable():
                return self._holder(expression.name)[expression.name]
            case Field():
                return _field(self._value(expression.base), expression.name)
            case Call():
                arguments = [self._value(each) for each in expression.arguments]
                return _call(expression.function, arguments)

    def _holder(self, name: str) -> dict[str, Any]:
        for scope in self._scopes[::-1]:
            if name in scope:
                return scope
        raise TemplateError(f"-tags: undefined variable {name!r}")


def _field(value: Any, name: str) -> Any:
    """Return a field; Go's names differ from the JSON's in case alone (``.ID`` is ``Id``).

    Docker leaves fields out that are empty, so one that is not there is nil, and prints nothing.
    """
    if not isinstance(value, Mapping):
        raise TemplateError(f"-tags: there is no field .{name} in {printed(value)!r}")
    if name in value:
        return value[name]
    lowered = name.lower()
    return next((each for key, each in value.items() if key.lower() == lowered), None)


def _call(name: str, arguments: Sequence[Any]) -> Any:
    try:
        return FUNCTIONS[name](*arguments)
    except UNFIT as error:
        given = ", ".join(repr(printed(each)) for each in arguments)
        raise TemplateError(f"-tags: {name} does not fit its arguments {given}: {error}") from None
