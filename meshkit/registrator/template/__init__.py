"""The part of Go's text/template that tags are written with, and Registrator's functions.

Actions: ``{{ pipeline }}`` with fields, variables, pipes and parentheses, ``if``/``else if``/
``else``, ``range``, ``with``, ``{{/* comments */}}`` and trimming by ``{{-`` and ``-}}``. Not
there: ``define``, ``template``, ``block``, ``break``, ``continue`` and calls of methods.
Reference: https://pkg.go.dev/text/template
"""

from __future__ import annotations

import functools
from collections.abc import Mapping
from typing import Any

from meshkit.registrator.template.errors import TemplateError
from meshkit.registrator.template.evaluation import Evaluation
from meshkit.registrator.template.parser import parse

__all__ = ["Template", "TemplateError"]


class Template:
    """A template that has been read. Raises TemplateError when it is malformed."""

    def __init__(self, source: str) -> None:
        self._source = source
        self._nodes = parse(source)
        self.fetches = "httpGet" in source

    def render(self, data: Mapping[str, Any]) -> str:
        """Return the text for ``data``, the inspected container. Raises TemplateError.

        It waits for the network when ``fetches`` says so: then call it off the event loop.
        """
        return Evaluation(data).render(self._nodes)

    @classmethod
    @functools.lru_cache(maxsize=8)
    def of(cls, source: str) -> Template:
        """Return the template of a source, read once."""
        return cls(source)
